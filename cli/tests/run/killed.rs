//! Whichever process of a tree is killed, none is left behind.

use crate::harness::{Scratch, message};
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::Duration;

/// A tree of four processes, one of which forks all the time. They print their process IDs.
const FAMILY: &str = "echo $$; sleep 1000 & echo $!; (while :; do (:); done) & echo $!; \
     sh -c 'sleep 1000; :' & echo $!; wait";

/// One of two processes, which forks all the time. The other one ends with 0 when it has lost its child.
const PAIR: &str = "echo $$; (while :; do (:); done) & echo $!; wait";

/// Starts the tree. Returns its process IDs.
fn start(scratch: &Scratch) -> (Child, Vec<i32>) {
    start_family(scratch, FAMILY, 4)
}

fn start_family(scratch: &Scratch, family: &str, len: usize) -> (Child, Vec<i32>) {
    let mut command = scratch.run(&["--memory", "16M"], &["sh", "-c", family]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut launcher = command.spawn().unwrap();
    let lines = BufReader::new(launcher.stdout.as_mut().unwrap()).lines().take(len);
    let tree = lines.map(|line| line.unwrap().parse().unwrap()).collect();
    (launcher, tree)
}

/// Asserts that processes end.
fn assert_gone(processes: &[i32]) {
    for process in processes {
        let stat = || std::fs::read_to_string(format!("/proc/{process}/stat"));
        let mut looks = 0;
        while stat().is_ok_and(|stat| !stat.contains(") Z ")) {
            looks += 1;
            assert!(looks < 3000, "{process} is left");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn send(process: i32, signal: i32) {
    // SAFETY: kill asks nothing of its caller.
    assert_eq!(unsafe { libc::kill(process, signal) }, 0, "{process}");
}

/// The children of a process.
fn children(process: u32) -> Vec<i32> {
    let list = std::fs::read_to_string(format!("/proc/{process}/task/{process}/children"));
    list.unwrap().split_whitespace().map(|child| child.parse().unwrap()).collect()
}

#[test]
fn the_launcher_is_killed_and_the_tree_with_it() {
    let scratch = Scratch::new("killed-launcher");
    let (mut launcher, mut tree) = start(&scratch);
    tree.extend(children(launcher.id()));
    launcher.kill().unwrap();
    launcher.wait().unwrap();
    assert_gone(&tree);
    scratch.assert_nothing_left();
}

/// The supervisor: the launcher's child that is not the program.
fn supervisor_of(launcher: &Child, tree: &[i32]) -> i32 {
    children(launcher.id()).into_iter().find(|child| !tree.contains(child)).unwrap()
}

#[test]
fn launcher_and_supervisor_are_killed_and_the_tree_with_them() {
    let scratch = Scratch::new("killed-both");
    let (mut launcher, tree) = start(&scratch);
    let both = [supervisor_of(&launcher, &tree), launcher.id() as i32];
    // Neither has time to end the other.
    both.into_iter().for_each(|process| send(process, libc::SIGSTOP));
    both.into_iter().for_each(|process| send(process, libc::SIGKILL));
    launcher.wait().unwrap();
    assert_gone(&tree);
    assert_gone(&both[..1]);
    scratch.assert_nothing_left();
}

#[test]
fn the_supervisor_is_killed_and_the_tree_with_it() {
    let scratch = Scratch::new("killed-supervisor");
    let (launcher, tree) = start(&scratch);
    send(supervisor_of(&launcher, &tree), libc::SIGKILL);
    let output = launcher.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(125), "{output:?}");
    assert!(message(&output).contains("the supervisor was killed, so "), "{output:?}");
    assert_gone(&tree);
    scratch.assert_nothing_left();
}

/// The processes have noticed it themselves, and none is left for the launcher to kill.
#[test]
fn the_supervisor_is_killed_and_the_launcher_comes_late() {
    let scratch = Scratch::new("killed-supervisor-late");
    let (launcher, pair) = start_family(&scratch, PAIR, 2);
    let supervisor = supervisor_of(&launcher, &pair);
    send(launcher.id() as i32, libc::SIGSTOP);
    send(supervisor, libc::SIGKILL);
    assert_gone(&pair);
    send(launcher.id() as i32, libc::SIGCONT);
    let output = launcher.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(125), "{output:?}");
    assert!(message(&output).contains("the supervisor was killed, so "), "{output:?}");
    scratch.assert_nothing_left();
}
