//! Threads that need a frame while all pages are on their way out wait for them (spec F23).

mod common;

use common::{BASE, PAGE, World};
use pagefault::machine::{IoError, SwapDevice};
use pagefault::swap::area::Priority;
use pagefault::{Config, MapRequest, Placement};
use pagefault_sim::{Config as Machine, SimDisk, X86_64};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A disk whose first write takes long, and says when it begins.
struct Slow {
    disk: SimDisk,
    begins: Arc<Mutex<Option<Sender<()>>>>,
}

impl SwapDevice for Slow {
    fn slots(&self) -> u32 {
        self.disk.slots()
    }

    fn read(&self, slot: u32, page: &mut [u8; PAGE as usize]) -> Result<(), IoError> {
        self.disk.read(slot, page)
    }

    fn write(&self, slot: u32, page: &[u8; PAGE as usize]) -> Result<(), IoError> {
        let first = self.begins.lock().unwrap().take();
        if let Some(first) = first {
            first.send(()).unwrap();
            std::thread::sleep(Duration::from_millis(500));
        }
        self.disk.write(slot, page)
    }

    fn discard(&self, slot: u32) {
        self.disk.discard(slot);
    }
}

#[test]
fn f23_pages_being_written_are_waited_for() {
    // One batch takes all of memory.
    let machine = Machine { frames: 24, cpus: 2, ..Machine::calm() };
    let world = World::<X86_64>::new(machine, Config::default());
    let (sender, begins) = channel();
    let begin = Arc::new(Mutex::new(Some(sender)));
    let disk = Slow { disk: SimDisk::new(256), begins: begin };
    world.manager.swap_on(Box::new(disk), Priority::Descending).unwrap();
    let space = world.process();
    let request =
        MapRequest { placement: Placement::Fixed(BASE), ..MapRequest::anonymous(64 * PAGE) };
    space.mm().mmap(&request).unwrap();
    let store = |cpu, page| world.store(space.mm(), cpu, BASE + page * PAGE, &[page as u8]);
    std::thread::scope(|scope| {
        scope.spawn(|| (0..32).for_each(|page| assert_eq!(store(0, page), Ok(()))));
        begins.recv().unwrap();
        assert_eq!(world.free(), 0);
        assert_eq!(store(1, 63), Ok(()));
    });
    let passes = world.manager.counters().direct_passes;
    assert!(passes < 100, "{passes} passes instead of waiting");
    for page in (0..32).chain([63]) {
        assert_eq!(world.load_byte(space.mm(), 0, BASE + page * PAGE), Ok(page as u8));
    }
    world.check();
}
