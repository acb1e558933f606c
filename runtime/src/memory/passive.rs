//! Passive mode: as long as everything that could be resident in the tree fits the limit, the host
//! owns the pages.
//!
//! In a passive process the memory manager only follows the mappings. No range is registered, so the
//! host handles faults, and calls need no pins. The process is charged for its *bound*, the memory
//! that it could have resident. A mapping or a forked child that does not fit, a reclaim request, and locked
//! memory make it *active*, for good (`convert`).
//!
//! The mode changes under the gate held exclusively. A call that the host makes meanwhile has
//! nothing pinned. So each thread first notes its call ([`note`]), and the conversion pins for it.
//! Either the call sees the new mode, or the conversion sees the call: both write their own word
//! before they read the other's.

use super::ranges::Ranges;
use super::remap::Origin;
use super::{GATE, Manager, PAGE, Pins, convert};
use crate::lock::Mutex;
use crate::process;
use crate::stops::Gate;
use crate::thread::Thread;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::ops::Range;
use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering::SeqCst;
use lock_api::RwLockReadGuard;
use pagefault_control::Keeper;
use pagefault_machine::Protection;

/// Whether the process is passive.
static PASSIVE: AtomicBool = AtomicBool::new(false);

/// Whether the process is passive; stable as long as the caller holds the gate, shared or
/// exclusively.
pub fn is_passive() -> bool {
    PASSIVE.load(SeqCst)
}

/// Ends passive mode, under the gate held exclusively; returns whether it was on.
pub(super) fn end() -> bool {
    PASSIVE.swap(false, SeqCst)
}

/// Keeps a passive process passive until the guard is dropped; `None` if it is active.
pub fn stay() -> Option<RwLockReadGuard<'static, Gate, ()>> {
    if !is_passive() {
        return None;
    }
    let gate = GATE.read();
    is_passive().then_some(gate)
}

/// Makes the process active, if it is passive.
pub fn leave(manager: &Manager) {
    if is_passive() {
        let _gate = GATE.write();
        manager.convert(&(0..0));
    }
}

/// Notes in the process's slot whether it is passive.
pub(super) fn say(manager: &Manager) {
    if let Some(slot) =
        process::control().and_then(|control| control.slots.get(manager.tree.slot()))
    {
        slot.set_keeper(if is_passive() { Keeper::Host } else { Keeper::Runtime });
    }
}

/// The charge of a passive process.
#[derive(Default)]
pub struct Bound {
    /// The memory that is or was writable.
    pub(super) stored: Ranges,
    /// The charged pages.
    pub(super) paid: u64,
    /// The ranges in which the host may drop pages without a new store (`MADV_FREE`).
    pub(super) freed: Ranges,
}

/// The bound of a process that has nothing yet.
pub const fn no_bound() -> Mutex<Bound> {
    Mutex::new(Bound { stored: Ranges::new(), paid: 0, freed: Ranges::new() })
}

impl Manager {
    /// Begins passive, if the tree has room for the program's initial memory.
    pub(super) fn begin_passive(&self, image: &[Range<u64>]) {
        let mut bound = self.bound.lock();
        for range in image {
            bound.stored.insert(range);
        }
        let pages = bound.stored.len() / PAGE;
        if self.tree.charge(pages) {
            bound.paid = pages;
            PASSIVE.store(true, SeqCst);
        }
        say(self);
    }

    /// Pays for ranges that become writable, or converts. The gate is held exclusively, and the
    /// process is passive. The range `empty` has no page yet.
    pub(super) fn cover(&self, ranges: &[Range<u64>], empty: &Range<u64>) {
        let paid = {
            let mut bound = self.bound.lock();
            let more = ranges.iter().map(|range| bound.stored.insert(range)).sum::<u64>() / PAGE;
            let paid = self.tree.charge(more);
            bound.paid += if paid { more } else { 0 };
            paid
        };
        if !paid {
            self.convert(empty);
        }
    }

    /// Gives back the charge for a range that is gone. The gate is held exclusively.
    pub(super) fn uncover(&self, range: &Range<u64>) {
        if is_passive() {
            let mut bound = self.bound.lock();
            let less = bound.stored.remove(range) / PAGE;
            bound.freed.remove(range);
            bound.paid -= less;
            self.tree.uncharge(less);
        }
    }

    /// Makes the host keep droppable pages in a range that is about to become read-only. The gate
    /// is held exclusively.
    pub(super) fn keep_freed(&self, range: &Range<u64>) {
        let mut bound = self.bound.lock();
        if bound.freed.len() == 0 {
            return;
        }
        let mut standing = convert::look();
        for freed in bound.freed.within(range) {
            let _ = standing.runs(freed.clone(), |run| {
                convert::keep(&run);
                Ok(())
            });
            bound.freed.remove(&freed);
        }
    }

    /// Follows a move of a passive process's mapping; the region has moved already.
    pub(super) fn cover_moved(&self, old: &Range<u64>, new: &Range<u64>, origin: Origin) {
        let to =
            |part: Range<u64>| part.start - old.start + new.start..part.end - old.start + new.start;
        let [mut stored, freed] = {
            let bound = self.bound.lock();
            [&bound.stored, &bound.freed]
                .map(|ranges| ranges.within(old).into_iter().map(to).collect::<Vec<_>>())
        };
        if origin == Origin::Goes {
            self.uncover(old);
        }
        for part in &freed {
            self.bound.lock().freed.insert(part);
        }
        let writable = |(_, protection): &(_, Protection)| protection.contains(Protection::WRITE);
        stored.extend(self.parts(new).into_iter().filter(writable).map(|(part, _)| part));
        self.cover(&stored, &(0..0));
    }
}

/// A call of the program's that the host makes while the process is passive.
pub struct Flight {
    under_way: AtomicBool,
    call: Cell<(u32, [u64; 6])>,
    /// The pages that the conversion has pinned for it.
    pins: RefCell<Pins>,
}

impl Flight {
    /// No call.
    pub const fn new() -> Self {
        Self {
            under_way: AtomicBool::new(false),
            call: Cell::new((0, [0; 6])),
            pins: RefCell::new(Pins::new()),
        }
    }

    /// The current call, if there is one. Read under the gate held exclusively, after passive mode
    /// has ended: then the call cannot end before the gate is released.
    pub(super) fn call(&self) -> Option<(u32, [u64; 6])> {
        self.under_way.load(SeqCst).then(|| self.call.get())
    }

    /// Adds pages that the call keeps until it ends. The gate is held exclusively.
    pub(super) fn pins(&self) -> &RefCell<Pins> {
        &self.pins
    }

    /// In a forked child, gives up the pins of a thread that does not exist here.
    pub fn abandon(&self) {
        self.under_way.store(false, SeqCst);
        // What was being changed at the fork stays as it is.
        if let Ok(mut pins) = self.pins.try_borrow_mut() {
            pins.clear();
        }
    }
}

/// A call that is noted until this is dropped.
pub struct Noted<'a>(&'a Flight);

/// Notes a call that the calling thread is about to have the host make; `None` if the process is
/// full and the call's pages must be pinned. The caller does not hold the gate, neither now nor
/// when the note is dropped.
pub fn note(thread: &Thread, number: u32, args: [u64; 6]) -> Option<Noted<'_>> {
    if !is_passive() {
        return None;
    }
    let flight = &thread.flight;
    flight.call.set((number, args));
    flight.under_way.store(true, SeqCst);
    let noted = Noted(flight);
    is_passive().then_some(noted)
}

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        self.0.under_way.store(false, SeqCst);
        if !is_passive() {
            // The conversion may be pinning for this call right now.
            let _gate = GATE.read();
            self.0.pins.borrow_mut().clear_held();
        }
    }
}

/// Answers a reclaim request by giving up memory that the process does not use; returns whether it was passive.
pub(super) fn give_up(manager: &Manager) -> bool {
    if !is_passive() {
        return false;
    }
    leave(manager);
    true
}
