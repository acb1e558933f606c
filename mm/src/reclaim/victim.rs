//! A page on its way out, and how far it has come.

use crate::cache::Mapping;
use crate::machine::{Frame, Machine, SwapSlot, VirtAddr};
use crate::page::Page;
use crate::replacement::Queue;
use alloc::sync::Arc;

/// Whether recent use and other users' references protect a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Force {
    /// A used page stays.
    Polite,
    /// No other page is left: use protects none.
    Urgent,
    /// The owner asked for the eviction; one more reference is the caller's.
    Regardless,
}

/// Why no thread stores to a page while it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Still {
    /// Its entries forbid it.
    Forbidden,
    /// It came from standby, where its only entry allows nothing: an access marks the entry as used.
    Withdrawn,
    /// No other thread runs that could.
    Alone,
}

/// A page's progress through the steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Locked, and not yet judged unsuitable.
    Chosen,
    /// No store to it goes unnoticed.
    Clean(Still),
    /// The store has the content.
    Written(Still),
    /// A page of an object without an entry: it leaves the cache after the flush.
    Unmapped,
    /// No entry, no cache: free it after the flush.
    Gone,
    /// Not evicted now; goes back into this queue after the flush.
    Kept(Queue),
    /// An anonymous page that is not evicted now; no entry lost a right. It goes back into the main queue at
    /// once.
    Spared,
}

/// A page of a batch.
pub(super) struct Victim<'a, M: Machine> {
    pub(super) frame: Frame,
    pub(super) page: &'a Page,
    /// Whether it is anonymous, which does not change while it is locked.
    pub(super) is_anon: bool,
    /// The queue that it was taken from.
    pub(super) from: Queue,
    pub(super) force: Force,
    pub(super) state: State,
    /// The new slot that it was written to. It goes into the page's entry, or to its object.
    pub(super) slot: Option<SwapSlot>,
    /// Where its last entry was.
    pub(super) address: Option<VirtAddr>,
    /// Its object. If the last reference to it were dropped while its pages are locked, the end of
    /// the object would wait for them forever.
    pub(super) _object: Option<Arc<Mapping<M>>>,
}

impl<M: Machine> Victim<'_, M> {
    /// The references of a page that only entries, cache and reclaim refer to.
    #[inline]
    pub(super) fn expected_refs(&self) -> u32 {
        expected_refs(self.page, self.force)
    }
}

/// See [`Victim::expected_refs`].
#[inline]
pub(super) fn expected_refs(page: &Page, force: Force) -> u32 {
    page.maps() + page.cache_refs() + 1 + u32::from(force == Force::Regardless)
}
