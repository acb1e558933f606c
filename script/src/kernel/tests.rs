use super::*;
use crate::ast::Sizes;
use crate::diff::texts;
use crate::parse::parse;
use crate::runner::setup;

fn start(files: usize) -> Kernel {
    let setup = Setup { sizes: Sizes::default(), files, device_pages: 0, seed: 0 };
    Kernel::start(&setup).expect("a first process")
}

fn run(text: &str) -> Vec<String> {
    let script = parse(text).expect("a good script");
    let mut kernel = Kernel::start(&setup(&script, 0)).expect("a first process");
    texts(&script, &mut kernel)
}

fn lives(pid: libc::pid_t) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn no_process_is_left() {
    let mut kernel = start(0);
    for child in 1..4 {
        let parent = Process(child - 1);
        let child = Process(child);
        assert_eq!(kernel.perform(parent, &Call::Fork { child }), Outcome::Ok);
    }
    // A process in the middle ends, and its child lives on.
    assert_eq!(kernel.perform(Process(1), &Call::Exit), Outcome::Ok);
    let pids: Vec<_> = kernel.children.values().map(|child| child.pid).collect();
    assert_eq!(pids.len(), 3);
    assert!(pids.iter().all(|pid| lives(*pid)));
    drop(kernel);
    assert!(!pids.iter().any(|pid| lives(*pid)));
}

#[test]
fn a_panic_leaves_no_process_either() {
    let (send, receive) = std::sync::mpsc::channel();
    let runner = std::thread::spawn(move || {
        let kernel = start(0);
        let pid = kernel.children[&Process::FIRST].pid;
        send.send(pid).expect("the test listens");
        std::panic::resume_unwind(Box::new("on purpose"));
    });
    assert!(runner.join().is_err());
    assert!(!lives(receive.recv().expect("it was sent")));
}

#[test]
fn a_process_that_is_killed_is_told() {
    let mut kernel = start(0);
    let pid = kernel.children[&Process::FIRST].pid;
    // SAFETY: the pid is a child that was not waited for.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
    let call = Call::Munmap { address: 0, length: 0 };
    assert_eq!(kernel.perform(Process::FIRST, &call), Outcome::Killed);
    let gone = Outcome::Errno(Errno::ESRCH);
    assert_eq!(kernel.perform(Process::FIRST, &call), gone);
}

#[test]
fn partial_accesses_are_byte_exact() {
    let answers = run("mmap A 2p rw private anon\nmprotect A+1p 1p r\n\
        write A+4092 \"abcdefgh\"\nread A+4090 8\nfill A+4000 4096 35\nread A+4094 4\n\
        to_user A+4094 \"xyz\"\nread A+4094 4\nfrom_user A+4094 4\n");
    let fault = "SIGSEGV ACCERR A+0x1000";
    assert_eq!(
        answers,
        [
            "ok",
            "ok",
            fault,
            "0000616263640000",
            fault,
            "23230000",
            "EFAULT",
            "78790000",
            "4 78790000"
        ]
    );
}

#[test]
fn foreign_code_is_never_run() {
    // A file with the code of a system call that never returns.
    let answers = run("file F 1p\npwrite F 0 \"\\xb8\\x3c\\x00\\x00\\x00\\x0f\\x05\"\n\
        mmap A 1p rx shared file=F off=0\nexec A\nread A 2\nmprotect A 1p r\nexec A\n\
        mprotect A 1p rwx\nexec A\nread A 2\npread F 0 2\n");
    assert_eq!(
        answers[3..],
        ["ok", "b83c", "ok", "SIGSEGV ACCERR A+0x0", "ok", "ok", "c33c", "c33c"]
    );
}

#[test]
fn seeded_files_have_the_promised_bytes() {
    let answers = run(
        "file F 70000 seed=250\npread F 0 4\npread F 4096 4\npread F 69998 9\npread F 0 70000\n",
    );
    let bytes: Vec<u8> = (0..70000).map(|index| crate::machine::content(index, 250)).collect();
    assert_eq!(bytes[0], 250);
    assert_eq!(bytes[4097], (4097_u64 * 31 + 7 + 250) as u8);
    let shown = |bytes: &[u8]| -> String { bytes.iter().map(|b| format!("{b:02x}")).collect() };
    assert_eq!(answers[1], shown(&bytes[..4]));
    assert_eq!(answers[2], shown(&bytes[4096..4100]));
    assert_eq!(answers[3], shown(&bytes[69998..]));
    assert_eq!(answers[4], format!("70000:{:08x}", crc32fast::hash(&bytes)));
}

#[test]
fn the_host_counts_faults() {
    let mut kernel = start(0);
    let sum = |kernel: &mut Kernel| kernel.stats().iter().map(|(_, n)| n).sum::<u64>();
    let before = sum(&mut kernel);
    let mmap = Call::Mmap(Mmap {
        address: crate::WINDOW_START,
        length: 64 * 4096,
        protection: Protection::READ | Protection::WRITE,
        sharing: Sharing::Private,
        file: None,
        flags: MapFlags::empty(),
    });
    assert_eq!(kernel.perform(Process::FIRST, &mmap), Outcome::Ok);
    let fill = Call::Fill { address: crate::WINDOW_START, length: 64 * 4096, byte: 1 };
    assert_eq!(kernel.perform(Process::FIRST, &fill), Outcome::Ok);
    assert!(sum(&mut kernel) >= before + 64);
    kernel.perform(Process::FIRST, &Call::Exit);
    assert!(sum(&mut kernel) >= before + 64, "the counts of an ended process are kept");
}

#[test]
fn random_scripts_fit_the_default_machine() {
    let pages = |kernel: &Kernel| -> u64 {
        let mapped = |child: &Child| maps::of_window(child.pid);
        let mappings = kernel.children.values().flat_map(mapped);
        mappings.map(|mapping| (mapping.end - mapping.start) / 4096).sum()
    };
    let default = Sizes::default();
    for seed in 0..12 {
        let script = crate::random::script(100 + 150 * seed as usize, seed);
        let mut kernel = Kernel::start(&setup(&script, 0)).expect("a first process");
        texts(&script, &mut kernel);
        let mapped = pages(&kernel);
        assert!(mapped < (default.frames + default.swap) / 4, "seed {seed}: {mapped} pages");
    }
}
