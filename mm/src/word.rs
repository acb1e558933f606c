//! Words that several contexts change: with an atomic operation, unless one is known to be alone in the
//! manager.
//!
//! A fault changes some sixty of them, and an atomic operation costs as much as twenty plain ones.

use crate::machine::Machine;
use core::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// Who knows whether its caller is alone in the manager.
pub(crate) trait Sole {
    fn is_sole(&self) -> bool;
}

impl<M: Machine> Sole for M {
    #[inline]
    fn is_sole(&self) -> bool {
        Machine::is_sole(self)
    }
}

/// An atomic word. Each method returns the value before, like its namesake of the standard library, and
/// wraps like it.
pub(crate) trait Word {
    type Value;

    /// `fetch_add`.
    fn add_by(&self, who: &impl Sole, n: Self::Value, ordering: Ordering) -> Self::Value;
    /// `fetch_sub`.
    fn sub_by(&self, who: &impl Sole, n: Self::Value, ordering: Ordering) -> Self::Value;
    /// `fetch_or`.
    fn or_by(&self, who: &impl Sole, bits: Self::Value, ordering: Ordering) -> Self::Value;
    /// `fetch_and`.
    fn and_by(&self, who: &impl Sole, bits: Self::Value, ordering: Ordering) -> Self::Value;
}

macro_rules! words {
    ($($word:ty: $value:ty),+) => {$(
        impl Word for $word {
            type Value = $value;

            #[inline]
            fn add_by(&self, who: &impl Sole, n: $value, ordering: Ordering) -> $value {
                if !who.is_sole() {
                    return self.fetch_add(n, ordering);
                }
                let before = self.load(Ordering::Relaxed);
                self.store(before.wrapping_add(n), Ordering::Release);
                before
            }

            #[inline]
            fn sub_by(&self, who: &impl Sole, n: $value, ordering: Ordering) -> $value {
                if !who.is_sole() {
                    return self.fetch_sub(n, ordering);
                }
                let before = self.load(Ordering::Relaxed);
                self.store(before.wrapping_sub(n), Ordering::Release);
                before
            }

            #[inline]
            fn or_by(&self, who: &impl Sole, bits: $value, ordering: Ordering) -> $value {
                if !who.is_sole() {
                    return self.fetch_or(bits, ordering);
                }
                let before = self.load(Ordering::Relaxed);
                self.store(before | bits, Ordering::Release);
                before
            }

            #[inline]
            fn and_by(&self, who: &impl Sole, bits: $value, ordering: Ordering) -> $value {
                if !who.is_sole() {
                    return self.fetch_and(bits, ordering);
                }
                let before = self.load(Ordering::Relaxed);
                self.store(before & bits, Ordering::Release);
                before
            }
        }
    )+};
}

words!(AtomicI64: i64, AtomicU32: u32, AtomicU64: u64, AtomicUsize: usize);
