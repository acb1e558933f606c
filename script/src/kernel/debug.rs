//! A debugger's accesses: `/proc/self/mem`, whose reads and writes ignore the regions' rights.

use super::child::errno;
use super::shared::{CARRIED, Reply, Shared};

/// The process's memory as a file.
struct Memory(libc::c_int);

impl Memory {
    fn open() -> Result<Self, Reply> {
        // SAFETY: a string that ends with a zero.
        match unsafe { libc::open(c"/proc/self/mem".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) } {
            -1 => Err(Reply::Failed(errno())),
            file => Ok(Self(file)),
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: opened by us, and used no more.
        unsafe { libc::close(self.0) };
    }
}

pub(super) fn poke(address: u64, bytes: *const u8, length: usize) -> Reply {
    let memory = match Memory::open() {
        Ok(memory) => memory,
        Err(reply) => return reply,
    };
    // SAFETY: the bytes are the slot's, at least `length` of them. The address is the script's, and lies in
    // the scripts' window.
    match unsafe { libc::pwrite(memory.0, bytes.cast(), length, address as libc::off_t) } {
        -1 => Reply::Failed(errno()),
        count => Reply::Count(count as u64),
    }
}

/// Reads piece by piece; the head goes to `shown`.
pub(super) fn peek(shared: &Shared, address: u64, length: u64, shown: *mut u8) -> Reply {
    let memory = match Memory::open() {
        Ok(memory) => memory,
        Err(reply) => return reply,
    };
    let mut crc = crc32fast::Hasher::new();
    let mut done = 0;
    loop {
        let piece = (length - done).min(CARRIED as u64) as usize;
        let from = address.wrapping_add(done) as libc::off_t;
        // SAFETY: the scratch memory has room for so much, and nothing else uses it.
        let count = unsafe { libc::pread(memory.0, shared.scratch().cast(), piece, from) };
        if count < 0 && done == 0 {
            return Reply::Failed(errno());
        }
        let moved = usize::try_from(count).unwrap_or(0);
        // SAFETY: `pread` has put that many bytes there.
        crc.update(unsafe { std::slice::from_raw_parts(shared.scratch(), moved) });
        if done == 0 {
            // SAFETY: the slot has room for a whole piece, and lies apart from the scratch memory.
            unsafe { std::ptr::copy_nonoverlapping(shared.scratch(), shown, moved) };
        }
        done += moved as u64;
        if moved < piece || done == length {
            return Reply::Bytes { length: done, crc: crc.finalize() };
        }
    }
}
