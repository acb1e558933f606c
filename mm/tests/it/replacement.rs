//! Replacement policies of an embedder's.

use crate::common::{RW, World, at, map, stored, world_with};
use pagefault::replacement::{Queue, Replacement, S3Fifo, SegmentedFifo, Shares};
use pagefault::swap::area::Priority;
use pagefault::{Config, Counters};
use pagefault_sim::X86_64;
use std::collections::HashSet;
use std::sync::{Arc, Mutex};

const FRAMES: u32 = 128;

/// Does what another policy does, and notes what it is told.
#[derive(Debug)]
struct Noting<P>(P, Arc<Mutex<Notes>>);

#[derive(Debug, Default)]
struct Notes {
    new: usize,
    evicted: HashSet<u64>,
    /// Pages that came back, and whether they had been evicted under that key.
    back: Vec<bool>,
}

impl<P: Replacement> Replacement for Noting<P> {
    fn shares(&self) -> Shares {
        self.0.shares()
    }

    fn admit(&self, key: Option<u64>) -> Queue {
        let mut notes = self.1.lock().unwrap();
        match key {
            Some(key) => {
                let known = notes.evicted.contains(&key);
                notes.back.push(known);
            }
            None => notes.new += 1,
        }
        self.0.admit(key)
    }

    fn evicted(&self, key: u64) {
        self.1.lock().unwrap().evicted.insert(key);
        self.0.evicted(key);
    }
}

fn world(policy: impl Replacement + 'static) -> World<X86_64> {
    let replacement: Option<Box<dyn Replacement>> = Some(Box::new(policy));
    let world = world_with(FRAMES, Config { replacement, read_ahead: 1, ..Config::default() });
    world.add_disk(4096, Priority::Descending);
    world
}

#[test]
fn f14_a_page_comes_back_under_the_key_under_which_it_left() {
    let notes = Arc::<Mutex<Notes>>::default();
    let world = world(Noting(S3Fifo::new(FRAMES), notes.clone()));
    let space = world.process();
    stored(&world, &space, 300);
    for page in 0..300 {
        assert_eq!(world.load_byte(space.mm(), 0, at(page)).unwrap(), (page as u8).wrapping_add(1));
    }
    world.check();
    let notes = notes.lock().unwrap();
    assert_eq!(notes.new, 300);
    assert_eq!(notes.back.len() as u64, world.manager.counters().swap_in);
    assert!(notes.back.len() >= 172 && notes.back.iter().all(|known| *known), "{:?}", notes.back);
}

/// Stores to 600 pages once each, and to four pages between any two.
fn scan(policy: impl Replacement + 'static) -> Counters {
    let world = world(policy);
    let space = world.process();
    map(&space, 0, 604, RW);
    for turn in 0..600 {
        world.store(space.mm(), 0, at(4 + turn), &[1]).unwrap();
        for hot in 0..4 {
            world.store(space.mm(), 0, at(hot), &[2]).unwrap();
        }
    }
    world.check();
    world.manager.counters()
}

/// Every page enters the main queue, and counts as cold when it comes back.
#[derive(Debug)]
struct Backwards;

impl Replacement for Backwards {
    fn shares(&self) -> Shares {
        Shares::default()
    }

    fn admit(&self, key: Option<u64>) -> Queue {
        if key.is_some() { Queue::Small } else { Queue::Main }
    }
}

#[test]
fn f14_a_small_queue_keeps_a_scan_from_hot_pages() {
    // Memory is swept four times or five. A single queue then takes the hot pages for cold ones, because no
    // access comes between the two looks of one sweep.
    let (small, single) =
        (scan(S3Fifo::new(FRAMES)).swap_in, scan(SegmentedFifo::default()).swap_in);
    assert!(small < single, "{small} and {single} hot pages came back");
}

/// How many pages are in the small and in the main queue after 40 came back and 60 came for the first time.
fn queues(policy: impl Replacement + 'static) -> (usize, usize) {
    let world = world(policy);
    let space = world.process();
    stored(&world, &space, 100);
    while world.manager.reclaim(100) > 0 {}
    for page in 0..40 {
        world.load_byte(space.mm(), 0, at(page)).unwrap();
    }
    map(&space, 200, 60, RW);
    for page in 200..260 {
        world.store(space.mm(), 0, at(page), &[1]).unwrap();
    }
    world.check();
    let report = world.manager.queue_report();
    (report.small.len(), report.main.len())
}

#[test]
fn f14_a_page_enters_the_queue_that_the_policy_names() {
    // So many ghosts that hardly two pages share one.
    assert_eq!(queues(S3Fifo::new(1 << 20)), (60, 40));
    assert_eq!(queues(Backwards), (40, 60));
    assert_eq!(queues(SegmentedFifo::default()), (0, 100));
}

#[test]
fn f14_shares_out_of_range_become_the_nearest() {
    let shares = Shares { small: 1000, standby: 0, rounds: 99 };
    let world = world(SegmentedFifo { shares });
    let space = world.process();
    stored(&world, &space, 300);
    world.check();
    assert!(world.manager.counters().evicted >= 172);
}
