use super::*;
use std::collections::HashSet;

fn ordered(slots: impl IntoIterator<Item = u32>) -> Ordered<8> {
    let mut ordered = Ordered::EMPTY;
    slots.into_iter().for_each(|slot| ordered.insert(slot));
    ordered
}

#[test]
fn the_longest_runs_stay() {
    let all = [1, 2, 10, 11, 12, 14, 20, 22];
    assert_eq!(ordered(all).take_scattered(), [22]);
    let mut some = ordered(all);
    assert_eq!(some.take_scattered(), [22, 20, 14, 2, 1]);
    assert_eq!(some.slots[..some.len], [12, 11, 10]);
    let mut some = ordered(all);
    assert_eq!(some.take_scattered(), [22, 20, 14, 2, 1, 12, 11]);
    assert_eq!(some.slots[..some.len], [10]);
}

#[test]
fn one_buffer_is_taken_after_the_other() {
    let mut some = ordered([1, 5, 6, 7, 8, 20, 21]);
    let taken = core::iter::successors(some.take_after(30), |last| some.take_after(*last));
    assert_eq!(taken.collect::<Vec<_>>(), [5, 6, 7, 8, 20, 21, 1]);
    let mut some = ordered([3, 4, 5, 9]);
    assert_eq!([some.take_after(8), some.take_after(9)], [Some(9), Some(3)]);
}

#[test]
fn bare_buffers_are_taken_in_runs_by_a_hand_that_goes_round() {
    let buffers = Buffers::new(2000).unwrap();
    assert_eq!(buffers.take_bare(16), Some(0..16));
    assert_eq!(buffers.take_bare(40), Some(16..56));
    // A run lies within a word.
    assert_eq!(buffers.take_bare(16), Some(64..80));
    buffers.give_bare(20..30);
    // The hand goes on, and comes back at the end of its round.
    let taken: Vec<Range<u32>> =
        core::iter::repeat_with(|| buffers.take_bare(64).unwrap()).take(15).collect();
    assert_eq!(taken[0], 128..192);
    assert_eq!(taken[13], 960..1024);
    assert_eq!(taken[14], 1024..1088);
    buffers.give_bare(0..16);
    assert_eq!(buffers.resident(), 16 + 40 + 16 + 15 * 64 - 10 - 16);
    (taken.into_iter()).for_each(|run| buffers.give_bare(run));
    assert_eq!(buffers.take_bare(8), Some(0..8));
    assert_eq!(buffers.take_bare(8), Some(8..16));
    assert_eq!(buffers.take_bare(8), Some(20..28));
}

#[test]
fn all_buffers_can_be_taken() {
    let buffers = Buffers::new(3).unwrap();
    let count = SPARE + 3;
    let taken: Vec<u32> = core::iter::from_fn(|| buffers.take_bare(7)).flatten().collect();
    assert_eq!(taken.iter().collect::<HashSet<_>>().len(), count as usize);
    assert_eq!((taken.len() as u32, buffers.resident()), (count, count));
    // The last buffer of a chunk and the first one of the next are not neighbours in memory.
    let chunk = CHUNK as u32;
    assert!(are_neighbours(chunk - 2, chunk - 1) && !are_neighbours(chunk - 1, chunk));
}

#[test]
fn no_buffer_is_handed_out_twice_and_those_with_memory_are_counted() {
    let buffers = Buffers::new(200).unwrap();
    let (sweep, mut random) = (Sweep::new(), fastrand::Rng::with_seed(7));
    let (mut used, mut seen) = (HashSet::<u32>::new(), HashSet::<u32>::new());
    for _ in 0..20_000 {
        let most = random.usize(1..20);
        match random.u32(0..4) {
            0 if used.len() < 900 => {
                let slot = buffers.take();
                assert!(used.insert(slot), "{slot} is handed out twice");
                // SAFETY: the buffer just taken is nobody else's.
                unsafe { buffers.page(slot).write_bytes(1, 1) };
            }
            1 if used.len() < 900 => {
                for slot in buffers.take_bare(most).into_iter().flatten() {
                    assert!(used.insert(slot), "{slot} is handed out twice");
                }
            }
            2 => {
                let mut given: Vec<u32> = used.iter().copied().take(most).collect();
                random.shuffle(&mut given);
                for slot in given {
                    used.remove(&slot);
                    buffers.give(slot, &sweep);
                }
            }
            _ => {
                let slot = used.iter().copied().next();
                for slot in slot.into_iter().filter(|slot| used.remove(slot)) {
                    buffers.give_bare(slot..slot + 1);
                }
            }
        }
        seen.extend(&used);
        let unused = buffers.resident() as usize - used.len();
        assert!(unused <= WARM as usize, "{unused} warm buffers");
    }
    assert!(seen.len() <= 200 + SPARE as usize);
}
