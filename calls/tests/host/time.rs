//! Clocks, timers, sleep.

use crate::harness::{Case, done, halves, words};

/// A time that no clock takes, so that nothing is set.
fn nonsense() -> Vec<u8> {
    words(&[0, 2_000_000_000])
}

pub const CASES: &[Case] = &[
    ("nanosleep", |c| _ = c.i([0; 16]).n(0)),
    ("nanosleep", |c| {
        // An alarm interrupts; the rest is written.
        interrupt();
        c.i(words(&[100, 0])).o(16);
    }),
    ("clock_nanosleep", |c| _ = c.n(1).n(0).i([0; 16]).n(0)),
    ("clock_nanosleep", |c| {
        interrupt();
        c.n(1).n(0).i(words(&[100, 0])).o(16);
    }),
    ("getitimer", |c| _ = c.n(1).o(32)),
    ("setitimer", |c| _ = c.n(1).i([0; 32]).o(32)),
    ("gettimeofday", |c| _ = c.o(16).o(8)),
    ("settimeofday", |c| _ = c.i(nonsense()).n(0)),
    ("time", |c| _ = c.o(8)),
    ("adjtimex", |c| _ = c.io([0; 208])),
    ("clock_adjtime", |c| _ = c.n(0).io([0; 208])),
    ("clock_settime", |c| _ = c.n(0).i(nonsense())),
    ("clock_gettime", |c| _ = c.n(1).o(16)),
    ("clock_getres", |c| _ = c.n(1).o(16)),
    ("timer_create", |c| _ = c.n(1).i(event()).io([0; 4])),
    ("timer_settime", |c| _ = c.n(timer()).n(0).i([0; 32]).o(32)),
    ("timer_gettime", |c| _ = c.n(timer()).o(32)),
    ("timerfd_settime", |c| _ = c.n(timerfd()).n(0).i([0; 32]).o(32)),
    ("timerfd_gettime", |c| _ = c.n(timerfd()).o(32)),
];

extern "C" fn ignore(_: i32) {}

/// A signal comes soon, and again and again.
fn interrupt() {
    // SAFETY: the handler does nothing.
    unsafe { libc::signal(libc::SIGALRM, ignore as *const () as usize) };
    let soon = words(&[0, 1000, 0, 1000]);
    done(libc::SYS_setitimer, &[0, soon.as_ptr() as u64, 0]);
}

/// No notification.
fn event() -> Vec<u8> {
    let mut event = halves(&[0, 0, 0, 1]);
    event.resize(64, 0);
    event
}

fn timer() -> u32 {
    let (mut timer, event) = (0u32, event());
    done(libc::SYS_timer_create, &[1, event.as_ptr() as u64, &raw mut timer as u64]);
    timer
}

fn timerfd() -> i64 {
    done(libc::SYS_timerfd_create, &[1, 0])
}
