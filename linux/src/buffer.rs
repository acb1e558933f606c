//! Parked pages: the manager's own memory for unmapped content.

use crate::deliver::stop;
use crate::host::PAGE;
use crate::lock::SoleMutex;
use crate::reserve::{ReserveError, Sparse, Zeroed};
use crate::sweep::{Ranges, Sweep};
use core::cell::UnsafeCell;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::Relaxed;
use lock_api::RawMutex;
use pagefault_machine::machine::Page;

/// How many buffers there are beyond one a frame: each thread that copies a frame needs one more.
const SPARE: u32 = 1024;
/// How many unused buffers may stay resident.
pub const WARM: u32 = 64;
/// How many of them go back to the host at once when there are more.
const COOLED: usize = 32;

/// The buffers that are reserved together: 8 MiB.
const CHUNK: usize = 2048;

#[repr(C)]
struct Chunk {
    pages: UnsafeCell<[[u8; PAGE]; CHUNK]>,
    /// For an unused buffer: the next one in its list plus one.
    next: [AtomicU32; CHUNK],
}

// SAFETY: bytes and atomics, valid when zero.
unsafe impl Zeroed for Chunk {}
// SAFETY: a buffer's bytes are touched only by whoever took it, the rest is atomics.
unsafe impl Sync for Chunk {}

/// All buffers of a machine.
pub struct Buffers {
    chunks: Sparse<Chunk>,
    count: usize,
    lock: SoleMutex,
    lists: UnsafeCell<Lists>,
    /// Buffers in use or warm: pages of the host's memory.
    resident: AtomicU32,
}

#[derive(Default)]
struct Lists {
    /// The first unused buffer plus one whose memory is resident.
    warm: u32,
    warm_count: u32,
    /// The first one whose memory was given back.
    cold: u32,
    /// Buffers from here on have never been used.
    fresh: u32,
}

// SAFETY: `lists` is touched only under `lock`; the rest is shared by design.
unsafe impl Sync for Buffers {}
// SAFETY: no part is bound to a thread.
unsafe impl Send for Buffers {}

impl Buffers {
    /// Buffers for `frames` frames.
    pub fn new(frames: u32) -> Result<Self, ReserveError> {
        let count = frames as usize + SPARE as usize;
        Ok(Self {
            chunks: Sparse::new(count.div_ceil(CHUNK))?,
            count,
            lock: SoleMutex::INIT,
            lists: UnsafeCell::new(Lists::default()),
            resident: AtomicU32::new(0),
        })
    }

    /// Roughly how many pages of host memory the buffers hold.
    pub fn resident(&self) -> u32 {
        self.resident.load(Relaxed)
    }

    /// Takes a buffer with undefined content. If all are taken, more threads are copying than there
    /// are spare buffers: waits for one of them.
    pub fn take(&self) -> u32 {
        loop {
            if let Some(slot) = self.with_lists(|lists| self.pop(lists)) {
                return slot;
            }
            rustix::thread::sched_yield();
        }
    }

    /// Gives a buffer back.
    pub fn give(&self, slot: u32, sweep: &Sweep) {
        let mut cooled = [0; COOLED];
        let cool = self.with_lists(|lists| {
            self.next(slot).store(lists.warm, Relaxed);
            lists.warm = slot + 1;
            lists.warm_count += 1;
            if lists.warm_count <= WARM {
                return false;
            }
            for slot in &mut cooled {
                let first = lists.warm - 1;
                lists.warm = self.next(first).load(Relaxed);
                lists.warm_count -= 1;
                *slot = first;
            }
            true
        });
        if cool {
            self.give_back(cooled, sweep);
        }
    }

    /// The address of a buffer's page, which is valid until the buffer is given back.
    pub fn page(&self, slot: u32) -> *mut Page {
        let pages = self.chunk(slot).pages.get().cast::<Page>();
        // SAFETY: within the chunk's array of pages.
        unsafe { pages.add(slot as usize % CHUNK) }
    }

    /// Gives the memory of unused buffers back to the host.
    #[cold]
    fn give_back(&self, mut slots: [u32; COOLED], sweep: &Sweep) {
        slots.sort_unstable();
        let mut ranges = Ranges::new();
        for slot in slots {
            ranges.push(self.page(slot) as u64);
        }
        // If the host refuses, the pages merely stay resident.
        // SAFETY: the buffers are unused and in neither list, so nobody refers to them.
        let _ = unsafe { sweep.drop_pages(&ranges) };
        self.with_lists(|lists| {
            for slot in slots {
                self.next(slot).store(lists.cold, Relaxed);
                lists.cold = slot + 1;
            }
        });
        self.resident.fetch_sub(COOLED as u32, Relaxed);
    }

    fn pop(&self, lists: &mut Lists) -> Option<u32> {
        if lists.warm != 0 {
            let slot = lists.warm - 1;
            lists.warm = self.next(slot).load(Relaxed);
            lists.warm_count -= 1;
            return Some(slot);
        }
        let slot = if lists.cold != 0 {
            let slot = lists.cold - 1;
            lists.cold = self.next(slot).load(Relaxed);
            slot
        } else if (lists.fresh as usize) < self.count {
            if self.chunks.get_or_reserve(lists.fresh as usize / CHUNK).is_err() {
                stop("pagefault: the host refuses address space for pages on their way out\n");
            }
            lists.fresh += 1;
            lists.fresh - 1
        } else {
            return None;
        };
        self.resident.fetch_add(1, Relaxed);
        Some(slot)
    }

    fn next(&self, slot: u32) -> &AtomicU32 {
        &self.chunk(slot).next[slot as usize % CHUNK]
    }

    /// The chunk of a buffer that was handed out.
    fn chunk(&self, slot: u32) -> &Chunk {
        match self.chunks.get(slot as usize / CHUNK) {
            Some(chunk) => chunk,
            None => unreachable!("buffer {slot} was never handed out"),
        }
    }

    fn with_lists<R>(&self, f: impl FnOnce(&mut Lists) -> R) -> R {
        self.lock.lock();
        // SAFETY: the lock is held, and `f` does not take it again.
        let result = f(unsafe { &mut *self.lists.get() });
        // SAFETY: locked above.
        unsafe { self.lock.unlock() };
        result
    }
}
