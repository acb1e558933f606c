//! Other processes' memory: process_vm_readv and process_vm_writev.

use super::super::file::vector::{self, Buffer};
use super::super::{Arguments, Result};
use crate::errno::Errno;
use crate::machine::Pc;
use crate::{process, user};
use alloc::sync::Arc;
use linux_raw_sys::general as nr;
use pagefault::AddressSpace;
use pagefault::machine::{PAGE_SIZE, Protection, VirtAddr};

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Here,
    There,
}

pub(super) fn transfer(number: u32, arguments: Arguments) -> Result {
    let Arguments { a: pid, b, c, d, e, f: flags } = arguments;
    let way = if number == nr::__NR_process_vm_readv { Way::Here } else { Way::There };
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let local = vector::buffers(b, c)?;
    let remote = vector::buffers(d, e)?;
    let process = process::find(pid as u32).ok_or(Errno::ESRCH)?;
    let space = process.space.lock().clone().ok_or(Errno::ESRCH)?;
    let mut there = Pieces { buffers: &remote, within: 0 };
    let mut done = 0;
    for buffer in &local {
        let mut own = *buffer;
        while own.bytes > 0 {
            let Some(piece) = there.next(own.bytes) else { return Ok(done) };
            let moved = match copy(&space, way, own.at, piece) {
                Ok(moved) => moved,
                Err(error) => return if done > 0 { Ok(done) } else { Err(error) },
            };
            done += moved;
            if moved < piece.bytes {
                return Ok(done);
            }
            own = Buffer { at: own.at.wrapping_add(moved), bytes: own.bytes - moved };
        }
    }
    Ok(done)
}

/// What is left of a list of buffers.
struct Pieces<'a> {
    buffers: &'a [Buffer],
    /// How much of the first is done.
    within: u64,
}

impl Pieces<'_> {
    /// The next piece of at most this many bytes, within one page.
    fn next(&mut self, most: u64) -> Option<Buffer> {
        loop {
            let (first, rest) = self.buffers.split_first()?;
            let left = first.bytes - self.within;
            if left == 0 {
                (self.buffers, self.within) = (rest, 0);
                continue;
            }
            let at = first.at.wrapping_add(self.within);
            let bytes = left.min(most).min(PAGE_SIZE - at % PAGE_SIZE);
            self.within += bytes;
            return Some(Buffer { at, bytes });
        }
    }
}

/// Whether the other's mapping allows the access. A processor reads what may only be written or executed; this
/// call does not, and no stack grows for it.
fn is_allowed(space: &AddressSpace<Pc>, way: Way, at: u64) -> bool {
    let needed = match way {
        Way::Here => Protection::READ,
        Way::There => Protection::WRITE,
    };
    let found = space.maps(VirtAddr(at)..VirtAddr(at.saturating_add(1))).into_iter().next();
    found.is_some_and(|region| region.protection.contains(needed))
}

/// Moves a piece, which lies within one page of the other's; returns how much of it was moved.
fn copy(space: &Arc<AddressSpace<Pc>>, way: Way, own: u64, piece: Buffer) -> Result {
    if !is_allowed(space, way, piece.at) {
        return Err(Errno::EFAULT);
    }
    let mut page = process::buffer(piece.bytes as usize)?;
    let bytes = &mut page[..];
    let left = match way {
        Way::Here => match space.copy_from_user(VirtAddr(piece.at), bytes) {
            0 => user::copy_to(own, bytes),
            left => left,
        },
        Way::There => {
            let left = user::copy_from(own, bytes);
            let n = bytes.len() - left;
            left + space.copy_to_user(VirtAddr(piece.at), &bytes[..n])
        }
    };
    let moved = bytes.len() - left;
    crate::scheduler::yield_if_expired();
    if moved == 0 { Err(Errno::EFAULT) } else { Ok(moved as u64) }
}
