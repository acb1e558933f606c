//! Waiting for descriptors.

use crate::harness::{Case, done, halves, pipe_with, words};
use pagefault_calls::Access;

pub const CASES: &[Case] = &[
    ("poll", |c| _ = c.io(pollfds(3)).n(3).n(0)),
    ("ppoll", |c| _ = c.io(pollfds(2)).n(2).io([0; 16]).unwritten().i([0; 8]).n(8)),
    ("select", |c| {
        c.n(64).io([0; 8]).io([0; 8]).io([0; 8]).io([0; 16]).unwritten();
    }),
    ("select", |c| {
        let fd = pipe_with(1);
        let set = words(&[1 << fd]);
        c.n(fd + 1).io(set).n(0).n(0).n(0);
    }),
    ("pselect6", |c| {
        let mask = c.hide([0; 8], Access::Read);
        c.n(1).io([0; 8]).n(0).n(0).io([0; 16]).unwritten().i(words(&[0, 8])).link(0, mask);
    }),
    ("epoll_ctl", |c| {
        let epoll = done(libc::SYS_epoll_create1, &[0]);
        c.n(epoll).n(1).n(pipe_with(1)).i(halves(&[1, 0, 0]));
    }),
    ("epoll_wait", |c| _ = c.n(ready()).o(12).n(1).n(-1)),
    ("epoll_pwait", |c| _ = c.n(ready()).o(12).n(1).n(-1).i([0; 8]).n(8)),
    ("epoll_pwait2", |c| _ = c.n(ready()).o(12).n(1).i([0; 16]).i([0; 8]).n(8)),
    ("signalfd", |c| _ = c.n(-1).i([0; 8]).n(8)),
    ("signalfd4", |c| _ = c.n(-1).i([0; 8]).n(8).n(0)),
];

fn pollfds(count: usize) -> Vec<u8> {
    (0..count).flat_map(|_| halves(&[pipe_with(1) as u32, 1])).collect()
}

/// A set with a descriptor that can be read.
fn ready() -> i64 {
    let epoll = done(libc::SYS_epoll_create1, &[0]);
    let event = halves(&[1, 0, 0]);
    done(libc::SYS_epoll_ctl, &[epoll as u64, 1, pipe_with(1) as u64, event.as_ptr() as u64]);
    epoll
}
