//! Words that several contexts change: with an atomic operation, unless one is known to be alone in the
//! manager.
//!
//! A fault changes some sixty of them, and an atomic operation costs as much as twenty plain ones.

use crate::machine::Machine;
use core::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// An atomic word. Each method returns the value before, like its namesake of the standard library, and
/// wraps like it.
pub(crate) trait Word {
    type Value;

    /// `fetch_add`.
    fn add_by(&self, machine: &impl Machine, n: Self::Value, ordering: Ordering) -> Self::Value;
    /// `fetch_sub`.
    fn sub_by(&self, machine: &impl Machine, n: Self::Value, ordering: Ordering) -> Self::Value;
    /// `fetch_or`.
    fn or_by(&self, machine: &impl Machine, bits: Self::Value, ordering: Ordering) -> Self::Value;
    /// `fetch_and`.
    fn and_by(&self, machine: &impl Machine, bits: Self::Value, ordering: Ordering) -> Self::Value;
}

macro_rules! words {
    ($($word:ty: $value:ty),+) => {$(
        impl Word for $word {
            type Value = $value;

            #[inline]
            fn add_by(&self, machine: &impl Machine, n: $value, ordering: Ordering) -> $value {
                if !machine.is_sole() {
                    return self.fetch_add(n, ordering);
                }
                let before = self.load(Ordering::Relaxed);
                self.store(before.wrapping_add(n), Ordering::Release);
                before
            }

            #[inline]
            fn sub_by(&self, machine: &impl Machine, n: $value, ordering: Ordering) -> $value {
                if !machine.is_sole() {
                    return self.fetch_sub(n, ordering);
                }
                let before = self.load(Ordering::Relaxed);
                self.store(before.wrapping_sub(n), Ordering::Release);
                before
            }

            #[inline]
            fn or_by(&self, machine: &impl Machine, bits: $value, ordering: Ordering) -> $value {
                if !machine.is_sole() {
                    return self.fetch_or(bits, ordering);
                }
                let before = self.load(Ordering::Relaxed);
                self.store(before | bits, Ordering::Release);
                before
            }

            #[inline]
            fn and_by(&self, machine: &impl Machine, bits: $value, ordering: Ordering) -> $value {
                if !machine.is_sole() {
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
