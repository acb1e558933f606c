//! Identity, scheduling, limits.

use crate::harness::{Case, done, halves, lacking, words};

pub const CASES: &[Case] = &[
    ("getresuid", |c| _ = c.o(4).o(4).o(4)),
    ("getresgid", |c| _ = c.o(4).o(4).o(4)),
    ("getgroups", |c| {
        let groups = [1u32, 2];
        done(libc::SYS_setgroups, &[2, groups.as_ptr() as u64]);
        let count = done(libc::SYS_getgroups, &[0, 0]);
        if count == 0 {
            lacking();
        }
        c.n(count).o(count as usize * 4);
    }),
    ("setgroups", |c| _ = c.n(2).i(halves(&[1, 2]))),
    ("capget", |c| _ = c.io(capability_header(3)).unwritten().o(24)),
    ("capget", |c| _ = c.io(capability_header(1)).unwritten().o(12)),
    ("capset", |c| {
        let (header, mut data) = (capability_header(3), [0u32; 6]);
        done(libc::SYS_capget, &[header.as_ptr() as u64, data.as_mut_ptr() as u64]);
        c.io(header).unwritten().i(halves(&data));
    }),
    ("sched_setparam", |c| _ = c.n(0).i([0; 4])),
    ("sched_getparam", |c| _ = c.n(0).o(4)),
    ("sched_setscheduler", |c| _ = c.n(0).n(0).i([0; 4])),
    ("sched_rr_get_interval", |c| _ = c.n(0).o(16)),
    ("sched_setaffinity", |c| _ = c.n(0).n(processors().len()).i(processors())),
    ("sched_getaffinity", |c| _ = c.n(0).n(processors().len()).o(processors().len())),
    ("sched_setattr", |c| _ = c.n(0).i(attributes(48)).n(0)),
    ("sched_setattr", |c| _ = c.n(0).i(attributes(56)).n(0)),
    ("sched_setattr", |c| {
        // A size that no kernel knows is answered with its own.
        c.n(0).io(halves(&[7])).cut(4).unwritten().n(0);
    }),
    ("sched_getattr", |c| _ = c.n(0).o(48).n(48).n(0)),
    ("getcpu", |c| _ = c.o(4).o(4).n(0)),
    ("getrlimit", |c| _ = c.n(7).o(16)),
    ("setrlimit", |c| _ = c.n(4).i(words(&[0, u64::MAX]))),
    ("prlimit64", |c| _ = c.n(0).n(4).i(words(&[0, u64::MAX])).o(16)),
    ("getrusage", |c| _ = c.n(0).o(144)),
    ("times", |c| _ = c.o(32)),
];

fn capability_header(version: u32) -> Vec<u8> {
    halves(&[if version == 1 { 0x1998_0330 } else { 0x2008_0522 }, 0])
}

/// The mask of processors, as long as the kernel's own is.
fn processors() -> Vec<u8> {
    let mut mask = vec![0; 8192];
    let len = done(libc::SYS_sched_getaffinity, &[0, 8192, mask.as_mut_ptr() as u64]);
    mask.truncate(len as usize);
    mask
}

fn attributes(len: usize) -> Vec<u8> {
    let mut attributes = halves(&[len as u32]);
    attributes.resize(len, 0);
    attributes
}
