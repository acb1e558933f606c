//! What more memory would have changed: a miss-ratio curve kept by sampling.
//!
//! An eviction notes the count of evictions so far. When the page comes back, the evictions in between
//! are its *refault distance*: with that many more frames, LRU would have kept the page (Linux:
//! `mm/workingset.c`). Pages are sampled by a hash of their address, at a rate that falls as their
//! number grows (SHARDS: Waldspurger, Park, Garthwaite, Ahmad, FAST 2015).
//!
//! The effect of less memory cannot be measured, because accesses to resident pages do not fault. The
//! curve is extended by its own slope, and marked as such.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// The most pages sampled at once: a table that fits a processor's cache, and still some hundred pages for each
/// bucket of a curve.
const MOST: usize = 1 << 12;
/// The number of buckets for each doubling of the distance.
const CUT: u32 = 8;
/// Enough buckets for distances up to 2^40.
const BUCKETS: usize = 40 * CUT as usize;

/// The distances of a run so far.
pub struct Curve {
    /// Pages with a hash below this are sampled; halved when there are too many.
    threshold: u64,
    /// Evictions so far.
    clock: u64,
    /// The eviction count of each sampled page, by its hash; the hash is unique.
    evicted: HashMap<u64, u64, BuildHasherDefault<Hashed>>,
    /// Pages that came back, by distance, weighted by the sampling rate.
    distances: Vec<f64>,
    /// The pages that came back without a known eviction.
    unknown: f64,
}

impl Default for Curve {
    fn default() -> Self {
        Self {
            threshold: u64::MAX,
            clock: 0,
            evicted: HashMap::default(),
            distances: vec![0.0; BUCKETS],
            unknown: 0.0,
        }
    }
}

impl Curve {
    /// A page was evicted.
    pub fn evicted(&mut self, process: u32, page: u64) {
        self.clock += 1;
        let hash = hash(process, page);
        if hash > self.threshold {
            return;
        }
        self.evicted.insert(hash, self.clock);
        if self.evicted.len() > MOST {
            self.threshold /= 2;
            let threshold = self.threshold;
            self.evicted.retain(|hash, _| *hash <= threshold);
        }
    }

    /// A page came back.
    pub fn came_back(&mut self, process: u32, page: u64) {
        let hash = hash(process, page);
        if hash > self.threshold {
            return;
        }
        let weight = u64::MAX as f64 / self.threshold as f64;
        match self.evicted.remove(&hash) {
            Some(then) => self.distances[bucket(self.clock - then)] += weight,
            None => self.unknown += weight,
        }
    }

    /// The share of the pages that came back that would still have done so with `more` frames: 1 for
    /// 0. `None` if none came back.
    pub fn part_left(&self, more: u64) -> Option<f64> {
        let all: f64 = self.distances.iter().sum::<f64>() + self.unknown;
        if all <= 0.0 {
            return None;
        }
        // Part of the bucket that contains `more` lies beyond it.
        let within = bucket(more);
        let (low, high) = (lower_end(within) as f64, lower_end(within + 1) as f64);
        let beyond = ((high - more as f64) / (high - low)).clamp(0.0, 1.0);
        let farther: f64 = self.distances[within + 1..].iter().sum();
        Some((farther + self.distances[within] * beyond + self.unknown) / all)
    }

    /// How many pages would have come back with half of `frames`, relative to now, if the slope of the
    /// curve continues below the limit. `None` without a slope.
    pub fn with_half(&self, frames: u64) -> Option<f64> {
        // A power law, fitted to the nearest part of the curve.
        let left = self.part_left(frames / 2)?;
        (left > 0.0).then(|| 2_f64.powf((1.0 / left).ln() / 1.5_f64.ln()))
    }
}

/// A hasher for keys that are hashes already.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, word: u64) {
        // Sampled hashes are small, but the table uses the upper bits too.
        self.0 = word.rotate_left(32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The hash for sampling: one to one for fewer than 4,096 processes.
fn hash(process: u32, page: u64) -> u64 {
    // The finish of SplitMix64, which mixes every bit into every other.
    let mut word = (page >> 12) ^ u64::from(process) << 52;
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// The bucket of a distance.
fn bucket(distance: u64) -> usize {
    let distance = distance.max(1);
    let power = distance.ilog2();
    let within =
        if power >= 3 { (distance >> (power - 3)) & 7 } else { (distance << (3 - power)) & 7 };
    ((power * CUT) as usize + within as usize).min(BUCKETS - 2)
}

/// The smallest distance of a bucket.
fn lower_end(bucket: usize) -> u64 {
    let (power, within) = (bucket as u32 / CUT, bucket as u64 % u64::from(CUT));
    ((u64::from(CUT) + within) << power) >> 3
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program that cycles through `pages` pages in `frames` frames.
    fn around(curve: &mut Curve, pages: u64, frames: u64, rounds: u64) {
        for step in 0..pages * rounds {
            if step >= pages {
                curve.came_back(1, (step % pages) << 12);
            }
            if step >= frames {
                curve.evicted(1, ((step - frames) % pages) << 12);
            }
        }
    }

    #[test]
    fn going_around_needs_all_of_it_or_gains_nothing() {
        let mut curve = Curve::default();
        around(&mut curve, 1000, 600, 20);
        // Each page comes back after about 400 evictions.
        assert!(curve.part_left(0).unwrap() > 0.99);
        assert!(curve.part_left(300).unwrap() > 0.99);
        assert!(curve.part_left(500).unwrap() < 0.01);
    }

    #[test]
    fn many_pages_are_sampled_and_the_curve_stays_what_it_was() {
        let mut curve = Curve::default();
        around(&mut curve, 400_000, 200_000, 3);
        assert!(curve.evicted.len() <= MOST);
        assert!(curve.part_left(150_000).unwrap() > 0.95, "{:?}", curve.part_left(150_000));
        // Few pages were sampled at the time when the rate fell.
        assert!(curve.part_left(300_000).unwrap() < 0.05, "{:?}", curve.part_left(300_000));
    }

    #[test]
    fn half_is_as_much_more_as_half_more_is_less() {
        let mut curve = Curve::default();
        // A quarter of the pages comes back late: with half as much memory again, that quarter
        // remains.
        for page in 0..4000_u64 {
            curve.evicted(1, page << 12);
            if page.is_multiple_of(4) {
                continue;
            }
            curve.came_back(1, page << 12);
        }
        (0..1000).for_each(|page| curve.came_back(1, page << 14));
        let left = curve.part_left(500).unwrap();
        assert!((0.2..0.3).contains(&left), "{left}");
        let half = curve.with_half(1000).unwrap();
        assert!((half.ln() / 2_f64.ln() - (1.0 / left).ln() / 1.5_f64.ln()).abs() < 1e-9, "{half}");
        assert!(half > 1.0 / left);
    }

    #[test]
    fn nothing_that_came_back_is_no_curve() {
        let mut curve = Curve::default();
        curve.evicted(1, 0x1000);
        assert_eq!(curve.part_left(10), None);
        assert_eq!(curve.with_half(10), None);
    }

    #[test]
    fn buckets_follow_each_other() {
        for distance in 1..100_000 {
            let found = bucket(distance);
            assert!(lower_end(found) <= distance, "{distance}");
            assert!(distance < 8 || lower_end(found + 1) > distance, "{distance}");
        }
    }
}
