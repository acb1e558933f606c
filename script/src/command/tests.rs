use super::*;
use clap::Parser;

#[derive(Parser, Debug)]
struct Cli {
    #[command(flatten)]
    script: ScriptArgs,
}

/// The exit status and the output.
fn command(arguments: &[&str]) -> (Result<Verdict, String>, String) {
    let arguments = std::iter::once("script").chain(arguments.iter().copied());
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return (Err(error.kind().to_string()), String::new()),
    };
    let mut output = Vec::new();
    let mut catalogue = Catalogue::new();
    crate::managed::add_to(&mut catalogue);
    let verdict = attempt(&cli.script, &catalogue, &mut output);
    let text = String::from_utf8(output).expect("text");
    (verdict.map_err(|error| error.to_string()), text)
}

/// A script in a file of its own.
fn file(name: &str, text: &str) -> String {
    let path = std::env::temp_dir().join(format!("pagefault-{}-{name}.pf", std::process::id()));
    std::fs::write(&path, text).expect("a temporary file");
    path.to_string_lossy().into_owned()
}

#[test]
fn a_script_runs_on_the_kernel() {
    let path = file("run", "mmap A 1p rw private anon\n\nread A 2\nread A+1p 1\n");
    let (verdict, text) = command(&[&path, "--on", "kernel"]);
    assert_eq!(verdict, Ok(Verdict::Equal));
    assert_eq!(text, "1: ok\n3: 0000\n4: SIGSEGV MAPERR A+0x1000\n");
    let (verdict, text) = command(&[&path, "--diff", "kernel,kernel"]);
    assert_eq!(verdict, Ok(Verdict::Equal));
    assert_eq!(text, "kernel, kernel: 3 lines, all equal\n");
    std::fs::remove_file(path).expect("it was made");
}

#[test]
fn random_scripts_are_printed_or_run() {
    let (verdict, text) = command(&["--random", "30", "--seed", "5"]);
    assert_eq!(verdict, Ok(Verdict::Equal));
    assert_eq!(text, random::script(30, 5).to_string());
    let (verdict, text) = command(&["--random", "30", "--seed", "5", "--on", "kernel"]);
    assert_eq!(verdict, Ok(Verdict::Equal));
    assert_eq!(text.lines().count(), 30);
}

#[test]
fn the_processors_are_the_options_or_the_scripts() {
    let (_, text) = command(&["--random", "3", "--cpus", "2"]);
    assert_eq!(text.lines().next(), Some("cpus 2"));
    let (_, text) = command(&["--random", "3"]);
    assert!(!text.contains("cpus"), "{text}");
    let (verdict, _) = command(&["--random", "3", "--cpus", "0"]);
    assert!(verdict.is_err());
    // Two processors take turns, one does not. Only the simulated computer's counts show how many
    // it has.
    let path = file("cpus", "cpus 4\nmmap A 1p rw private anon\nwrite A \"x\"\n");
    for arguments in [&["--on", "sim"][..], &["--on", "sim", "--cpus", "65"]] {
        let (verdict, _) = command(&[&[&*path], arguments].concat());
        assert_eq!(verdict.is_ok(), arguments.len() == 2, "{verdict:?}");
    }
    std::fs::remove_file(path).expect("it was made");
}

#[test]
fn bad_scripts_and_arguments_are_told() {
    let bad = file("bad", "mmap A 1p rw private anon\nreed A 1\n");
    let fails = file("fails", "fail frame 1\n");
    let parse = "line 2: \"reed\" where an operation should stand";
    for (arguments, message) in [
        (vec![&*bad, "--on", "kernel"], parse),
        (
            vec![&*fails, "--on", "kernel"],
            "the script has fail lines, and kernel has no device to fail",
        ),
        (
            vec![&*fails, "--on", "abacus"],
            "this build has no machine \"abacus\"; it has: kernel, sim, sim-bare, linux",
        ),
        (vec![&*fails], "say where to run it: --on MACHINE or --diff A,B"),
        (
            vec![&*fails, "--diff", "sim"],
            "sim alone has nothing to compare with: name more machines, or say --on sim",
        ),
    ] {
        let (verdict, text) = command(&arguments);
        assert_eq!(verdict, Err(message.to_owned()));
        assert_eq!(text, "", "nothing runs before everything is read");
    }
    for arguments in [
        vec![],
        vec!["--on", "kernel"],
        vec!["x", "--random", "4"],
        vec!["x", "--on", "kernel", "--diff", "kernel"],
    ] {
        assert!(command(&arguments).0.is_err(), "{arguments:?}");
    }
    std::fs::remove_file(bad).expect("it was made");
    std::fs::remove_file(fails).expect("it was made");
}
