//! A batch of pages on their way out: cleaned together, written, unmapped together.
//!
//! If only the caller could store to a page, it needs no cleaning and no flush.

use crate::cache::{Key, Mapping};
use crate::event::Event;
use crate::machine::{Cursor, Entry, Fate, Frame, Machine, Part, Stale, SwapSlot};
use crate::manager::Manager;
use crate::mm::Kind;
use crate::page::{Owner, Page, PageFlags};
use crate::reclaim::clean::{Cleaned, Purpose};
use crate::reclaim::passes::Yield;
use crate::reclaim::queue::Sight;
use crate::reclaim::spare::{MOST, SpareSlots};
use crate::reclaim::stales::Stales;
use crate::reclaim::victim::{Force, State, Still, Victim, expected_refs};
use crate::reclaim::work::Work;
use crate::replacement::Queue;
use crate::rmap::walk::{Near, Spot};
use crate::vma::VmaFlags;
use crate::word::Word;
use alloc::sync::Arc;
use arrayvec::ArrayVec;
use core::sync::atomic::Ordering;

/// While fewer slots are free, none is taken that might stay unused: another batch may need it.
const PLENTY: u64 = 4096;

/// A step hints at what it needs for the page that comes so many later. Memory answers while the pages before
/// are worked on; otherwise each page would wait for it several times.
const AHEAD: usize = 2;

/// What a step needs of each page that may not be in the processor's caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ahead {
    /// What the steps before needed too.
    Nothing,
    /// Its content.
    Content,
}

/// A batch. Its pages are locked, out of the queues, and referenced by the batch.
pub(crate) struct Batch<'a, M: Machine> {
    /// The pages to judge, and where they came from. They are out of the queues and referenced too.
    candidates: ArrayVec<(Frame, Queue), MOST>,
    pub(super) victims: ArrayVec<Victim<'a, M>, MOST>,
    pub(super) work: Work<'a, M>,
}

impl<'a, M: Machine> Batch<'a, M> {
    /// The most pages in a batch.
    pub(crate) const SIZE: usize = MOST;

    pub(crate) const fn new(manager: &'a Manager<M>) -> Self {
        Self::near(manager, None)
    }

    /// A batch whose pages are probably in the region where another batch found its last page.
    pub(super) const fn near(manager: &'a Manager<M>, near: Option<Near<M>>) -> Self {
        let work =
            Work { manager, stales: Stales::new(), near, spare: SpareSlots::new(), files: 0 };
        Self { candidates: ArrayVec::new_const(), victims: ArrayVec::new_const(), work }
    }

    /// Where the batch found its last page.
    pub(super) const fn take_near(&mut self) -> Option<Near<M>> {
        self.work.near.take()
    }

    /// Adds a page that was taken from a queue. The caller gives up one reference.
    pub(crate) fn add(&mut self, frame: Frame, from: Queue) {
        self.candidates.push((frame, from));
    }

    /// Cleans, writes, unmaps and frees the pages.
    pub(super) fn evict(&mut self, force: Force) -> Yield {
        let in_hand = self.judge(force, Work::clean);
        self.work.flush();
        self.take_slots();
        self.each(Ahead::Content, Work::write);
        // What was not used.
        self.work.manager.give_back(&mut self.work.spare);
        self.each(Ahead::Nothing, Work::unmap);
        self.work.flush();
        self.each(Ahead::Nothing, Work::leave);
        Yield { freed: self.finish(), worked: in_hand > 0 }
    }

    /// Locks each candidate and takes it the first step. Returns how many could be locked.
    pub(super) fn judge(
        &mut self,
        force: Force,
        step: impl Fn(&mut Work<'a, M>, &mut Victim<'a, M>),
    ) -> usize {
        let work = &mut self.work;
        let mut in_hand = 0;
        for (at, (frame, from)) in self.candidates.iter().enumerate() {
            if let Some((next, _)) = self.candidates.get(at + AHEAD) {
                work.prefetch(*next);
            }
            let Some(victim) = work.take(*frame, *from, force) else { continue };
            in_hand += 1;
            self.victims.push(victim);
            let [.., victim] = &mut self.victims[..] else { continue };
            step(work, victim);
            if victim.state == State::Spared {
                let page = victim.page;
                self.victims.pop();
                work.unlock_and_put_back(*frame, page, Queue::Main);
            }
        }
        self.candidates.clear();
        in_hand
    }

    /// Takes every page one step further.
    fn each(&mut self, ahead: Ahead, step: impl Fn(&mut Work<'a, M>, &mut Victim<'a, M>)) {
        for at in 0..self.victims.len() {
            if ahead == Ahead::Content
                && let Some(next) = self.victims.get(at + AHEAD)
            {
                self.work.manager.machine.prefetch(next.frame, Part::Content);
            }
            step(&mut self.work, &mut self.victims[at]);
        }
    }

    /// Takes slots for the pages that the batch is about to write to new ones, if nothing intervenes.
    fn take_slots(&mut self) {
        let needs_slot = |Victim { page, is_anon, state, .. }: &&Victim<'_, M>| {
            matches!(state, State::Clean(_))
                && *is_anon
                && !page.has(PageFlags::LAZY_FREE)
                && page.slot().is_none()
        };
        let wanted = self.victims.iter().filter(needs_slot).count();
        let all = &self.work.manager.swap;
        if wanted > 1 && all.free() >= PLENTY {
            self.work.spare.fill(wanted, all);
        }
    }

    /// Unlocks the pages; frees the evicted ones, and puts the others back.
    pub(super) fn finish(&mut self) -> usize {
        let Work { manager, .. } = self.work;
        let mut freed = 0;
        for victim in self.victims.drain(..) {
            let Victim { frame, page, from, state, address, .. } = victim;
            match state {
                State::Gone => {
                    freed += 1;
                    page.unlock(&*manager.machine);
                    manager.note_eviction(page);
                    manager.observe(|| Event::Evicted { frame, address });
                    manager.put_page(frame, page);
                }
                State::Kept(to) => self.work.unlock_and_put_back(frame, page, to),
                State::Chosen
                | State::Spared
                | State::Clean(_)
                | State::Written(_)
                | State::Unmapped => self.work.unlock_and_put_back(frame, page, from),
            }
        }
        manager.stats.of(&*manager.machine).evicted.add(&*manager.machine, freed as u64);
        freed
    }
}

impl<'a, M: Machine> Work<'a, M> {
    /// Locks a page for the batch, or puts it back into a queue.
    #[inline(always)]
    fn take(&mut self, frame: Frame, from: Queue, force: Force) -> Option<Victim<'a, M>> {
        let manager = self.manager;
        let page = manager.page(frame);
        if !page.try_lock(&*manager.machine) {
            self.put_back(frame, page, Queue::Main);
            return None;
        }
        let is_anon = page.is_anon();
        let object = if is_anon { None } else { manager.object_of(page) };
        let is_of_file = object.as_ref().is_some_and(|object| !object.is_shared_memory());
        let is_kept = is_of_file && force != Force::Regardless && manager.keeps_files(self.files);
        // A locked page is in use. Back in the small queue, such pages would come up again and
        // again before any page of the main queue.
        if is_kept || page.refs() > expected_refs(page, force) {
            self.unlock_and_put_back(frame, page, Queue::Main);
            return None;
        }
        self.files += u32::from(is_of_file);
        let (state, slot, address) = (State::Chosen, None, None);
        Some(Victim { frame, page, is_anon, from, force, state, slot, address, _object: object })
    }

    /// Judges a page (spec F18), and cleans it if it should leave.
    fn clean(&mut self, victim: &mut Victim<'_, M>) {
        if self.is_withdrawn(victim) {
            victim.state = State::Clean(Still::Withdrawn);
            return;
        }
        let purpose = Purpose::Eviction(victim.force, victim.from);
        victim.state = match self.clean_page(victim.page, victim.frame, purpose) {
            Cleaned::Entirely => State::Clean(Still::Forbidden),
            Cleaned::Needless => State::Clean(Still::Alone),
            Cleaned::Moving => State::Kept(victim.from),
            // A page of an object keeps the object until the end of the batch.
            Cleaned::Untouched if victim.is_anon => State::Spared,
            Cleaned::Pinned | Cleaned::Spared | Cleaned::Untouched => State::Kept(Queue::Main),
        };
    }

    /// Whether a page probably needs no cleaning: its only entry lost every right when the page went on
    /// standby, and what the entry would tell is known. [`take_entry`] makes sure.
    fn is_withdrawn(&self, Victim { frame, page, from, .. }: &Victim<'_, M>) -> bool {
        // Whether such a page was stored to, only the entry tells.
        let is_told = PageFlags::LAZY_FREE | PageFlags::SWAP_CACHE | PageFlags::REFERENCED;
        *from == Queue::Standby
            && page.maps() == 1
            && page.is_anon()
            && !page.has(is_told)
            && self.manager.machine.keeps_unmapped(*frame)
    }

    /// Writes a clean-mapped page to its store, unless the content is there already.
    fn write(&mut self, victim: &mut Victim<'_, M>) {
        let State::Clean(still) = victim.state else { return };
        let Victim { page, is_anon, .. } = *victim;
        let discard = is_anon && page.has(PageFlags::LAZY_FREE) && page.slot().is_none();
        if discard && page.maps() == 1 {
            victim.state = State::Written(still);
            return;
        }
        victim.state = match self.manager.launder(victim.frame, page, &mut self.spare) {
            Ok(slot) => {
                victim.slot = slot;
                State::Written(still)
            }
            Err(()) => State::Kept(Queue::Main),
        };
    }

    /// Takes a page out of the page table and of its cache, unless it was used meanwhile.
    fn unmap(&mut self, victim: &mut Victim<'_, M>) {
        let State::Written(still) = victim.state else { return };
        let manager = self.manager;
        let Victim { page, is_anon, .. } = *victim;
        let for_entry = victim.slot.filter(|_| is_anon);
        let mut fresh = FreshSlot { slot: for_entry, is_given: false };
        loop {
            let (mut left, mut refused) = (false, false);
            let stales = &mut self.stales;
            manager.walk_near(&mut self.near, page, victim.frame, |spot| {
                let Some(place) = stales.room_for(spot.mm) else {
                    left = true;
                    return;
                };
                match take_entry(manager, spot, victim, still, &mut fresh) {
                    Some(stale) => {
                        victim.address = Some(stale.address);
                        stales.note(place, spot.mm, stale);
                    }
                    None => refused = true,
                }
            });
            if !left || refused {
                break;
            }
            self.flush();
        }
        if let Some(unused) = fresh.ungiven() {
            manager.release_and_free(unused);
        }
        let is_unmapped = page.maps() == 0 && !page.has(PageFlags::DIRTY);
        if is_unmapped && !is_anon {
            victim.state = State::Unmapped;
            return;
        }
        let key = Key::of(page);
        if is_unmapped && self.leave_cache(victim, key, &mut None) {
            self.remember(key.or(for_entry.map(Key::Swap)));
            self.stales.set_freed(victim.frame);
            victim.state = State::Gone;
            return;
        }
        let for_object = victim.slot.filter(|_| !is_anon);
        self.keep(victim, for_object);
    }

    /// Takes an unmapped page of an object out of the cache. Until now every address space found it
    /// there. If another page had replaced it earlier, a store to that page could have come before
    /// all processors had forgotten this one.
    fn leave(&mut self, victim: &mut Victim<'_, M>) {
        if victim.state != State::Unmapped {
            return;
        }
        let page = victim.page;
        let key = Key::of(page);
        let mut for_object = victim.slot;
        let is_unused = page.maps() == 0 && !page.has(PageFlags::DIRTY);
        if is_unused && self.leave_cache(victim, key, &mut for_object) {
            self.remember(key);
            victim.state = State::Gone;
            return;
        }
        self.keep(victim, for_object);
    }

    /// Tells the policy of a page that left, in case it comes back soon.
    fn remember(&self, key: Option<Key>) {
        if let Some(key) = key {
            self.manager.replacement.evicted(key.hash());
        }
    }

    /// Keeps a page that was leaving. `unused` is its new slot, if nothing else has the slot.
    fn keep(&self, victim: &mut Victim<'_, M>, unused: Option<SwapSlot>) {
        if let Some(unused) = unused {
            // The page stays in the page cache, so its copy in swap is not needed.
            self.manager.release_and_free(unused);
        }
        if victim.slot.is_some() {
            self.manager.mark_dirty(victim.page);
        }
        victim.state = State::Kept(Queue::Main);
    }

    /// Takes a page out of its cache, unless a new reference was taken (spec F21). For shared
    /// memory the slot's owner is noted first, so that a look-up that misses the cache finds the
    /// slot.
    #[inline]
    fn leave_cache(
        &self,
        victim: &Victim<'_, M>,
        key: Option<Key>,
        slot: &mut Option<SwapSlot>,
    ) -> bool {
        let Some(key) = key else { return victim.page.refs() == victim.expected_refs() };
        self.leave_cache_at(key, victim, slot)
    }

    fn leave_cache_at(
        &self,
        key: Key,
        victim: &Victim<'_, M>,
        slot: &mut Option<SwapSlot>,
    ) -> bool {
        let manager = self.manager;
        let Victim { frame, page, .. } = *victim;
        let expected = victim.expected_refs();
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
    #[inline]
    fn ungiven(&self) -> Option<SwapSlot> {
        self.slot.filter(|_| !self.is_given)
    }
}

/// Replaces the entry of an evicted page; `None` if the page was written or used since it was
/// cleaned, or is locked in memory or pinned (spec F19).
#[inline]
fn take_entry<M: Machine>(
    manager: &Manager<M>,
    spot: &mut Spot<'_, M>,
    victim: &Victim<'_, M>,
    still: Still,
    fresh: &mut FreshSlot,
) -> Option<Stale> {
    let Victim { frame, page, .. } = *victim;
    if must_stay(manager, spot, victim, still) {
        return None;
    }
    let (replacement, kind) = without_page(manager, spot, victim, fresh)?;
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

/// Whether an entry keeps its page: the page was written or used since it was cleaned, or is locked in memory or
/// pinned; or the entry names none any more.
#[inline]
fn must_stay<M: Machine>(
    manager: &Manager<M>,
    spot: &Spot<'_, M>,
    victim: &Victim<'_, M>,
    still: Still,
) -> bool {
    let Victim { page, from, force, .. } = *victim;
    let entry = spot.cursor.entry(spot.address);
    let Entry::Present { accessed, protection, .. } = entry else { return true };
    let sees_use = manager.queues.sight() == Sight::Bits || from == Queue::Standby;
    let spared = accessed && force == Force::Polite && sees_use;
    let kept = spot.vma.has(VmaFlags::LOCKED) || page.is_pinned();
    let stored_to = match still {
        Still::Forbidden => entry.is_dirty() || entry.is_writable(),
        // An access marks the entry, even if the program has taken the rights away again.
        Still::Withdrawn => accessed || !protection.is_empty(),
        Still::Alone => false,
    };
    stored_to || spared || kept
}

/// What an entry names once its page has left, and as what the page was counted; `None` if no slot can be counted
/// once more.
#[inline]
fn without_page<M: Machine>(
    manager: &Manager<M>,
    spot: &Spot<'_, M>,
    victim: &Victim<'_, M>,
    fresh: &mut FreshSlot,
) -> Option<(Entry, Kind)> {
    let page = victim.page;
    Some(match page.slot() {
        Some(slot) => {
            // The cache's own reference keeps the slot from being free.
            manager.swap.duplicate(slot).ok()?;
            (Entry::Swap(slot), Kind::Anon)
        }
        None if victim.is_anon && fresh.slot.is_some() => {
            (Entry::Swap(fresh.give(manager)?), Kind::Anon)
        }
        None if victim.is_anon => {
            spot.mm.dropped.fetch_add(1, Ordering::SeqCst);
            (Entry::None, Kind::Anon)
        }
        None if spot.vma.has(VmaFlags::NONLINEAR)
            && spot.vma.index_of(spot.address) != page.index() =>
        {
            (Entry::File(page.index()), Kind::File)
        }
        None => (Entry::None, Kind::File),
    })
}

impl<M: Machine> Manager<M> {
    /// The object of a page that is not anonymous.
    fn object_of(&self, page: &Page) -> Option<Arc<Mapping<M>>> {
        match page.owner() {
            Owner::File(id) => self.mappings.find(&self.order, id),
            _ => None,
        }
    }

    /// Whether only those pages of files are left from which programs run.
    ///
    /// When programs have filled memory and swap is full, reclaim finds only their own code. Each
    /// evicted page of it comes back with the next instruction. So reclaim would always free
    /// something, no program would make progress, and none would learn that memory is out (Linux:
    /// reclaim stops when reclaimable memory is below the minimum watermark).
    ///
    /// `leaving` counts pages that a batch has in hand.
    fn keeps_files(&self, leaving: u32) -> bool {
        let most = self.watermarks.files + leaving;
        self.file_pages.load(Ordering::Relaxed) <= most && self.swap.free() == 0
    }
}
