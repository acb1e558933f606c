//! Errata: faults that a processor raises by mistake, and how the kernel's part of the computer knows them
//! (spec A24). Nothing else of the computer, and nothing of the memory manager, knows of any of them.
//!
//! | processor | erratum | remedy |
//! |---|---|---|
//! | x86-64, IA-32, PAE (AMD's K7 and K8) | a prefetch, which must never fault, faults now and then | look at the instruction: if it is a prefetch, run it again |
//! | x86-64 (K8, number 93) | on return from system management the instruction's address has lost its upper half | if the whole is the kernel's, go on there |
//! | IA-32, PAE (Intel's Pentium, "F00F") | a locked compare with a register stops the processor, unless the table of exceptions cannot be stored to: then it faults there | it was an illegal instruction |

use crate::arch::Architecture;
use crate::hardware::Hardware;
use crate::walk::{Marks, Walked, walk};
use pagefault_machine::{Erratum, Frame, Mode, PAGE_SIZE, PageFault, VirtAddr};

/// Which errata a kind of processor has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Errata {
    /// Prefetches fault now and then.
    pub stray_prefetches: bool,
    /// The upper half of an instruction's address can get lost; the kernel's text is in this half.
    pub lost_halves: Option<u64>,
    /// A locked compare with a register faults at the table of exceptions, which is here.
    pub locked_compares: Option<VirtAddr>,
}

/// The bytes of an entry of the table of exceptions on IA-32.
const GATE: u64 = 8;
/// The exception of an illegal instruction.
const ILLEGAL: u64 = 6;

impl<A: Architecture> Hardware<A> {
    /// The erratum behind a fault that cannot be corrected, if the processors have any.
    pub(crate) fn erratum(&self, root: Frame, fault: &PageFault) -> Option<Erratum> {
        if !self.config.errata {
            return None;
        }
        let Errata { stray_prefetches, lost_halves, locked_compares } = A::ERRATA;
        if stray_prefetches && self.is_prefetch(root, fault.ip) {
            return Some(Erratum::Stray);
        }
        let illegal = |table: VirtAddr| fault.address == table + ILLEGAL * GATE;
        if locked_compares.is_some_and(illegal) {
            return Some(Erratum::IllegalInstruction);
        }
        // The instruction itself cannot be fetched.
        let is_cut = fault.mode() == Mode::Kernel
            && fault.address == fault.ip
            && fault.ip != VirtAddr::ZERO
            && fault.ip.value() >> 32 == 0;
        let whole = lost_halves.map(|half| VirtAddr(half | fault.ip.value()));
        whole.filter(|whole| is_cut && self.is_mapped(root, *whole)).map(Erratum::LostHalf)
    }

    /// Whether the instruction at an address is a prefetch, as far as it can be read.
    fn is_prefetch(&self, root: Frame, ip: VirtAddr) -> bool {
        /// The longest instruction.
        const MOST: u64 = 15;
        let byte = |number: u64| self.byte(root, VirtAddr(ip.value().wrapping_add(number)));
        let is_prefix = |byte: u8| match byte {
            0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3 => true,
            0x40..=0x4f => A::ENTRY_BYTES == 8 && A::LEVELS == 4,
            _ => false,
        };
        let mut at = 0;
        while at < MOST && byte(at).is_some_and(is_prefix) {
            at += 1;
        }
        at + 1 < MOST && byte(at) == Some(0x0f) && matches!(byte(at + 1), Some(0x0d | 0x18))
    }

    fn byte(&self, root: Frame, at: VirtAddr) -> Option<u8> {
        let Walked::Found(leaf) = walk::<A>(&self.frames, root, at, Marks::Leave) else {
            return None;
        };
        let mut byte = [0];
        self.frames.load(leaf.frame, at.page_offset(), &mut byte);
        Some(byte[0])
    }

    fn is_mapped(&self, root: Frame, at: VirtAddr) -> bool {
        let page = VirtAddr(at.value() & !(PAGE_SIZE - 1));
        A::is_canonical(page) && self.byte(root, page).is_some()
    }
}
