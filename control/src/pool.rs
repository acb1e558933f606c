//! The compressed memory of the tree: one pool, cut into [spans](crate::Spans).

use crate::MOST_AREAS;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

/// The bytes of a span.
pub const SPAN: u64 = 32 << 10;

/// The bytes that each area uses, of the pool or of its file.
#[derive(Default)]
#[repr(C)]
pub struct PoolUse {
    used: [AtomicU64; MOST_AREAS],
    peak: AtomicU64,
}

impl PoolUse {
    /// The bytes that an area uses now.
    pub fn used(&self, area: usize) -> u64 {
        self.used.get(area).map_or(0, |used| used.load(Relaxed))
    }

    /// The most bytes that were in use at once, over all areas.
    pub fn peak(&self) -> u64 {
        self.peak.load(Relaxed)
    }

    /// Charges a span to an area, unless the area would then exceed `limit` bytes.
    pub fn charge(&self, area: usize, limit: u64) -> bool {
        self.charge_bytes(area, SPAN, limit)
    }

    /// Charges bytes to an area, unless that would exceed `limit`.
    pub fn charge_bytes(&self, area: usize, bytes: u64, limit: u64) -> bool {
        let Some(used) = self.used.get(area) else { return false };
        let more = |used: u64| used.checked_add(bytes).filter(|used| *used <= limit);
        if used.fetch_update(Relaxed, Relaxed, more).is_err() {
            return false;
        }
        let all = self.used.iter().map(|used| used.load(Relaxed)).sum();
        self.peak.fetch_max(all, Relaxed);
        true
    }

    /// Takes back the charge for a span.
    pub fn uncharge(&self, area: usize) {
        self.uncharge_bytes(area, SPAN);
    }

    /// Uncharges bytes.
    pub fn uncharge_bytes(&self, area: usize, bytes: u64) {
        let Some(used) = self.used.get(area) else { return };
        let less = |used: u64| used.checked_sub(bytes);
        let _ = used.fetch_update(Relaxed, Relaxed, less);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_area_is_charged_up_to_its_limit() {
        let pool = PoolUse::default();
        assert!(pool.charge(0, 2 * SPAN));
        assert!(pool.charge(0, 2 * SPAN));
        assert!(!pool.charge(0, 2 * SPAN));
        assert!(pool.charge(1, SPAN));
        pool.uncharge(0);
        assert!(pool.charge(0, 2 * SPAN));
        assert_eq!((pool.used(0), pool.used(1), pool.peak()), (2 * SPAN, SPAN, 3 * SPAN));
        assert!(!pool.charge(MOST_AREAS, u64::MAX));
    }
}
