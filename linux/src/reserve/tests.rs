use super::*;
use core::sync::atomic::Ordering::Relaxed;

struct Chunk([AtomicU64; 1024]);

// SAFETY: atomics of integers, for which zero is a value.
unsafe impl Zeroed for Chunk {}

#[test]
fn chunks_are_there_once_they_are_needed() {
    let sparse = Sparse::<Chunk>::new(1 << 17).unwrap();
    assert!(sparse.get(70_000).is_none());
    sparse.get_or_reserve(70_000).unwrap().0[1023].store(5, Relaxed);
    assert_eq!(sparse.get(70_000).unwrap().0[1023].load(Relaxed), 5);
    assert!(sparse.get(69_999).is_none());
    assert!(sparse.get(1 << 17).is_none());
    assert!(sparse.get_or_reserve(1 << 17).is_err());
}

#[test]
fn threads_that_need_the_same_chunk_get_the_same_one() {
    let sparse = Sparse::<Chunk>::new(4).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for index in 0..4 {
                    sparse.get_or_reserve(index).unwrap().0[7].fetch_add(1, Relaxed);
                }
            });
        }
    });
    for index in 0..4 {
        assert_eq!(sparse.get(index).unwrap().0[7].load(Relaxed), 8);
    }
}

#[test]
fn what_cannot_be_reserved_is_an_error() {
    assert!(Table::<u8>::new(usize::MAX).is_err());
    assert!(Table::<AtomicU64>::new(usize::MAX / 4).is_err());
}
