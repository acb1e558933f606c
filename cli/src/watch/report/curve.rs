//! What more memory would have changed: a miss-ratio curve kept by sampling.
//!
//! Evicted pages queue in the order of their eviction, until they come back. When one does, the pages behind it are its
//! *refault distance*: with that many more frames, LRU would have kept it. The evictions in between (Linux:
//! `mm/workingset.c`) would be too many: a page that is evicted, comes back and is evicted again needs one frame.
//! Pages are sampled by a hash of their address, at a rate that falls as their number grows (SHARDS: Waldspurger, Park,
//! Garthwaite, Ahmad, FAST 2015).
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
    /// The sampled pages that are evicted: their places in the queue, by hash; the hash is unique.
    evicted: HashMap<u64, usize, BuildHasherDefault<Hashed>>,
    queue: Queue,
    /// Pages that came back, by distance, weighted by the sampling rate.
    distances: Vec<f64>,
    /// The pages that came back without a known eviction.
    unknown: f64,
}

impl Default for Curve {
    fn default() -> Self {
        Self {
            threshold: u64::MAX,
            evicted: HashMap::default(),
            queue: Queue::default(),
            distances: vec![0.0; BUCKETS],
            unknown: 0.0,
        }
    }
}

impl Curve {
    /// A page was evicted.
    pub fn evicted(&mut self, process: u32, page: u64) {
        let hash = hash(process, page);
        if hash > self.threshold {
            return;
        }
        if let Some(place) = self.evicted.remove(&hash) {
            self.queue.leave(place);
        }
        if self.evicted.len() == MOST {
            self.threshold /= 2;
            let threshold = self.threshold;
            self.evicted.retain(|hash, _| *hash <= threshold);
            self.queue.renumber(&mut self.evicted);
            return self.evicted(process, page);
        }
        if self.queue.is_full() {
            self.queue.renumber(&mut self.evicted);
        }
        self.evicted.insert(hash, self.queue.enter());
    }

    /// A page came back.
    pub fn came_back(&mut self, process: u32, page: u64) {
        let hash = hash(process, page);
        if hash > self.threshold {
            return;
        }
        let weight = u64::MAX as f64 / self.threshold as f64;
        match self.evicted.remove(&hash) {
            Some(place) => {
                let distance = self.queue.behind(place) as f64 * weight;
                self.queue.leave(place);
                self.distances[bucket(distance as u64)] += weight;
            }
            None => self.unknown += weight,
        }
    }

    /// A page was made: what was evicted there is gone.
    pub fn made(&mut self, process: u32, page: u64) {
        let hash = hash(process, page);
        if hash <= self.threshold
            && let Some(place) = self.evicted.remove(&hash)
        {
            self.queue.leave(place);
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

    /// How many pages would have come back with half of `frames`, relative to now, if the curve continues below the
    /// limit as it goes above: at least as many, where less memory counts more and more. `None` if none came back.
    pub fn with_half(&self, frames: u64) -> Option<f64> {
        Some(2.0 - self.part_left(frames / 2)?)
    }
}

/// Who is in a queue, by place: a tree of sums (Fenwick's), so that those behind a place are counted in few steps.
struct Queue {
    /// Each node counts the members of as many places as its lowest set bit says, up to its own; the first is not used.
    sums: Vec<u32>,
    /// The next free place.
    next: usize,
    members: u32,
}

impl Default for Queue {
    fn default() -> Self {
        Self { sums: vec![0; Self::PLACES + 1], next: 1, members: 0 }
    }
}

impl Queue {
    /// Twice as many as members, so that places are seldom given anew.
    const PLACES: usize = 2 * MOST;

    const fn is_full(&self) -> bool {
        self.next > Self::PLACES
    }

    /// Joins at the end; returns the place.
    fn enter(&mut self) -> usize {
        let place = self.next;
        self.next += 1;
        self.members += 1;
        self.add(place, 1);
        place
    }

    fn leave(&mut self, place: usize) {
        self.members -= 1;
        self.add(place, u32::MAX);
    }

    fn add(&mut self, mut place: usize, more: u32) {
        while place <= Self::PLACES {
            self.sums[place] = self.sums[place].wrapping_add(more);
            place += place & place.wrapping_neg();
        }
    }

    /// How many came later than the member at a place.
    fn behind(&self, mut place: usize) -> u32 {
        let mut until = 0;
        while place > 0 {
            until += self.sums[place];
            place &= place - 1;
        }
        self.members - until
    }

    /// Gives the members places from the first on, in their order.
    fn renumber<S>(&mut self, places: &mut HashMap<u64, usize, S>) {
        let mut in_order: Vec<&mut usize> = places.values_mut().collect();
        in_order.sort_unstable();
        *self = Self::default();
        in_order.into_iter().for_each(|place| *place = self.enter());
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
    fn a_page_that_goes_round_and_round_counts_once() {
        // Any page is as likely as any other, and a third of them is in memory. With twice the memory half of the
        // misses remain.
        const PAGES: u64 = 6000;
        const FRAMES: u64 = PAGES / 3;
        let mut curve = Curve::default();
        let mut resident: std::collections::VecDeque<u64> = (0..FRAMES).collect();
        (FRAMES..PAGES).for_each(|page| curve.evicted(1, page << 12));
        let mut random = 88_172_645_463_325_252_u64;
        for _ in 0..100_000 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let page = random % PAGES;
            if resident.contains(&page) {
                continue;
            }
            curve.came_back(1, page << 12);
            resident.push_back(page);
            curve.evicted(1, resident.pop_front().unwrap() << 12);
        }
        let left = curve.part_left(FRAMES).unwrap();
        assert!((0.48..0.52).contains(&left), "{left}");
    }

    #[test]
    fn what_was_made_anew_is_in_no_queue() {
        let mut curve = Curve::default();
        (0..100_u64).for_each(|page| curve.evicted(1, page << 12));
        (1..100_u64).for_each(|page| curve.made(1, page << 12));
        curve.came_back(1, 0);
        assert!(curve.part_left(8).unwrap() < 0.01, "nothing is behind it");
        assert_eq!(curve.evicted.len(), 0);
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
        (10_000..11_000_u64).for_each(|page| curve.evicted(1, page << 12));
        (0..1000).for_each(|page| curve.came_back(1, page << 14));
        let left = curve.part_left(500).unwrap();
        assert!((0.2..0.3).contains(&left), "{left}");
        let half = curve.with_half(1000).unwrap();
        assert!((half - 1.0 - (1.0 - left)).abs() < 1e-9, "{half}");
        // Not the thousandfold, even if half as much again would keep nearly all.
        assert!(curve.with_half(4000).unwrap() <= 2.0);
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
