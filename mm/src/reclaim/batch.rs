//! A batch of pages on their way out: cleaned together, written, unmapped together.
//!
//! Where nobody but the caller can store to a page, nothing need be cleaned, and the flush is spared.

use crate::cache::{Key, Mapping};
use crate::event::Event;
use crate::machine::{Cursor, Entry, Fate, Frame, Machine, Stale, SwapSlot, VirtAddr};
use crate::manager::Manager;
use crate::mm::Kind;
use crate::page::{Owner, Page, PageFlags};
use crate::reclaim::queue::{Sight, Which};
use crate::reclaim::stales::Stales;
use crate::rmap::walk::{Near, Spot};
use crate::vma::VmaFlags;
use crate::word::Word;
use alloc::sync::Arc;
use arrayvec::ArrayVec;
use core::sync::atomic::Ordering;

/// Whether recent use and other users' references protect a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Force {
    /// A page that was used is spared.
    Polite,
    /// There is no other: use protects no page.
    Urgent,
    /// The owner wants the page out; one more reference is the caller's.
    Regardless,
}

/// Why nobody stores to a page while it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Still {
    /// Its entries forbid it.
    Forbidden,
    /// Nobody else runs who could.
    Alone,
}

/// How far a page has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Locked, and not known to be unsuitable.
    Chosen,
    /// Nobody stores to it unnoticed.
    Clean(Still),
    /// The store has the content. A slot that is new is still to be given to the page's entry, or to
    /// its object.
    Written(Still, Option<SwapSlot>),
    /// A page of an object without an entry: it leaves the cache after the flush, with its new slot.
    Unmapped(Option<SwapSlot>, Option<VirtAddr>),
    /// No entry, no cache: free it after the flush.
    Gone(Option<VirtAddr>),
    /// Not to be evicted now; put back into this queue.
    Kept(Which),
}

struct Victim<M: Machine> {
    frame: Frame,
    from: Which,
    force: Force,
    state: State,
    /// Its object: if the last reference to one were dropped while its pages are locked, whoever
    /// takes the object apart would wait for them for ever.
    _object: Option<Arc<Mapping<M>>>,
}

/// What a step needs to know of a victim.
#[derive(Clone, Copy)]
pub(super) struct Subject {
    pub(super) frame: Frame,
    from: Which,
    force: Force,
    state: State,
}

/// A batch. Its pages are locked, out of the queues, and referenced by the batch.
pub(crate) struct Batch<'a, M: Machine> {
    pub(super) manager: &'a Manager<M>,
    victims: ArrayVec<Victim<M>, 32>,
    pub(super) stales: Stales<M>,
    pub(super) near: Option<Near<M>>,
}

impl<'a, M: Machine> Batch<'a, M> {
    /// The most pages in a batch.
    pub(crate) const SIZE: usize = 32;

    pub(crate) const fn new(manager: &'a Manager<M>) -> Self {
        Self { manager, victims: ArrayVec::new_const(), stales: Stales::new(), near: None }
    }

    pub(crate) const fn len(&self) -> usize {
        self.victims.len()
    }

    pub(crate) const fn is_full(&self) -> bool {
        self.victims.is_full()
    }

    /// Takes a page, to which the caller gives up one reference, into the batch, or puts it back
    /// into a queue.
    pub(crate) fn consider(&mut self, frame: Frame, from: Which, force: Force) {
        let manager = self.manager;
        let page = manager.page(frame);
        if !page.try_lock(&*manager.machine) {
            self.put_back(frame, Which::Main);
            return;
        }
        let object = match page.owner() {
            Owner::File(id) => manager.mappings.find(&manager.order, id),
            _ => None,
        };
        let is_of_file = object.as_ref().is_some_and(|object| !object.is_shared_memory());
        let is_kept = is_of_file && force != Force::Regardless && manager.keeps_files();
        // A page in someone's hands is in use: back in the small queue, it and its like would be met
        // again and again before any page of the main queue.
        if is_kept || page.refs() > self.expected_refs(frame, force) {
            manager.unlock_page(frame);
            self.put_back(frame, Which::Main);
            return;
        }
        self.victims.push(Victim { frame, from, force, state: State::Chosen, _object: object });
    }

    /// The references of a page that nobody but entries, cache and reclaim refer to.
    fn expected_refs(&self, frame: Frame, force: Force) -> u32 {
        let page = self.manager.page(frame);
        page.maps() + page.cache_refs() + 1 + u32::from(force == Force::Regardless)
    }

    fn put_back(&self, frame: Frame, to: Which) {
        let manager = self.manager;
        manager.queues.push(&manager.pages, &manager.order, frame, to);
        manager.put(frame);
    }

    /// Cleans, writes, unmaps and frees; returns how many pages were freed.
    pub(crate) fn evict(&mut self) -> usize {
        self.each(Self::clean);
        self.flush();
        self.each(Self::write);
        self.each(Self::unmap);
        self.flush();
        self.each(Self::leave);
        self.finish()
    }

    /// Takes every page that is still to go a step further.
    pub(super) fn each(&mut self, step: impl Fn(&mut Self, Subject) -> State) {
        for at in 0..self.victims.len() {
            let Victim { frame, from, force, state, .. } = self.victims[at];
            if !matches!(state, State::Kept(_)) {
                self.victims[at].state = step(self, Subject { frame, from, force, state });
            }
        }
    }

    /// Judges a page (spec F18), and cleans it if it is to go.
    fn clean(&mut self, subject: Subject) -> State {
        match self.clean_page(subject.frame, Purpose::Eviction(subject.force, subject.from)) {
            Cleaned::Entirely => State::Clean(Still::Forbidden),
            Cleaned::Needless => State::Clean(Still::Alone),
            Cleaned::Moving => State::Kept(subject.from),
            Cleaned::Pinned | Cleaned::Spared => State::Kept(Which::Main),
        }
    }

    /// Takes the right to store from every entry of a page and learns whether it was written.
    fn clean_page(&mut self, frame: Frame, purpose: Purpose) -> Cleaned {
        let manager = self.manager;
        let page = manager.page(frame);
        let is_polite = matches!(purpose, Purpose::Eviction(Force::Polite, _));
        let used = matches!(purpose, Purpose::Eviction(..))
            && page.clear(&*manager.machine, PageFlags::REFERENCED).contains(PageFlags::REFERENCED);
        let mut spared = used && is_polite;
        // Where no machine sets the bit, it says until the page is on standby only that it was mapped.
        let sees_use = manager.queues.sight() == Sight::Bits
            || matches!(purpose, Purpose::Eviction(_, Which::Standby));
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
                    // A device stores to it without looking at the entry.
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
        match manager.launder(subject.frame) {
            Ok(slot) => State::Written(still, slot),
            Err(()) => State::Kept(Which::Main),
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

    /// Takes a page of an object that is mapped nowhere any more out of the cache. Until here every
    /// address space found it there: another page in its place could have been stored to before all
    /// processors had forgotten this one.
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

    /// Notes a page that leaves, in case it comes back soon.
    fn remember(&self, key: Option<Key>) {
        if let Some(key) = key
            && self.manager.queues.sight() == Sight::Bits
        {
            self.manager.queues.remember(key.hash());
        }
    }

    /// A page stays that was to leave: `slot` is the new one that it was written to, `unused` the same
    /// if nothing else has it.
    fn keep(&self, page: &Page, slot: Option<SwapSlot>, unused: Option<SwapSlot>) -> State {
        if let Some(unused) = unused {
            // The page stays in the page cache, so that its copy in swap will not be needed.
            self.manager.release_and_free(unused);
        }
        if slot.is_some() {
            self.manager.mark_dirty(page);
        }
        State::Kept(Which::Main)
    }

    /// Takes a page out of its cache if nobody took a new reference (spec F21). For shared memory
    /// the slot's owner is noted first, so that whoever misses the page in the cache finds the slot.
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
            // A truncation may have given the slot up already.
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

    /// Unlocks the pages; frees those that are gone, and puts the others back.
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
    /// Its file is brought up to date, and it stays.
    WriteBack,
    /// It is to go, unless it is worth keeping.
    Eviction(Force, Which),
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

    /// The slot, if no entry has got it.
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

/// Puts what stands for an evicted page in the place of its entry; `None` if the page was written
/// or used since it was cleaned, or is locked in memory or pinned (spec F19).
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
    let Entry::Present { accessed, .. } = entry else { return None };
    let sees_use = manager.queues.sight() == Sight::Bits || from == Which::Standby;
    let spared = accessed && force == Force::Polite && sees_use;
    let kept = spot.vma.has(VmaFlags::LOCKED) || page.is_pinned();
    let stored_to = still == Still::Forbidden && (entry.is_dirty() || entry.is_writable());
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
        // Hardware set the bit between the look and the exchange: the page stays, and will be
        // written again.
        manager.mark_dirty(page);
    }
    Some(Stale { address: spot.address, frame, fate: Fate::Kept })
}

impl<M: Machine> Manager<M> {
    /// Takes the right to store from every entry of a locked page and notes whether it was written
    /// (`page_mkclean`, spec D8). A page that is pinned when an entry is looked at keeps what rights
    /// are left: then it is as dirty afterwards as before.
    pub(crate) fn clean(&self, frame: Frame) -> Cleaned {
        let mut batch = Batch::new(self);
        let cleaned = batch.clean_page(frame, Purpose::WriteBack);
        batch.flush();
        cleaned
    }

    /// Whether nobody but the caller can store to a page that has one entry, the one at hand. Pages
    /// of objects can be stored to by calls.
    fn is_left_alone(&self, spot: &Spot<'_, M>, page: &Page) -> bool {
        page.is_anon() && page.maps() == 1 && self.machine.is_alone(&spot.mm.space)
    }
}

/// Whether every later store to a page that was cleaned will be noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cleaned {
    /// No entry is writable.
    Entirely,
    /// Nobody else runs who could store to the page, so that its entry was left as it was.
    Needless,
    /// The page was used or is locked in memory, and so was left as it was.
    Spared,
    /// Some entries are just being moved, and were not seen.
    Moving,
    /// The page is pinned: a device may store to it at any moment.
    Pinned,
}

impl<M: Machine> Manager<M> {
    /// Whether the pages of files that are left are those that programs run from.
    ///
    /// Without room in swap, memory that programs fill leaves reclaim nothing but their own code.
    /// Each page of it that goes comes back with the next instruction, so that reclaim always frees
    /// something, nobody gets on, and nobody is told that memory is out (Linux: reclaim stops where
    /// what is reclaimable is below the minimum watermark).
    fn keeps_files(&self) -> bool {
        self.file_pages.load(Ordering::Relaxed) <= self.watermarks.files && self.swap.free() == 0
    }
}
