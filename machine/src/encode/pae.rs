//! IA-32 with physical-address extension: 64-bit entries on a 32-bit processor.
//!
//! The processor writes such an entry in two halves, so a reader without the lock can see the half
//! of one and the half of another: swap and file entries are verified under the lock before they
//! are decoded (spec B3). A kernel stores the high half first when it makes an entry present.

pub use super::x86::Bits;
use super::{EncodeError, Limits, x86};
use crate::{Entry, Frame, Mode, Protection, SwapSlot};

/// The bits of an entry that hold a physical address: 12 to 35.
pub const ADDRESS: u64 = ((1 << 36) - 1) & !0xfff;

/// What an entry can hold.
pub const LIMITS: Limits =
    Limits { frame: (1 << 24) - 1, area: 31, slot: (1 << 27) - 1, file_index: u32::MAX as u64 };

/// What an entry with this protection really allows: any access implies loads.
pub const fn effective(protection: Protection) -> Protection {
    super::x86_64::effective(protection)
}

/// The word for a leaf entry that code of privilege `mode` may use.
pub fn encode(entry: Entry, mode: Mode) -> Result<u64, EncodeError> {
    LIMITS.check(entry)?;
    Ok(match entry {
        Entry::None => 0,
        Entry::Present { frame, protection, accessed, dirty } => {
            (u64::from(frame.0) << 12) | x86::flags(protection, accessed, dirty, mode).bits()
        }
        Entry::Swap(slot) => (u64::from(slot.area) | (u64::from(slot.offset) << 5)) << 32,
        Entry::File(index) => (index << 32) | x86::FILE,
    })
}

/// The entry that a word stands for.
pub fn decode(raw: u64) -> Entry {
    let high = (raw >> 32) as u32;
    if raw == 0 {
        Entry::None
    } else if x86::is_present(raw) {
        x86::present(Frame(((raw & ADDRESS) >> 12) as u32), Bits::from_bits_truncate(raw))
    } else if raw & x86::FILE != 0 {
        Entry::File(u64::from(high))
    } else {
        Entry::Swap(SwapSlot { area: (high & 31) as u8, offset: high >> 5 })
    }
}
