//! Text in shared memory.

use crate::TooLong;
#[cfg(feature = "alloc")]
use alloc::vec::Vec;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicU8, AtomicU64};

/// Bytes of a length of at most `N` − 1, in shared memory.
#[repr(C)]
pub struct Text<const N: usize> {
    len: AtomicU64,
    bytes: [AtomicU8; N],
}

impl<const N: usize> Text<N> {
    /// Keeps a text.
    pub fn store(&self, text: &[u8]) -> Result<(), TooLong> {
        if text.len() >= N {
            return Err(TooLong);
        }
        self.store_clipped(text);
        Ok(())
    }

    /// Keeps as much of a text as fits.
    pub fn store_clipped(&self, text: &[u8]) {
        let text = &text[..text.len().min(N - 1)];
        for (to, from) in self.bytes.iter().zip(text) {
            to.store(*from, Relaxed);
        }
        self.len.store(text.len() as u64, Release);
    }

    /// The bytes, one after the other.
    pub fn bytes(&self) -> impl ExactSizeIterator<Item = u8> + '_ {
        let len = usize::try_from(self.len.load(Acquire)).unwrap_or(N).min(N);
        self.bytes[..len].iter().map(|byte| byte.load(Relaxed))
    }

    /// The bytes, owned.
    #[cfg(feature = "alloc")]
    pub fn load(&self) -> Vec<u8> {
        self.bytes().collect()
    }
}
