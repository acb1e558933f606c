//! Objects by number, so that a page can name its owner in a word.

use crate::machine::Machine;
use crate::sync::{LockOrder, Rank, RwLock};
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

/// Gives out unique numbers, and finds the living object with a number.
pub(crate) struct Registry<M: Machine, T> {
    next: AtomicU64,
    objects: RwLock<M, Objects<T>>,
}

struct Objects<T> {
    by_id: BTreeMap<u64, Weak<T>>,
    /// Dead entries are swept when the table has grown to this size.
    sweep_at: usize,
}

impl<M: Machine, T> Registry<M, T> {
    pub(crate) fn new() -> Self {
        let objects = Objects { by_id: BTreeMap::new(), sweep_at: 64 };
        Self { next: AtomicU64::new(1), objects: RwLock::new(Rank::Registry, objects) }
    }

    /// Makes an object that knows its number.
    pub(crate) fn add(&self, order: &LockOrder<M>, make: impl FnOnce(u64) -> T) -> Arc<T> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let object = Arc::new(make(id));
        self.objects.write(order, |objects| {
            if objects.by_id.len() >= objects.sweep_at {
                objects.by_id.retain(|_, weak| weak.strong_count() > 0);
                objects.sweep_at = 64.max(objects.by_id.len() * 2);
            }
            objects.by_id.insert(id, Arc::downgrade(&object));
        });
        object
    }

    pub(crate) fn find(&self, order: &LockOrder<M>, id: u64) -> Option<Arc<T>> {
        self.objects.read(order, |objects| objects.by_id.get(&id).and_then(Weak::upgrade))
    }

    /// All living objects, in the order of their numbers.
    pub(crate) fn all(&self, order: &LockOrder<M>) -> Vec<Arc<T>> {
        self.objects
            .read(order, |objects| objects.by_id.values().filter_map(Weak::upgrade).collect())
    }
}
