//! Reclaim ahead of need, in a thread of the embedder.

use crate::machine::Machine;
use crate::manager::Manager;
use crate::reclaim::batch::Batch;
use crate::reclaim::watermarks::Watermarks;
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
            self.raise_free_frames(|| stop.load(Ordering::Acquire));
            self.machine.wait(&self.background, seen);
            seen = self.background.load(Ordering::Acquire);
        }
        self.background_threads.fetch_sub(1, Ordering::SeqCst);
    }

    /// Does once what a woken [`background`](Self::background) thread does, in the caller's thread, and
    /// returns how many pages were freed; `None` if the low watermark is kept and nobody would have woken it.
    pub fn reclaim_ahead(&self) -> Option<usize> {
        (self.machine.free_frames() < self.watermarks.low).then(|| self.raise_free_frames(|| false))
    }

    /// How many frames background reclaim keeps free.
    pub const fn watermarks(&self) -> Watermarks {
        self.watermarks
    }

    /// Evicts, batch after batch, until as many frames are free as the high watermark says, nothing more can
    /// leave, or the caller's thread is to end. Returns how many pages were freed.
    fn raise_free_frames(&self, is_stopped: impl Fn() -> bool) -> usize {
        let mut freed = 0;
        while self.machine.free_frames() < self.watermarks.high && !is_stopped() {
            if self.is_little_left() {
                break;
            }
            self.stats.of(&*self.machine).background_passes.add(&*self.machine, 1);
            match self.reclaim(Batch::<M>::SIZE) {
                0 => break,
                more => freed += more,
            }
        }
        freed
    }
}
