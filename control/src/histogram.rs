//! Durations counted in buckets that are shared by processes.

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

/// Each power of two is cut into this many buckets, so that a bucket is at most 1/8 wide.
const CUT: u64 = 8;

/// Enough buckets for durations up to 2^40 ns, eighteen minutes; longer ones go to the last.
const BUCKETS: usize = 40 * CUT as usize;

/// A histogram of durations in nanoseconds, exact within an eighth, that any number of processes
/// can record into at once.
#[repr(C)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum: AtomicU64,
    longest: AtomicU64,
}

impl Histogram {
    /// An empty histogram.
    #[cfg(feature = "std")]
    pub const fn new() -> Self {
        let zero = AtomicU64::new(0);
        let longest = AtomicU64::new(0);
        Self { buckets: [const { AtomicU64::new(0) }; BUCKETS], sum: zero, longest }
    }

    /// Counts one duration.
    pub fn record(&self, nanoseconds: u64) {
        self.buckets[bucket(nanoseconds)].fetch_add(1, Relaxed);
        self.sum.fetch_add(nanoseconds, Relaxed);
        self.longest.fetch_max(nanoseconds, Relaxed);
    }

    /// The number of durations.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Relaxed)).sum()
    }

    /// The sum of all durations in nanoseconds.
    pub fn sum(&self) -> u64 {
        self.sum.load(Relaxed)
    }

    /// The longest duration in nanoseconds, exactly; 0 if there is none.
    pub fn longest(&self) -> u64 {
        self.longest.load(Relaxed)
    }

    /// The duration in nanoseconds that `percent` per cent of all do not exceed, to within an
    /// eighth; 0 if nothing was counted.
    #[cfg(feature = "std")]
    pub fn percentile(&self, percent: f64) -> u64 {
        let rank = (self.count() as f64 * percent / 100.0).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, bucket) in self.buckets.iter().enumerate() {
            seen += bucket.load(Relaxed);
            if seen >= rank {
                return upper_end(index).min(self.longest());
            }
        }
        self.longest()
    }
}

#[cfg(feature = "std")]
impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

/// Which bucket counts a duration.
fn bucket(nanoseconds: u64) -> usize {
    if nanoseconds < CUT {
        return nanoseconds as usize;
    }
    // The leading bit chooses the power of two, the next three the bucket in it.
    let power = u64::from(nanoseconds.ilog2());
    let within = (nanoseconds >> (power - 3)) & (CUT - 1);
    (((power - 2) * CUT + within) as usize).min(BUCKETS - 1)
}

/// The longest duration that a bucket counts.
#[cfg(feature = "std")]
fn upper_end(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < CUT {
        return bucket;
    }
    let (power, within) = (bucket / CUT + 2, bucket % CUT);
    ((CUT + within + 1) << (power - 3)) - 1
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_without_a_gap() {
        for index in 1..BUCKETS {
            assert_eq!(bucket(upper_end(index - 1) + 1), index);
            assert_eq!(bucket(upper_end(index)), index);
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_right_within_an_eighth() {
        let histogram = Histogram::new();
        assert_eq!(histogram.percentile(50.0), 0);
        for n in 1..=10_000 {
            histogram.record(n);
        }
        for (percent, exact) in [(50.0, 5_000), (99.0, 9_900), (100.0, 10_000)] {
            let found = histogram.percentile(percent);
            assert!(found >= exact && found <= exact + exact / 8, "{percent}: {found}");
        }
        assert_eq!((histogram.count(), histogram.longest()), (10_000, 10_000));
        assert_eq!(histogram.sum(), 50_005_000);
    }
}
