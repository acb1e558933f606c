//! The source of an arena's spans: this process's own memory, or a pool that processes share.

use super::Mutex;
use crate::host;
use crate::reserve::{ReserveError, Sparse, Table, Zeroed};
use core::cell::UnsafeCell;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicU32, AtomicU64};

/// The bytes of a span: eight pages.
pub const SPAN: usize = 32 << 10;

/// Spans of [`SPAN`] bytes, numbered from 0, within a cap on real memory. Called under an arena's locks.
///
/// # Safety
/// [`Pool::memory`] returns the address of [`SPAN`] bytes that may be read and written as long as
/// the span is held: from [`Pool::take`] until [`Pool::give`], and in a forked child from the fork.
/// No other process writes there. Until the span is given back its bytes stay as written.
pub unsafe trait Pool: Send + Sync {
    /// The most spans.
    fn spans(&self) -> u32;
    /// The cap in bytes.
    fn limit(&self) -> u64;
    /// The bytes in use by all processes that share the pool.
    fn used(&self) -> u64;
    /// Takes a span with any content; `None` at the cap.
    fn take(&self) -> Option<u32>;
    /// Releases an empty span.
    fn give(&self, span: u32);
    /// Whether this process is the only holder of a span that it holds.
    fn is_sole(&self, span: u32) -> bool;
    /// The memory of a span that this process holds.
    fn memory(&self, span: u32) -> *mut u8;
    /// Charges a page of tables; false at the cap.
    fn charge_page(&self) -> bool;
    /// Takes back such a charge.
    fn uncharge_page(&self);
    /// Whether another process may have made room since the pool was full.
    fn may_have_room(&self) -> bool;
}

/// A span's line in an arena's table, and in the list of free ones.
const OVERHEAD: usize = 88;

/// The cost of a span: its memory and its lines in tables.
const SPAN_COST: u64 = (SPAN + OVERHEAD) as u64;

/// The spans whose memory is reserved together: 8 MiB.
const CHUNK: usize = 256;

/// The end of a list of spans.
const NIL: u32 = u32::MAX;

struct Chunk([UnsafeCell<[u8; SPAN]>; CHUNK]);

// SAFETY: bytes, for which zero is a value.
unsafe impl Zeroed for Chunk {}
// SAFETY: an object's bytes are touched only by whoever its place was given to.
unsafe impl Sync for Chunk {}
// SAFETY: no part is bound to a thread.
unsafe impl Send for Chunk {}

/// This process's own spans, which a fork copies.
pub struct OwnPool {
    used: AtomicU64,
    limit: u64,
    memory: Sparse<Chunk>,
    /// For each free span that was in use the next one.
    next: Table<AtomicU32>,
    free: Mutex<Free>,
}

/// The unheld spans.
struct Free {
    /// Spans from this number on were never used.
    fresh: u32,
    /// The first free span whose memory was given back.
    cold: u32,
}

impl OwnPool {
    /// As many spans as `limit` bytes can pay for; addresses are reserved as needed.
    pub fn new(limit: u64) -> Result<Self, ReserveError> {
        let spans = usize::try_from(limit / SPAN_COST).unwrap_or(usize::MAX / SPAN);
        let spans = spans.min(NIL as usize - 1);
        Ok(Self {
            used: AtomicU64::new(0),
            limit,
            memory: Sparse::new(spans.div_ceil(CHUNK))?,
            next: Table::new(spans)?,
            free: Mutex::new(Free { fresh: 0, cold: NIL }),
        })
    }

    fn charge(&self, bytes: u64) -> bool {
        let add = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= self.limit);
        self.used.fetch_update(Relaxed, Relaxed, add).is_ok()
    }

    fn uncharge(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Relaxed);
    }
}

// SAFETY: a span's memory is part of a reservation that lives as long as this value; a fork copies it.
// `take` gives a span to one holder at a time.
unsafe impl Pool for OwnPool {
    fn spans(&self) -> u32 {
        self.next.len() as u32
    }

    fn limit(&self) -> u64 {
        self.limit
    }

    fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    fn take(&self) -> Option<u32> {
        let mut free = self.free.lock();
        let fresh = free.fresh as usize;
        // If the host refuses addresses there is no room, as at the cap.
        let known = free.cold != NIL
            || fresh < self.next.len() && self.memory.get_or_reserve(fresh / CHUNK).is_ok();
        if !known || !self.charge(SPAN_COST) {
            return None;
        }
        if free.cold == NIL {
            free.fresh += 1;
            return Some(free.fresh - 1);
        }
        let span = free.cold;
        free.cold = self.next[span as usize].load(Relaxed);
        Some(span)
    }

    fn give(&self, span: u32) {
        let mut free = self.free.lock();
        let start = self.memory(span) as u64;
        // If the host refuses, the memory merely stays.
        // SAFETY: the span holds no object and is in no list, so that nobody uses its bytes; the
        // lock keeps it from being taken meanwhile.
        let _ = unsafe { host::discard(start..start + SPAN as u64) };
        self.uncharge(SPAN_COST);
        self.next[span as usize].store(free.cold, Relaxed);
        free.cold = span;
    }

    fn is_sole(&self, _: u32) -> bool {
        true
    }

    fn memory(&self, span: u32) -> *mut u8 {
        match self.memory.get(span as usize / CHUNK) {
            Some(chunk) => chunk.0[span as usize % CHUNK].get().cast(),
            None => unreachable!("span {span} was never taken"),
        }
    }

    fn charge_page(&self) -> bool {
        self.charge(host::PAGE as u64)
    }

    fn uncharge_page(&self) {
        self.uncharge(host::PAGE as u64);
    }

    fn may_have_room(&self) -> bool {
        false
    }
}
