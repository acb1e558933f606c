//! The page cache and the swap cache: one table that finds a page by what it holds.
//!
//! A page is found by the file and page index whose content it holds, or by the swap slot whose
//! content it holds; never both (spec I5). The table is a hash of chains through the page table, so
//! that neither looking up nor inserting allocates. A chain's lock also decides between a look-up
//! that takes a reference and a removal that counts them (spec F21).

mod mapping;
mod truncate;
mod write;

pub use mapping::{File, Mapping};
pub(crate) use mapping::{Found, Store};

use crate::machine::{Frame, Machine, SwapSlot};
use crate::page::{NO_FRAME, Owner, Page, PageFlags, Pages};
use crate::sync::{LockOrder, Mutex, Rank};
use alloc::boxed::Box;
use core::sync::atomic::Ordering;

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
    fn matches(self, page: &Page) -> bool {
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

/// The chains.
pub(crate) struct Cache<M: Machine> {
    chains: Box<[Mutex<M, u32>]>,
}

impl<M: Machine> Cache<M> {
    pub(crate) fn new(frames: u32) -> Self {
        let chains = frames.next_power_of_two().max(16);
        Self { chains: (0..chains).map(|_| Mutex::new(Rank::Cache, NO_FRAME)).collect() }
    }

    /// Finds a page and takes a reference to it.
    #[inline]
    pub(crate) fn find(&self, pages: &Pages, order: &LockOrder<M>, key: Key) -> Option<Frame> {
        let head = self.chain(key).lock(order);
        let frame = search(pages, *head, key)?;
        pages.of(frame).hold();
        Some(frame)
    }

    /// Puts a page under a key, with a reference for the cache; if the key is taken, returns the
    /// page that has it, with a reference taken.
    ///
    /// The caller holds the page's lock or is its only user.
    pub(crate) fn insert(
        &self,
        pages: &Pages,
        order: &LockOrder<M>,
        key: Key,
        frame: Frame,
    ) -> Result<(), Frame> {
        let mut head = self.chain(key).lock(order);
        if let Some(there) = search(pages, *head, key) {
            pages.of(there).hold();
            return Err(there);
        }
        let page = pages.of(frame);
        debug_assert!(Key::of(page).is_none(), "page is cached already");
        page.hold();
        match key {
            Key::File { mapping, index } => {
                page.set_owner(Owner::File(mapping), index);
                page.set(PageFlags::PAGE_CACHE);
            }
            Key::Swap(slot) => {
                page.set_slot(slot);
                page.set(PageFlags::SWAP_CACHE);
            }
        }
        page.chain.store(*head, Ordering::Relaxed);
        *head = frame.0;
        Ok(())
    }

    /// Takes a page out, if it has exactly `refs` references, or whatever it has. The caller holds
    /// the page's lock and drops the cache's reference.
    pub(crate) fn remove(
        &self,
        pages: &Pages,
        order: &LockOrder<M>,
        frame: Frame,
        refs: Option<u32>,
    ) -> bool {
        let page = pages.of(frame);
        let Some(key) = Key::of(page) else { return false };
        let mut head = self.chain(key).lock(order);
        if refs.is_some_and(|refs| page.refs() != refs) {
            return false;
        }
        let after = page.chain.load(Ordering::Relaxed);
        if *head == frame.0 {
            *head = after;
        } else {
            let mut at = *head;
            while at != NO_FRAME {
                let link = &pages.of(Frame(at)).chain;
                at = link.load(Ordering::Relaxed);
                if at == frame.0 {
                    link.store(after, Ordering::Relaxed);
                }
            }
        }
        page.chain.store(NO_FRAME, Ordering::Relaxed);
        page.clear(PageFlags::SWAP_CACHE | PageFlags::PAGE_CACHE);
        true
    }

    fn chain(&self, key: Key) -> &Mutex<M, u32> {
        &self.chains[key.hash() as usize & (self.chains.len() - 1)]
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
