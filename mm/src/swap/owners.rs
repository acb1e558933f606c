//! The owner of the page in each slot of a swap area: shared anonymous objects find their pages
//! here.
//!
//! Private pages need no such index, because their page-table entry holds the slot. The pages of a
//! shared object belong to no single table. Linux keeps their slots in the object's tree (spec
//! D11), and must allocate for it while memory is short. Here each slot gets a record together with
//! the area, and evicting a page allocates nothing.
//!
//! Records form hash chains. A chain is read and changed under the lock of its shard. The fields
//! are atomic only because a record passes from one shard's lock to another's when its slot changes
//! owners.
//!
//! All records start as zeros. If the heap's zeros cost nothing, a record takes memory only once
//! its slot has had an owner.

use super::zeroed;
use crate::error::OutOfMemory;
use alloc::boxed::Box;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use lock_api::{Mutex, RawMutex};

/// The slots of an area by the page that they hold.
pub(crate) struct Owners<M: RawMutex> {
    /// For each slot the next one of its chain, [`END`], or [`UNOWNED`].
    links: Box<[AtomicU32]>,
    /// For each slot with an owner the object and the index.
    pages: Box<[[AtomicU64; 2]]>,
    /// The first slot of each chain, if there is one; a power of two of them.
    chains: Box<[AtomicU32]>,
    shards: [Mutex<M, ()>; SHARDS],
    /// The number of slots with an owner.
    owned: AtomicU32,
}

/// A page of a shared object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    /// The object's number.
    pub(crate) object: u64,
    /// The page's index in the object.
    pub(crate) index: u64,
}

/// A fault that [`Owners::check`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OwnersFault {
    /// The slot is in a chain that is not its owner's.
    Misplaced(u32),
    /// Three counts of the owned slots differ.
    Count {
        /// The slots whose record names an owner.
        owned: usize,
        /// The slots found in chains.
        chained: usize,
        /// The stored number.
        recorded: usize,
    },
}

const SHARDS: usize = 16;

/// The end of a chain: there are fewer slots.
const END: u32 = u32::MAX;

/// The link of a slot that is in no chain: slot 0 never holds a page.
const UNOWNED: u32 = 0;

impl<M: RawMutex> Owners<M> {
    /// Records for `slots` slots, none of which has an owner.
    pub(crate) fn new(slots: u32) -> Result<Self, OutOfMemory> {
        let (links, pages) = (zeroed(slots as usize)?, zeroed(slots as usize)?);
        let chains = zeroed((slots as usize / 2).next_power_of_two().max(SHARDS))?;
        let shards = core::array::from_fn(|_| Mutex::new(()));
        Ok(Self { links, pages, chains, shards, owned: AtomicU32::new(0) })
    }

    /// The slot that holds a page; the last one set, if there are several.
    pub(crate) fn find(&self, owner: Owner) -> Option<u32> {
        if self.owned.load(Ordering::Acquire) == 0 {
            return None;
        }
        let chain = self.chain_of(owner);
        let _shard = self.shard(chain).lock();
        self.chain(chain).find(|slot| self.owner_of(*slot) == owner)
    }

    /// Records that a slot holds a page, whatever it held before. Ignores slot 0 and missing slots.
    pub(crate) fn set(&self, slot: u32, owner: Owner) {
        if slot == UNOWNED || self.links.len() <= slot as usize {
            return;
        }
        while !self.try_set(slot, owner) {
            self.clear(slot);
        }
    }

    /// Clears the record of a slot.
    pub(crate) fn clear(&self, slot: u32) {
        while self.is_owned(slot) && !self.try_clear(slot) {
            core::hint::spin_loop();
        }
    }

    /// Clears the record of a slot if it names this page, and returns whether it did. If several
    /// threads want to give up the page's slot, one succeeds.
    pub(crate) fn take(&self, slot: u32, owner: Owner) -> bool {
        let chain = self.chain_of(owner);
        let _shard = self.shard(chain).lock();
        let ours = self.chain(chain).any(|other| other == slot && self.owner_of(slot) == owner);
        if ours {
            self.unlink(chain, slot);
        }
        ours
    }

    /// The page that a slot holds, while nothing changes it.
    pub(crate) fn owner(&self, slot: u32) -> Option<Owner> {
        self.is_owned(slot).then(|| self.owner_of(slot))
    }

    /// Walks all chains, while nothing changes them: every owned slot is in the chain of its owner,
    /// and no other slot is in any chain.
    pub(crate) fn check(&self) -> Result<(), OwnersFault> {
        let mut chained = 0;
        for chain in 0..self.chains.len() {
            for slot in self.chain(chain).take(self.links.len()) {
                chained += 1;
                if self.owner(slot).is_none_or(|owner| self.chain_of(owner) != chain) {
                    return Err(OwnersFault::Misplaced(slot));
                }
            }
        }
        let owned = (0..self.links.len() as u32).filter(|slot| self.is_owned(*slot)).count();
        let recorded = self.owned.load(Ordering::Acquire) as usize;
        if owned == chained && owned == recorded {
            Ok(())
        } else {
            Err(OwnersFault::Count { owned, chained, recorded })
        }
    }

    /// Puts a record that is in no chain into its owner's; false if it is in one.
    fn try_set(&self, slot: u32, owner: Owner) -> bool {
        let chain = self.chain_of(owner);
        let (link, page) = (&self.links[slot as usize], &self.pages[slot as usize]);
        let _shard = self.shard(chain).lock();
        let next = match self.chains[chain].load(Ordering::Relaxed) {
            UNOWNED => END,
            head => head,
        };
        // Two threads may want this record for different shards: the exchange decides.
        let claim = link.compare_exchange(UNOWNED, next, Ordering::AcqRel, Ordering::Relaxed);
        if claim.is_err() {
            return false;
        }
        page[0].store(owner.object, Ordering::Relaxed);
        page[1].store(owner.index, Ordering::Relaxed);
        self.chains[chain].store(slot, Ordering::Release);
        self.owned.fetch_add(1, Ordering::AcqRel);
        true
    }

    /// Takes a record out of its chain; false if it moved to another meanwhile.
    fn try_clear(&self, slot: u32) -> bool {
        // Read without the lock, this may be half an old and half a new owner. Then the slot is not
        // in the chain that it leads to.
        let chain = self.chain_of(self.owner_of(slot));
        let _shard = self.shard(chain).lock();
        self.unlink(chain, slot)
    }

    /// Takes a record out of a chain whose shard is locked; false if it is not there.
    fn unlink(&self, chain: usize, slot: u32) -> bool {
        let next = self.next(slot);
        if self.chains[chain].load(Ordering::Relaxed) == slot {
            self.chains[chain].store(next, Ordering::Relaxed);
        } else {
            let Some(before) = self.chain(chain).find(|before| self.next(*before) == slot) else {
                return false;
            };
            self.links[before as usize].store(next, Ordering::Relaxed);
        }
        self.owned.fetch_sub(1, Ordering::AcqRel);
        self.links[slot as usize].store(UNOWNED, Ordering::Release);
        true
    }

    /// The slots of a chain; its shard is locked.
    fn chain(&self, chain: usize) -> impl Iterator<Item = u32> {
        let used = |slot: u32| (slot != END && slot != UNOWNED).then_some(slot);
        let head = used(self.chains[chain].load(Ordering::Relaxed));
        core::iter::successors(head, move |slot| used(self.next(*slot)))
    }

    fn chain_of(&self, owner: Owner) -> usize {
        // Fibonacci hashing: the upper half of a product with 2^64 divided by the golden ratio.
        const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
        let mixed = owner.object.wrapping_mul(FACTOR).rotate_left(29) ^ owner.index;
        (mixed.wrapping_mul(FACTOR) >> 32) as usize & (self.chains.len() - 1)
    }

    fn shard(&self, chain: usize) -> &Mutex<M, ()> {
        &self.shards[chain % SHARDS]
    }

    fn is_owned(&self, slot: u32) -> bool {
        let link = self.links.get(slot as usize);
        link.is_some_and(|link| link.load(Ordering::Acquire) != UNOWNED)
    }

    fn owner_of(&self, slot: u32) -> Owner {
        let [object, index] = &self.pages[slot as usize];
        Owner { object: object.load(Ordering::Relaxed), index: index.load(Ordering::Relaxed) }
    }

    fn next(&self, slot: u32) -> u32 {
        self.links[slot as usize].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;
