//! Guard pages (`MADV_GUARD_INSTALL`): nobody may access them, whatever their mapping allows.
//!
//! The host marks them in its page table, and whatever fills a page there takes the mark away. So the
//! memory manager has regions there that forbid every access: it fills nothing, and the host refuses
//! the program's accesses itself. What the mapping allows is kept here until the guard is gone.

use super::advise::reached;
use super::manager::done;
use super::{GATE, Manager, addresses};
use crate::lock::Mutex;
use crate::sys::Result;
use alloc::vec::Vec;
use core::ops::Range;
use pagefault_machine::{Protection, VirtAddr};

/// Guard pages that follow each other, and what their mapping allows.
pub struct Guard {
    range: Range<u64>,
    protection: Protection,
}

/// All of this process.
static GUARDS: Mutex<Vec<Guard>> = Mutex::new(Vec::new());

/// What advice makes of guard pages.
#[derive(Clone, Copy)]
pub enum Change {
    Install,
    Remove,
}

/// Has the host install or remove guard pages, and follows it.
pub fn change(
    manager: &Manager,
    range: &Range<u64>,
    change: Change,
    host: impl Fn(&Range<u64>) -> Result,
) -> Result {
    let _gate = GATE.write();
    let result = host(range);
    let changed = range.start..reached(range, &result, host);
    match change {
        Change::Install => manager.guard(&changed),
        Change::Remove => manager.unguard(&changed),
    }
    result
}

/// Whether a page is a guard.
pub fn is_guard(page: u64) -> bool {
    GUARDS.lock().iter().any(|guard| guard.range.contains(&page))
}

/// Forgets the guards of a range whose mapping is gone.
pub fn forget(range: &Range<u64>) {
    take(range);
}

/// Changes what the mapping of guards in a range allows; returns the rest of the range.
pub fn protect(range: &Range<u64>, protection: Protection) -> Vec<Range<u64>> {
    let taken = take(range);
    let rest = rest_of(range, &taken);
    GUARDS.lock().extend(taken.into_iter().map(|guard| Guard { protection, ..guard }));
    rest
}

/// Takes the guards of a range out of the list.
fn take(range: &Range<u64>) -> Vec<Guard> {
    let mut guards = GUARDS.lock();
    let (mut kept, mut taken) = (Vec::new(), Vec::new());
    for Guard { range: old, protection } in guards.drain(..) {
        let piece =
            |start: u64, end: u64| (start < end).then_some(Guard { range: start..end, protection });
        kept.extend(piece(old.start, old.end.min(range.start)));
        taken.extend(piece(old.start.max(range.start), old.end.min(range.end)));
        kept.extend(piece(old.start.max(range.end), old.end));
    }
    *guards = kept;
    taken.sort_unstable_by_key(|guard| guard.range.start);
    taken
}

/// What of a range is no guard.
fn rest_of(range: &Range<u64>, guards: &[Guard]) -> Vec<Range<u64>> {
    let mut from = range.start;
    let mut rest = Vec::new();
    for guard in guards {
        rest.push(from..guard.range.start);
        from = guard.range.end;
    }
    rest.push(from..range.end);
    rest.retain(|piece| !piece.is_empty());
    rest
}

impl Manager {
    /// Follows the host, which has made guards of a range and dropped its pages.
    fn guard(&self, range: &Range<u64>) {
        let old = take(range);
        for piece in rest_of(range, &old) {
            for (part, protection) in self.parts(&piece) {
                self.dropped(&part);
                self.add_guard(Guard { range: part, protection });
            }
        }
        GUARDS.lock().extend(old);
    }

    /// Follows the host, which has made ordinary pages of the guards in a range.
    pub(super) fn unguard(&self, range: &Range<u64>) {
        self.lift_guards(range);
    }

    /// Makes the regions of guards what their mapping allows; the guards come back by
    /// [`put_guards`](Self::put_guards).
    pub(super) fn lift_guards(&self, range: &Range<u64>) -> Vec<Guard> {
        let guards = take(range);
        for guard in &guards {
            let _ = self.set_protection(&guard.range, guard.protection);
        }
        guards
    }

    /// Puts guards back as far as they lie in a range, which has moved to another start.
    pub(super) fn put_guards(&self, guards: Vec<Guard>, range: &Range<u64>, start: u64) {
        for Guard { range: old, protection } in guards {
            let end = old.end.min(range.end);
            if old.start < end {
                let to = |address: u64| address - range.start + start;
                self.add_guard(Guard { range: to(old.start)..to(end), protection });
            }
        }
    }

    fn add_guard(&self, guard: Guard) {
        // Where it cannot be noted the guard is as strong as the host's mark.
        if self.set_protection(&guard.range, Protection::empty()).is_ok() {
            GUARDS.lock().push(guard);
        }
    }

    /// Changes what the memory manager allows.
    pub(super) fn set_protection(&self, range: &Range<u64>, protection: Protection) -> Result<()> {
        let Range { start, end } = addresses(range);
        done(self.mm().mprotect(VirtAddr(start.value()), end.value() - start.value(), protection))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guards_are_cut_where_ranges_end() {
        let protection = Protection::READ;
        GUARDS.lock().extend([10..20, 30..40].map(|range| Guard { range, protection }));
        assert!(is_guard(10) && !is_guard(20));
        assert_eq!(protect(&(5..35), Protection::empty()), [5..10, 20..30]);
        let ranges =
            |guards: &[Guard]| guards.iter().map(|it| it.range.clone()).collect::<Vec<_>>();
        forget(&(12..14));
        let taken = take(&(0..35));
        assert_eq!(ranges(&taken), [10..12, 14..20, 30..35]);
        assert!(taken.iter().all(|guard| guard.protection.is_empty()));
        let last = take(&(0..100));
        assert_eq!((ranges(&last), last[0].protection), (alloc::vec![35..40], protection));
    }
}
