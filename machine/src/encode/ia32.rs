//! IA-32 with two levels: 32-bit entries, no bit that forbids instruction fetches.

pub use super::x86::Bits;
use super::{EncodeError, Limits, x86};
use crate::{Entry, Frame, Mode, Protection, SwapSlot};

/// The bits of an entry that hold a physical address: 12 to 31.
pub const ADDRESS: u32 = 0xffff_f000;

/// What an entry can hold.
pub const LIMITS: Limits =
    Limits { frame: (1 << 20) - 1, area: 31, slot: (1 << 24) - 1, file_index: (1 << 29) - 1 };

/// What an entry with this protection really allows: any access implies loads and fetches.
pub const fn effective(protection: Protection) -> Protection {
    if protection.is_empty() {
        protection
    } else {
        protection.union(Protection::READ).union(Protection::EXECUTE)
    }
}

/// The word for a leaf entry that code of privilege `mode` may use.
pub fn encode(entry: Entry, mode: Mode) -> Result<u32, EncodeError> {
    LIMITS.check(entry)?;
    Ok(match entry {
        Entry::None => 0,
        Entry::Present { frame, protection, accessed, dirty } => {
            // Bit 63 is not in the word: fetches cannot be forbidden.
            (frame.0 << 12) | x86::flags(protection, accessed, dirty, mode).bits() as u32
        }
        Entry::Swap(slot) => (u32::from(slot.area) << 1) | (slot.offset << 8),
        Entry::File(index) => {
            // Checked above to fit 29 bits. The index goes around bits 6 and 7.
            let index = index as u32;
            ((index & 31) << 1) | ((index >> 5) << 8) | x86::FILE as u32
        }
    })
}

/// The entry that a word stands for.
pub fn decode(raw: u32) -> Entry {
    if raw == 0 {
        Entry::None
    } else if x86::is_present(u64::from(raw)) {
        x86::present(frame(raw), Bits::from_bits_truncate(u64::from(raw)))
    } else if raw & x86::FILE as u32 != 0 {
        Entry::File(u64::from((raw >> 1 & 31) | (raw >> 8 << 5)))
    } else {
        Entry::Swap(SwapSlot { area: (raw >> 1 & 31) as u8, offset: raw >> 8 })
    }
}

/// The frame that a present entry of either level names.
pub const fn frame(raw: u32) -> Frame {
    Frame(raw >> 12)
}

/// The word of the page directory that names the table in `frame` and leaves every right to it.
pub const fn table(frame: Frame, mode: Mode) -> u32 {
    let bits = Bits::PRESENT.union(Bits::WRITE);
    let bits = match mode {
        Mode::User => bits.union(Bits::USER),
        Mode::Kernel => bits,
    };
    (frame.0 << 12) | bits.bits() as u32
}

/// The swap word of Linux 2.0, which had no `PROT_NONE` bit and gave the area's number seven bits.
pub fn encode_swap_r20(slot: SwapSlot) -> Result<u32, EncodeError> {
    let limits = Limits { area: 127, ..LIMITS };
    limits.check(Entry::Swap(slot))?;
    Ok((u32::from(slot.area) << 1) | (slot.offset << 8))
}

/// The slot of a swap word of Linux 2.0: every word that is neither zero nor present (spec F26).
pub fn decode_swap_r20(raw: u32) -> Option<SwapSlot> {
    let swapped = raw != 0 && raw & 1 == 0;
    swapped.then_some(SwapSlot { area: (raw >> 1 & 127) as u8, offset: raw >> 8 })
}
