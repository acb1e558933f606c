//! Alpha AXP: rights are withheld by fault-on bits, accessed and dirty are software's.
//!
//! The processor keeps neither bit. It keeps enables for loads and stores instead, and these are
//! clear until the page was accessed, or written: the first use faults, and the kernel sets the
//! software bit with the enable.

use super::{EncodeError, Limits};
use crate::{Entry, Frame, Protection, SwapSlot};

bitflags::bitflags! {
    /// The flag bits of an Alpha page-table entry.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Bits: u64 {
        /// The processor may use the entry.
        const VALID = 1 << 0;
        /// FOR: a load faults.
        const FAULT_ON_READ = 1 << 1;
        /// FOW: a store faults.
        const FAULT_ON_WRITE = 1 << 2;
        /// FOE: an instruction fetch faults.
        const FAULT_ON_EXECUTE = 1 << 3;
        /// KRE: the kernel may load.
        const KERNEL_READ = 1 << 8;
        /// URE: user mode may load.
        const USER_READ = 1 << 9;
        /// KWE: the kernel may store.
        const KERNEL_WRITE = 1 << 12;
        /// UWE: user mode may store.
        const USER_WRITE = 1 << 13;
        /// Software: the page was written.
        const DIRTY = 1 << 17;
        /// Software: the page was used.
        const ACCESSED = 1 << 18;
        /// Software, in an entry that is not valid: it is a page of a file.
        const FILE = 1 << 19;
    }
}

/// What an entry can hold.
pub const LIMITS: Limits =
    Limits { frame: u32::MAX, area: u8::MAX, slot: (1 << 24) - 1, file_index: u32::MAX as u64 };

/// What an entry with this protection really allows: exactly that.
pub const fn effective(protection: Protection) -> Protection {
    protection
}

/// The word for a leaf entry of a user page.
pub fn encode(entry: Entry) -> Result<u64, EncodeError> {
    LIMITS.check(entry)?;
    Ok(match entry {
        Entry::None => 0,
        Entry::Present { frame, protection, accessed, dirty } => {
            (u64::from(frame.0) << 32) | flags(protection, accessed, dirty).bits()
        }
        Entry::Swap(slot) => (u64::from(slot.area) << 32) | (u64::from(slot.offset) << 40),
        Entry::File(index) => (index << 32) | Bits::FILE.bits(),
    })
}

/// The entry that a word stands for.
pub fn decode(raw: u64) -> Entry {
    let bits = Bits::from_bits_truncate(raw);
    let high = (raw >> 32) as u32;
    if raw == 0 {
        Entry::None
    } else if bits.contains(Bits::VALID) {
        let mut protection = Protection::empty();
        protection.set(Protection::READ, !bits.contains(Bits::FAULT_ON_READ));
        protection.set(Protection::WRITE, !bits.contains(Bits::FAULT_ON_WRITE));
        protection.set(Protection::EXECUTE, !bits.contains(Bits::FAULT_ON_EXECUTE));
        let (accessed, dirty) = (bits.contains(Bits::ACCESSED), bits.contains(Bits::DIRTY));
        Entry::Present { frame: Frame(high), protection, accessed, dirty }
    } else if bits.contains(Bits::FILE) {
        Entry::File(u64::from(high))
    } else {
        Entry::Swap(SwapSlot { area: (high & 0xff) as u8, offset: high >> 8 })
    }
}

fn flags(protection: Protection, accessed: bool, dirty: bool) -> Bits {
    let mut bits = Bits::VALID;
    bits.set(Bits::FAULT_ON_READ, !protection.contains(Protection::READ));
    bits.set(Bits::FAULT_ON_WRITE, !protection.contains(Protection::WRITE));
    bits.set(Bits::FAULT_ON_EXECUTE, !protection.contains(Protection::EXECUTE));
    bits.set(Bits::ACCESSED | Bits::KERNEL_READ | Bits::USER_READ, accessed);
    bits.set(Bits::DIRTY | Bits::KERNEL_WRITE | Bits::USER_WRITE, dirty);
    bits
}
