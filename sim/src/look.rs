//! What an onlooker may see of a computer: its TLBs, its tables, a walk word by word.
//!
//! Nothing here changes anything; a walk leaves no accessed bit behind.

use crate::arch::Architecture;
use crate::cpu::Cpu;
use crate::space::SimSpace;
use crate::tlb::Translation;
use crate::walk::Place;
use pagefault_machine::{Frame, VirtAddr};

/// One entry on the way to a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalkStep {
    /// The level of the table, 1 for a leaf table.
    pub level: u32,
    /// The frame that holds the table.
    pub table: Frame,
    /// Which of its entries.
    pub index: usize,
    /// The entry.
    pub raw: u64,
}

/// A frame that holds a page table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TablePage {
    /// The frame.
    pub frame: Frame,
    /// Its level, 1 for a leaf table.
    pub level: u32,
    /// The first address that it covers.
    pub base: VirtAddr,
}

impl<A: Architecture> Cpu<A> {
    /// The translations in the TLB.
    pub fn translations(&self) -> Vec<Translation> {
        self.hw.cpus[self.number as usize].lock().tlb.iter().collect()
    }

    /// The translation that the TLB has for an address.
    pub fn translation(&self, address: VirtAddr) -> Option<Translation> {
        self.hw.cpus[self.number as usize].lock().tlb.find(address.page_number())
    }

    /// The number of the space whose root is loaded; 0: the kernel's own.
    pub fn loaded(&self) -> u32 {
        self.hw.cpus[self.number as usize].lock().loaded.id
    }
}

impl<A: Architecture> SimSpace<A> {
    /// The entries that a walk for an address meets, the root's first, down to the leaf entry or
    /// to the first that is not present.
    pub fn walk(&self, address: VirtAddr) -> Vec<WalkStep> {
        let mut steps = Vec::new();
        let mut table = self.table.root;
        for level in (1..=A::LEVELS).rev() {
            let index = A::index(address, level);
            let raw = self.hw.frames.entry::<A>(Place { table, index });
            steps.push(WalkStep { level, table, index, raw });
            table = A::frame(raw);
            if !A::is_present(raw) || !self.hw.frames.contains(table) {
                break;
            }
        }
        steps
    }

    /// The frames that hold this space's own tables, the root first.
    pub fn tables(&self) -> Vec<TablePage> {
        let mut pages = Vec::new();
        let root = TablePage { frame: self.table.root, level: A::LEVELS, base: VirtAddr::ZERO };
        self.collect(root, &mut pages);
        pages
    }

    fn collect(&self, page: TablePage, pages: &mut Vec<TablePage>) {
        pages.push(page);
        if page.level == 1 {
            return;
        }
        let users = A::index(A::KERNEL, A::LEVELS);
        let is_root = page.level == A::LEVELS;
        let is_reference = self.table.id == self.hw.reference.id;
        for index in 0..A::entries() {
            // Every other space shares the reference table's lower levels.
            if is_root && !is_reference && index >= users {
                break;
            }
            let raw = self.hw.frames.entry::<A>(Place { table: page.frame, index });
            let frame = A::frame(raw);
            if A::is_present(raw) && self.hw.frames.contains(frame) {
                let base = page.base.value() + ((index as u64) << A::shift(page.level));
                let base = VirtAddr(base);
                self.collect(TablePage { frame, level: page.level - 1, base }, pages);
            }
        }
    }
}
