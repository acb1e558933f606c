//! The processors that can be simulated.

mod alpha;
mod x86;

pub use alpha::Alpha;
pub use x86::{Ia32, Pae, X86_64};

use crate::errata::Errata;
use crate::tlb::Rights;
use core::fmt::Debug;
use core::ops::Range;
use pagefault_machine::encode::{EncodeError, Limits};
use pagefault_machine::{Entry, Frame, Mode, PAGE_SHIFT, PAGE_SIZE, VirtAddr};

/// A processor's form of page tables.
///
/// Levels count from 1, the leaf tables, up to [`Architecture::LEVELS`], the root. In every
/// processor's entries, bit 0 says whether the processor may use the entry.
pub trait Architecture: Debug + Send + Sync + Sized + 'static {
    /// What it is called on a command line.
    const NAME: &str;
    /// How many levels of tables there are.
    const LEVELS: u32;
    /// How many bits of the address select an entry of one table.
    const INDEX_BITS: u32;
    /// How many bytes an entry has.
    const ENTRY_BYTES: usize = 8;
    /// How many bytes of addresses a leaf table covers.
    const SPAN: u64 = 1 << (PAGE_SHIFT + Self::INDEX_BITS);
    /// Addresses from here on belong to the kernel (spec A3).
    const TASK_SIZE: VirtAddr;
    /// The first address whose top-level entry is the same in every space.
    const KERNEL: VirtAddr;
    /// The kernel addresses whose top-level entries are copied from the reference table when they
    /// are first needed (spec A4).
    const SYNCHRONISED: Range<u64>;
    /// Whether instruction fetches can be forbidden.
    const NO_EXECUTE: bool;
    /// Which of loads, stores and fetches have rights of their own.
    const RIGHTS: pagefault_machine::Rights = pagefault_machine::Rights::Implied;
    /// The bit that the processor sets in an entry that it uses; 0: it keeps none.
    const ACCESSED: u64;
    /// The bit that the processor sets in an entry that it stores through; 0: it keeps none.
    const DIRTY: u64;
    /// Which mistakes the processor makes.
    const ERRATA: Errata =
        Errata { stray_prefetches: false, lost_halves: None, locked_compares: None };
    /// The largest numbers that an entry can hold.
    const LIMITS: Limits;

    /// Whether the processor can put the address on its bus at all.
    fn is_canonical(address: VirtAddr) -> bool;
    /// The word for a leaf entry.
    fn encode(entry: Entry, mode: Mode) -> Result<u64, EncodeError>;
    /// The leaf entry that a word stands for.
    fn decode(raw: u64) -> Entry;
    /// The word of an upper level that names a table.
    fn table(frame: Frame, mode: Mode, level: u32) -> u64;
    /// The frame that a present word names.
    fn frame(raw: u64) -> Frame;
    /// What a present word of a level leaves of the rights.
    fn rights(raw: u64, level: u32) -> Rights;
    /// Whether a present word of a level has a bit set that the processor reserves (spec A10).
    fn is_reserved(raw: u64, level: u32) -> bool;
    /// Whether the translation of a leaf word outlives a change of the root.
    fn is_global(raw: u64) -> bool;
    /// The bits of a word by their names, the highest first.
    fn fields(raw: u64, level: u32) -> Vec<Field>;

    /// Whether the processor sets [`ACCESSED`](Self::ACCESSED) in the entries of an upper level too.
    fn marks_upper(_level: u32) -> bool {
        Self::ACCESSED != 0
    }

    /// Whether the processor may use an entry.
    fn is_present(raw: u64) -> bool {
        raw & 1 != 0
    }

    /// How many entries a table has.
    fn entries() -> usize {
        PAGE_SIZE as usize / Self::ENTRY_BYTES
    }

    /// Which bit of an address is the lowest that selects an entry of a table of `level`.
    fn shift(level: u32) -> u32 {
        PAGE_SHIFT + Self::INDEX_BITS * (level - 1)
    }

    /// Which entry of a table of `level` an address selects.
    fn index(address: VirtAddr, level: u32) -> usize {
        (address.value() >> Self::shift(level)) as usize & ((1 << Self::INDEX_BITS) - 1)
    }

    /// Who may use translations at an address.
    fn mode(address: VirtAddr) -> Mode {
        if address < Self::TASK_SIZE { Mode::User } else { Mode::Kernel }
    }
}

/// A part of an entry, as the processor's manual names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// The short name: `P`, `W`, `frame`.
    pub name: &'static str,
    /// The lowest bit.
    pub low: u32,
    /// How many bits.
    pub bits: u32,
    /// What they hold.
    pub value: u64,
    /// What that says, in words.
    pub meaning: &'static str,
}

/// Cuts fields of one bit or more out of a word.
fn cut(raw: u64, fields: &[(&'static str, u32, u32, &'static str)]) -> Vec<Field> {
    let cut = |&(name, low, bits, meaning): &(&'static str, u32, u32, &'static str)| {
        let value = raw >> low & (u64::MAX >> (64 - bits));
        Field { name, low, bits, value, meaning }
    };
    fields.iter().map(cut).collect()
}
