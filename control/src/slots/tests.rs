use super::*;
use crate::{Control, Plan};

#[test]
fn a_slot_is_one_process_s_and_can_be_taken_again() {
    let (_file, control) = Control::create(Plan::new(64 << 20, 0, [0; crate::MOST_AREAS])).unwrap();
    let slots = &control.slots;
    let taken: Vec<_> = (0..MOST_PROCESSES).map(|_| slots.take().unwrap()).collect();
    let mut sorted = taken.clone();
    sorted.sort_unstable();
    assert!(sorted.iter().copied().eq(0..MOST_PROCESSES as u32));
    assert_eq!(slots.take(), None);
    slots.release(77);
    assert_eq!(slots.taken(), MOST_PROCESSES - 1);
    assert_eq!(slots.take(), Some(77));
}

#[test]
fn a_child_is_unborn_until_the_supervisor_has_heard_of_it() {
    let (_file, control) = Control::create(Plan::new(64 << 20, 0, [0; crate::MOST_AREAS])).unwrap();
    let slots = &control.slots;
    let slot = slots.take().unwrap();
    assert_eq!(slots.unborn().count(), 0);
    let ticket = slots.get(slot).unwrap().ticket();
    slots.get(slot).unwrap().set_forked(ticket, 7);
    assert!(slots.unborn().eq([(slot, 7)]));
    assert!(slots.of(7).is_some() && slots.of(8).is_none());
    slots.get(slot).unwrap().pid.store(7, Relaxed);
    assert_eq!(slots.unborn().count(), 0);
    slots.release(slot);
    assert_eq!(slots.unborn().count(), 0);
    let again = (0..MOST_PROCESSES).find(|_| slots.take() == Some(slot));
    assert!(again.is_some());
    slots.get(slot).unwrap().set_forked(ticket, 7);
    assert_eq!(slots.unborn().count(), 0, "an old ticket is worth nothing");
}

#[test]
fn who_shares_a_memory_is_found_until_it_has_one_of_its_own() {
    let (_file, control) = Control::create(Plan::new(64 << 20, 0, [0; crate::MOST_AREAS])).unwrap();
    let slots = &control.slots;
    let [owner, numbered, told] = [(); 3].map(|()| slots.take().unwrap());
    let slot = |number| slots.get(number).unwrap();
    assert!(!slot(owner).is_shared());
    slots.share_memory(numbered, owner, Birth::Numbered);
    slots.share_memory(told, owner, Birth::Told);
    assert!(slots.sharers(owner).eq([numbered, told]));
    assert_eq!(
        [told, numbered, owner].map(|it| slot(it).memory()),
        [Some(owner), Some(owner), None]
    );
    assert_eq!((slot(told).is_told_of(), slot(numbered).is_told_of()), (true, false));
    assert_eq!((slot(owner).is_shared(), slot(told).is_shared()), (true, false));
    slots.leave_memory(told);
    slots.release(numbered);
    assert_eq!(slots.sharers(owner).count(), 0);
    let again = (0..MOST_PROCESSES).map(|_| slots.take().unwrap());
    assert!(again.into_iter().any(|slot| slot == numbered));
    assert_eq!(slots.sharers(owner).count(), 0, "a slot is taken without a memory of others");
}

#[test]
fn one_of_two_gives_a_child_s_slot_back() {
    let (_file, control) = Control::create(Plan::new(64 << 20, 0, [0; crate::MOST_AREAS])).unwrap();
    let slots = &control.slots;
    let slot = slots.get(slots.take().unwrap()).unwrap();
    let ticket = slot.ticket();
    assert!(!slot.claim(None, 7));
    slot.number().store(7, Relaxed);
    assert_eq!(slot.unborn(), Some(7));
    assert!(slot.claim(Some(ticket), 7));
    assert!(!slot.claim(None, 7) && !slot.claim(Some(ticket), 7) && !slot.claim(None, 0));
    assert_eq!(slot.unborn(), None);
}

#[test]
fn the_tree_s_charge_is_the_sum_of_its_processes_and_never_above_the_limit() {
    let (_file, control) = Control::create(Plan::new(64 << 20, 0, [0; crate::MOST_AREAS])).unwrap();
    let slots = &control.slots;
    let [a, b] = [(); 2].map(|()| slots.take().unwrap());
    assert!(slots.charge(a, 60, 100));
    assert!(slots.charge(b, 40, 100));
    assert!(!slots.charge(b, 1, 100));
    assert_eq!((slots.charged(), slots.peak()), (100, 100));
    slots.uncharge(a, 10);
    assert!(slots.charge(b, 10, 100));
    slots.discharge(b);
    assert_eq!((slots.charged(), slots.get(b).unwrap().charged()), (50, 0));
    // Taking back more than it has takes nothing from the others.
    slots.uncharge(b, 30);
    assert_eq!(slots.charged(), 50);
    slots.release(a);
    assert_eq!((slots.charged(), slots.peak()), (0, 100));
}

#[test]
fn only_slots_that_were_ever_taken_are_looked_at() {
    let (_file, control) = Control::create(Plan::new(64 << 20, 0, [0; crate::MOST_AREAS])).unwrap();
    let slots = &control.slots;
    assert_eq!((slots.used().len(), slots.all_taken().count()), (0, 0));
    let [a, b, c] = [(); 3].map(|()| slots.take().unwrap());
    slots.release(b);
    assert_eq!(slots.used().len(), 3);
    assert!(slots.all_taken().map(|(slot, _)| slot).eq([a, c]));
    // The search wraps around: it finds slots below its start too.
    let others = (0..MOST_PROCESSES - 2).map(|_| slots.take().unwrap());
    assert!(others.collect::<Vec<_>>().contains(&b));
    assert_eq!(slots.all_taken().count(), MOST_PROCESSES);
}

#[test]
fn a_slot_that_is_none_changes_nothing() {
    let (_file, control) = Control::create(Plan::new(64 << 20, 0, [0; crate::MOST_AREAS])).unwrap();
    let none = MOST_PROCESSES as u32;
    assert!(!control.slots.charge(none, 1, 100));
    control.slots.uncharge(none, 1);
    control.slots.release(none);
    assert_eq!(control.slots.charged(), 0);
}
