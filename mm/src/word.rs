//! Words that several contexts change: by an atomic operation, unless the caller is known to be
//! alone in the manager.
//!
//! A fault changes about sixty of them, and an atomic operation costs as much as twenty plain ones.

use crate::machine::Machine;
use core::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// Knows whether its caller is alone in the manager.
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

/// A method of [`Word`]: its name, the atomic operation, and the same operation on a plain value.
macro_rules! change {
    ($name:ident, $atomic:ident, $value:ty, $plain:expr) => {
        #[inline]
        fn $name(&self, who: &impl Sole, by: $value, ordering: Ordering) -> $value {
            if !who.is_sole() {
                return self.$atomic(by, ordering);
            }
            let before = self.load(Ordering::Relaxed);
            self.store($plain(before, by), Ordering::Release);
            before
        }
    };
}

macro_rules! words {
    ($($word:ty: $value:ty),+) => {$(
        impl Word for $word {
            type Value = $value;

            change!(add_by, fetch_add, $value, <$value>::wrapping_add);
            change!(sub_by, fetch_sub, $value, <$value>::wrapping_sub);
            change!(or_by, fetch_or, $value, |before, bits| before | bits);
            change!(and_by, fetch_and, $value, |before, bits| before & bits);
        }
    )+};
}

words!(AtomicI64: i64, AtomicU32: u32, AtomicU64: u64, AtomicUsize: usize);
