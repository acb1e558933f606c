//! The end of an object in the page cache.

use crate::cache::{File, Mapping};
use crate::machine::Machine;
use core::sync::atomic::Ordering;

impl<M: Machine> Drop for File<M> {
    fn drop(&mut self) {
        // Reclaim borrows the object for a moment without being a user: it holds page locks, for
        // which the end of the object has to wait.
        if self.0.users.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.end();
        }
    }
}

impl<M: Machine> Mapping<M> {
    /// The last handle is gone: nobody can find a page of the object any more but in the cache.
    fn end(&self) {
        // Nobody can be told of an error any more.
        let _ = self.write_back(0..u64::MAX);
        self.drop_pages(0..u64::MAX);
        self.manager.uncharge(self.charged.swap(0, Ordering::Relaxed));
    }
}
