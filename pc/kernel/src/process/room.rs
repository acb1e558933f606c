//! Memory for the kernel's own needs, looked for before a call begins. What allocates in the kernel
//! cannot wait, and has nobody to tell that there is none.

use crate::errno::Errno;
use crate::frames::Frames;
use crate::{heap, kernel};
use alloc::vec::Vec;

/// What a call may take from the kernel's heap, but for the few that ask for more.
pub const CALL: usize = 144 << 10;

/// How often to evict pages for the kernel's heap before an allocation fails.
const PASSES: u32 = 16;

/// Makes sure that the kernel's heap can give so much, by evicting pages of programs; whether it can.
pub fn make_room(bytes: usize) -> bool {
    for _ in 0..PASSES {
        if heap::has_room(bytes) {
            return true;
        }
        if kernel().manager.reclaim(64) == 0 {
            break;
        }
    }
    heap::has_room(bytes)
}

/// Memory of the kernel for a call, full of zeros. Some is left for the small things that the call
/// may need beside it.
pub fn buffer(bytes: usize) -> Result<Vec<u8>, Errno> {
    if !make_room(bytes + CALL) {
        return Err(Errno::ENOMEM);
    }
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(bytes).map_err(|_| Errno::ENOMEM)?;
    buffer.resize(bytes, 0);
    Ok(buffer)
}

/// Looks for room for what may take much more: it has to be found in frames.
pub fn find_room(bytes: usize) -> Result<(), Errno> {
    let wanted = (bytes / 4096) as u32 + heap::PLENTY;
    if bytes <= CALL || free_up(kernel().frames, wanted) { Ok(()) } else { Err(Errno::ENOMEM) }
}

/// Evicts pages of programs until enough frames are free; returns whether they are.
pub fn free_up(frames: &Frames, wanted: u32) -> bool {
    while frames.free_frames() < wanted {
        if kernel().manager.reclaim(64) == 0 {
            return false;
        }
    }
    true
}
