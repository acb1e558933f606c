//! Writes the program's code while other threads may execute it.
//!
//! It is written through `/proc/self/mem`, which may write read-only pages: the mapping stays
//! unchanged, and the host copies the page.

use super::shape::{FAULTING, JUMP, SYSCALL, Shape};
use crate::files::open;
use crate::maps::Line;
use crate::sys::{self, Errno};
use crate::thread::Thread;
use crate::{files, user};
use alloc::vec::Vec;
use linux_raw_sys::general as nr;
use pagefault_linux::store::descriptor::{self, Kept};
use rustix::fd::{AsFd, AsRawFd};

/// The memory of this process, as a file.
pub struct Text(Kept);

impl Text {
    /// Opens it; `None` if the host does not let us.
    pub fn open() -> Option<Self> {
        let file = descriptor::keep(open(c"/proc/self/mem", nr::O_RDWR)?);
        // Another file of that name must not be written.
        files::is_of_proc(file.as_fd().as_raw_fd() as u32).then_some(Self(file))
    }

    /// Writes bytes that no thread executes, and checks that they arrived.
    pub fn write(&self, at: u64, bytes: &[u8]) -> Option<()> {
        let file = self.0.as_fd().as_raw_fd() as u64;
        let args = [file, bytes.as_ptr() as u64, bytes.len() as u64, at];
        // SAFETY: the caller changes the program's code without changing its meaning.
        let written = unsafe { sys::call(nr::__NR_pwrite64, args) }.ok()?;
        let mut back = [0; 64];
        let back = &mut back[..bytes.len()];
        user::read_bytes(at, back).ok()?;
        (written as usize == bytes.len() && back == bytes).then_some(())
    }

    /// Replaces a call by a jump.
    ///
    /// No processor executes half a jump. First each instruction gets a faulting first byte, by one
    /// store each. Then the bytes in between change, which no thread executes. The jump's first byte
    /// comes last. Every processor sees each step before the next.
    pub fn patch(&self, place: u64, shape: &Shape, jump: &[u8; JUMP]) -> Option<()> {
        let mut now = [0; 2];
        user::read_bytes(place, &mut now).ok()?;
        let synchronize = Synchronize::begin()?;
        if now != SYSCALL {
            return None;
        }
        // Once the first byte is written, the site is consistent at any moment.
        self.write(place, &[FAULTING])?;
        for at in (2..JUMP).filter(|at| shape.interior >> at & 1 != 0) {
            self.write(place + at as u64, &[FAULTING])?;
        }
        synchronize.all();
        for at in (1..JUMP).filter(|at| shape.interior >> at & 1 == 0) {
            self.write(place + at as u64, &jump[at..=at])?;
        }
        synchronize.all();
        self.write(place, &jump[..1])?;
        synchronize.all();
        Some(())
    }
}

/// How other processors come to see changed code.
enum Synchronize {
    /// There is no other thread.
    Alone,
    /// By `membarrier(2)`.
    Barrier,
}

impl Synchronize {
    fn begin() -> Option<Self> {
        if Thread::current().is_only() {
            return Some(Self::Alone);
        }
        let flag = nr::membarrier_cmd::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE;
        // SAFETY: a barrier changes no memory.
        let registered = unsafe { sys::call(nr::__NR_membarrier, [flag as u64, 0, 0]) };
        registered.is_ok().then_some(Self::Barrier)
    }

    fn all(&self) {
        if matches!(self, Self::Barrier) {
            let flag = nr::membarrier_cmd::MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE;
            // SAFETY: as above.
            let _ = unsafe { sys::call(nr::__NR_membarrier, [flag as u64, 0, 0]) };
        }
    }
}

/// The program's mappings.
pub struct Maps(Vec<u8>);

impl Maps {
    /// Reads them.
    pub fn read() -> Option<Self> {
        read(c"/proc/self/maps").map(Self)
    }

    /// Whether a range is a read-only, executable mapping of a file.
    pub fn is_plain_code(&self, start: u64, len: u64) -> bool {
        self.lines().any(|line| {
            line.range.start <= start
                && start + len <= line.range.end
                && line.rights == b"r-xp"
                && line.is_file
        })
    }

    /// The end of the nearest gap below an address that is longer than `len`.
    pub fn gap_below(&self, address: u64, len: u64) -> Option<u64> {
        /// By default, programs may not map anything below.
        const LOWEST: u64 = 1 << 16;
        let (mut end, mut found) = (LOWEST, None);
        for line in self.lines().take_while(|line| line.range.start <= address) {
            if line.range.start.saturating_sub(end) > len {
                found = Some(line.range.start);
            }
            end = line.range.end;
        }
        found
    }

    fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        self.0.split(|byte| *byte == b'\n').filter_map(Line::of)
    }
}

/// Reads one of the host's files.
fn read(path: &core::ffi::CStr) -> Option<Vec<u8>> {
    const MOST: usize = 4 << 20;
    const PIECE: usize = 16 << 10;
    let file = open(path, nr::O_RDONLY)?;
    let mut text = Vec::new();
    while text.len() < MOST {
        let len = text.len();
        text.resize(len + PIECE, 0);
        let args = [file.as_raw_fd() as u64, text[len..].as_mut_ptr() as u64, PIECE as u64];
        // SAFETY: the buffer is ours.
        match unsafe { sys::call(nr::__NR_read, args) } {
            Ok(0) => {
                text.truncate(len);
                return Some(text);
            }
            Ok(read) => text.truncate(len + read as usize),
            Err(Errno::EINTR) => text.truncate(len),
            Err(_) => return None,
        }
    }
    None
}
