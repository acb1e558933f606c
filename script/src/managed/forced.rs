//! A debugger's accesses, by the memory manager.

use crate::outcome::{Bytes, Errno, Outcome};
use pagefault::Mm;
use pagefault::machine::{Machine, VirtAddr};
use std::sync::Arc;

/// A write to `/proc/self/mem`.
pub(super) fn poke<M: Machine>(mm: &Arc<Mm<M>>, address: u64, bytes: &[u8]) -> Outcome {
    match mm.write_forced(VirtAddr(address), bytes).0 as u64 {
        0 if !bytes.is_empty() => Outcome::Errno(Errno::EIO),
        stored => Outcome::Stored(stored),
    }
}

/// A read of `/proc/self/mem`.
pub(super) fn peek<M: Machine>(mm: &Arc<Mm<M>>, address: u64, length: u64) -> Outcome {
    let mut bytes = Vec::new();
    while let Some(at) = super::next_piece(&mut bytes, length) {
        let from = VirtAddr(address.wrapping_add(at as u64));
        let wanted = bytes.len() - at;
        let (loaded, _) = mm.read_forced(from, &mut bytes[at..]);
        if loaded < wanted {
            bytes.truncate(at + loaded);
            break;
        }
    }
    match bytes.len() {
        0 if length > 0 => Outcome::Errno(Errno::EIO),
        _ => Outcome::Loaded(Bytes::new(&bytes)),
    }
}
