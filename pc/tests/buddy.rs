//! The kernel's buddy allocator on the host, against a plain list of what is taken.

#[path = "../kernel/src/buddy.rs"]
mod buddy;

use buddy::{Buddy, Link, ORDERS};

/// A small generator, so that a run repeats by its seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) as usize % limit
    }
}

#[test]
fn blocks_are_aligned_disjoint_and_join_again() {
    for seed in 0..20 {
        let mut chance = Chance(seed);
        let mut links = vec![Link::USED; 3000];
        let mut buddy = Buddy::new(&mut links);
        for frame in 100..3000 {
            buddy.free(frame, 0);
        }
        let mut owner = vec![false; 3000];
        let mut taken: Vec<(u32, usize)> = Vec::new();
        for _ in 0..5000 {
            if chance.below(5) < 3 {
                let order = chance.below(6);
                let Some(frame) = buddy.allocate(order) else { continue };
                assert_eq!(frame % (1 << order), 0);
                for at in frame..frame + (1 << order) {
                    assert!(at >= 100 && !std::mem::replace(&mut owner[at as usize], true));
                }
                taken.push((frame, order));
            } else if !taken.is_empty() {
                let (frame, order) = taken.swap_remove(chance.below(taken.len()));
                owner[frame as usize..(frame + (1 << order)) as usize].fill(false);
                buddy.free(frame, order);
            }
            let used = owner.iter().filter(|used| **used).count();
            assert_eq!(buddy.free_frames() as usize, 2900 - used);
        }
        for (frame, order) in taken {
            buddy.free(frame, order);
        }
        // 1024..2048 is the only block of the largest order.
        assert_eq!(buddy.allocate(ORDERS - 1), Some(1024));
        assert_eq!(buddy.allocate(ORDERS - 1), None);
    }
}

#[test]
fn the_last_frame_is_had_and_no_more() {
    let mut links = [Link::USED; 8];
    let mut buddy = Buddy::new(&mut links);
    buddy.free(5, 0);
    assert_eq!(buddy.allocate(1), None);
    assert_eq!(buddy.allocate(0), Some(5));
    assert_eq!(buddy.allocate(0), None);
    assert_eq!(buddy.free_frames(), 0);
}
