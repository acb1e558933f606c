//! Events, for an observer.

use crate::machine::{Access, Frame, SwapSlot, VirtAddr};
use alloc::sync::Arc;

/// Which correction a fault received (spec B4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Correction {
    /// A fresh page of zeros.
    Anonymous,
    /// The shared frame of zeros.
    Zero,
    /// A page of a file or shared object at its place.
    File,
    /// A page of a file out of its place.
    Nonlinear,
    /// Memory of a device.
    Device,
    /// A page brought back from swap.
    SwapIn,
    /// A private copy of a shared page.
    CopyOnWrite,
    /// The right to store, for a sole owner, or for the first store to a shared page.
    Reuse,
    /// The rights that reclaim had taken from the entry to see whether the page is used.
    Standby,
    /// Nothing: the entry allows the access already.
    Spurious,
}

/// The kind of page that was brought before its first touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ahead {
    /// A page that was in swap.
    Swapped,
    /// A page of zeros for memory that was never touched.
    Fresh,
}

/// Whether a fault waited for a device (spec A19).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Weight {
    /// No I/O was necessary.
    Minor,
    /// I/O was started or waited for.
    Major,
}

/// An event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A fault was corrected.
    Corrected {
        /// The number of the address space.
        space: u64,
        /// The address.
        address: VirtAddr,
        /// The kind of access.
        access: Access,
        /// The correction.
        correction: Correction,
        /// Whether a device was waited for.
        weight: Weight,
    },
    /// A fault was answered with a signal, a fixup or worse.
    Refused {
        /// The number of the address space.
        space: u64,
        /// The address.
        address: VirtAddr,
        /// The verdict on the faulting code.
        verdict: crate::entry::Verdict,
    },
    /// A page was written to swap.
    SwapOut {
        /// The frame that held it.
        frame: Frame,
        /// The slot.
        slot: SwapSlot,
    },
    /// A page was read from swap.
    SwapRead {
        /// The frame that holds it.
        frame: Frame,
        /// Where it came from.
        slot: SwapSlot,
    },
    /// A page of a file was read before its first touch.
    ReadAhead {
        /// The frame that holds it.
        frame: Frame,
    },
    /// A page was brought before it was touched.
    Brought {
        /// The number of the address space.
        space: u64,
        /// The address.
        address: VirtAddr,
        /// Which kind of page.
        ahead: Ahead,
    },
    /// Pages that were brought before they were touched turned out to be used.
    Used {
        /// Which kind of page.
        ahead: Ahead,
        /// How many.
        pages: u32,
    },
    /// A page that was brought before its first touch was evicted without a sign of use.
    Wasted {
        /// Which kind of page.
        ahead: Ahead,
    },
    /// A frame was freed by reclaim.
    Evicted {
        /// The frame.
        frame: Frame,
        /// Where it was mapped, the last place of several; `None` where it was in a cache alone.
        address: Option<VirtAddr>,
    },
}

/// Receives every event.
///
/// The thread of control that causes the event calls it, holding no lock that an observer could
/// need. The observer must not touch managed memory, and should be quick.
pub trait Observer: Send + Sync {
    /// Something happened.
    fn event(&self, event: &Event);
}

/// The embedder keeps the other handle, to read what was observed.
impl<O: Observer + ?Sized> Observer for Arc<O> {
    fn event(&self, event: &Event) {
        (**self).event(event);
    }
}
