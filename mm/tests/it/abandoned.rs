//! Pages whose last user goes while they are on their way out are not written (spec F9).

use crate::common::{PAGE, World, at, stored};
use pagefault::AddressSpace;
use pagefault::machine::{IoError, SwapDevice};
use pagefault::swap::area::Priority;
use pagefault_sim::{Config as Machine, Sim, SimDisk, X86_64};
use std::sync::{Arc, Mutex};

/// What happens at the first write to a disk.
type Event = Box<dyn FnOnce() + Send>;

/// A disk that counts its writes, and at the first of which something happens.
struct Interrupted {
    disk: SimDisk,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    event: Option<Event>,
    writes: usize,
}

impl SwapDevice for Interrupted {
    fn slots(&self) -> u32 {
        self.disk.slots()
    }

    fn read(&self, slot: u32, page: &mut [u8; PAGE as usize]) -> Result<(), IoError> {
        self.disk.read(slot, page)
    }

    fn write(&self, slot: u32, page: &[u8; PAGE as usize]) -> Result<(), IoError> {
        let event = {
            let mut state = self.state.lock().unwrap();
            state.writes += 1;
            state.event.take()
        };
        // In a thread of its own: this one has the pages of its batch locked.
        if let Some(event) = event {
            std::thread::spawn(event).join().unwrap();
        }
        self.disk.write(slot, page)
    }

    fn discard(&self, slot: u32) {
        self.disk.discard(slot);
    }
}

/// A computer with such a disk.
fn interrupted() -> (World<X86_64>, Arc<Mutex<State>>) {
    let world =
        World::<X86_64>::new(Machine { cpus: 2, ..Machine::calm() }, pagefault::Config::default());
    let state = Arc::new(Mutex::new(State::default()));
    let device = Interrupted { disk: SimDisk::new(256), state: state.clone() };
    world.manager.swap_on(Box::new(device), Priority::Descending).unwrap();
    (world, state)
}

#[test]
fn f9_what_was_unmapped_since_it_was_chosen_is_not_written() {
    let (world, state) = interrupted();
    let space: AddressSpace<Sim> = world.process();
    stored(&world, &space, 8);
    let mm = space.mm().clone();
    state.lock().unwrap().event = Some(Box::new(move || mm.munmap(at(0), 8 * PAGE).unwrap()));
    // Two rounds, for the first may spare what was just used.
    let freed = world.manager.reclaim(8) + world.manager.reclaim(8);
    assert!(freed > 1, "{freed} pages were in a batch");
    assert_eq!(state.lock().unwrap().writes, 1);
    world.check();
    drop(space);
    world.check_empty();
}

/// A child still needs what its parent gave up.
#[test]
fn f9_what_another_still_maps_is_written() {
    let (world, state) = interrupted();
    let space: AddressSpace<Sim> = world.process();
    stored(&world, &space, 8);
    let child = space.fork().unwrap();
    let mm = space.mm().clone();
    state.lock().unwrap().event = Some(Box::new(move || mm.munmap(at(0), 8 * PAGE).unwrap()));
    while state.lock().unwrap().writes < 8 {
        assert!(world.manager.reclaim(8) > 0);
    }
    for page in 0..8 {
        assert_eq!(world.load_byte(child.mm(), 1, at(page)), Ok(page as u8 + 1));
    }
    drop((space, child));
    world.check_empty();
}
