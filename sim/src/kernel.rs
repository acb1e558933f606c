//! The kernel's part of every address space, and how it follows the reference table.

use crate::arch::Architecture;
use crate::computer::Computer;
use crate::hardware::Hardware;
use crate::stats::count;
use crate::walk::{Marks, Place, Walked, walk};
use core::fmt;
use core::ops::Range;
#[cfg(doc)]
use pagefault_machine::Machine;
use pagefault_machine::{Frame, Mode, VirtAddr};

/// Why a kernel address could not be synchronised with the reference table (spec A5, A6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncError {
    /// The address is not in the part of the kernel's addresses that is synchronised (spec A4).
    OutOfRange,
    /// The reference table maps nothing there.
    Unmapped,
    /// The running table names another table than the reference table: it is corrupt.
    Mismatch {
        /// The lower table that the running table names.
        running: Frame,
        /// The lower table that the reference table names.
        reference: Frame,
    },
}

impl fmt::Display for SyncError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfRange => f.write_str("the address is not one that is synchronised"),
            Self::Unmapped => f.write_str("the reference table maps nothing there"),
            Self::Mismatch { running, reference } => {
                write!(f, "the running table names {running:?}, the reference table {reference:?}")
            }
        }
    }
}

impl core::error::Error for SyncError {}

impl<A: Architecture> Computer<A> {
    /// The kernel addresses that are synchronised when they are first used (spec A4).
    pub fn synchronised(&self) -> Range<VirtAddr> {
        VirtAddr(A::SYNCHRONISED.start)..VirtAddr(A::SYNCHRONISED.end)
    }

    /// Copies the top-level entry for a kernel address from the reference table to the table whose
    /// root is given, if it is missing there.
    ///
    /// Takes no lock, because the interrupted code may be anywhere. Succeeds also where nothing had
    /// to be copied. [`Machine::synchronise`] does it for the root that is loaded, which need not be
    /// that of the current task's space (spec A5).
    pub fn synchronise_root(&self, root: Frame, address: VirtAddr) -> Result<(), SyncError> {
        self.hw.synchronise(root, address)
    }
}

impl<A: Architecture> Hardware<A> {
    /// Gives a new root the kernel's part as the reference table has it now.
    pub(crate) fn copy_kernel_part(&self, root: Frame) {
        // The upper half on x86-64 and Alpha, the last quarter on IA-32.
        for index in A::index(A::KERNEL, A::LEVELS)..A::entries() {
            let raw = self.frames.entry::<A>(Place { table: self.reference.root, index });
            self.frames.exchange_entry::<A>(Place { table: root, index }, raw);
        }
    }

    pub(crate) fn synchronise(&self, root: Frame, address: VirtAddr) -> Result<(), SyncError> {
        if A::mode(address) != Mode::Kernel || !A::SYNCHRONISED.contains(&address.value()) {
            return Err(SyncError::OutOfRange);
        }
        let index = A::index(address, A::LEVELS);
        let wanted = self.frames.entry::<A>(Place { table: self.reference.root, index });
        if !A::is_present(wanted) {
            return Err(SyncError::Unmapped);
        }
        let place = Place { table: root, index };
        let present = self.frames.entry::<A>(place);
        if !A::is_present(present) {
            self.frames.exchange_entry::<A>(place, wanted);
            count(&self.counters.synchronisations, 1);
        } else if A::frame(present) != A::frame(wanted) {
            let (running, reference) = (A::frame(present), A::frame(wanted));
            return Err(SyncError::Mismatch { running, reference });
        }
        // Without the leaf entry the access would fault forever.
        match walk::<A>(&self.frames, self.reference.root, address, Marks::Leave) {
            Walked::Found(_) => Ok(()),
            Walked::Missing | Walked::Reserved => Err(SyncError::Unmapped),
        }
    }
}
