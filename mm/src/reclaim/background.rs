//! Reclaim ahead of need, in a thread of the embedder.

use crate::machine::Machine;
use crate::manager::Manager;
use crate::reclaim::batch::Batch;
use core::sync::atomic::{AtomicBool, Ordering};

impl<M: Machine> Manager<M> {
    /// Keeps frames free ahead of need until `stop` is set (Linux: `kswapd`, spec F24). A thread of
    /// the embedder runs this; set `stop` and call [`Manager::wake_background`] to end it.
    ///
    /// It leaves the last few pages, which programs run from, where page tables hold the rest. A fault that
    /// needs a frame then reclaims directly, and so learns that memory has run out.
    pub fn background(&self, stop: &AtomicBool) {
        self.background_threads.fetch_add(1, Ordering::SeqCst);
        let mut seen = self.background.load(Ordering::Acquire);
        while !stop.load(Ordering::Acquire) {
            while self.machine.free_frames() < self.watermarks.high && !stop.load(Ordering::Acquire)
            {
                if self.is_little_left() {
                    break;
                }
                self.stats.of(&*self.machine).background_passes.add(&*self.machine, 1);
                if self.reclaim(Batch::<M>::SIZE) == 0 {
                    break;
                }
            }
            self.machine.wait(&self.background, seen);
            seen = self.background.load(Ordering::Acquire);
        }
        self.background_threads.fetch_sub(1, Ordering::SeqCst);
    }
}
