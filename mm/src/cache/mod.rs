//! The page cache and the swap cache: one table that finds a page by what it holds.
//!
//! A page is found by the file and page index whose content it holds, or by the swap slot whose
//! content it holds; never both (spec I5). The table is a hash of chains through the page table, so
//! that neither looking up nor inserting allocates. A chain's lock also decides between a look-up
//! that takes a reference and a removal that counts them (spec F21).

mod ahead;
mod device;
mod end;
mod find;
mod mapping;
mod page_out;
mod reading;
mod truncate;
mod write;

pub(crate) use device::Shown;
pub(crate) use find::Found;
pub(crate) use mapping::Store;
pub use mapping::{File, Mapping};
pub(crate) use reading::{Advised, Touch};

use crate::machine::{Frame, Machine, SwapSlot};
use crate::page::{NO_FRAME, Owner, Page, PageFlags, Pages};
use crate::stats::Counts;
use crate::sync::{LockOrder, Mutex, MutexGuard, Rank};
use alloc::boxed::Box;
use bytemuck::allocation::zeroed_slice_box;
use core::sync::atomic::{AtomicU32, Ordering};

/// What a cached page holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// Page `index` of file `mapping`.
    File { mapping: u64, index: u64 },
    /// The content of a swap slot.
    Swap(SwapSlot),
}

impl Key {
    /// A well-mixed number for choosing a chain or a ghost (the finaliser of MurmurHash3).
    pub(crate) const fn hash(self) -> u64 {
        let (a, b) = match self {
            Self::File { mapping, index } => (mapping << 1, index),
            Self::Swap(slot) => ((slot.area as u64) << 1 | 1, slot.offset as u64),
        };
        let mut h = a.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ b;
        h = (h ^ (h >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        h = (h ^ (h >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        h ^ (h >> 33)
    }

    /// Whether a page is cached under this key.
    #[inline]
    pub(super) fn matches(self, page: &Page) -> bool {
        match self {
            Self::File { mapping, index } => {
                page.has(PageFlags::PAGE_CACHE)
                    && page.owner() == Owner::File(mapping)
                    && page.index() == index
            }
            Self::Swap(slot) => page.slot() == Some(slot),
        }
    }

    /// The key under which a page is cached now.
    pub(crate) fn of(page: &Page) -> Option<Self> {
        if let Some(slot) = page.slot() {
            return Some(Self::Swap(slot));
        }
        match page.owner() {
            Owner::File(mapping) if page.has(PageFlags::PAGE_CACHE) => {
                Some(Self::File { mapping, index: page.index() })
            }
            _ => None,
        }
    }
}

/// The most locks that the chains are spread over.
const LOCKS: u32 = 256;

/// The chains.
pub(crate) struct Cache<M: Machine> {
    /// For each chain its first frame plus one, or 0; all zero at first, as the table of pages is.
    heads: Box<[AtomicU32]>,
    /// The locks of the chains: one for every so many.
    locks: Box<[Mutex<M, ()>]>,
}

/// A locked chain.
struct Chain<'a, M: Machine> {
    head: &'a AtomicU32,
    _lock: MutexGuard<'a, M, ()>,
}

impl<M: Machine> Chain<'_, M> {
    /// The first frame, or [`NO_FRAME`].
    fn first(&self) -> u32 {
        self.head.load(Ordering::Relaxed).wrapping_sub(1)
    }

    fn set_first(&mut self, frame: u32) {
        self.head.store(frame.wrapping_add(1), Ordering::Relaxed);
    }
}

impl<M: Machine> Cache<M> {
    pub(crate) fn new(frames: u32) -> Self {
        let chains = frames.next_power_of_two().max(16);
        let locks = (0..chains.min(LOCKS)).map(|_| Mutex::new(Rank::Cache, ())).collect();
        Self { heads: zeroed_slice_box(chains as usize), locks }
    }

    /// Finds a page and takes a reference to it.
    #[inline]
    pub(crate) fn find(&self, pages: &Pages, order: &LockOrder<M>, key: Key) -> Option<Frame> {
        let chain = self.chain(order, key);
        let frame = search(pages, chain.first(), key)?;
        pages.of(frame).hold(order.machine());
        Some(frame)
    }

    /// Puts a page under a key, with a reference for the cache; if the key is taken, returns the
    /// page that has it, with a reference taken.
    ///
    /// The caller holds the page's lock or is its only user.
    pub(crate) fn insert(
        &self,
        counts: &Counts,
        pages: &Pages,
        order: &LockOrder<M>,
        key: Key,
        frame: Frame,
    ) -> Result<(), Frame> {
        let mut chain = self.chain(order, key);
        if let Some(there) = search(pages, chain.first(), key) {
            pages.of(there).hold(order.machine());
            return Err(there);
        }
        let page = pages.of(frame);
        debug_assert!(Key::of(page).is_none(), "page is cached already");
        page.hold(order.machine());
        match key {
            Key::File { mapping, index } => {
                page.set_owner(Owner::File(mapping), index);
                counts.cached(page.set(order.machine(), PageFlags::PAGE_CACHE));
            }
            Key::Swap(slot) => {
                page.set_slot(slot);
                page.set(order.machine(), PageFlags::SWAP_CACHE);
            }
        }
        page.chain.store(chain.first(), Ordering::Relaxed);
        chain.set_first(frame.0);
        Ok(())
    }

    /// Takes a page out, if it has exactly `refs` references, or whatever it has. The caller holds
    /// the page's lock and drops the cache's reference.
    pub(crate) fn remove(
        &self,
        counts: &Counts,
        pages: &Pages,
        order: &LockOrder<M>,
        frame: Frame,
        refs: Option<u32>,
    ) -> bool {
        let page = pages.of(frame);
        let Some(key) = Key::of(page) else { return false };
        let mut chain = self.chain(order, key);
        if refs.is_some_and(|refs| page.refs() != refs) {
            return false;
        }
        let after = page.chain.load(Ordering::Relaxed);
        if chain.first() == frame.0 {
            chain.set_first(after);
        } else {
            let mut at = chain.first();
            while at != NO_FRAME {
                let link = &pages.of(Frame(at)).chain;
                at = link.load(Ordering::Relaxed);
                if at == frame.0 {
                    link.store(after, Ordering::Relaxed);
                }
            }
        }
        page.chain.store(NO_FRAME, Ordering::Relaxed);
        counts.uncached(page.clear(order.machine(), PageFlags::SWAP_CACHE | PageFlags::PAGE_CACHE));
        true
    }

    #[inline]
    fn chain<'a>(&'a self, order: &'a LockOrder<M>, key: Key) -> Chain<'a, M> {
        let hash = key.hash() as usize;
        let lock = self.locks[hash & (self.locks.len() - 1)].lock(order);
        Chain { head: &self.heads[hash & (self.heads.len() - 1)], _lock: lock }
    }
}

fn search(pages: &Pages, head: u32, key: Key) -> Option<Frame> {
    let mut at = head;
    while at != NO_FRAME {
        let page = pages.of(Frame(at));
        if key.matches(page) {
            return Some(Frame(at));
        }
        at = page.chain.load(Ordering::Relaxed);
    }
    None
}
