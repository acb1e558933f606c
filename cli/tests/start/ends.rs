//! Whichever processes are killed, in any order, none is left behind, and messages say what
//! happened.

use crate::descriptors::supervisor_of;
use crate::harness::Scratch;
use crate::{output, run, shell, tree, wait_until};
use std::io::{BufRead, BufReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Stdio};

fn kill(process: i32, signal: i32) {
    // SAFETY: kill asks nothing of its caller.
    assert_eq!(unsafe { libc::kill(process, signal) }, 0, "{process}");
}

/// Whether a process has ended, waited for or not.
pub fn is_gone(process: i32) -> bool {
    match std::fs::read_to_string(format!("/proc/{process}/stat")) {
        Ok(stat) => stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(['Z', 'X'])),
        Err(_) => true,
    }
}

/// Starts a program that prints its process ID and then reads a line of its input. Returns the launcher
/// and the IDs of program and supervisor.
fn start(scratch: &Scratch, script: &str) -> (Child, i32, i32) {
    let script = format!("echo $$; {script}");
    let mut command = run(scratch, &["sh", "-c", &script]);
    command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut launcher = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(launcher.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let program: i32 = line.trim().parse().unwrap();
    let supervisor = supervisor_of(program);
    (launcher, program, supervisor)
}

#[test]
fn the_program_is_killed() {
    let scratch = Scratch::new("program");
    let (mut launcher, program, supervisor) = start(&scratch, "read x");
    kill(program, libc::SIGKILL);
    assert_eq!(launcher.wait().unwrap().signal(), Some(libc::SIGKILL));
    // It may still see the program among the processes when the launcher leaves.
    wait_until(|| is_gone(supervisor));
    scratch.assert_nothing_left();
}

#[test]
fn the_launcher_is_killed_and_the_program_with_it() {
    let scratch = Scratch::new("launcher");
    let (mut launcher, program, supervisor) = start(&scratch, "read x");
    launcher.kill().unwrap();
    launcher.wait().unwrap();
    wait_until(|| is_gone(program) && is_gone(supervisor));
}

/// A launcher that ends because the program has ended leaves others of the tree alone.
#[test]
fn a_process_that_outlives_the_program_goes_on() {
    let scratch = Scratch::new("outlives");
    let (mut launcher, _, supervisor) =
        start(&scratch, "(while ! test -e go; do sleep 0.01; done; echo >went) & read x; true");
    // The program ends, once its supervisor is known.
    drop(launcher.stdin.take());
    assert_eq!(launcher.wait().unwrap().code(), Some(0));
    assert!(!is_gone(supervisor));
    std::fs::write(scratch.path("go"), "").unwrap();
    wait_until(|| is_gone(supervisor));
    assert!(scratch.path("went").exists());
}

/// Without a supervisor no program can be started: the launcher says so.
#[test]
fn the_supervisor_is_killed_and_the_program_with_it() {
    let scratch = Scratch::new("supervisor");
    let (mut launcher, _, supervisor) = start(&scratch, "read x; exit 8");
    // Its end would end the program.
    let _input = launcher.stdin.take();
    kill(supervisor, libc::SIGKILL);
    let output = launcher.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(125), "{output:?}");
    let text = crate::harness::message(&output);
    assert!(text.contains("the supervisor was killed, so "), "{text}");
}

/// Starts a program that stops itself before it runs. Returns the launcher and the IDs of program and
/// supervisor.
fn start_stopped(scratch: &Scratch, program: &str) -> (Child, i32, i32) {
    let mut command = run(scratch, &[program, "/bin/sh", "-c", "exit 5"]);
    let launcher = command.process_group(0).stderr(Stdio::piped()).spawn().unwrap();
    let number = launcher.id() as i32;
    wait_until(|| is_stopped(number));
    let children = std::fs::read_to_string(format!("/proc/{number}/task/{number}/children"));
    let children = children.unwrap();
    let mut children = children.split_whitespace().map(|child| child.parse::<i32>().unwrap());
    let program = children.find(|child| is_stopped(*child)).unwrap();
    (launcher, program, supervisor_of(program))
}

fn is_stopped(process: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(['T', 't']))
}

/// A process that executes a program after the supervisor's end is stopped.
#[test]
fn an_exec_without_a_supervisor() {
    let scratch = tree::scratch("without");
    let (mut launcher, _, supervisor) = start_stopped(&scratch, "./paused");
    kill(supervisor, libc::SIGKILL);
    wait_until(|| is_gone(supervisor));
    kill(launcher.id() as i32, libc::SIGCONT);
    assert_eq!(launcher.wait().unwrap().code(), Some(125));
}

/// A process that stops while the supervisor waits for its exec stays stopped until it is continued.
#[test]
fn a_stop_before_an_exec() {
    let scratch = tree::scratch("held");
    for program in ["./paused", "./held"] {
        let (mut launcher, program, _) = start_stopped(&scratch, program);
        assert!(is_stopped(program));
        kill(launcher.id() as i32, libc::SIGCONT);
        assert_eq!(launcher.wait().unwrap().code(), Some(5));
    }
}

/// A killed supervisor takes with it the process whose exec it waits for: the new program would have no
/// manager. The launcher says so.
#[test]
fn a_supervisor_that_is_killed_at_an_exec() {
    let scratch = tree::scratch("taken");
    let (launcher, program, supervisor) = start_stopped(&scratch, "./held");
    let number = launcher.id() as i32;
    kill(supervisor, libc::SIGKILL);
    wait_until(|| is_gone(program));
    kill(number, libc::SIGCONT);
    let output = launcher.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(125), "{output:?}");
    let text = crate::harness::message(&output);
    assert!(text.contains("the supervisor was killed, and with it ./held"), "{text}");
}

#[test]
fn all_are_killed() {
    let scratch = Scratch::new("all");
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let (mut launcher, program, supervisor) = start(&scratch, "read x");
        let processes = [launcher.id() as i32, program, supervisor];
        for index in order {
            // SAFETY: kill asks nothing of its caller; what has ended already is no matter.
            unsafe { libc::kill(processes[index], libc::SIGKILL) };
        }
        launcher.wait().unwrap();
        wait_until(|| processes[1..].iter().all(|process| is_gone(*process)));
    }
    scratch.assert_nothing_left();
}

/// The terminal's signals go to the program's group, in which the supervisor is not.
#[test]
fn the_supervisor_has_no_terminal_and_no_group_of_the_caller_s() {
    let scratch = Scratch::new("session");
    let (mut launcher, _, supervisor) = start(&scratch, "read x; exit 0");
    // SAFETY: these ask for numbers.
    let (group, session, ours) =
        unsafe { (libc::getpgid(supervisor), libc::getsid(supervisor), libc::getsid(0)) };
    assert_eq!((group, session), (supervisor, supervisor));
    assert_ne!(session, ours);
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGTSTP, libc::SIGPIPE] {
        kill(supervisor, signal);
    }
    assert!(!is_gone(supervisor));
    drop(launcher.stdin.take());
    assert_eq!(launcher.wait().unwrap().code(), Some(0));
    wait_until(|| is_gone(supervisor));
}

/// A stop right after the end of another one is a stop, too.
#[test]
fn a_program_that_stops_and_goes_on() {
    let scratch = Scratch::new("stop");
    let (mut launcher, program, _) = start(&scratch, "read x; exit 0");
    let number = launcher.id() as i32;
    for continued in [number, program, program, number].into_iter().cycle().take(60) {
        kill(program, libc::SIGSTOP);
        wait_until(|| is_stopped(program) && is_stopped(number));
        kill(continued, libc::SIGCONT);
        wait_until(|| !is_stopped(program) && !is_stopped(number));
    }
    drop(launcher.stdin.take());
    assert_eq!(launcher.wait().unwrap().code(), Some(0));
}

#[test]
fn a_program_that_stops_and_is_killed() {
    let scratch = Scratch::new("stop-kill");
    let (mut launcher, program, _) = start(&scratch, "read x; exit 0");
    kill(program, libc::SIGSTOP);
    wait_until(|| is_stopped(launcher.id() as i32));
    kill(program, libc::SIGKILL);
    assert_eq!(launcher.wait().unwrap().signal(), Some(libc::SIGKILL));
}

/// A file that cannot take the statistics does not change the exit status.
#[test]
fn statistics_that_cannot_be_written() {
    let scratch = Scratch::new("unwritten");
    for script in [
        "R=${RUN% --}; $R --stats-file /dev/full -- sh -c 'exit 3'",
        "R=${RUN% --}; $R --stats -- sh -c 'exit 3' 2>&-",
        "R=${RUN% --}; $R --stats -- sh -c 'exit 3' 2>/dev/full",
    ] {
        let (stdout, _, status) = output(&mut shell(&scratch, script));
        assert_eq!((&*stdout, status), ("", Some(3)), "{script}");
    }
    // A message that cannot be printed changes no status either.
    for script in ["$RUN /no/such 2>&-", "$RUN /no/such 2>/dev/full"] {
        assert_eq!(output(&mut shell(&scratch, script)).2, Some(127), "{script}");
    }
}
