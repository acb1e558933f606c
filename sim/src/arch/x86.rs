//! Intel's and AMD's processors.

use super::{Architecture, Field, cut};
use crate::errata::Errata;
use crate::tlb::Rights;
use core::ops::Range;
use pagefault_machine::encode::{EncodeError, Limits, ia32, pae, x86_64};
use pagefault_machine::{Entry, Frame, Mode, VirtAddr};
use x86_64::Bits;

/// The x86-64 processor: four levels of 512 entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum X86_64 {}

/// The IA-32 processor without physical-address extension: two levels of 1,024 entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ia32 {}

/// The IA-32 processor with physical-address extension: entries of 64 bits in two levels of 512,
/// below four pointers that have no rights of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pae {}

impl Architecture for X86_64 {
    const NAME: &str = "x86-64";
    const LEVELS: u32 = 4;
    const INDEX_BITS: u32 = 9;
    const TASK_SIZE: VirtAddr = VirtAddr((1 << 47) - 4096);
    const KERNEL: VirtAddr = VirtAddr(0xffff_8000_0000_0000);
    const SYNCHRONISED: Range<u64> = 0xffff_c200_0000_0000..0xffff_e200_0000_0000;
    const NO_EXECUTE: bool = true;
    const ACCESSED: u64 = Bits::ACCESSED.bits();
    const DIRTY: u64 = Bits::DIRTY.bits();
    const ERRATA: Errata = Errata {
        stray_prefetches: true,
        lost_halves: Some(0xffff_ffff_0000_0000),
        locked_compares: None,
    };
    const LIMITS: Limits = x86_64::LIMITS;

    fn is_canonical(address: VirtAddr) -> bool {
        let top = address.value() >> 47;
        top == 0 || top == (1 << 17) - 1
    }

    fn encode(entry: Entry, mode: Mode) -> Result<u64, EncodeError> {
        x86_64::encode(entry, mode)
    }

    fn decode(raw: u64) -> Entry {
        x86_64::decode(raw)
    }

    fn table(frame: Frame, mode: Mode, _level: u32) -> u64 {
        x86_64::table(frame, mode)
    }

    fn frame(raw: u64) -> Frame {
        x86_64::frame(raw)
    }

    fn rights(raw: u64, _level: u32) -> Rights {
        rights(raw)
    }

    fn is_reserved(raw: u64, level: u32) -> bool {
        raw & x86_64::RESERVED != 0 || is_large(raw, level)
    }

    fn is_global(raw: u64) -> bool {
        raw & Bits::GLOBAL.bits() != 0
    }

    fn fields(raw: u64, level: u32) -> Vec<Field> {
        if raw & 1 == 0 {
            return match Self::decode(raw) {
                Entry::Swap(_) => cut(raw, &[SLOT_FROM_8, AREA, ABSENT]),
                Entry::File(_) => cut(raw, &[("page", 12, 34, IN_FILE), FILE, ABSENT]),
                Entry::Present { .. } => cut(raw, &[("frame", 12, 34, FRAME), NONE, ABSENT]),
                Entry::None => cut(raw, &[ABSENT]),
            };
        }
        let frame = ("frame", 12, 34, FRAME);
        match level {
            1 => cut(raw, &[NX, frame, G, D, A, US, RW, P]),
            _ => cut(raw, &[NX, frame, A, US, RW, P]),
        }
    }
}

impl Architecture for Ia32 {
    const NAME: &str = "ia32";
    const LEVELS: u32 = 2;
    const INDEX_BITS: u32 = 10;
    const ENTRY_BYTES: usize = 4;
    const TASK_SIZE: VirtAddr = VirtAddr(0xc000_0000);
    const KERNEL: VirtAddr = VirtAddr(0xc000_0000);
    const SYNCHRONISED: Range<u64> = 0xc000_0000..0x1_0000_0000;
    const NO_EXECUTE: bool = false;
    const ACCESSED: u64 = Bits::ACCESSED.bits();
    const DIRTY: u64 = Bits::DIRTY.bits();
    const ERRATA: Errata = ERRATA_32;
    const LIMITS: Limits = ia32::LIMITS;

    fn is_canonical(address: VirtAddr) -> bool {
        address.value() >> 32 == 0
    }

    fn encode(entry: Entry, mode: Mode) -> Result<u64, EncodeError> {
        ia32::encode(entry, mode).map(u64::from)
    }

    fn decode(raw: u64) -> Entry {
        ia32::decode(raw as u32)
    }

    fn table(frame: Frame, mode: Mode, _level: u32) -> u64 {
        u64::from(ia32::table(frame, mode))
    }

    fn frame(raw: u64) -> Frame {
        ia32::frame(raw as u32)
    }

    fn rights(raw: u64, _level: u32) -> Rights {
        rights(raw)
    }

    fn is_reserved(raw: u64, level: u32) -> bool {
        is_large(raw, level)
    }

    fn is_global(raw: u64) -> bool {
        raw & Bits::GLOBAL.bits() != 0
    }

    fn fields(raw: u64, level: u32) -> Vec<Field> {
        let frame = ("frame", 12, 20, FRAME);
        if raw & 1 == 0 {
            return match Self::decode(raw) {
                Entry::Swap(_) => cut(raw, &[("slot", 8, 24, IN_SWAP), AREA, ABSENT]),
                Entry::File(_) => {
                    let (high, low) = (("page high", 8, 24, IN_FILE), ("page low", 1, 5, IN_FILE));
                    cut(raw, &[high, FILE, low, ABSENT])
                }
                Entry::Present { .. } => cut(raw, &[frame, NONE, ABSENT]),
                Entry::None => cut(raw, &[ABSENT]),
            };
        }
        match level {
            1 => cut(raw, &[frame, G, D, A, US, RW, P]),
            _ => cut(raw, &[frame, A, US, RW, P]),
        }
    }
}

impl Architecture for Pae {
    const NAME: &str = "pae";
    const LEVELS: u32 = 3;
    const INDEX_BITS: u32 = 9;
    const TASK_SIZE: VirtAddr = VirtAddr(0xc000_0000);
    const KERNEL: VirtAddr = VirtAddr(0xc000_0000);
    const SYNCHRONISED: Range<u64> = 0xc000_0000..0x1_0000_0000;
    const NO_EXECUTE: bool = true;
    const ACCESSED: u64 = Bits::ACCESSED.bits();
    const DIRTY: u64 = Bits::DIRTY.bits();
    const ERRATA: Errata = ERRATA_32;
    const LIMITS: Limits = pae::LIMITS;

    fn is_canonical(address: VirtAddr) -> bool {
        address.value() >> 32 == 0
    }

    fn encode(entry: Entry, mode: Mode) -> Result<u64, EncodeError> {
        pae::encode(entry, mode)
    }

    fn decode(raw: u64) -> Entry {
        pae::decode(raw)
    }

    fn table(frame: Frame, mode: Mode, level: u32) -> u64 {
        match level {
            // The bits of the four pointers where others have rights are reserved.
            Self::LEVELS => u64::from(frame.0) << 12 | Bits::PRESENT.bits(),
            _ => x86_64::table(frame, mode),
        }
    }

    fn frame(raw: u64) -> Frame {
        Frame(((raw & pae::ADDRESS) >> 12) as u32)
    }

    fn rights(raw: u64, level: u32) -> Rights {
        if level == Self::LEVELS { Rights::ALL } else { rights(raw) }
    }

    fn is_reserved(raw: u64, level: u32) -> bool {
        let pointer = Bits::WRITE | Bits::USER | Bits::NO_EXECUTE;
        let above = !pae::ADDRESS & !0xfff & !Bits::NO_EXECUTE.bits();
        raw & above != 0
            || is_large(raw, level)
            || level == Self::LEVELS && raw & pointer.bits() != 0
    }

    fn is_global(raw: u64) -> bool {
        raw & Bits::GLOBAL.bits() != 0
    }

    fn marks_upper(level: u32) -> bool {
        level < Self::LEVELS
    }

    fn fields(raw: u64, level: u32) -> Vec<Field> {
        let frame = ("frame", 12, 24, FRAME);
        if raw & 1 == 0 {
            return match Self::decode(raw) {
                Entry::Swap(_) => {
                    cut(raw, &[("slot", 37, 27, IN_SWAP), ("area", 32, 5, SWAP_AREA), ABSENT])
                }
                Entry::File(_) => cut(raw, &[("page", 32, 32, IN_FILE), FILE, ABSENT]),
                Entry::Present { .. } => cut(raw, &[frame, NONE, ABSENT]),
                Entry::None => cut(raw, &[ABSENT]),
            };
        }
        match level {
            1 => cut(raw, &[NX, frame, G, D, A, US, RW, P]),
            Self::LEVELS => cut(raw, &[frame, P]),
            _ => cut(raw, &[NX, frame, A, US, RW, P]),
        }
    }
}

/// The table of exceptions is among the kernel's fixed mappings.
const ERRATA_32: Errata = Errata {
    stray_prefetches: true,
    lost_halves: None,
    locked_compares: Some(VirtAddr(0xffff_b000)),
};

type Named = (&'static str, u32, u32, &'static str);

const FRAME: &str = "the frame that it names";
const IN_SWAP: &str = "the slot in the swap area";
const IN_FILE: &str = "the page of the file";
const SWAP_AREA: &str = "the swap area";
const P: Named = ("P", 0, 1, "present: the processor may use it");
const ABSENT: Named = ("P", 0, 1, "present: 0, the rest is the kernel's");
const RW: Named = ("W", 1, 1, "stores are allowed");
const US: Named = ("U", 2, 1, "user mode may use it");
const A: Named = ("A", 5, 1, "accessed: the processor used it");
const D: Named = ("D", 6, 1, "dirty: the processor stored through it");
const G: Named = ("G", 8, 1, "global: outlives a change of the root");
const NX: Named = ("NX", 63, 1, "fetches are forbidden");
const NONE: Named = ("NONE", 7, 1, "a page that satisfies no access");
const FILE: Named = ("FILE", 6, 1, "a page of the file, out of its place");
const AREA: Named = ("area", 1, 5, SWAP_AREA);
const SLOT_FROM_8: Named = ("slot", 8, 32, IN_SWAP);

fn rights(raw: u64) -> Rights {
    let has = |bit: Bits| raw & bit.bits() != 0;
    let execute = !has(Bits::NO_EXECUTE);
    Rights { read: true, write: has(Bits::WRITE), user: has(Bits::USER), execute }
}

/// These processors have pages of 4 KiB only, so that the page-size bit is reserved.
fn is_large(raw: u64, level: u32) -> bool {
    level > 1 && raw & Bits::PROTECT_NONE.bits() != 0
}
