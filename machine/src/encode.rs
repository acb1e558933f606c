//! The page-table entries of real processors.
//!
//! A page-table entry is one word that the processor reads. The processor ignores the rest of an entry
//! that is not present, so the kernel stores the page's swap slot or file index there (spec F3). Each
//! module converts the neutral [`Entry`] to one processor's word and back. Both directions are pure
//! functions, shared by the simulated computer and by a kernel on bare hardware.
//!
//! | module | word | not present: swap | not present: file |
//! |---|---|---|---|
//! | [`x86_64`] | 64 bits | area from bit 1, slot from bit 8 | bit 6, index in bits 12–45 |
//! | [`ia32`] | 32 bits | area in bits 1–5, slot in bits 8–31 | bit 6, index in bits 1–5 and 8–31 |
//! | [`pae`] | 64 bits | high word: area in bits 0–4, slot in bits 5–31 | low word 0x40, high word the index |
//! | [`alpha`] | 64 bits | area in bits 32–39, slot in bits 40–63 | bit 19, index in bits 32–63 |
//!
//! `decode(encode(entry))` returns the entry, with one exception due to the hardware: a processor without
//! a bit to forbid loads or fetches reports them as allowed. Each module's `effective` says what a
//! protection becomes.

use crate::Entry;
use core::fmt;

pub mod alpha;
pub mod ia32;
pub mod pae;
pub mod x86_64;

mod x86;

/// The largest numbers that one processor's entries can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest frame number of a present entry.
    pub frame: u32,
    /// The largest number of a swap area.
    pub area: u8,
    /// The largest slot within a swap area.
    pub slot: u32,
    /// The largest page number within a file.
    pub file_index: u64,
}

/// Why an entry cannot be encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncodeError {
    /// The frame's number is above [`Limits::frame`].
    Frame,
    /// The swap area's number is above [`Limits::area`].
    Area,
    /// The slot is above [`Limits::slot`], or is slot 0: it holds the area's header, and its word would
    /// look like an empty entry.
    Slot,
    /// The page number within the file is above [`Limits::file_index`].
    FileIndex,
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Frame => "the frame number does not fit the page-table entry",
            Self::Area => "the swap area's number does not fit the page-table entry",
            Self::Slot => "the swap slot is 0 or does not fit the page-table entry",
            Self::FileIndex => "the file's page number does not fit the page-table entry",
        })
    }
}

impl core::error::Error for EncodeError {}

impl Limits {
    /// Whether every number in `entry` fits.
    #[inline]
    pub fn check(&self, entry: Entry) -> Result<(), EncodeError> {
        match entry {
            Entry::None => Ok(()),
            Entry::Present { frame, .. } if frame.0 > self.frame => Err(EncodeError::Frame),
            Entry::Present { .. } => Ok(()),
            Entry::Swap(slot) if slot.area > self.area => Err(EncodeError::Area),
            Entry::Swap(slot) if slot.offset == 0 || slot.offset > self.slot => {
                Err(EncodeError::Slot)
            }
            Entry::Swap(_) => Ok(()),
            Entry::File(index) if index > self.file_index => Err(EncodeError::FileIndex),
            Entry::File(_) => Ok(()),
        }
    }
}
