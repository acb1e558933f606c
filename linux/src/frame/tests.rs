use super::*;
use std::collections::HashSet;

#[test]
fn locations_survive_their_encoding() {
    let page = 0x7fff_ffff_f000;
    for location in [
        Location::Free,
        Location::Blank,
        Location::Zero,
        Location::Buffer(0),
        Location::Buffer(u32::MAX),
        Location::At(page, Mapped::Writable),
        Location::At(0x1000, Mapped::WriteProtected),
    ] {
        assert_eq!(Location::decode(location.encode()), location);
    }
    assert_eq!(Location::decode(0), Location::Free);
}

#[test]
fn a_failed_try_leaves_the_lock_to_its_holder() {
    let frames = Frames::new(1).unwrap();
    let frame = frames.allocate(0).unwrap();
    let held = frames.hold(frame);
    assert!(frames.try_hold(frame).is_none());
    assert!(frames.try_hold(frame).is_none());
    drop(held);
    assert!(frames.try_hold(frame).is_some());
}

#[test]
fn each_frame_is_handed_out_once_and_used_ones_first() {
    let frames = Frames::new(100).unwrap();
    let taken: HashSet<_> = (0..60).map(|i| frames.allocate(i).unwrap()).collect();
    assert_eq!((taken.len(), frames.free_count(), frames.used()), (60, 40, 60));
    for (i, frame) in taken.into_iter().enumerate() {
        frames.release(frames.hold(frame), i as u32);
    }
    let again: HashSet<_> = (0..60).map(|_| frames.allocate(99).unwrap()).collect();
    assert_eq!((again.len(), frames.used()), (60, 60));
    let rest = std::iter::from_fn(|| frames.allocate(7)).count();
    assert_eq!((rest, frames.free_count()), (40, 0));
}

#[test]
fn a_held_frame_has_no_settled_location() {
    let frames = Frames::new(1).unwrap();
    let frame = frames.allocate(0).unwrap();
    assert_eq!(frames.peek_idle(frame), Some(Location::Blank));
    let held = frames.hold(frame);
    assert_eq!(frames.peek_idle(frame), None);
    held.set_location(Location::Buffer(3));
    assert_eq!(frames.peek_idle(frame), None);
    drop(held);
    assert_eq!(frames.peek_idle(frame), Some(Location::Buffer(3)));
}
