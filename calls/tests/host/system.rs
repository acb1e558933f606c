//! The whole system.

use crate::harness::{Case, apart, done, halves, words};

pub const CASES: &[Case] = &[
    ("uname", |c| _ = c.o(390)),
    ("sysinfo", |c| _ = c.o(112)),
    ("acct", |c| _ = c.s("/nonexistent")),
    ("swapon", |c| _ = c.s("/nonexistent").n(0)),
    ("swapoff", |c| _ = c.s("/nonexistent")),
    ("sethostname", |c| {
        apart(libc::CLONE_NEWUTS);
        c.i(*b"name").n(4);
    }),
    ("setdomainname", |c| {
        apart(libc::CLONE_NEWUTS);
        c.i(*b"name").n(4);
    }),
    ("delete_module", |c| _ = c.s("nonesuch").n(0)),
    ("init_module", |c| _ = c.i([0; 100]).n(100).n(0)),
    ("perf_event_open", |c| _ = c.i(event(64)).n(0).n(-1).n(-1).n(0)),
    ("perf_event_open", |c| _ = c.i(event(112)).n(0).n(-1).n(-1).n(0)),
    ("perf_event_open", |c| _ = c.io(event(8)).unwritten().n(0).n(-1).n(-1).n(0)),
    ("getrandom", |c| _ = c.o(16).n(16).n(0)),
    ("getrandom", |c| _ = c.o(5000).n(5000).n(0)),
    ("bpf", |c| {
        // A map of one element; the kernel only reads this command's attributes.
        let mut attributes = halves(&[2, 4, 4, 1]);
        attributes.resize(72, 0);
        c.n(0).io(attributes).unwritten().n(72);
    }),
    ("lsm_get_self_attr", |c| {
        let mut len = 0u32;
        done(459, &[100, 0, &raw mut len as u64, 0]);
        let len = len.max(32);
        c.n(100).o(len as usize).io(halves(&[len])).n(0).optional();
    }),
    ("quotactl_fd", |c| {
        let fd = done(libc::SYS_open, &[c"/".as_ptr() as u64, 0]);
        c.n(fd).n(0x8000_0400u32).n(0).o(4).optional();
    }),
    ("io_uring_setup", |c| _ = c.n(1).io([0; 120]).optional()),
    ("io_setup", |c| _ = c.n(1).io([0; 8])),
    ("io_submit", |c| {
        let mut context = 0u64;
        done(libc::SYS_io_setup, &[1, &raw mut context as u64]);
        let mut block = vec![0; 64];
        block[16] = 3;
        block[20..24].fill(255);
        let block = c.hide(block, pagefault_calls::Access::ReadWrite);
        c.unwritten().n(context).n(1).i(words(&[0])).link(0, block);
    }),
    ("io_getevents", |c| {
        let mut context = 0u64;
        done(libc::SYS_io_setup, &[1, &raw mut context as u64]);
        c.n(context).n(1).n(1).o(32).untold().i([0; 16]);
    }),
    ("landlock_create_ruleset", |c| _ = c.i(words(&[1])).n(8).n(0)),
    ("landlock_create_ruleset", |c| _ = c.i(words(&[1, 0, 0])).n(24).n(0)),
    ("landlock_add_rule", |c| {
        let mut rule = words(&[1]);
        rule.extend(halves(&[1]));
        c.n(rules()).n(1).i(rule).n(0);
    }),
    ("landlock_add_rule", |c| _ = c.n(rules()).n(2).i(words(&[1, 80])).n(0)),
    ("lsm_list_modules", |c| {
        let mut len = 0u32;
        done(461, &[0, &raw mut len as u64, 0]);
        c.o(len as usize).io(halves(&[len])).n(0);
    }),
];

/// An event of software's, to count nothing.
fn event(len: usize) -> Vec<u8> {
    let mut event = halves(&[1, len as u32]);
    event.resize(len, 0);
    event
}

fn rules() -> i64 {
    let attributes = words(&[1, 1]);
    done(libc::SYS_landlock_create_ruleset, &[attributes.as_ptr() as u64, 16, 0])
}
