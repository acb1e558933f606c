//! x86-64 and its four levels: 64-bit entries with a bit that forbids instruction fetches.

pub use super::x86::Bits;
use super::{EncodeError, Limits, x86};
use crate::{Entry, Frame, Mode, Protection, SwapSlot};

/// The bits of an entry that hold a physical address: 12 to 45 (46-bit physical addresses).
pub const ADDRESS: u64 = ((1 << 46) - 1) & !0xfff;

/// The bits of a present entry that must be clear: physical address bits that the processor does
/// not have.
pub const RESERVED: u64 = ((1 << 52) - 1) & !((1 << 46) - 1);

/// What an entry can hold.
///
/// The file index has the 34 bits that survive the physical-address mask on the way back, not the
/// 46 that Linux 2.6.24 claimed (spec F3). The frame is limited by [`Frame`] itself.
pub const LIMITS: Limits =
    Limits { frame: u32::MAX, area: 31, slot: u32::MAX, file_index: (1 << 34) - 1 };

/// What an entry with this protection really allows: any access implies loads.
pub const fn effective(protection: Protection) -> Protection {
    if protection.is_empty() { protection } else { protection.union(Protection::READ) }
}

/// The word for a leaf entry that code of privilege `mode` may use.
#[inline(always)]
pub fn encode(entry: Entry, mode: Mode) -> Result<u64, EncodeError> {
    LIMITS.check(entry)?;
    Ok(match entry {
        Entry::None => 0,
        Entry::Present { frame, protection, accessed, dirty } => {
            (u64::from(frame.0) << 12) | x86::flags(protection, accessed, dirty, mode).bits()
        }
        Entry::Swap(slot) => (u64::from(slot.area) << 1) | (u64::from(slot.offset) << 8),
        Entry::File(index) => (index << 12) | x86::FILE,
    })
}

/// The entry that a word stands for.
///
/// Frame numbers are cut to the 32 bits that [`Frame`] has; [`encode`] makes no larger one.
#[inline]
pub fn decode(raw: u64) -> Entry {
    if raw == 0 {
        Entry::None
    } else if x86::is_present(raw) {
        x86::present(frame(raw), Bits::from_bits_truncate(raw))
    } else if raw & x86::FILE != 0 {
        Entry::File((raw & ADDRESS) >> 12)
    } else {
        Entry::Swap(SwapSlot { area: (raw >> 1 & 31) as u8, offset: (raw >> 8) as u32 })
    }
}

/// The frame that a present entry of any level names.
pub const fn frame(raw: u64) -> Frame {
    Frame(((raw & ADDRESS) >> 12) as u32)
}

/// The word of an upper level that names the table in `frame` and leaves every right to the lower
/// levels.
pub const fn table(frame: Frame, mode: Mode) -> u64 {
    let bits = Bits::PRESENT.union(Bits::WRITE);
    let bits = match mode {
        Mode::User => bits.union(Bits::USER),
        Mode::Kernel => bits,
    };
    ((frame.0 as u64) << 12) | bits.bits()
}
