//! Whoever of a tree is killed: nobody is left behind.

use crate::harness::{Scratch, message};
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::Duration;

/// A tree of four processes, one of which forks all the time. They print their numbers.
const FAMILY: &str = "echo $$; sleep 1000 & echo $!; (while :; do (:); done) & echo $!; \
     sh -c 'sleep 1000; :' & echo $!; wait";

/// Starts the tree; the numbers of its processes.
fn start(scratch: &Scratch) -> (Child, Vec<i32>) {
    let mut command = scratch.run(&["--memory", "16M"], &["sh", "-c", FAMILY]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut front = command.spawn().unwrap();
    let lines = BufReader::new(front.stdout.as_mut().unwrap()).lines().take(4);
    let tree = lines.map(|line| line.unwrap().parse().unwrap()).collect();
    (front, tree)
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

fn kill(process: i32) {
    // SAFETY: kill asks nothing of its caller.
    assert_eq!(unsafe { libc::kill(process, libc::SIGKILL) }, 0, "{process}");
}

/// The children of a process.
fn children(process: u32) -> Vec<i32> {
    let list = std::fs::read_to_string(format!("/proc/{process}/task/{process}/children"));
    list.unwrap().split_whitespace().map(|child| child.parse().unwrap()).collect()
}

#[test]
fn the_front_is_killed_and_the_tree_with_it() {
    let scratch = Scratch::new("killed-front");
    let (mut front, mut tree) = start(&scratch);
    tree.extend(children(front.id()));
    front.kill().unwrap();
    front.wait().unwrap();
    assert_gone(&tree);
    scratch.assert_nothing_left();
}

#[test]
fn the_keeper_is_killed_and_the_tree_with_it() {
    let scratch = Scratch::new("killed-keeper");
    let (front, tree) = start(&scratch);
    // The front has two children.
    let keeper = children(front.id()).into_iter().find(|child| !tree.contains(child)).unwrap();
    kill(keeper);
    let output = front.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(125), "{output:?}");
    assert!(message(&output).contains("the keeper was killed, so "), "{output:?}");
    assert_gone(&tree);
    scratch.assert_nothing_left();
}
