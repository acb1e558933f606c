//! Random bytes, from the processor's time stamp counter: good enough for hash seeds, and for
//! nothing that must stay secret.

use core::sync::atomic::{AtomicU64, Ordering};

static STATE: AtomicU64 = AtomicU64::new(0x9e37_79b9_7f4a_7c15);

/// A random word (splitmix64).
fn next() -> u64 {
    let now = crate::clock::nanoseconds();
    let mut z = STATE.fetch_add(0x9e37_79b9_7f4a_7c15 ^ now << 1, Ordering::Relaxed);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Fills bytes.
pub fn fill(bytes: &mut [u8]) {
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&next().to_le_bytes()[..chunk.len()]);
    }
}
