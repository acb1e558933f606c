use super::{CommandError, Report, parse};
use crate::boot::Accelerator;
use std::ffi::OsString;

fn words(line: &str) -> Vec<OsString> {
    line.split(' ').map(OsString::from).collect()
}

#[test]
fn a_whole_line() {
    let line =
        "--memory 1G --swap 128M --files a --files b --accel kvm --stats -- prog -x --memory";
    let (boot, report) = parse(words(line)).unwrap();
    assert_eq!((boot.memory, boot.swap), (1024, 128));
    assert_eq!(boot.files, ["a", "b"].map(std::path::PathBuf::from));
    assert_eq!(boot.accelerator, Accelerator::Kvm);
    assert_eq!(report, Report::Printed);
    assert_eq!(boot.command, [&b"prog"[..], b"-x", b"--memory"]);
}

#[test]
fn what_is_wrong_is_named() {
    let error = |line| parse(words(line)).unwrap_err();
    assert_eq!(error("--memory 64 -- p"), CommandError::Value("--memory", "64".into()));
    assert_eq!(error("--swap 0M -- p"), CommandError::Value("--swap", "0M".into()));
    assert_eq!(error("--memory"), CommandError::Missing("--memory"));
    assert_eq!(error("--memroy 64M"), CommandError::Unknown("--memroy".into()));
    assert_eq!(error("--stats"), CommandError::NoProgram);
}
