//! A process's side: waits for orders and executes them, by the simplest means.
//!
//! It was forked, perhaps from a program with other threads, so this code does not allocate, lock
//! or unwind.

use super::shared::{CARRIED, Order, Reply, SIGNAL_STACK, Shared};
use super::{debug, heap, touch};
use crate::ast::PAGE;
use crate::outcome::Bytes;
use std::io;

/// The size to which stacks may grow, whatever the runner's own limit is: Linux's default.
const STACK_LIMIT: u64 = 8 << 20;

/// Forks the first process, which serves `slot`.
pub(super) fn first(shared: &Shared, slot: usize) -> io::Result<libc::pid_t> {
    let runner = std::process::id() as libc::pid_t;
    // SAFETY: clone without a stack and without CLONE_VM is fork. The child never returns.
    let pid = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => live(shared, slot, runner),
        pid => Ok(pid as libc::pid_t),
    }
}

/// The life of the first process. `extern "C"` turns a panic into an abort: a child must not
/// unwind into its copy of the runner.
extern "C" fn live(shared: &Shared, slot: usize, runner: libc::pid_t) -> ! {
    limits();
    take_keys();
    touch::listen(shared.signal_stack(), SIGNAL_STACK);
    serve(shared, slot, runner)
}

/// Takes all protection keys, if the processor has any. With one of them the host would keep loads from memory that may
/// only be executed; without one, such memory is the same on every host. Forked processes inherit that.
fn take_keys() {
    // SAFETY: a key changes nothing for memory that does not have it.
    while unsafe { libc::syscall(libc::SYS_pkey_alloc, 0, 0) } > 0 {}
}

/// Serves `slot` forever; in a forked child, the child's slot.
fn serve(shared: &Shared, mut slot: usize, runner: libc::pid_t) -> ! {
    follow(runner);
    loop {
        let mailbox = shared.slot(slot);
        let reply = match mailbox.order() {
            Order::System { number, arguments } => system(number, arguments),
            Order::Mincore { address, length } => mincore(shared, address, length),
            Order::Store { address, length } => store(address, mailbox.bytes(), length),
            Order::Fill { address, length, byte } => fill(address, length, byte),
            Order::Load { address, length } => load(address, length, mailbox.bytes()),
            Order::Execute { address } => execute(address),
            Order::Fetch { address } => fetch(address),
            Order::ToUser { address, length } => to_user(shared, address, mailbox.bytes(), length),
            Order::FromUser { address, length } => {
                from_user(shared, address, length, mailbox.bytes())
            }
            Order::BeginHeap { address } => heap::begin(address),
            Order::Brk { address } => system(libc::SYS_brk, [address, 0, 0, 0, 0, 0]),
            Order::Poke { address, length } => debug::poke(address, mailbox.bytes(), length),
            Order::Peek { address, length } => {
                debug::peek(shared, address, length, mailbox.bytes())
            }
            Order::Fork { slot: new } => match fork() {
                0 => {
                    slot = new;
                    follow(runner);
                    continue;
                }
                -1 => Reply::Failed(errno()),
                pid => Reply::Done(pid),
            },
            // SAFETY: _exit does not return and runs nothing of the runner's.
            Order::Exit => unsafe { libc::_exit(0) },
        };
        mailbox.answer(reply);
    }
}

/// A real fork. The child's parent is the runner, so that the child may outlive the process that
/// forked it, but not the runner.
fn fork() -> i64 {
    let flags = libc::SIGCHLD | libc::CLONE_PARENT;
    // SAFETY: clone without a stack and without CLONE_VM is fork; the process has one thread.
    unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) }
}

/// Ties the process's life to the runner's.
fn follow(runner: libc::pid_t) {
    // SAFETY: prctl and getppid with plain numbers; _exit does not return.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        if libc::getppid() != runner {
            libc::_exit(0);
        }
    }
}

/// Removes differences between hosts: memory limits, large pages and blocked signals, where that is
/// possible.
fn limits() {
    let limit = |which, soft: u64| {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the pointer is to a live rlimit.
        unsafe { libc::getrlimit(which, &raw mut limit) };
        limit.rlim_cur = soft.min(limit.rlim_max);
        // SAFETY: likewise.
        unsafe { libc::setrlimit(which, &raw const limit) };
    };
    limit(libc::RLIMIT_STACK, STACK_LIMIT);
    limit(libc::RLIMIT_MEMLOCK, libc::RLIM_INFINITY);
    limit(libc::RLIMIT_CORE, 0);
    // SAFETY: the set is a live variable that sigemptyset fills; prctl takes plain numbers.
    unsafe {
        libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0);
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

fn system(number: libc::c_long, [a, b, c, d, e, f]: [u64; 6]) -> Reply {
    // SAFETY: the runner lets through only ranges in the scripts' window, which holds nothing that
    // this program refers to, and calls that cannot succeed.
    match unsafe { libc::syscall(number, a, b, c, d, e, f) } {
        -1 => Reply::Failed(errno()),
        result => Reply::Done(result),
    }
}

/// Asks for as many pages at once as the scratch memory has bytes. A range that is too long for one
/// call, or wraps, has an unmapped page in its first part, and so the same error.
fn mincore(shared: &Shared, address: u64, length: u64) -> Reply {
    const MOST: u64 = CARRIED as u64 * PAGE;
    let vector = shared.scratch() as u64;
    let mut done = 0;
    loop {
        let part = MOST.min(length - done);
        let reply = system(libc::SYS_mincore, [address.wrapping_add(done), part, vector, 0, 0, 0]);
        done += part;
        if done == length || !matches!(reply, Reply::Done(_)) {
            return reply;
        }
    }
}

fn store(address: u64, bytes: *const u8, length: usize) -> Reply {
    for index in 0..length {
        // SAFETY: `bytes` is the slot's room, of at least `length` bytes.
        let byte = unsafe { *bytes.add(index) };
        if let Err(fault) = touch::store(address.wrapping_add(index as u64), byte) {
            return fault;
        }
    }
    Reply::Done(0)
}

fn fill(address: u64, length: u64, byte: u8) -> Reply {
    for index in 0..length {
        if let Err(fault) = touch::store(address.wrapping_add(index), byte) {
            return fault;
        }
    }
    Reply::Done(0)
}

/// Loads upwards; the head goes to `shown`.
fn load(address: u64, length: u64, shown: *mut u8) -> Reply {
    let mut chunk = [0; 256];
    let mut filled = 0;
    let mut crc = crc32fast::Hasher::new();
    for index in 0..length {
        match touch::load(address.wrapping_add(index)) {
            Ok(byte) => chunk[filled] = byte,
            Err(fault) => return fault,
        }
        if index < Bytes::SHOWN as u64 {
            // SAFETY: the slot has room for far more than SHOWN bytes.
            unsafe { *shown.add(index as usize) = chunk[filled] };
        }
        filled += 1;
        if filled == chunk.len() {
            crc.update(&chunk);
            filled = 0;
        }
    }
    crc.update(&chunk[..filled]);
    Reply::Bytes { length, crc: crc.finalize() }
}

/// Stores a `ret` if the page is writable, then calls it. If the page keeps another instruction,
/// running that could do anything, so the runner checks the mapping first.
fn execute(address: u64) -> Reply {
    const RET: u8 = 0xc3;
    let foreign =
        touch::store(address, RET).is_err() && touch::load(address).is_ok_and(|byte| byte != RET);
    if foreign { Reply::ForeignCode } else { fetch(address) }
}

fn fetch(address: u64) -> Reply {
    match touch::execute(address) {
        Ok(()) => Reply::Done(0),
        Err(fault) => fault,
    }
}

/// read(2) of a pipe that holds the bytes.
fn to_user(shared: &Shared, address: u64, bytes: *const u8, length: usize) -> Reply {
    let [from, to] = shared.pipe();
    // SAFETY: the bytes are the slot's, at least `length` of them; the pipe is empty and takes all.
    // The address is the script's, which read(2) checks itself.
    let count = unsafe {
        libc::write(to, bytes.cast(), length);
        libc::read(from, address as *mut libc::c_void, length)
    };
    let errno = errno();
    drain(shared);
    match count {
        -1 => Reply::Failed(errno),
        count => Reply::Count(count as u64),
    }
}

/// write(2) to a pipe, emptied whenever it is full: pieces of a pipe's size, so that chunks fall
/// where one long write has them.
fn from_user(shared: &Shared, address: u64, length: u64, shown: *mut u8) -> Reply {
    const _: () = assert!((CARRIED as u64).is_multiple_of(PAGE));
    let [_, to] = shared.pipe();
    let mut crc = crc32fast::Hasher::new();
    let mut done = 0;
    loop {
        let piece = (length - done).min(CARRIED as u64);
        let from = address.wrapping_add(done) as *const libc::c_void;
        // SAFETY: the address is the script's, which write(2) checks itself.
        let count = unsafe { libc::write(to, from, piece as usize) };
        if count == -1 && done == 0 {
            return Reply::Failed(errno());
        }
        let moved = drain(shared);
        // SAFETY: `drain` has put that many bytes into the scratch memory, which nothing else uses.
        let bytes = unsafe { std::slice::from_raw_parts(shared.scratch(), moved) };
        crc.update(bytes);
        if done == 0 {
            // SAFETY: the slot has room for a whole piece, and lies apart from the scratch memory.
            unsafe { std::ptr::copy_nonoverlapping(shared.scratch(), shown, moved) };
        }
        done += moved as u64;
        if (moved as u64) < piece || done == length {
            return Reply::Bytes { length: done, crc: crc.finalize() };
        }
    }
}

/// Empties the pipe into the scratch memory. Returns the number of bytes.
fn drain(shared: &Shared) -> usize {
    let [from, _] = shared.pipe();
    // SAFETY: the scratch memory has room for all that a pipe of CARRIED bytes holds.
    let count = unsafe { libc::read(from, shared.scratch().cast(), CARRIED) };
    usize::try_from(count).unwrap_or(0)
}

pub(super) fn errno() -> i32 {
    // SAFETY: the pointer is to this thread's errno.
    unsafe { *libc::__errno_location() }
}
