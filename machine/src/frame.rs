//! Frames: physical pages, named by number.

use core::fmt;

/// The number of a frame, a physical page of [`PAGE_SIZE`](crate::PAGE_SIZE) bytes.
///
/// The memory manager never holds a pointer to the content of a frame; it asks the
/// [`Machine`](crate::Machine) to zero, copy, fill or drain it. Frames of a machine are numbered
/// from 0 to [`Machine::frames`](crate::Machine::frames) − 1; memory of devices has the numbers from
/// [`Machine::most_frames`](crate::Machine::most_frames) on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frame(pub u32);

impl Frame {
    /// The number as an index into a table with one element for each frame.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "frame {}", self.0)
    }
}
