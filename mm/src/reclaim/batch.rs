//! A batch of pages on their way out: cleaned together, written, unmapped together.
//!
//! If only the caller could store to a page, it needs no cleaning and no flush.

use crate::cache::{Key, Mapping};
use crate::event::Event;
use crate::machine::{Cursor, Entry, Fate, Frame, Machine, Part, Stale, SwapSlot, VirtAddr};
use crate::manager::Manager;
use crate::mm::Kind;
use crate::page::{Owner, Page, PageFlags};
use crate::reclaim::queue::Sight;
use crate::reclaim::spare::SpareSlots;
use crate::reclaim::stales::Stales;
use crate::replacement::Queue;
use crate::rmap::walk::{Near, Spot};
use crate::vma::VmaFlags;
use crate::word::Word;
use alloc::sync::Arc;
use arrayvec::ArrayVec;
use core::sync::atomic::Ordering;

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
    /// The store has the content. A new slot still goes into the page's entry, or to its object.
    Written(Still, Option<SwapSlot>),
    /// A page of an object without an entry: it leaves the cache after the flush, with its new slot.
    Unmapped(Option<SwapSlot>, Option<VirtAddr>),
    /// No entry, no cache: free it after the flush.
    Gone(Option<VirtAddr>),
    /// Not evicted now; goes back into this queue.
    Kept(Queue),
}

pub(super) struct Victim<M: Machine> {
    pub(super) frame: Frame,
    from: Queue,
    force: Force,
    pub(super) state: State,
    /// Its object. If the last reference to it were dropped while its pages are locked, the end of
    /// the object would wait for them for ever.
    _object: Option<Arc<Mapping<M>>>,
}

/// The facts about a victim that a step needs.
#[derive(Clone, Copy)]
pub(super) struct Subject {
    pub(super) frame: Frame,
    from: Queue,
    force: Force,
    state: State,
}

/// What a step needs of each page that may not be in the processor's caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ahead {
    /// What the steps before needed too.
    Nothing,
    /// Its entry, and what the machine notes about its frame.
    Lookup,
    /// Its content.
    Content,
}

/// A batch. Its pages are locked, out of the queues, and referenced by the batch.
pub(crate) struct Batch<'a, M: Machine> {
    pub(super) manager: &'a Manager<M>,
    pub(super) victims: ArrayVec<Victim<M>, { SpareSlots::MOST }>,
    pub(super) stales: Stales<M>,
    pub(super) near: Option<Near<M>>,
    pub(super) spare: SpareSlots,
}

impl<'a, M: Machine> Batch<'a, M> {
    /// The most pages in a batch.
    pub(crate) const SIZE: usize = SpareSlots::MOST;

    pub(crate) const fn new(manager: &'a Manager<M>) -> Self {
        Self::near(manager, None)
    }

    /// A batch whose pages are probably in the region where another batch found its last page.
    pub(super) const fn near(manager: &'a Manager<M>, near: Option<Near<M>>) -> Self {
        let spare = SpareSlots::new();
        Self { manager, victims: ArrayVec::new_const(), stales: Stales::new(), near, spare }
    }

    pub(crate) const fn len(&self) -> usize {
        self.victims.len()
    }

    pub(crate) const fn is_full(&self) -> bool {
        self.victims.is_full()
    }

    /// Takes a page into the batch, or puts it back into a queue. The caller gives up one
    /// reference.
    pub(crate) fn consider(&mut self, frame: Frame, from: Queue, force: Force) {
        let manager = self.manager;
        let page = manager.page(frame);
        if !page.try_lock(&*manager.machine) {
            self.put_back(frame, Queue::Main);
            return;
        }
        let object = match page.owner() {
            Owner::File(id) => manager.mappings.find(&manager.order, id),
            _ => None,
        };
        let is_of_file = object.as_ref().is_some_and(|object| !object.is_shared_memory());
        let is_kept = is_of_file && force != Force::Regardless && manager.keeps_files();
        // A locked page is in use. Back in the small queue, such pages would come up again and
        // again before any page of the main queue.
        if is_kept || page.refs() > self.expected_refs(frame, force) {
            manager.unlock_page(frame);
            self.put_back(frame, Queue::Main);
            return;
        }
        self.victims.push(Victim { frame, from, force, state: State::Chosen, _object: object });
    }

    /// The references of a page that only entries, cache and reclaim refer to.
    fn expected_refs(&self, frame: Frame, force: Force) -> u32 {
        let page = self.manager.page(frame);
        page.maps() + page.cache_refs() + 1 + u32::from(force == Force::Regardless)
    }

    fn put_back(&self, frame: Frame, to: Queue) {
        let manager = self.manager;
        manager.queues.push(&manager.pages, &manager.order, frame, to);
        manager.put(frame);
    }

    /// Cleans, writes, unmaps and frees; returns how many pages were freed.
    pub(crate) fn evict(&mut self) -> usize {
        self.each(Ahead::Lookup, Self::clean);
        self.flush();
        self.take_slots();
        self.each(Ahead::Content, Self::write);
        self.return_slots();
        self.each(Ahead::Nothing, Self::unmap);
        self.flush();
        self.each(Ahead::Nothing, Self::leave);
        self.finish()
    }

    /// Takes every page that is still leaving one step further.
    pub(super) fn each(&mut self, ahead: Ahead, step: impl Fn(&mut Self, Subject) -> State) {
        for at in 0..self.victims.len() {
            self.prefetch(ahead, at);
            let Victim { frame, from, force, state, .. } = self.victims[at];
            if !matches!(state, State::Kept(_)) {
                self.victims[at].state = step(self, Subject { frame, from, force, state });
            }
        }
    }

    /// Hints at what the step needs for the page after the next. Memory answers while the pages before are
    /// worked on; otherwise each page would wait for it several times.
    fn prefetch(&self, ahead: Ahead, at: usize) {
        let manager = self.manager;
        let Some(Victim { frame, .. }) = self.victims.get(at + 2) else { return };
        match ahead {
            Ahead::Nothing => {}
            Ahead::Content => manager.machine.prefetch(*frame, Part::Content),
            Ahead::Lookup => {
                manager.machine.prefetch(*frame, Part::State);
                if let Some(near) = &self.near {
                    near.prefetch(manager.page(*frame));
                }
            }
        }
    }

    /// Judges a page (spec F18), and cleans it if it should leave.
    fn clean(&mut self, subject: Subject) -> State {
        if self.is_withdrawn(subject) {
            return State::Clean(Still::Withdrawn);
        }
        match self.clean_page(subject.frame, Purpose::Eviction(subject.force, subject.from)) {
            Cleaned::Entirely => State::Clean(Still::Forbidden),
            Cleaned::Needless => State::Clean(Still::Alone),
            Cleaned::Moving => State::Kept(subject.from),
            Cleaned::Pinned | Cleaned::Spared => State::Kept(Queue::Main),
        }
    }

    /// Whether a page probably needs no cleaning: its only entry lost every right when the page went on
    /// standby, and what the entry would tell is known. [`take_entry`] makes sure.
    fn is_withdrawn(&self, Subject { frame, from, .. }: Subject) -> bool {
        let page = self.manager.page(frame);
        // Whether such a page was stored to, only the entry tells.
        let is_told = PageFlags::LAZY_FREE | PageFlags::SWAP_CACHE | PageFlags::REFERENCED;
        from == Queue::Standby
            && page.maps() == 1
            && page.is_anon()
            && !page.has(is_told)
            && self.manager.machine.keeps_unmapped(frame)
    }

    /// Takes the right to store from every entry of a page, and learns whether the page was
    /// written.
    fn clean_page(&mut self, frame: Frame, purpose: Purpose) -> Cleaned {
        let manager = self.manager;
        let page = manager.page(frame);
        let is_polite = matches!(purpose, Purpose::Eviction(Force::Polite, _));
        let used = matches!(purpose, Purpose::Eviction(..))
            && page.clear(&*manager.machine, PageFlags::REFERENCED).contains(PageFlags::REFERENCED);
        let mut spared = used && is_polite;
        // On a machine without accessed bits, before standby the mark means only that the page was
        // mapped.
        let sees_use = manager.queues.sight() == Sight::Bits
            || matches!(purpose, Purpose::Eviction(_, Queue::Standby));
        loop {
            let (mut left, mut dirty, mut pinned, mut alone) = (false, false, false, false);
            let stales = &mut self.stales;
            let found = manager.walk_near(&mut self.near, frame, |spot| {
                if purpose != Purpose::WriteBack {
                    spared |= spot.vma.has(VmaFlags::LOCKED);
                    if sees_use && spot.cursor.clear_accessed(spot.address) {
                        manager.note_use(frame);
                        spared |= is_polite;
                    }
                }
                if page.is_pinned() {
                    // A device stores to the page without the entry.
                    pinned = true;
                } else if spared {
                } else if purpose != Purpose::WriteBack && manager.is_left_alone(spot, page) {
                    alone = true;
                    dirty |= spot.cursor.entry(spot.address).is_dirty();
                } else if let Some(place) = stales.room_for(spot.mm) {
                    if let Some(stale) = write_protect(spot, &mut dirty) {
                        stales.note(place, spot.mm, stale);
                    }
                } else {
                    left = true;
                }
            });
            if dirty {
                manager.mark_dirty(page);
                page.clear(&*manager.machine, PageFlags::LAZY_FREE);
            }
            match () {
                () if pinned => return Cleaned::Pinned,
                () if spared => return Cleaned::Spared,
                () if left => self.flush(),
                () if found != page.maps() => return Cleaned::Moving,
                () if alone => return Cleaned::Needless,
                () => return Cleaned::Entirely,
            }
        }
    }

    /// Writes a clean-mapped page to its store, unless the content is there already.
    fn write(&mut self, subject: Subject) -> State {
        let State::Clean(still) = subject.state else { return subject.state };
        let manager = self.manager;
        let page = manager.page(subject.frame);
        let discard = page.is_anon() && page.has(PageFlags::LAZY_FREE) && page.slot().is_none();
        if discard && page.maps() == 1 {
            return State::Written(still, None);
        }
        match manager.launder(subject.frame, &mut self.spare) {
            Ok(slot) => State::Written(still, slot),
            Err(()) => State::Kept(Queue::Main),
        }
    }

    /// Takes a page out of the page table and of its cache, unless it was used meanwhile.
    fn unmap(&mut self, subject: Subject) -> State {
        let State::Written(still, slot) = subject.state else { return subject.state };
        let manager = self.manager;
        let Subject { frame, force, .. } = subject;
        let page = manager.page(frame);
        let (for_entry, for_object) = if page.is_anon() { (slot, None) } else { (None, slot) };
        let mut fresh = FreshSlot { slot: for_entry, is_given: false };
        let mut from = self.stales.len();
        let mut address = None;
        loop {
            let (mut left, mut refused) = (false, false);
            let stales = &mut self.stales;
            manager.walk_near(&mut self.near, frame, |spot| {
                let Some(place) = stales.room_for(spot.mm) else {
                    left = true;
                    return;
                };
                match take_entry(manager, spot, subject, still, &mut fresh) {
                    Some(stale) => {
                        address = Some(stale.address);
                        stales.note(place, spot.mm, stale);
                    }
                    None => refused = true,
                }
            });
            if !left || refused {
                break;
            }
            self.flush();
            from = 0;
        }
        if let Some(unused) = fresh.ungiven() {
            manager.release_and_free(unused);
        }
        let is_unmapped = page.maps() == 0 && !page.has(PageFlags::DIRTY);
        if is_unmapped && !page.is_anon() {
            return State::Unmapped(for_object, address);
        }
        let remembered = Key::of(page).or(for_entry.map(Key::Swap));
        if is_unmapped && self.leave_cache(frame, force, &mut None) {
            self.remember(remembered);
            self.stales.set_freed(from, frame);
            return State::Gone(address);
        }
        self.keep(page, slot, for_object)
    }

    /// Takes an unmapped page of an object out of the cache. Until now every address space found it
    /// there. If another page had replaced it earlier, a store to that page could have come before
    /// all processors had forgotten this one.
    fn leave(&mut self, subject: Subject) -> State {
        let State::Unmapped(slot, address) = subject.state else { return subject.state };
        let page = self.manager.page(subject.frame);
        let remembered = Key::of(page);
        let mut for_object = slot;
        let is_unused = page.maps() == 0 && !page.has(PageFlags::DIRTY);
        if is_unused && self.leave_cache(subject.frame, subject.force, &mut for_object) {
            self.remember(remembered);
            return State::Gone(address);
        }
        self.keep(page, slot, for_object)
    }

    /// Tells the policy of a page that left, in case it comes back soon.
    fn remember(&self, key: Option<Key>) {
        if let Some(key) = key {
            self.manager.replacement.evicted(key.hash());
        }
    }

    /// Keeps a page that was leaving. `slot` is the new slot to which it was written; `unused` is
    /// the same slot if nothing else has it.
    fn keep(&self, page: &Page, slot: Option<SwapSlot>, unused: Option<SwapSlot>) -> State {
        if let Some(unused) = unused {
            // The page stays in the page cache, so its copy in swap is not needed.
            self.manager.release_and_free(unused);
        }
        if slot.is_some() {
            self.manager.mark_dirty(page);
        }
        State::Kept(Queue::Main)
    }

    /// Takes a page out of its cache, unless a new reference was taken (spec F21). For shared
    /// memory the slot's owner is noted first, so that a look-up that misses the cache finds the
    /// slot.
    fn leave_cache(&self, frame: Frame, force: Force, slot: &mut Option<SwapSlot>) -> bool {
        let manager = self.manager;
        let page = manager.page(frame);
        let expected = self.expected_refs(frame, force);
        let Some(key) = Key::of(page) else { return page.refs() == expected };
        let owned = match (*slot, page.owner()) {
            (Some(slot), Owner::File(object)) => Some((slot, object, page.index())),
            _ => None,
        };
        if let Some((slot, object, index)) = owned {
            manager.swap.set_owner(slot, object, index);
        }
        if !manager.cache.remove(
            &manager.counts,
            &manager.pages,
            &manager.order,
            frame,
            Some(expected),
        ) {
            // A truncation may already have given up the slot.
            *slot = owned
                .filter(|(slot, object, index)| manager.swap.disown(*slot, *object, *index))
                .map(|(slot, ..)| slot);
            return false;
        }
        manager.put(frame);
        match key {
            Key::Swap(slot) => manager.release_and_free(slot),
            Key::File { mapping, .. } => manager.uncount_cached(mapping),
        }
        true
    }

    /// Unlocks the pages; frees the evicted ones, and puts the others back.
    pub(super) fn finish(&mut self) -> usize {
        let manager = self.manager;
        let mut freed = 0;
        for victim in &self.victims {
            manager.unlock_page(victim.frame);
            match victim.state {
                State::Gone(address) => {
                    freed += 1;
                    manager.note_eviction(victim.frame);
                    manager.observe(|| Event::Evicted { frame: victim.frame, address });
                    manager.put(victim.frame);
                }
                State::Kept(to) => self.put_back(victim.frame, to),
                State::Chosen | State::Clean(_) | State::Written(..) | State::Unmapped(..) => {
                    self.put_back(victim.frame, victim.from);
                }
            }
        }
        manager.stats.evicted.add(&*manager.machine, freed as u64);
        self.victims.clear();
        freed
    }

    pub(super) fn flush(&mut self) {
        self.stales.flush(self.manager);
    }
}

/// Why a page is cleaned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// To bring its file up to date; the page stays.
    WriteBack,
    /// To evict it, unless it is worth keeping.
    Eviction(Force, Queue),
}

/// The new slot of an anonymous page: the first entry that is taken gets its reference.
struct FreshSlot {
    slot: Option<SwapSlot>,
    is_given: bool,
}

impl FreshSlot {
    /// A reference to the slot for one more entry.
    fn give<M: Machine>(&mut self, manager: &Manager<M>) -> Option<SwapSlot> {
        let slot = self.slot?;
        if self.is_given && manager.swap.duplicate(slot).is_err() {
            return None;
        }
        self.is_given = true;
        Some(slot)
    }

    /// The slot, if no entry got it.
    fn ungiven(&self) -> Option<SwapSlot> {
        self.slot.filter(|_| !self.is_given)
    }
}

/// Makes an entry read-only and clean; `None` if it was.
fn write_protect<M: Machine>(spot: &mut Spot<'_, M>, dirty: &mut bool) -> Option<Stale> {
    let before = spot.cursor.entry(spot.address);
    let Entry::Present { dirty: was_dirty, .. } = before else { return None };
    if !was_dirty && !before.is_writable() {
        return None;
    }
    let old = spot.cursor.replace(spot.address, Entry::None);
    let Entry::Present { frame, protection, accessed, dirty: was } = old else { return None };
    *dirty |= was;
    let protection = protection.read_only();
    spot.cursor.replace(spot.address, Entry::Present { frame, protection, accessed, dirty: false });
    Some(Stale { address: spot.address, frame, fate: Fate::Narrowed })
}

/// Replaces the entry of an evicted page; `None` if the page was written or used since it was
/// cleaned, or is locked in memory or pinned (spec F19).
fn take_entry<M: Machine>(
    manager: &Manager<M>,
    spot: &mut Spot<'_, M>,
    subject: Subject,
    still: Still,
    fresh: &mut FreshSlot,
) -> Option<Stale> {
    let Subject { frame, from, force, .. } = subject;
    let page = manager.page(frame);
    let entry = spot.cursor.entry(spot.address);
    let Entry::Present { accessed, protection, .. } = entry else { return None };
    let sees_use = manager.queues.sight() == Sight::Bits || from == Queue::Standby;
    let spared = accessed && force == Force::Polite && sees_use;
    let kept = spot.vma.has(VmaFlags::LOCKED) || page.is_pinned();
    let stored_to = match still {
        Still::Forbidden => entry.is_dirty() || entry.is_writable(),
        // An access marks the entry, even if the program has taken the rights away again.
        Still::Withdrawn => accessed || !protection.is_empty(),
        Still::Alone => false,
    };
    if stored_to || spared || kept {
        return None;
    }
    let (replacement, kind) = match page.slot() {
        Some(slot) => {
            // The cache's own reference keeps the slot from being free.
            if manager.swap.duplicate(slot).is_err() {
                return None;
            }
            (Entry::Swap(slot), Kind::Anon)
        }
        None if page.is_anon() => match fresh.slot {
            Some(_) => (Entry::Swap(fresh.give(manager)?), Kind::Anon),
            None => {
                spot.mm.dropped.fetch_add(1, Ordering::SeqCst);
                (Entry::None, Kind::Anon)
            }
        },
        None if spot.vma.has(VmaFlags::NONLINEAR)
            && spot.vma.index_of(spot.address) != page.index() =>
        {
            (Entry::File(page.index()), Kind::File)
        }
        None => (Entry::None, Kind::File),
    };
    let old = spot.cursor.replace(spot.address, replacement);
    spot.mm.count_rss(kind, -1);
    manager.count_unmapping(page);
    // The batch has a reference of its own, so that this cannot be the last.
    page.refs.sub_by(&*manager.machine, 1, Ordering::AcqRel);
    if still == Still::Forbidden && old.is_dirty() {
        // Hardware set the bit between the read and the exchange: the page stays, and will be
        // written again.
        manager.mark_dirty(page);
    }
    Some(Stale { address: spot.address, frame, fate: Fate::Kept })
}

impl<M: Machine> Manager<M> {
    /// Takes the right to store from every entry of a locked page, and notes whether the page was
    /// written (`page_mkclean`, spec D8). A page that proves pinned at one of its entries keeps its
    /// remaining rights, and is then as dirty as before.
    pub(crate) fn clean(&self, frame: Frame) -> Cleaned {
        let mut batch = Batch::new(self);
        let cleaned = batch.clean_page(frame, Purpose::WriteBack);
        batch.flush();
        cleaned
    }

    /// Whether only the caller can store to a page whose only entry is this one. Calls can store to
    /// pages of objects.
    fn is_left_alone(&self, spot: &Spot<'_, M>, page: &Page) -> bool {
        page.is_anon() && page.maps() == 1 && self.machine.is_alone(&spot.mm.space)
    }
}

/// Whether every later store to a cleaned page will be noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cleaned {
    /// No entry is writable.
    Entirely,
    /// No other thread runs that could store to the page, so its entry is unchanged.
    Needless,
    /// The page was used or is locked in memory, and is unchanged.
    Spared,
    /// Some entries are being moved, and were not seen.
    Moving,
    /// The page is pinned: a device may store to it at any moment.
    Pinned,
}

impl<M: Machine> Manager<M> {
    /// Whether only those pages of files are left from which programs run.
    ///
    /// When programs have filled memory and swap is full, reclaim finds only their own code. Each
    /// evicted page of it comes back with the next instruction. So reclaim would always free
    /// something, no program would make progress, and none would learn that memory is out (Linux:
    /// reclaim stops when reclaimable memory is below the minimum watermark).
    fn keeps_files(&self) -> bool {
        self.file_pages.load(Ordering::Relaxed) <= self.watermarks.files && self.swap.free() == 0
    }
}
