//! The exception table: the kernel instructions that may fault, and where each continues then.
//!
//! An instruction that touches user memory on a program's behalf may fault at an address that no
//! correction fixes. The table lists such instructions, each with the address of code that reports
//! the failure. The fault handler looks up the faulting instruction and changes only the
//! instruction pointer (spec H1, A21). A fault of any other kernel instruction is a bug of the
//! kernel.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use pagefault_machine::VirtAddr;

/// The exception tables of a kernel and its modules; Linux's `search_exception_tables`.
///
/// A lookup searches the kernel's table first and then the modules' in the order in which they were
/// added, each by binary search. It takes no lock and allocates nothing, since it is made while a
/// fault is handled.
///
/// ```
/// use pagefault::exception::{ExceptionTable, ExceptionTables};
/// use pagefault_machine::VirtAddr;
///
/// let mut builder = ExceptionTable::builder();
/// builder.add(VirtAddr(0x1000), VirtAddr(0x9000));
/// let tables = ExceptionTables::new(builder.build().unwrap());
/// assert_eq!(tables.fixup(VirtAddr(0x1000)), Some(VirtAddr(0x9000)));
/// assert_eq!(tables.fixup(VirtAddr(0x1001)), None);
/// ```
#[derive(Clone, Debug, Default)]
pub struct ExceptionTables {
    kernel: ExceptionTable,
    modules: Vec<(ModuleId, ExceptionTable)>,
    next: ModuleId,
}

/// Names a module's table among [`ExceptionTables`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ModuleId(u64);

impl ExceptionTables {
    /// The kernel's own table, and no modules.
    pub const fn new(kernel: ExceptionTable) -> Self {
        Self { kernel, modules: Vec::new(), next: ModuleId(0) }
    }

    /// Where the instruction at `ip` continues when it faults, or `None` if it must not fault.
    pub fn fixup(&self, ip: VirtAddr) -> Option<VirtAddr> {
        let modules = self.modules.iter().map(|(_, table)| table);
        core::iter::once(&self.kernel).chain(modules).find_map(|table| table.fixup(ip))
    }

    /// Adds the table of a module that was loaded.
    pub fn add_module(&mut self, table: ExceptionTable) -> ModuleId {
        let id = self.next;
        self.next = ModuleId(id.0 + 1);
        self.modules.push((id, table));
        id
    }

    /// Takes out the table of a module that is unloaded; `None` if it is already out.
    pub fn remove_module(&mut self, module: ModuleId) -> Option<ExceptionTable> {
        let at = self.modules.iter().position(|(id, _)| *id == module)?;
        Some(self.modules.remove(at).1)
    }
}

/// One sorted table of pairs of an instruction and its fixup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExceptionTable {
    pairs: Box<[Pair]>,
}

/// Linux's `exception_table_entry`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pair {
    ip: VirtAddr,
    fixup: VirtAddr,
}

impl ExceptionTable {
    /// Starts a table.
    pub const fn builder() -> ExceptionTableBuilder {
        ExceptionTableBuilder { pairs: Vec::new() }
    }

    /// Where the instruction at exactly `ip` continues when it faults.
    pub fn fixup(&self, ip: VirtAddr) -> Option<VirtAddr> {
        let at = self.pairs.binary_search_by_key(&ip, |pair| pair.ip).ok()?;
        Some(self.pairs[at].fixup)
    }

    /// The number of instructions listed.
    pub const fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether no instruction is listed.
    pub const fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }
}

/// Collects the pairs of an [`ExceptionTable`] in any order.
#[derive(Clone, Debug, Default)]
pub struct ExceptionTableBuilder {
    pairs: Vec<Pair>,
}

/// An instruction is listed twice, so its fixup is ambiguous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DuplicateInstruction(pub VirtAddr);

impl fmt::Display for DuplicateInstruction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the instruction at {:?} is listed twice", self.0)
    }
}

impl core::error::Error for DuplicateInstruction {}

impl ExceptionTableBuilder {
    /// Lists the instruction at `ip`, which continues at `fixup` when it faults.
    pub fn add(&mut self, ip: VirtAddr, fixup: VirtAddr) -> &mut Self {
        self.pairs.push(Pair { ip, fixup });
        self
    }

    /// Sorts the pairs; fails with the lowest instruction that is listed more than once.
    pub fn build(mut self) -> Result<ExceptionTable, DuplicateInstruction> {
        self.pairs.sort_unstable_by_key(|pair| pair.ip);
        match self.pairs.windows(2).find(|pair| pair[0].ip == pair[1].ip) {
            Some(twice) => Err(DuplicateInstruction(twice[0].ip)),
            None => Ok(ExceptionTable { pairs: self.pairs.into_boxed_slice() }),
        }
    }
}

#[cfg(test)]
mod tests;
