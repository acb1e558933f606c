//! madvise while another thread maps something else in the place of the advised memory: where the new
//! mapping refuses the advice, it keeps its content.

use crate::common::{BASE, PAGE, at};
use pagefault::machine::VirtAddr;
use pagefault::{
    AddressSpace, Advice, Config, File, FileAccess, Layout, Manager, MapOptions, MapRequest,
    Placement, Source,
};
use pagefault_sim::{Call, Config as Computer, Observer, Sim, SimFile, Traced};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

/// Says that a thread has stopped, and lets it go on.
type Stop = (Sender<()>, Receiver<()>);

/// Stops a thread named "advice" where it has first locked the entries of a block: what it holds then
/// are the locks of that block alone.
#[derive(Clone, Default)]
struct Gate(Arc<Mutex<Option<Stop>>>);

impl Observer for Gate {
    fn note(&self, call: &Call) {
        if matches!(call, Call::LockExisting { found: true, .. })
            && thread::current().name() == Some("advice")
            && let Some((reached, open)) = self.0.lock().unwrap().take()
        {
            reached.send(()).unwrap();
            open.recv().unwrap();
        }
    }
}

type Machine = Traced<Sim, Gate>;

const BLOCK: u64 = 512;

/// The page that is advised last, and that `meanwhile` replaces, has `kept` in the end.
fn advise_while(
    advice: Advice,
    meanwhile: impl Fn(&Arc<Manager<Machine>>, &AddressSpace<Machine>),
    kept: u8,
) {
    let gate = Gate::default();
    let machine = Traced::new(Sim::new(Computer::calm()), gate.clone());
    let manager = Manager::new(Arc::new(machine), Config::default());
    let layout = Layout::over(VirtAddr(0x1_0000)..VirtAddr(1 << 40));
    let space = AddressSpace::new(&manager, layout).unwrap();
    // Two blocks, of which the thread locks the first.
    let placement = Placement::Fixed(BASE);
    let request = MapRequest { placement, ..MapRequest::anonymous(2 * BLOCK * PAGE) };
    space.mm().mmap(&request).unwrap();
    for page in [0, BLOCK] {
        assert_eq!(space.mm().copy_to_user(at(page), &[1]), 0);
    }

    let ((reached, reaches), (opens, open)) = (channel(), channel());
    *gate.0.lock().unwrap() = Some((reached, open));
    let mm = space.mm().clone();
    let advise = move || mm.madvise(BASE, 2 * BLOCK * PAGE, advice);
    let thread = thread::Builder::new().name("advice".into()).spawn(advise).unwrap();
    reaches.recv().unwrap();
    meanwhile(&manager, &space);
    opens.send(()).unwrap();
    assert!(thread.join().unwrap().is_err(), "the new mapping refuses");
    manager.reclaim(10);
    manager.reclaim(10);
    let mut byte = [0];
    assert_eq!(space.mm().copy_from_user(at(BLOCK), &mut byte), 0);
    assert_eq!(byte, [kept]);
    manager.check().unwrap();
}

#[test]
fn j9_free_spares_a_private_copy_of_a_file() {
    let map = |manager: &Arc<Manager<Machine>>, space: &AddressSpace<Machine>| {
        let file = File::open(manager, Arc::new(SimFile::pattern(PAGE, 9)));
        let source = Source::File { file: &file, offset: 0, access: FileAccess::READ };
        let placement = Placement::Fixed(at(BLOCK));
        let request = MapRequest { source, placement, ..MapRequest::anonymous(PAGE) };
        space.mm().mmap(&request).unwrap();
        assert_eq!(space.mm().copy_to_user(at(BLOCK), &[77]), 0);
    };
    advise_while(Advice::Free, map, 77);
}

#[test]
fn c16_dontneed_spares_a_locked_mapping() {
    let map = |_: &Arc<Manager<Machine>>, space: &AddressSpace<Machine>| {
        let (placement, options) = (Placement::Fixed(at(BLOCK)), MapOptions::LOCKED);
        let request = MapRequest { placement, options, ..MapRequest::anonymous(PAGE) };
        space.mm().mmap(&request).unwrap();
        assert_eq!(space.mm().copy_to_user(at(BLOCK), &[78]), 0);
    };
    advise_while(Advice::DontNeed, map, 78);
}
