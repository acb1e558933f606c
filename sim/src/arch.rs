//! The processors that can be simulated.

use core::fmt::Debug;
use core::ops::Range;
use pagefault_machine::encode::{EncodeError, Limits, ia32, x86_64};
use pagefault_machine::{Entry, Frame, Mode, PAGE_SHIFT, VirtAddr};

/// A processor's form of page tables.
///
/// Levels count from 1, the leaf tables, up to [`Architecture::LEVELS`], the root.
pub trait Architecture: Debug + Send + Sync + Sized + 'static {
    /// How many levels of tables there are.
    const LEVELS: u32;
    /// How many bits of the address select an entry of one table.
    const INDEX_BITS: u32;
    /// How many bytes of addresses a leaf table covers.
    const SPAN: u64 = 1 << (PAGE_SHIFT + Self::INDEX_BITS);
    /// Addresses from here on belong to the kernel (spec A3).
    const TASK_SIZE: VirtAddr;
    /// The kernel addresses whose top-level entries are copied from the reference table when they
    /// are first needed (spec A4).
    const SYNCHRONISED: Range<u64>;
    /// Bits that must be clear in a present entry.
    const RESERVED: u64;
    /// Whether instruction fetches can be forbidden.
    const NO_EXECUTE: bool;
    /// The largest numbers that an entry can hold.
    const LIMITS: Limits;

    /// Whether the processor can put the address on its bus at all.
    fn is_canonical(address: VirtAddr) -> bool;
    /// The word for a leaf entry.
    fn encode(entry: Entry, mode: Mode) -> Result<u64, EncodeError>;
    /// The leaf entry that a word stands for.
    fn decode(raw: u64) -> Entry;
    /// The word of an upper level that names a table.
    fn table(frame: Frame, mode: Mode) -> u64;
    /// The frame that a present word names.
    fn frame(raw: u64) -> Frame;

    /// How many entries a table has.
    fn entries() -> usize {
        1 << Self::INDEX_BITS
    }

    /// Which entry of a table of `level` an address selects.
    fn index(address: VirtAddr, level: u32) -> usize {
        let shift = PAGE_SHIFT + Self::INDEX_BITS * (level - 1);
        (address.value() >> shift) as usize & (Self::entries() - 1)
    }

    /// Who may use translations at an address.
    fn mode(address: VirtAddr) -> Mode {
        if address < Self::TASK_SIZE { Mode::User } else { Mode::Kernel }
    }
}

/// The x86-64 processor: four levels of 512 entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum X86_64 {}

impl Architecture for X86_64 {
    const LEVELS: u32 = 4;
    const INDEX_BITS: u32 = 9;
    const TASK_SIZE: VirtAddr = VirtAddr((1 << 47) - 4096);
    const SYNCHRONISED: Range<u64> = 0xffff_c200_0000_0000..0xffff_e200_0000_0000;
    const RESERVED: u64 = x86_64::RESERVED;
    const NO_EXECUTE: bool = true;
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

    fn table(frame: Frame, mode: Mode) -> u64 {
        x86_64::table(frame, mode)
    }

    fn frame(raw: u64) -> Frame {
        x86_64::frame(raw)
    }
}

/// The IA-32 processor without physical-address extension: two levels of 1,024 entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ia32 {}

impl Architecture for Ia32 {
    const LEVELS: u32 = 2;
    const INDEX_BITS: u32 = 10;
    const TASK_SIZE: VirtAddr = VirtAddr(0xc000_0000);
    const SYNCHRONISED: Range<u64> = 0xc000_0000..0x1_0000_0000;
    const RESERVED: u64 = 0;
    const NO_EXECUTE: bool = false;
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

    fn table(frame: Frame, mode: Mode) -> u64 {
        u64::from(ia32::table(frame, mode))
    }

    fn frame(raw: u64) -> Frame {
        ia32::frame(raw as u32)
    }
}
