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
    /// The last handle is gone: from now on only the cache finds pages of the object.
    fn end(&self) {
        // No caller is left to receive an error.
        let _ = self.write_back(0..u64::MAX);
        self.drop_pages(0..u64::MAX);
        self.manager.uncharge(self.charged.swap(0, Ordering::Relaxed));
    }
}
