//! Accesses by the memory manager: the process's own that ignore protection (`/proc/self/mem`), and those that its
//! server makes for other processes.

use super::room::Room;
use super::{GATE, Manager, addresses, current, passive};
use crate::sys::{Errno, Result};
use crate::user;
use alloc::vec::Vec;
use core::ops::Range;
use pagefault::error::UserError;
use pagefault_control::outside::Manner;
use pagefault_machine::{Access, VirtAddr};

/// The bytes that are copied at a time.
const PIECE: u64 = 64 << 10;

/// A range of the process's memory, from its beginning on as far as one access goes.
pub enum Forced {
    /// Memory that the host accesses itself: its length in bytes.
    Host(u64),
    /// Managed memory.
    Managed(Piece),
}

/// A piece of managed memory.
pub struct Piece {
    manager: &'static Manager,
    range: Range<u64>,
}

impl Forced {
    /// Finds the kind of memory at the beginning of a non-empty range.
    pub fn look(start: u64, len: u64) -> Self {
        let Some(manager) = current().filter(|_| !passive::is_passive()) else {
            return Self::Host(len);
        };
        let end = start.saturating_add(len);
        let region = {
            let _gate = GATE.read();
            manager.mm().first_mapped(addresses(&(start..end)))
        };
        let region = region.map_or(end..end, |region| region.start.value()..region.end.value());
        match region.start {
            first if first > start => Self::Host(first - start),
            _ => {
                let end = end.min(region.end).min(start + PIECE);
                Self::Managed(Piece { manager, range: start..end })
            }
        }
    }
}

impl Piece {
    /// The piece's length in bytes.
    pub fn len(&self) -> usize {
        (self.range.end - self.range.start) as usize
    }

    /// Copies the piece to the program's buffer, or the buffer to the piece; returns how many bytes were
    /// copied.
    ///
    /// `EIO`: none, since the memory does not allow the access. `EFAULT`: none, since the buffer
    /// does not.
    pub fn copy(&self, access: Access, buffer: u64) -> Result {
        let mut bytes: Vec<u8> = alloc::vec![0; self.len()];
        if access == Access::Read {
            let read = self.access(Manner::ForcedRead, &mut bytes)?;
            user::write_bytes(buffer, &bytes[..read])?;
            return Ok(read as u64);
        }
        let given = user::read_some(buffer, &mut bytes);
        if given == 0 {
            return Err(Errno::EFAULT);
        }
        Ok(self.access(Manner::ForcedWrite, &mut bytes[..given])? as u64)
    }

    /// Copies the piece to bytes, or bytes to the piece, until nothing is left or a page does not allow it;
    /// returns how many were copied. `EIO`: none.
    pub fn access(&self, manner: Manner, bytes: &mut [u8]) -> Result<usize> {
        let mm = self.manager.mm();
        let access = |at, left: &mut [u8]| match manner {
            Manner::Read => mm.read_prefix(at, left),
            Manner::Write => mm.write_prefix(at, left),
            Manner::ForcedRead => mm.read_forced(at, left),
            Manner::ForcedWrite => mm.write_forced(at, left),
        };
        let mut room = Room::new();
        let mut done = 0;
        loop {
            let gate = GATE.read();
            let at = VirtAddr(self.range.start + done as u64);
            let (copied, refused) = access(at, &mut bytes[done..]);
            drop(gate);
            done += copied;
            if refused != Some(UserError::OutOfMemory) {
                break;
            }
            room.make_more(self.manager, done as u64);
        }
        if done > 0 { Ok(done) } else { Err(Errno::EIO) }
    }
}
