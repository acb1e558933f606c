//! Several areas together: order, totals, I/O and the way in and out (spec F2, F5, F12).

use super::{
    AreaSet, Areas, AreasFault, MAX_AREAS, Priority, Released, RemoveError, SwapOnError,
    SwitchError,
};
use crate::swap::slots::SlotError;
use pagefault_machine::store::PageBytes;
use pagefault_machine::{IoError, PAGE_SIZE, SwapDevice, SwapSlot};
use parking_lot::{Mutex, RawMutex, RawRwLock};
use std::boxed::Box;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::vec;
use std::vec::Vec;

type TestAreas = Areas<RawMutex, RawRwLock>;

fn write(areas: &TestAreas, slot: SwapSlot, page: &PageBytes) -> Result<(), IoError> {
    areas.handle(slot.area).ok_or(IoError::Device)?.write(slot.offset, page)
}

/// A device in memory, which remembers the discarded slots.
#[derive(Default)]
struct Disk {
    slots: u32,
    pages: Mutex<BTreeMap<u32, Box<PageBytes>>>,
    discarded: Mutex<Vec<u32>>,
    broken: AtomicBool,
}

/// Several handles on one device, so that a test keeps one.
struct Shared(Arc<Disk>);

impl SwapDevice for Shared {
    fn slots(&self) -> u32 {
        self.0.slots
    }

    fn read(&self, slot: u32, page: &mut PageBytes) -> Result<(), IoError> {
        let pages = self.0.pages.lock();
        page.copy_from_slice(&pages.get(&slot).ok_or(IoError::Device)?[..]);
        Ok(())
    }

    fn write(&self, slot: u32, page: &PageBytes) -> Result<(), IoError> {
        if self.0.broken.load(Ordering::Relaxed) {
            return Err(IoError::Full);
        }
        self.0.pages.lock().insert(slot, Box::new(*page));
        Ok(())
    }

    fn discard(&self, slot: u32) {
        self.0.pages.lock().remove(&slot);
        self.0.discarded.lock().push(slot);
    }
}

fn disk(slots: u32) -> (Arc<Disk>, Box<dyn SwapDevice>) {
    let disk = Arc::new(Disk { slots, ..Disk::default() });
    (disk.clone(), Box::new(Shared(disk)))
}

fn device(slots: u32) -> Box<dyn SwapDevice> {
    disk(slots).1
}

fn page(byte: u8) -> PageBytes {
    [byte; PAGE_SIZE as usize]
}

impl TestAreas {
    /// Takes a free slot, as if its content were written.
    fn take(&self, avoid: AreaSet) -> Option<SwapSlot> {
        let slot = self.reserve(avoid)?;
        self.handle(slot.area).unwrap().publish(slot.offset);
        Some(slot)
    }
}

fn allocate(areas: &TestAreas) -> Option<u8> {
    areas.take(AreaSet::EMPTY).map(|slot| slot.area)
}

fn allocate_many(areas: &TestAreas, count: usize) -> Vec<Option<u8>> {
    (0..count).map(|_| allocate(areas)).collect()
}

/// Drops a reference, frees the slot if it was the last, and says how many are left.
fn release(areas: &TestAreas, slot: SwapSlot) -> u32 {
    let Released { left, unused } = areas.release(slot);
    if let Some(unused) = unused {
        unused.free();
    }
    left
}

#[test]
fn higher_priorities_are_filled_first_and_equals_take_turns() {
    let areas = TestAreas::new();
    let low = areas.add(device(3), Priority::Descending).unwrap();
    let first = areas.add(device(4), Priority::Given(5)).unwrap();
    let second = areas.add(device(3), Priority::Given(5)).unwrap();
    let lowest = areas.add(device(2), Priority::Descending).unwrap();
    assert_eq!((low, first, second, lowest), (0, 1, 2, 3));
    // The newcomer precedes its equal; when it is full, the equal goes on alone.
    let order = [second, first, second, first, first, low, low, lowest].map(Some);
    assert_eq!(allocate_many(&areas, 8), order);
    assert_eq!(allocate(&areas), None);
    areas.check().unwrap();
    let priorities: Vec<i32> = areas.statistics().map(|area| area.priority).collect();
    assert_eq!(priorities, [-1, 5, 5, -2]);
}

#[test]
fn a_slot_freed_above_is_used_before_those_below() {
    let areas = TestAreas::new();
    let high = areas.add(device(3), Priority::Given(9)).unwrap();
    let low = areas.add(device(9), Priority::Given(1)).unwrap();
    assert_eq!(allocate_many(&areas, 4), [high, high, low, low].map(Some));
    assert_eq!(release(&areas, SwapSlot { area: high, offset: 2 }), 0);
    assert_eq!(allocate_many(&areas, 2), [high, low].map(Some));
}

#[test]
fn three_equals_take_turns_and_a_full_one_is_passed_over() {
    let areas = TestAreas::new();
    for slots in [9, 2, 9] {
        areas.add(device(slots), Priority::Given(0)).unwrap();
    }
    assert_eq!(allocate_many(&areas, 7), [2, 1, 0, 2, 0, 2, 0].map(Some));
    areas.check().unwrap();
}

#[test]
fn areas_to_avoid_are_avoided() {
    let areas = TestAreas::new();
    let high = areas.add(device(9), Priority::Given(9)).unwrap();
    let low = areas.add(device(9), Priority::Given(1)).unwrap();
    let mut avoid = AreaSet::EMPTY;
    avoid.insert(high);
    assert!(avoid.contains(high) && !avoid.contains(low));
    assert_eq!(areas.take(avoid).map(|slot| slot.area), Some(low));
    avoid.insert(low);
    assert_eq!(areas.take(avoid), None);
    avoid.insert(200);
    assert!(!avoid.contains(200));
}

#[test]
fn a_slot_is_discarded_with_its_last_reference_only() {
    let areas = TestAreas::new();
    let (disk, device) = disk(4);
    areas.add(device, Priority::Descending).unwrap();
    let slot = areas.take(AreaSet::EMPTY).unwrap();
    areas.set_owner(slot, 7, 8);
    areas.duplicate(slot).unwrap();
    assert_eq!(release(&areas, slot), 1);
    assert_eq!(areas.find_owner(7, 8), Some(slot));
    assert!(disk.discarded.lock().is_empty());
    assert_eq!(release(&areas, slot), 0);
    assert_eq!(*disk.discarded.lock(), [slot.offset]);
    assert_eq!(areas.find_owner(7, 8), None);
    assert_eq!(areas.duplicate(slot), Err(SlotError::Free));
    areas.check().unwrap();
    assert_eq!(release(&areas, slot), 0);
    assert_eq!(areas.check(), Err(AreasFault::BadRelease(1)));
}

/// The slot given out, the count of the slot being discarded, and its offset.
type Seen = (Option<SwapSlot>, u32, u32);

/// During a discard, it checks whether the slot could already be given out.
struct Prober {
    areas: Arc<TestAreas>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl SwapDevice for Prober {
    fn slots(&self) -> u32 {
        2
    }

    fn read(&self, _slot: u32, _page: &mut PageBytes) -> Result<(), IoError> {
        Err(IoError::Device)
    }

    fn write(&self, _slot: u32, _page: &PageBytes) -> Result<(), IoError> {
        Err(IoError::Device)
    }

    fn discard(&self, offset: u32) {
        let given = self.areas.take(AreaSet::EMPTY);
        let count = self.areas.count(SwapSlot { area: 0, offset });
        self.seen.lock().push((given, count, offset));
    }
}

#[test]
fn a_slot_is_not_given_out_before_it_is_discarded() {
    let areas = Arc::new(TestAreas::new());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let prober = Prober { areas: areas.clone(), seen: seen.clone() };
    areas.add(Box::new(prober), Priority::Descending).unwrap();
    let slot = areas.take(AreaSet::EMPTY).unwrap();
    assert_eq!(release(&areas, slot), 0);
    assert_eq!(*seen.lock(), [(None, 0, slot.offset)]);
    assert_eq!(areas.take(AreaSet::EMPTY), Some(slot));
    // The prober holds the areas that hold it.
    areas.stop(0).unwrap();
    release(&areas, slot);
    areas.remove(0).unwrap();
    assert_eq!(Arc::strong_count(&areas), 1);
}

#[test]
fn content_goes_out_and_comes_back_and_is_counted() {
    let areas = TestAreas::new();
    let (disk, device) = disk(4);
    areas.add(device, Priority::Descending).unwrap();
    let slot = areas.take(AreaSet::EMPTY).unwrap();
    let mut back = page(0);
    assert_eq!(areas.read(slot, &mut back), Err(IoError::Device));
    write(&areas, slot, &page(7)).unwrap();
    areas.read(slot, &mut back).unwrap();
    assert_eq!(back, page(7));
    disk.broken.store(true, Ordering::Relaxed);
    assert_eq!(write(&areas, slot, &page(8)), Err(IoError::Full));
    let statistics = areas.statistics().next().unwrap();
    assert_eq!((statistics.reads, statistics.writes, statistics.failures), (1, 1, 2));
    assert_eq!((statistics.slots, statistics.in_use, statistics.active), (3, 1, true));
    for missing in [SwapSlot { area: 0, offset: 4 }, SwapSlot { area: 1, offset: 1 }] {
        assert_eq!(areas.read(missing, &mut back), Err(IoError::Device));
        assert_eq!(write(&areas, missing, &back), Err(IoError::Device));
        assert_eq!(areas.duplicate(missing), Err(SlotError::Missing));
        assert_eq!(areas.count(missing), 0);
    }
    assert_eq!((areas.slots(0), areas.slots(1), areas.slots(255)), (4, 0, 0));
}

#[test]
fn totals_say_when_more_than_half_is_full() {
    let areas = TestAreas::new();
    assert!(!areas.is_more_than_half_full());
    areas.add(device(4), Priority::Descending).unwrap();
    areas.add_with_bad(device(4), Priority::Descending, 4, &[2]).unwrap();
    assert_eq!((areas.total(), areas.free()), (5, 5));
    allocate_many(&areas, 2);
    assert!(!areas.is_more_than_half_full());
    allocate(&areas);
    assert!(areas.is_more_than_half_full());
    areas.check().unwrap();
}

#[test]
fn an_area_is_stopped_emptied_and_removed() {
    let areas = TestAreas::new();
    let area = areas.add(device(5), Priority::Given(3)).unwrap();
    let other = areas.add(device(5), Priority::Given(1)).unwrap();
    assert_eq!(areas.remove(area), Err(RemoveError::Active));
    assert_eq!(areas.resume(area), Err(SwitchError::Already));
    let slots: Vec<_> = (0..3).filter_map(|_| areas.take(AreaSet::EMPTY)).collect();
    areas.stop(area).unwrap();
    assert_eq!(areas.stop(area), Err(SwitchError::Already));
    assert_eq!((areas.total(), areas.free()), (4, 4));
    assert_eq!(allocate(&areas), Some(other));
    assert_eq!(areas.remove(area), Err(RemoveError::InUse(3)));
    assert_eq!(areas.used(area).collect::<Vec<_>>(), slots);
    areas.check().unwrap();
    areas.resume(area).unwrap();
    assert_eq!(allocate(&areas), Some(area));
    areas.stop(area).unwrap();
    for slot in areas.used(area) {
        areas.set_owner(slot, 1, u64::from(slot.offset));
        assert_eq!(areas.owner(slot), Some((1, u64::from(slot.offset))));
        release(&areas, slot);
    }
    areas.remove(area).unwrap();
    assert_eq!(areas.remove(area), Err(RemoveError::Missing));
    assert_eq!(areas.stop(area), Err(SwitchError::Missing));
    assert_eq!(areas.resume(area), Err(SwitchError::Missing));
    assert_eq!(areas.used(area).count(), 0);
    assert_eq!(areas.duplicate(slots[0]), Err(SlotError::Missing));
    assert_eq!(areas.find_owner(1, 1), None);
    areas.check().unwrap();
    assert_eq!(areas.add(device(5), Priority::Descending), Ok(area));
    areas.check().unwrap();
}

#[test]
fn many_references_do_not_keep_an_area() {
    let areas = TestAreas::new();
    let area = areas.add(device(3), Priority::Descending).unwrap();
    let slot = areas.take(AreaSet::EMPTY).unwrap();
    (0..0x1_0000).for_each(|_| areas.duplicate(slot).unwrap());
    areas.stop(area).unwrap();
    assert_eq!(areas.remove(area), Err(RemoveError::InUse(1)));
    for left in (0..=0x1_0000).rev() {
        assert_eq!(release(&areas, slot), left);
    }
    areas.remove(area).unwrap();
    areas.check().unwrap();
}

#[test]
fn areas_that_make_no_sense_are_refused() {
    let areas = TestAreas::new();
    assert_eq!(areas.add(device(0), Priority::Descending), Err(SwapOnError::Invalid));
    assert_eq!(areas.add(device(1), Priority::Descending), Err(SwapOnError::Invalid));
    let all_bad = areas.add_with_bad(device(3), Priority::Descending, 3, &[1, 2]);
    assert_eq!(all_bad, Err(SwapOnError::Invalid));
    assert_eq!(areas.add(device(2), Priority::Given(0x8000)), Err(SwapOnError::Invalid));
    for number in 0..MAX_AREAS as u8 {
        assert_eq!(areas.add(device(2), Priority::Given(0x7fff)), Ok(number));
    }
    assert_eq!(areas.add(device(2), Priority::Descending), Err(SwapOnError::TooMany));
    areas.check().unwrap();
    assert_eq!(allocate_many(&areas, MAX_AREAS + 1).iter().flatten().count(), MAX_AREAS);
}

#[test]
fn pages_of_shared_objects_are_found_in_any_area() {
    let areas = TestAreas::new();
    areas.add(device(4), Priority::Given(1)).unwrap();
    areas.add(device(4), Priority::Given(1)).unwrap();
    let slots: Vec<_> = (0..4).filter_map(|_| areas.take(AreaSet::EMPTY)).collect();
    for (index, slot) in (0..).zip(&slots) {
        areas.set_owner(*slot, 9, index);
    }
    for (index, slot) in (0..).zip(&slots) {
        assert_eq!(areas.find_owner(9, index), Some(*slot));
    }
    areas.clear_owner(slots[2]);
    assert_eq!(areas.find_owner(9, 2), None);
    areas.set_owner(SwapSlot { area: 0, offset: 3 }, 9, 9);
    let free = SwapSlot { area: 0, offset: 3 };
    assert_eq!(areas.check(), Err(AreasFault::FreeOwned(free)));
}

#[test]
fn threads_push_out_and_bring_back_while_an_area_goes_and_comes() {
    let areas = TestAreas::new();
    for slots in [40, 60, 30] {
        areas.add(device(slots), Priority::Given(1)).unwrap();
    }
    let work = |id: u8| {
        let mut mine: Vec<(SwapSlot, u64)> = vec![];
        for step in 0..3000u64 {
            if (step * 7 + u64::from(id)) % 5 < 3 {
                let Some(slot) = areas.take(AreaSet::EMPTY) else { continue };
                areas.set_owner(slot, id.into(), step);
                write(&areas, slot, &page(id)).unwrap();
                mine.push((slot, step));
            } else if let Some((slot, step)) = mine.pop() {
                let mut back = page(0);
                areas.read(slot, &mut back).unwrap();
                assert!(back == page(id) && areas.find_owner(id.into(), step) == Some(slot));
                areas.duplicate(slot).unwrap();
                assert_eq!((release(&areas, slot), release(&areas, slot)), (1, 0));
            }
        }
        mine.into_iter().for_each(|(slot, _)| assert_eq!(release(&areas, slot), 0));
    };
    let switch = || {
        for _ in 0..300 {
            areas.stop(1).unwrap();
            thread::yield_now();
            areas.resume(1).unwrap();
        }
    };
    thread::scope(|scope| {
        let workers = [1, 2, 3].map(|id| scope.spawn(move || work(id)));
        scope.spawn(switch);
        workers.into_iter().for_each(|worker| worker.join().unwrap());
    });
    areas.check().unwrap();
    assert_eq!((areas.total(), areas.free()), (127, 127));
}

#[test]
fn slots_that_no_entry_can_name_are_left_alone() {
    let areas = TestAreas::with_last_slot(9);
    let number = areas.add(device(100), Priority::Descending).unwrap();
    assert_eq!((areas.total(), areas.slots(number)), (9, 10));
    let given: Vec<_> = core::iter::from_fn(|| areas.take(AreaSet::EMPTY)).collect();
    assert_eq!(given.iter().map(|slot| slot.offset).max(), Some(9));
    areas.check().unwrap();
}
