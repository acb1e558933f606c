use super::*;

/// A slot whose space goes and comes back elsewhere is never read as a mixture of the two.
#[test]
fn a_slot_that_is_used_again_is_read_whole() {
    const ROUNDS: u32 = 200_000;
    let slot = Slot {
        taken: AtomicBool::new(true),
        version: AtomicU32::new(0),
        base: AtomicU64::new(0),
        len: AtomicU64::new(0),
        core: AtomicPtr::new(core::ptr::null_mut()),
    };
    let (small, large) = ((0x1000_0000, 0x1000), (0x9000_0000, 0x1000_0000));
    // In neither of the two, but in one with the base of the first and the length of the second.
    let outside = small.0 + 0x2000;
    let finished = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..ROUNDS {
                for (base, len) in [small, (0, 0), large, (0, 0)] {
                    slot.set(base, len, core::ptr::null_mut());
                }
            }
            finished.store(true, Release);
        });
        while !finished.load(core::sync::atomic::Ordering::Acquire) {
            assert_eq!(slot.containing(outside), None);
        }
    });
    // In the middle of a change.
    slot.version.fetch_add(1, Relaxed);
    slot.base.store(small.0, Relaxed);
    slot.len.store(large.1, Relaxed);
    assert_eq!(slot.containing(outside), None);
    slot.version.fetch_add(1, Relaxed);
    slot.set(large.0, large.1, core::ptr::null_mut());
    assert!(slot.containing(large.0).is_some() && slot.containing(large.0 + large.1).is_none());
}
