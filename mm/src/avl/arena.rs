//! Stores the nodes of a tree: a vector in pieces.
//!
//! A vector that doubles needs one block of memory as large as everything it holds. A kernel's heap
//! has no such block when its memory is fragmented, and one more node is no reason to double a
//! large tree. Pieces of a few kilobytes are available as long as there is memory at all.

#[cfg(test)]
use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use core::ops::{Index, IndexMut};

/// How many elements a piece has. A power of two, so that the first piece, which grows by doubling,
/// ends at exactly this size.
const PIECE: usize = 64;

/// Elements by number, without holes.
///
/// It never gives memory back: an arena that has once held `n` elements holds `n` again without
/// allocating.
pub struct Arena<T> {
    /// All pieces are full, except the last one with elements; the pieces after it are empty.
    pieces: Vec<Vec<T>>,
    len: usize,
}

impl<T> Arena<T> {
    /// Nothing; allocates nothing.
    pub const fn new() -> Self {
        Self { pieces: Vec::new(), len: 0 }
    }

    /// The number of elements.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Makes room for `additional` elements.
    #[cfg(test)]
    pub fn reserve(&mut self, additional: usize) -> Result<(), TryReserveError> {
        let pieces = self.len.saturating_add(additional).div_ceil(PIECE);
        self.pieces.try_reserve(pieces.saturating_sub(self.pieces.len()))?;
        while self.pieces.len() < pieces {
            self.pieces.push(Vec::new());
        }
        for piece in &mut self.pieces[..pieces] {
            piece.try_reserve_exact(PIECE - piece.len())?;
        }
        Ok(())
    }

    /// The element with a number.
    #[inline]
    pub fn get(&self, at: usize) -> Option<&T> {
        self.pieces.get(at / PIECE)?.get(at % PIECE)
    }

    /// Adds an element, whose number is the length before.
    pub fn push(&mut self, element: T) {
        let at = self.len / PIECE;
        if at == self.pieces.len() {
            // Few trees outgrow their first piece.
            let room = if at == 0 { 0 } else { PIECE };
            self.pieces.push(Vec::with_capacity(room));
        }
        self.pieces[at].push(element);
        self.len += 1;
    }

    /// Exchanges two elements.
    pub fn swap(&mut self, a: usize, b: usize) {
        let (low, high) = (a.min(b), a.max(b));
        if low / PIECE == high / PIECE {
            return self.pieces[low / PIECE].swap(low % PIECE, high % PIECE);
        }
        let (before, after) = self.pieces.split_at_mut(high / PIECE);
        core::mem::swap(&mut before[low / PIECE][low % PIECE], &mut after[0][high % PIECE]);
    }

    /// Takes an element out and moves the last one to its place.
    ///
    /// # Panics
    /// If there is no such element.
    pub fn swap_remove(&mut self, at: usize) -> T {
        self.swap(at, self.len - 1);
        self.len -= 1;
        self.pieces[self.len / PIECE].pop().expect("a piece that has the last element")
    }
}

impl<T> Index<usize> for Arena<T> {
    type Output = T;

    #[inline]
    fn index(&self, at: usize) -> &T {
        &self.pieces[at / PIECE][at % PIECE]
    }
}

impl<T> IndexMut<usize> for Arena<T> {
    #[inline]
    fn index_mut(&mut self, at: usize) -> &mut T {
        &mut self.pieces[at / PIECE][at % PIECE]
    }
}

#[cfg(test)]
mod tests {
    use super::{Arena, PIECE};
    use alloc::vec::Vec;
    use proptest::collection::vec;
    use proptest::prelude::*;

    proptest! {
        /// Over several pieces, an arena behaves like a vector: each step adds elements or removes
        /// some.
        #[test]
        fn does_what_a_vector_does(
            steps in vec((any::<bool>(), 1..2 * PIECE, any::<u32>(), any::<u32>()), 1..20),
        ) {
            let (mut arena, mut vector) = (Arena::new(), Vec::new());
            for (adds, count, a, b) in steps {
                for i in 0..count {
                    if adds {
                        arena.push(i);
                        vector.push(i);
                    } else if !vector.is_empty() {
                        let (a, b) = (a as usize % vector.len(), b as usize % vector.len());
                        arena.swap(a, b);
                        vector.swap(a, b);
                        prop_assert_eq!(arena.swap_remove(a), vector.swap_remove(a));
                    }
                }
                prop_assert_eq!(arena.len(), vector.len());
                let equal = (0..vector.len()).all(|at| arena[at] == vector[at]);
                prop_assert!(equal && arena.get(vector.len()).is_none());
            }
        }
    }

    /// No block of memory is larger than a piece, whatever the tree's size.
    #[test]
    fn asks_for_no_large_block() {
        let mut arena = Arena::new();
        for i in 0..100 * PIECE {
            arena.push(i);
        }
        assert!(arena.pieces.iter().all(|piece| piece.capacity() == PIECE));
    }
}
