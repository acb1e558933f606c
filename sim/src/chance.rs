//! Chance that repeats: a stream of numbers fixed by a seed.

use core::sync::atomic::{AtomicU64, Ordering};

/// A stream of random numbers that several threads may draw from.
///
/// One thread alone draws the same numbers for the same seed. It is splitmix64, whose state is a
/// counter, so that a draw is one atomic addition.
#[derive(Debug)]
pub(crate) struct Chance {
    state: AtomicU64,
}

/// The odd number nearest to 2^64 divided by the golden ratio: splitmix64's step.
pub(crate) const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Chance {
    /// The stream number `stream` of `seed`.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        Self { state: AtomicU64::new(mix(seed ^ mix(stream))) }
    }

    /// The next number.
    pub(crate) fn next(&self) -> u64 {
        mix(self.state.fetch_add(STEP, Ordering::Relaxed))
    }

    /// A number below `limit`, which is not 0.
    pub(crate) fn below(&self, limit: u64) -> u64 {
        // The bias of a remainder is below 2^-32 for the small limits used here.
        self.next() % limit
    }

    /// True `per_1024` times in 1,024 on average.
    pub(crate) fn happens(&self, per_1024: u16) -> bool {
        per_1024 != 0 && self.next() & 1023 < u64::from(per_1024)
    }
}

/// Scrambles a number: splitmix64's output function.
pub(crate) const fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(STEP);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
