//! The effect of a handler, and of a stop, on each waiting call, compared with the host's kernel.

use pagefault_calls::{Interrupted, NUMBERS, Traits, describe};
use std::fs;
use std::io::{Read, Write};

/// A call that waits forever, prepared in the process that makes it.
type Case = (&'static str, fn() -> [u64; 6]);

const CASES: &[Case] = &[
    ("read", || [pipe().0, room(), 1, 0, 0, 0]),
    ("readv", || [pipe().0, vector(), 1, 0, 0, 0]),
    ("write", || [full_pipe(), room(), 1, 0, 0, 0]),
    ("writev", || [full_pipe(), vector(), 1, 0, 0, 0]),
    ("splice", || [pipe().0, 0, pipe().1, 0, 9, 0]),
    ("tee", || [pipe().0, pipe().1, 9, 0, 0, 0]),
    ("vmsplice", || [full_pipe(), vector(), 1, 0, 0, 0]),
    ("wait4", || [child(), 0, 0, 0, 0, 0]),
    ("waitid", || [1, child(), 0, libc::WEXITED as u64, 0, 0]),
    ("accept", || [listening(), 0, 0, 0, 0, 0]),
    ("accept4", || [listening(), 0, 0, 0, 0, 0]),
    ("connect", || {
        let (name, len) = address();
        let server = listening();
        let bound = call(libc::SYS_getsockname, [server, name, len, 0, 0, 0]);
        assert_eq!(bound, 0);
        // The queue takes one connection; the second waits.
        call(libc::SYS_connect, [socket(), name, 8, 0, 0, 0]);
        [socket(), name, 8, 0, 0, 0]
    }),
    ("recvfrom", || [socket_pair(), room(), 1, 0, 0, 0]),
    ("recvmsg", || [socket_pair(), message(), 0, 0, 0, 0]),
    ("recvmmsg", || [socket_pair(), message(), 1, 0, 0, 0]),
    ("recvmmsg", || [socket_pair(), message(), 1, 0, long(), 0]),
    ("sendto", || [full_socket(), room(), 1, 0, 0, 0]),
    ("sendmsg", || [full_socket(), message(), 0, 0, 0, 0]),
    ("flock", || {
        let path = c"/proc/self/exe".as_ptr() as u64;
        let open = || call(libc::SYS_open, [path, 0, 0, 0, 0, 0]) as u64;
        // Another open file's lock stands in the way.
        call(libc::SYS_flock, [open(), libc::LOCK_EX as u64, 0, 0, 0, 0]);
        [open(), libc::LOCK_EX as u64, 0, 0, 0, 0]
    }),
    ("mq_timedreceive", || [queue(), room(), 8, 0, 0, 0]),
    ("futex", || [word(), 0, 0, 0, 0, 0]),
    ("futex", || [word(), 0, 0, long(), 0, 0]),
    ("futex", || [word(), 9, 0, 0, 0, 1]),
    ("futex_waitv", || [leak([0, word(), 2]), 1, 0, 0, 0, 0]),
    ("futex_wait", || [word(), 0, 1, 2, 0, 0]),
    ("poll", || [0, 0, u64::MAX, 0, 0, 0]),
    ("poll", || [0, 0, 1_000_000, 0, 0, 0]),
    ("ppoll", || [0, 0, 0, 0, 0, 0]),
    ("ppoll", || [0, 0, long(), 0, 0, 0]),
    ("select", || [0, 0, 0, 0, 0, 0]),
    ("pselect6", || [0, 0, 0, 0, long(), 0]),
    ("epoll_wait", || [epoll(), room(), 1, u64::MAX, 0, 0]),
    ("epoll_pwait", || [epoll(), room(), 1, u64::MAX, 0, 0]),
    ("epoll_pwait2", || [epoll(), room(), 1, long(), 0, 0]),
    ("msgrcv", || [messages(), room(), 8, 0, 0, 0]),
    ("semop", || [semaphore(), leak([0xffff << 16]), 1, 0, 0, 0]),
    ("semtimedop", || [semaphore(), leak([0xffff << 16]), 1, long(), 0, 0]),
    ("nanosleep", || [long(), 0, 0, 0, 0, 0]),
    ("clock_nanosleep", || [1, 0, long(), 0, 0, 0]),
    ("clock_nanosleep", || [1, 1, leak([1 << 40, 0]), 0, 0, 0]),
    ("pause", || [0; 6]),
    ("rt_sigsuspend", || [leak([0]), 8, 0, 0, 0, 0]),
    ("rt_sigtimedwait", || [leak([1 << 40]), 0, 0, 8, 0, 0]),
];

/// What happened to a waiting call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Eintr,
    Waits,
}

/// The table's effects of a handler with `SA_RESTART`, and of a stop.
fn expected(interrupted: Interrupted) -> (Effect, Effect) {
    use Effect::{Eintr, Waits};
    match interrupted {
        Interrupted::Restarts | Interrupted::Socket | Interrupted::StartsAgain => (Waits, Waits),
        Interrupted::Handler | Interrupted::Resumes => (Eintr, Waits),
        Interrupted::Always => (Eintr, Eintr),
        Interrupted::Never | Interrupted::ByCommand => panic!("{interrupted:?} waits"),
    }
}

#[test]
fn calls_are_interrupted_as_the_table_says() {
    let mut wrong = Vec::new();
    for (index, case) in CASES.iter().enumerate() {
        let call = (0..NUMBERS).filter_map(describe).find(|it| it.name == case.0).expect("known");
        assert!(call.traits.contains(Traits::BLOCKS), "{}", call.name);
        let args = interesting(case);
        if (args[0] as i64) < 0 {
            // An ordinary user may not have it.
            continue;
        }
        let said = expected(call.interrupted(&args));
        let seen = (observe(case, call.nr, false), observe(case, call.nr, true));
        if seen != (Some(said.0), Some(said.1)) {
            wrong.push(format!("{index} {}: {seen:?}, the table says {said:?}", call.name));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_waits_has_a_way_to_be_interrupted() {
    for call in (0..NUMBERS).filter_map(describe) {
        let waits = call.traits.contains(Traits::BLOCKS);
        assert_eq!(waits, call.interrupted != Interrupted::Never, "{}", call.name);
    }
}

/// The arguments, as a child prepares them: nothing of it stays here.
fn interesting(case: &Case) -> [u64; 6] {
    let (mut reader, mut writer) = std::io::pipe().expect("a pipe");
    // SAFETY: the child makes system calls and allocates, which glibc allows after fork.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let args = (case.1)().map(u64::to_ne_bytes);
        let _ = writer.write_all(args.as_flattened());
        // SAFETY: ends the child.
        unsafe { libc::_exit(0) }
    }
    let mut args = [[0; 8]; 6];
    reader.read_exact(args.as_flattened_mut()).expect("the child's answer");
    // SAFETY: our own child.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    args.map(u64::from_ne_bytes)
}

extern "C" fn handler(_: i32) {
    // The parent sees this name.
    // SAFETY: a string with its NUL; async-signal-safe.
    unsafe { libc::syscall(libc::SYS_prctl, libc::PR_SET_NAME, c"handled".as_ptr()) };
}

/// Makes the call in a child, and sends a signal, or stops it, once it waits. `None` if the call did
/// not wait at all.
fn observe(case: &Case, nr: u32, stop: bool) -> Option<Effect> {
    const EINTR: i32 = 43;
    // SAFETY: the child makes system calls and allocates, which glibc allows after fork.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: a handler that is async-signal-safe; the call's arguments are the case's own.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as *const () as usize;
            action.sa_flags = libc::SA_RESTART;
            libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut());
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            let args = (case.1)();
            libc::prctl(libc::PR_SET_NAME, c"waiting".as_ptr());
            let result = call(i64::from(nr), args);
            libc::_exit(if result == -i64::from(libc::EINTR) { EINTR } else { 44 });
        }
    }
    let effect = wait_for(child, "waiting", 'S').then(|| {
        let signal = if stop { libc::SIGSTOP } else { libc::SIGUSR1 };
        send(child, signal);
        let still = match stop {
            true => {
                assert!(wait_for(child, "waiting", 'T'));
                send(child, libc::SIGCONT);
                wait_for(child, "waiting", 'S')
            }
            false => wait_for(child, "handled", 'S'),
        };
        if still { Effect::Waits } else { Effect::Eintr }
    });
    send(child, libc::SIGKILL);
    let mut status = 0;
    // SAFETY: status is a local.
    unsafe { libc::waitpid(child, &mut status, 0) };
    let ended = libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status));
    match effect {
        Some(Effect::Eintr) if ended != Some(EINTR) => None,
        effect => effect,
    }
}

fn send(child: i32, signal: i32) {
    // SAFETY: our own child, which has not been waited for.
    unsafe { libc::kill(child, signal) };
}

/// Waits until the child has this name and state; false if it ends.
fn wait_for(child: i32, name: &str, state: char) -> bool {
    loop {
        let stat = fs::read_to_string(format!("/proc/{child}/stat")).expect("a child has it");
        let (head, tail) = stat.rsplit_once(") ").expect("a name in parentheses");
        let now = tail.chars().next().expect("a state");
        if matches!(now, 'Z' | 'X') {
            return false;
        }
        if now == state && head.ends_with(name) {
            return true;
        }
        // SAFETY: no arguments.
        unsafe { libc::sched_yield() };
    }
}

/// A system call; a negative error.
fn call(nr: i64, args: [u64; 6]) -> i64 {
    // SAFETY: as each case says.
    match unsafe { libc::syscall(nr, args[0], args[1], args[2], args[3], args[4], args[5]) } {
        -1 => -i64::from(std::io::Error::last_os_error().raw_os_error().unwrap_or(0)),
        result => result,
    }
}

fn leak<const N: usize>(words: [u64; N]) -> u64 {
    Box::leak(Box::new(words)).as_ptr() as u64
}

fn room() -> u64 {
    leak([0; 32])
}

fn word() -> u64 {
    leak([0])
}

/// A time that no test waits for.
fn long() -> u64 {
    leak([1_000_000, 0])
}

fn vector() -> u64 {
    leak([room(), 1])
}

fn message() -> u64 {
    leak([0, 0, vector(), 1, 0, 0, 0, 0])
}

fn address() -> (u64, u64) {
    (room(), leak([128]))
}

fn pipe() -> (u64, u64) {
    let mut ends = [0u32; 2];
    assert_eq!(call(libc::SYS_pipe, [ends.as_mut_ptr() as u64, 0, 0, 0, 0, 0]), 0);
    (ends[0].into(), ends[1].into())
}

/// Writes until nothing more goes in, and lets the descriptor wait again.
fn fill(fd: u64) -> u64 {
    call(libc::SYS_fcntl, [fd, libc::F_SETFL as u64, libc::O_NONBLOCK as u64, 0, 0, 0]);
    while call(libc::SYS_write, [fd, room(), 256, 0, 0, 0]) > 0 {}
    while call(libc::SYS_write, [fd, room(), 1, 0, 0, 0]) > 0 {}
    call(libc::SYS_fcntl, [fd, libc::F_SETFL as u64, 0, 0, 0, 0]);
    fd
}

fn full_pipe() -> u64 {
    fill(pipe().1)
}

fn socket_pair() -> u64 {
    let mut ends = [0u32; 2];
    let at = ends.as_mut_ptr() as u64;
    assert_eq!(call(libc::SYS_socketpair, [1, libc::SOCK_STREAM as u64, 0, at, 0, 0]), 0);
    ends[0].into()
}

fn full_socket() -> u64 {
    fill(socket_pair())
}

fn socket() -> u64 {
    call(libc::SYS_socket, [1, libc::SOCK_STREAM as u64, 0, 0, 0, 0]) as u64
}

/// A socket with an address that the kernel chose, and room for one connection.
fn listening() -> u64 {
    let socket = socket();
    assert_eq!(call(libc::SYS_bind, [socket, leak([1]), 2, 0, 0, 0]), 0);
    assert_eq!(call(libc::SYS_listen, [socket, 0, 0, 0, 0, 0]), 0);
    socket
}

/// A child that lives as long as we do.
fn child() -> u64 {
    let parent = std::process::id();
    // SAFETY: the child waits, and ends with its parent.
    match unsafe { libc::fork() } {
        0 => {
            // SAFETY: no memory.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            while std::os::unix::process::parent_id() == parent {
                // SAFETY: no memory.
                unsafe { libc::pause() };
            }
            // SAFETY: the parent has ended before it could be told.
            unsafe { libc::_exit(0) }
        }
        child => child as u64,
    }
}

fn apart() {
    let unshare = |flags: i32| call(libc::SYS_unshare, [flags as u64, 0, 0, 0, 0, 0]);
    if unshare(libc::CLONE_NEWIPC) != 0 {
        // An ordinary user needs a user namespace too; without either, the call does not wait.
        unshare(libc::CLONE_NEWIPC | libc::CLONE_NEWUSER);
    }
}

fn queue() -> u64 {
    apart();
    let (name, flags) = (c"wait".as_ptr() as u64, (libc::O_CREAT | libc::O_RDWR) as u64);
    call(libc::SYS_mq_open, [name, flags, 0o600, leak([0, 4, 8, 0, 0, 0, 0, 0]), 0, 0]) as u64
}

fn messages() -> u64 {
    apart();
    call(libc::SYS_msgget, [0, 0o600, 0, 0, 0, 0]) as u64
}

fn semaphore() -> u64 {
    apart();
    call(libc::SYS_semget, [0, 1, 0o600, 0, 0, 0]) as u64
}

fn epoll() -> u64 {
    call(libc::SYS_epoll_create1, [0; 6]) as u64
}
