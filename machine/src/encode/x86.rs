//! The low twelve bits and bit 63, which all x86 entries share.

use crate::{Entry, Frame, Mode, Protection};

bitflags::bitflags! {
    /// The flag bits of an x86 page-table entry.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Bits: u64 {
        /// P: the processor may use the entry.
        const PRESENT = 1 << 0;
        /// RW: stores are allowed.
        const WRITE = 1 << 1;
        /// US: user mode may use the translation.
        const USER = 1 << 2;
        /// PWT: write-through caching.
        const WRITE_THROUGH = 1 << 3;
        /// PCD: no caching.
        const NO_CACHE = 1 << 4;
        /// A: the processor used the entry.
        const ACCESSED = 1 << 5;
        /// D: the processor stored through the entry.
        const DIRTY = 1 << 6;
        /// With P clear, in a leaf entry: the page is there but satisfies no access (`PROT_NONE`).
        /// The processor reads the same bit as the page size (PS) in a present entry of an upper
        /// level and as PAT in a present leaf entry.
        const PROTECT_NONE = 1 << 7;
        /// G: the translation survives a change of the root.
        const GLOBAL = 1 << 8;
        /// NX: instruction fetches are forbidden. Not in IA-32's 32-bit entries.
        const NO_EXECUTE = 1 << 63;
    }
}

/// With P and `PROTECT_NONE` clear: the entry is a page of a file. The processor's D in a present
/// entry.
pub(super) const FILE: u64 = 1 << 6;

/// Whether the kernel counts a leaf entry as present: P, or `PROT_NONE`.
pub(super) const fn is_present(raw: u64) -> bool {
    raw & (Bits::PRESENT.bits() | Bits::PROTECT_NONE.bits()) != 0
}

/// The flag bits of a present entry.
#[inline(always)]
pub(super) fn flags(protection: Protection, accessed: bool, dirty: bool, mode: Mode) -> Bits {
    // Products of bits, since this is on the way of every fault: no jumps.
    let bit = |flag: Bits, set: bool| u64::from(set) * flag.bits();
    let is_none = protection.is_empty();
    Bits::from_bits_retain(
        bit(Bits::PROTECT_NONE, is_none)
            | bit(Bits::PRESENT, !is_none)
            | bit(Bits::WRITE, protection.contains(Protection::WRITE))
            | bit(Bits::NO_EXECUTE, !protection.contains(Protection::EXECUTE))
            | bit(Bits::USER, mode == Mode::User)
            // Kernel mappings are the same under every root.
            | bit(Bits::GLOBAL, mode == Mode::Kernel && !is_none)
            | bit(Bits::ACCESSED, accessed)
            | bit(Bits::DIRTY, dirty),
    )
}

/// The neutral form of an entry that [`is_present`].
#[inline]
pub(super) fn present(frame: Frame, bits: Bits) -> Entry {
    let has = |flag: Bits| bits.contains(flag);
    let right = |right: Protection, given: bool| u8::from(given) * right.bits();
    let rights = right(Protection::READ, true)
        | right(Protection::WRITE, has(Bits::WRITE))
        | right(Protection::EXECUTE, !has(Bits::NO_EXECUTE));
    let protection = Protection::from_bits_retain(u8::from(has(Bits::PRESENT)) * rights);
    Entry::Present { frame, protection, accessed: has(Bits::ACCESSED), dirty: has(Bits::DIRTY) }
}
