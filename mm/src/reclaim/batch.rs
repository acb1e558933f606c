//! A batch of pages on their way out: cleaned together, written, unmapped together.

use crate::cache::{Key, Mapping};
use crate::event::Event;
use crate::machine::{Cursor, Entry, Fate, Frame, Machine, Stale, SwapSlot, VirtAddr};
use crate::manager::Manager;
use crate::mm::{Kind, Mm};
use crate::page::{Owner, PageFlags};
use crate::reclaim::queue::Which;
use crate::rmap::walk::Spot;
use crate::tlb::Noted;
use crate::vma::VmaFlags;
use alloc::sync::Arc;
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

/// How far a page has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Locked, and not known to be unsuitable.
    Chosen,
    /// The store has the content; a slot of shared memory waits for its owner to be noted.
    Written(Option<SwapSlot>),
    /// No entry, no cache: free it after the flush.
    Gone,
    /// Not to be evicted now; put back into this queue.
    Kept(Which),
}

#[derive(Clone, Copy)]
struct Victim {
    frame: Frame,
    from: Which,
    force: Force,
    state: State,
    /// Where it was mapped last.
    address: Option<VirtAddr>,
}

/// A stale translation, whose it is, and in which phase it was noted.
type Spotted<M> = (Arc<Mm<M>>, Stale, Noted);

/// How many stale translations are gathered before a flush.
const SPOTS: usize = 64;

/// A batch. Its pages are locked, out of the queues, and referenced by the batch.
pub(crate) struct Batch<'a, M: Machine> {
    manager: &'a Manager<M>,
    victims: [Option<Victim>; 32],
    /// The objects of the victims: if the last reference to one were dropped while its pages are
    /// locked, whoever takes the object apart would wait for them for ever.
    objects: [Option<Arc<Mapping<M>>>; 32],
    len: usize,
    spots: [Option<Spotted<M>>; SPOTS],
    used: usize,
}

impl<'a, M: Machine> Batch<'a, M> {
    /// The most pages in a batch.
    pub(crate) const SIZE: usize = 32;

    pub(crate) fn new(manager: &'a Manager<M>) -> Self {
        let spots = [const { None }; SPOTS];
        let objects = [const { None }; 32];
        Self { manager, victims: [None; 32], objects, len: 0, spots, used: 0 }
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) const fn is_full(&self) -> bool {
        self.len == Self::SIZE
    }

    /// Takes a page, to which the caller gives up one reference, into the batch, or puts it back
    /// into a queue.
    pub(crate) fn consider(&mut self, frame: Frame, from: Which, force: Force) {
        let manager = self.manager;
        let page = manager.page(frame);
        if !page.try_lock() {
            self.put_back(frame, Which::Main);
            return;
        }
        let object = match page.owner() {
            Owner::File(id) => manager.mappings.find(&manager.order, id),
            _ => None,
        };
        let is_of_file = object.as_ref().is_some_and(|object| !object.is_shared_memory());
        let judged = match force {
            Force::Polite | Force::Urgent if is_of_file && manager.keeps_files() => {
                Some(Which::Main)
            }
            _ => self.judge(frame, force),
        };
        match judged {
            None => {
                let state = State::Chosen;
                self.victims[self.len] = Some(Victim { frame, from, force, state, address: None });
                self.objects[self.len] = object;
                self.len += 1;
            }
            Some(to) => {
                manager.unlock_page(frame);
                self.put_back(frame, to);
            }
        }
    }

    /// Whether a locked page should stay, and then in which queue (spec F18).
    ///
    /// A page in someone's hands is in use: back in the small queue, it and its like would be met
    /// again and again before any page of the main queue.
    fn judge(&self, frame: Frame, force: Force) -> Option<Which> {
        let manager = self.manager;
        let page = manager.page(frame);
        if page.refs() > self.expected_refs(frame, force) {
            return Some(Which::Main);
        }
        let mut used = page.clear(PageFlags::REFERENCED).contains(PageFlags::REFERENCED);
        let mut locked = false;
        manager.walk(frame, |spot| {
            locked |= spot.vma.has(VmaFlags::LOCKED);
            used |= spot.cursor.clear_accessed(spot.address);
        });
        if locked || (used && force == Force::Polite) { Some(Which::Main) } else { None }
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
        self.finish()
    }

    fn each(&mut self, step: impl Fn(&mut Self, &mut Victim)) {
        for i in 0..self.len {
            if let Some(mut victim) = self.victims[i]
                && !matches!(victim.state, State::Kept(_))
            {
                step(self, &mut victim);
                self.victims[i] = Some(victim);
            }
        }
    }

    /// Cleans a page that is to be evicted, or finds out that it cannot be.
    fn clean(&mut self, victim: &mut Victim) {
        match self.clean_page(victim.frame) {
            Cleaned::Entirely => {}
            Cleaned::Moving => victim.state = State::Kept(victim.from),
            Cleaned::Pinned => victim.state = State::Kept(Which::Main),
        }
    }

    /// Takes the right to store from every entry of a page and learns whether it was written.
    fn clean_page(&mut self, frame: Frame) -> Cleaned {
        let manager = self.manager;
        let page = manager.page(frame);
        loop {
            let (mut left, mut dirty, mut pinned) = (0, false, false);
            let found = manager.walk(frame, |spot| {
                if page.is_pinned() {
                    // A device stores to it without looking at the entry.
                    pinned = true;
                } else if self.used == SPOTS {
                    left += 1;
                } else if let Some(stale) = write_protect(spot, &mut dirty) {
                    self.note(spot.mm, stale);
                }
            });
            if dirty {
                page.set(PageFlags::DIRTY);
                page.clear(PageFlags::LAZY_FREE);
            }
            match () {
                () if pinned => return Cleaned::Pinned,
                () if left > 0 => self.flush(),
                () if found != page.maps() => return Cleaned::Moving,
                () => return Cleaned::Entirely,
            }
        }
    }

    /// Writes a clean-mapped page to its store, unless the content is there already.
    fn write(&mut self, victim: &mut Victim) {
        let manager = self.manager;
        let page = manager.page(victim.frame);
        let discard = page.is_anon() && page.has(PageFlags::LAZY_FREE) && page.slot().is_none();
        if discard && page.maps() == 1 {
            victim.state = State::Written(None);
            return;
        }
        victim.state = match manager.launder(victim.frame) {
            Ok(slot) => State::Written(slot),
            Err(()) => State::Kept(Which::Main),
        };
    }

    /// Takes a page out of the page table and of its cache, unless it was used meanwhile.
    fn unmap(&mut self, victim: &mut Victim) {
        let manager = self.manager;
        let frame = victim.frame;
        let page = manager.page(frame);
        let State::Written(mut slot) = victim.state else { return };
        loop {
            let (mut left, mut refused) = (0, false);
            manager.walk(frame, |spot| {
                if self.used == SPOTS {
                    left += 1;
                } else if let Some(stale) = take_entry(manager, spot, frame, victim.force) {
                    victim.address = Some(stale.address);
                    self.note(spot.mm, stale);
                } else {
                    refused = true;
                }
            });
            if left == 0 || refused {
                break;
            }
            self.flush();
        }
        let remembered = Key::of(page).map(Key::hash);
        let gone =
            page.maps() == 0 && !page.has(PageFlags::DIRTY) && self.leave_cache(victim, &mut slot);
        if gone {
            victim.state = State::Gone;
            if let Some(hash) = remembered {
                manager.queues.remember(hash);
            }
            for spot in self.spots[..self.used].iter_mut().flatten() {
                if spot.1.frame == frame {
                    spot.1.fate = Fate::Freed;
                }
            }
        } else {
            if let Some(slot) = slot {
                // The page stays in the page cache, so that its copy in swap will not be needed.
                manager.release_and_free(slot);
                page.set(PageFlags::DIRTY);
            }
            victim.state = State::Kept(Which::Main);
        }
    }

    /// Takes a page out of its cache if nobody took a new reference (spec F21). For shared memory
    /// the slot's owner is noted first, so that whoever misses the page in the cache finds the slot.
    fn leave_cache(&self, victim: &Victim, slot: &mut Option<SwapSlot>) -> bool {
        let manager = self.manager;
        let page = manager.page(victim.frame);
        let expected = self.expected_refs(victim.frame, victim.force);
        let Some(key) = Key::of(page) else { return page.refs() == expected };
        let owned = match (*slot, page.owner()) {
            (Some(slot), Owner::File(object)) => Some((slot, object, page.index())),
            _ => None,
        };
        if let Some((slot, object, index)) = owned {
            manager.swap.set_owner(slot, object, index);
        }
        if !manager.cache.remove(&manager.pages, &manager.order, victim.frame, Some(expected)) {
            // A truncation may have given the slot up already.
            *slot = owned
                .filter(|(slot, object, index)| manager.swap.disown(*slot, *object, *index))
                .map(|(slot, ..)| slot);
            return false;
        }
        manager.put(victim.frame);
        match key {
            Key::Swap(slot) => manager.release_and_free(slot),
            Key::File { mapping, .. } => manager.uncount_cached(mapping),
        }
        true
    }

    /// Unlocks the pages; frees those that are gone, and puts the others back.
    fn finish(&mut self) -> usize {
        let manager = self.manager;
        let mut freed = 0;
        for i in 0..self.len {
            let Some(victim) = self.victims[i] else { continue };
            manager.unlock_page(victim.frame);
            match victim.state {
                State::Gone => {
                    freed += 1;
                    manager.stats.evicted.add(manager.machine.context(), 1);
                    let Victim { frame, address, .. } = victim;
                    manager.observe(|| Event::Evicted { frame, address });
                    manager.put(victim.frame);
                }
                State::Kept(to) => self.put_back(victim.frame, to),
                State::Chosen | State::Written(_) => self.put_back(victim.frame, victim.from),
            }
        }
        for object in &mut self.objects[..self.len] {
            drop(object.take());
        }
        self.len = 0;
        freed
    }

    fn note(&mut self, mm: &Arc<Mm<M>>, stale: Stale) {
        let mut noted = Noted::default();
        mm.pending.note(&mut noted);
        self.spots[self.used] = Some((mm.clone(), stale, noted));
        self.used += 1;
    }

    /// Flushes all noted translations, those of each address space together.
    fn flush(&mut self) {
        let none = Stale { address: VirtAddr::ZERO, frame: Frame(0), fate: Fate::Narrowed };
        for first in 0..self.used {
            let Some((mm, ..)) = self.spots[first].clone() else { continue };
            let mut together = [none; SPOTS];
            let mut len = 0;
            let mut noted = Noted::default();
            for spot in &mut self.spots[first..self.used] {
                if spot.as_ref().is_some_and(|(other, ..)| Arc::ptr_eq(other, &mm))
                    && let Some((_, stale, [even, odd])) = spot.take()
                {
                    noted = [noted[0] + even, noted[1] + odd];
                    together[len] = stale;
                    len += 1;
                }
            }
            self.manager.machine.flush(&mm.space, &together[..len]);
            mm.pending.flushed(noted, &*self.manager.machine);
            self.manager.stats.flushes.add(self.manager.machine.context(), 1);
        }
        self.used = 0;
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
    frame: Frame,
    force: Force,
) -> Option<Stale> {
    let page = manager.page(frame);
    let entry = spot.cursor.entry(spot.address);
    let Entry::Present { accessed, dirty, .. } = entry else { return None };
    let spared = accessed && force == Force::Polite && manager.machine.capabilities().accessed;
    let kept = spot.vma.has(VmaFlags::LOCKED) || page.is_pinned();
    if dirty || entry.is_writable() || spared || kept {
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
        None if page.is_anon() => (Entry::None, Kind::Anon),
        None if spot.vma.has(VmaFlags::NONLINEAR)
            && spot.vma.index_of(spot.address) != page.index() =>
        {
            (Entry::File(page.index()), Kind::File)
        }
        None => (Entry::None, Kind::File),
    };
    let old = spot.cursor.replace(spot.address, replacement);
    spot.mm.count_rss(kind, -1);
    page.maps.fetch_sub(1, Ordering::AcqRel);
    // The batch has a reference of its own, so that this cannot be the last.
    page.refs.fetch_sub(1, Ordering::AcqRel);
    if matches!(old, Entry::Present { dirty: true, .. }) {
        // Hardware set the bit between the look and the exchange: the page stays, and will be
        // written again.
        page.set(PageFlags::DIRTY);
    }
    Some(Stale { address: spot.address, frame, fate: Fate::Kept })
}

impl<M: Machine> Manager<M> {
    /// Takes the right to store from every entry of a locked page and notes whether it was written
    /// (`page_mkclean`, spec D8). A page that is pinned when an entry is looked at keeps what rights
    /// are left: then it is as dirty afterwards as before.
    pub(crate) fn clean(&self, frame: Frame) -> Cleaned {
        let mut batch = Batch::new(self);
        let cleaned = batch.clean_page(frame);
        batch.flush();
        cleaned
    }
}

/// Whether every later store to a page that was cleaned will be noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cleaned {
    /// No entry is writable.
    Entirely,
    /// Some entries are just being moved, and were not seen.
    Moving,
    /// The page is pinned: a device may store to it at any moment.
    Pinned,
}
