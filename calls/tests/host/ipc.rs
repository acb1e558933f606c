//! Semaphores, queues, shared memory, futexes, keys.

use crate::harness::{Case, apart, done, halves, lacking, words};
use pagefault_calls::Access;

pub const CASES: &[Case] = &[
    ("semop", |c| _ = c.n(semaphores()).i(RAISE).n(1)),
    ("semop", |c| _ = c.n(semaphores()).i(RAISE.repeat(3)).n(3)),
    ("semtimedop", |c| _ = c.n(semaphores()).i(RAISE).n(1).i([0; 16])),
    ("semctl", |c| _ = c.n(semaphores()).n(0).n(2).o(104)),
    ("semctl", |c| _ = c.n(semaphores()).n(0).n(1).i([0; 104]).cut(84)),
    ("semctl", |c| _ = c.n(0).n(0).n(3).o(40)),
    ("semctl", |c| _ = c.n(0).n(0).n(19).o(40)),
    ("semctl", |c| _ = c.n(semaphores()).n(0).n(13).o(6).loose()),
    ("semctl", |c| _ = c.n(semaphores()).n(0).n(17).i([0; 6]).loose()),
    ("shmctl", |c| _ = c.n(memory()).n(2).o(112)),
    ("shmctl", |c| _ = c.n(memory()).n(1).i([0; 112])),
    ("shmctl", |c| _ = c.n(0).n(3).o(72)),
    ("shmctl", |c| _ = c.n(0).n(14).o(48)),
    ("msgctl", |c| _ = c.n(queue()).n(2).o(120)),
    ("msgctl", |c| _ = c.n(queue()).n(1).i([0; 120])),
    ("msgctl", |c| _ = c.n(0).n(3).o(32)),
    ("msgctl", |c| _ = c.n(0).n(12).o(32)),
    ("msgsnd", |c| _ = c.n(queue()).i(*b"\x01\0\0\0\0\0\0\0hello").n(5).n(0)),
    ("msgrcv", |c| {
        let (queue, message) = (queue(), b"\x01\0\0\0\0\0\0\0hello");
        done(libc::SYS_msgsnd, &[queue as u64, message.as_ptr() as u64, 5, 0]);
        c.n(queue).o(13).n(5).n(0).n(0);
    }),
    ("mq_open", |c| {
        apart(libc::CLONE_NEWIPC);
        c.s("pagefault")
            .n(libc::O_CREAT | libc::O_RDWR)
            .n(0o600)
            .i(words(&[0, 4, 8, 0, 0, 0, 0, 0]));
    }),
    ("mq_unlink", |c| {
        apart(libc::CLONE_NEWIPC);
        c.s("pagefault");
    }),
    ("mq_timedsend", |c| _ = c.n(posix_queue()).i([1; 8]).n(8).n(0).i(words(&[9, 0]))),
    ("mq_timedreceive", |c| {
        let queue = posix_queue();
        done(libc::SYS_mq_timedsend, &[queue as u64, c"1234567".as_ptr() as u64, 8, 0, 0]);
        c.n(queue).o(8).n(8).o(4).i(words(&[9, 0]));
    }),
    ("mq_notify", |c| {
        let cookie = c.hide([0; 32], Access::Read);
        let mut event = halves(&[0, 0, u32::MAX, 2]);
        event.resize(64, 0);
        c.n(posix_queue()).i(event).link(0, cookie);
    }),
    ("mq_getsetattr", |c| _ = c.n(posix_queue()).i([0; 64]).o(64)),
    // Words of one process: the flag 128. A waker does not look at them.
    ("futex", |c| _ = c.i([0; 4]).cut(4).n(128).n(1).n(0)),
    ("futex", |c| _ = c.i([0; 4]).cut(4).n(128).n(0).i([0; 16])),
    ("futex", |c| _ = c.i([0; 4]).cut(4).n(128 + 9).n(0).i([0; 16]).n(0).n(1)),
    ("futex", |c| _ = c.i([0; 4]).cut(4).n(128 + 4).n(1).n(1).i([0; 4]).untold().n(0)),
    ("futex", |c| _ = c.i([0; 4]).untold().n(128 + 5).n(1).n(1).io([0; 4]).cut(4).n(0)),
    ("futex", |c| _ = c.io([0; 4]).cut(4).n(128 + 6).n(0).i([0; 16])),
    ("futex", |c| _ = c.io([0; 4]).cut(4).n(128 + 8).n(0).n(0)),
    // Words that processes share are looked up by their page, which has to be writable.
    ("futex", |c| _ = c.io([0; 4]).cut(4).n(0).n(1).n(0)),
    ("futex", |c| _ = c.io([0; 4]).cut(4).n(0).n(0).i([0; 16])),
    ("futex", |c| _ = c.io([0; 4]).cut(4).n(1).n(1)),
    ("futex", |c| _ = c.io([0; 4]).cut(4).n(10).n(1).n(0).n(0).n(1)),
    ("futex", |c| _ = c.io([0; 4]).cut(4).n(3).n(1).n(1).io([0; 4]).cut(4)),
    ("futex", |c| _ = c.io([0; 4]).cut(4).n(4).n(1).n(1).io([0; 4]).cut(4).n(0)),
    ("futex", |c| _ = c.io([0; 4]).cut(4).n(5).n(1).n(1).io([0; 4]).cut(4).n(0)),
    ("futex", |c| _ = c.io([0; 4]).cut(4).n(12).n(1).n(1).io([0; 4]).cut(4).n(0)),
    ("futex", |c| _ = c.io([0; 4]).cut(4).n(6).n(0).i([0; 16])),
    ("futex_waitv", |c| {
        let word = c.hide([0; 4], Access::ReadWrite);
        c.cut(4).i(words(&[1, 0, 2])).link(8, word).n(1).n(0).i([0; 16]).n(1);
    }),
    ("futex_waitv", |c| {
        let word = c.hide([0; 4], Access::Read);
        c.cut(4).i(words(&[1, 0, 130])).link(8, word).n(1).n(0).i([0; 16]).n(1);
    }),
    ("futex_wake", |c| _ = c.io([0; 4]).cut(4).n(1).n(1).n(2)),
    ("futex_wait", |c| _ = c.io([0; 4]).cut(4).n(0).n(1).n(2).i([0; 16]).n(1)),
    ("futex_wait", |c| _ = c.i([0; 4]).cut(4).n(0).n(1).n(130).i([0; 16]).n(1)),
    ("futex_requeue", |c| {
        let one = c.hide([0; 4], Access::ReadWrite);
        let two = c.cut(4).hide([0; 4], Access::ReadWrite);
        c.cut(4).i(words(&[0, 0, 2, 0, 0, 2])).link(8, one).link(32, two).n(0).n(1).n(1);
    }),
    ("add_key", |c| _ = c.s("user").s("name").i([1; 5]).n(5).n(-2)),
    ("request_key", |c| _ = c.s("user").s("nonesuch").n(0).n(0)),
    ("keyctl", |c| _ = c.n(1).s("ring")),
    ("keyctl", |c| _ = c.n(2).n(key()).i([1; 5]).n(5)),
    ("keyctl", |c| {
        let key = key();
        let len = done(libc::SYS_keyctl, &[6, key as u64]);
        c.n(6).n(key).o(len as usize).n(len);
    }),
    ("keyctl", |c| _ = c.n(11).n(key()).o(3).n(3)),
    ("keyctl", |c| _ = c.n(10).n(-2).s("user").s("nonesuch").n(0)),
    ("keyctl", |c| _ = c.n(31).o(2).n(2)),
];

/// One operation: the first semaphore of a set, one more.
const RAISE: [u8; 6] = [0, 0, 1, 0, 0, 0];

/// What this call makes, in a namespace of its own.
fn made(nr: i64, args: &[u64]) -> i64 {
    let made = if apart(libc::CLONE_NEWIPC) { done(nr, args) } else { -1 };
    if made < 0 {
        lacking();
    }
    made
}

fn semaphores() -> i64 {
    made(libc::SYS_semget, &[0, 3, 0o600])
}

fn memory() -> i64 {
    made(libc::SYS_shmget, &[0, 4096, 0o600])
}

fn queue() -> i64 {
    made(libc::SYS_msgget, &[0, 0o600])
}

fn posix_queue() -> i64 {
    let (attributes, flags) = (words(&[0, 4, 8, 0, 0, 0, 0, 0]), libc::O_CREAT | libc::O_RDWR);
    let (name, at) = (c"pagefault".as_ptr() as u64, attributes.as_ptr() as u64);
    made(libc::SYS_mq_open, &[name, flags as u64, 0o600, at])
}

/// A key with three bytes, in a keyring of this process.
fn key() -> i64 {
    let (kind, name) = (c"user".as_ptr() as u64, c"name".as_ptr() as u64);
    done(libc::SYS_add_key, &[kind, name, c"abc".as_ptr() as u64, 3, -2i64 as u64])
}
