//! Digital's Alpha (spec A17, F3).

use super::{Architecture, Field, cut};
use crate::tlb::Rights;
use core::ops::Range;
use pagefault_machine::encode::alpha::{self, Bits};
use pagefault_machine::encode::{EncodeError, Limits};
use pagefault_machine::{Entry, Frame, Mode, PAGE_SHIFT, VirtAddr};

/// How many bits of an address the three levels and the page's offset use.
const WIDTH: u32 = PAGE_SHIFT + 3 * (PAGE_SHIFT - 3);

/// The Alpha AXP: three levels, rights withheld by fault-on bits, no accessed and no dirty bit.
///
/// A table fills a page, so that a page of 8 KiB, as Alpha has them, holds 1,024 entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alpha {}

impl Architecture for Alpha {
    const NAME: &str = "alpha";
    const LEVELS: u32 = 3;
    const INDEX_BITS: u32 = PAGE_SHIFT - 3;
    const TASK_SIZE: VirtAddr = VirtAddr(1 << (WIDTH - 1));
    const KERNEL: VirtAddr = VirtAddr(u64::MAX << (WIDTH - 1));
    /// The upper half of the kernel's part, as on Linux; the lower half is physical memory.
    const SYNCHRONISED: Range<u64> =
        Range { start: Self::KERNEL.0 | 1 << (WIDTH - 2), end: u64::MAX };
    const NO_EXECUTE: bool = true;
    const RIGHTS: pagefault_machine::Rights = pagefault_machine::Rights::Each;
    const ACCESSED: u64 = 0;
    const DIRTY: u64 = 0;
    const LIMITS: Limits = alpha::LIMITS;

    fn is_canonical(address: VirtAddr) -> bool {
        let top = address.value() as i64 >> (WIDTH - 1);
        top == 0 || top == -1
    }

    fn encode(entry: Entry, mode: Mode) -> Result<u64, EncodeError> {
        let user = Bits::USER_READ | Bits::USER_WRITE;
        let raw = alpha::encode(entry)?;
        let is_kernels = mode == Mode::Kernel && entry.frame().is_some();
        Ok(if is_kernels { raw & !user.bits() } else { raw })
    }

    fn decode(raw: u64) -> Entry {
        alpha::decode(raw)
    }

    fn table(frame: Frame, _mode: Mode, _level: u32) -> u64 {
        let bits = Bits::VALID | Bits::KERNEL_READ | Bits::KERNEL_WRITE;
        u64::from(frame.0) << 32 | bits.bits()
    }

    fn frame(raw: u64) -> Frame {
        Frame((raw >> 32) as u32)
    }

    fn rights(raw: u64, level: u32) -> Rights {
        if level > 1 {
            return Rights::ALL;
        }
        let has = |bit: Bits| raw & bit.bits() != 0;
        let (read, write) = (has(Bits::KERNEL_READ), has(Bits::KERNEL_WRITE));
        Rights {
            read: read && !has(Bits::FAULT_ON_READ),
            write: write && !has(Bits::FAULT_ON_WRITE),
            execute: read && !has(Bits::FAULT_ON_EXECUTE),
            user: has(Bits::USER_READ | Bits::USER_WRITE),
        }
    }

    fn is_reserved(_raw: u64, _level: u32) -> bool {
        false
    }

    fn is_global(raw: u64) -> bool {
        // Only the kernel's entries are closed to user mode altogether.
        raw & (Bits::USER_READ | Bits::USER_WRITE).bits() == 0
    }

    fn fields(raw: u64, level: u32) -> Vec<Field> {
        let frame = ("frame", 32, 32, "the frame that it names");
        if raw & 1 == 0 {
            return match alpha::decode(raw) {
                Entry::Swap(_) => {
                    let slot = ("slot", 40, 24, "the slot in the swap area");
                    cut(raw, &[slot, ("area", 32, 8, "the swap area"), INVALID])
                }
                Entry::File(_) => {
                    let page = ("page", 32, 32, "the page of the file");
                    cut(
                        raw,
                        &[page, ("FILE", 19, 1, "a page of the file, out of its place"), INVALID],
                    )
                }
                _ => cut(raw, &[INVALID]),
            };
        }
        if level > 1 {
            return cut(raw, &[frame, VALID]);
        }
        cut(
            raw,
            &[
                frame,
                ("A", 18, 1, "software: the page was used"),
                ("D", 17, 1, "software: the page was written"),
                ("UWE", 13, 1, "user mode may store"),
                ("KWE", 12, 1, "the kernel may store"),
                ("URE", 9, 1, "user mode may load"),
                ("KRE", 8, 1, "the kernel may load"),
                ("FOE", 3, 1, "fault on execute"),
                ("FOW", 2, 1, "fault on write"),
                ("FOR", 1, 1, "fault on read"),
                VALID,
            ],
        )
    }
}

const VALID: (&str, u32, u32, &str) = ("V", 0, 1, "valid: the processor may use it");
const INVALID: (&str, u32, u32, &str) = ("V", 0, 1, "valid: 0, the rest is the kernel's");
