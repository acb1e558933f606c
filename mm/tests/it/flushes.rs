//! A thread that waits for other threads' flushes waits for the pending ones, and for no later ones; a fault, for
//! those of its own page alone.

use crate::common::{BASE, PAGE, at};
use pagefault::machine::VirtAddr;
use pagefault::{AddressSpace, Advice, Config, Layout, Manager, MapRequest, Mm, Placement};
use pagefault_sim::{Call, Config as Computer, Observer, Sim, Traced};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// A named thread's flush does not return before it may.
struct Gate {
    thread: &'static str,
    reached: Sender<()>,
    open: Receiver<()>,
}

/// Holds up the flushes of some threads.
#[derive(Clone, Default)]
struct Gates(Arc<Mutex<Vec<Gate>>>);

impl Gates {
    fn add(&self, thread: &'static str) -> (Receiver<()>, Sender<()>) {
        let ((reached, reaches), (opens, open)) = (channel(), channel());
        self.0.lock().unwrap().push(Gate { thread, reached, open });
        (reaches, opens)
    }
}

impl Observer for Gates {
    fn note(&self, call: &Call) {
        let Call::Flush { .. } = call else { return };
        let current = thread::current();
        let gate = {
            let mut gates = self.0.lock().unwrap();
            let at = gates.iter().position(|gate| Some(gate.thread) == current.name());
            at.map(|at| gates.remove(at))
        };
        if let Some(gate) = gate {
            gate.reached.send(()).unwrap();
            gate.open.recv().unwrap();
        }
    }
}

type Machine = Traced<Sim, Gates>;

/// A thread that stores to a page that is not its own, and is held up in the flush of its copy.
fn store_slowly(
    mm: &Arc<Mm<Machine>>,
    gates: &Gates,
    name: &'static str,
    page: u64,
) -> (Sender<()>, JoinHandle<()>) {
    let (reaches, opens) = gates.add(name);
    let mm = mm.clone();
    let store = move || assert_eq!(mm.copy_to_user(at(page), &[7]), 0);
    let thread = thread::Builder::new().name(name.into()).spawn(store).unwrap();
    reaches.recv().unwrap();
    (opens, thread)
}

/// Nine pages, eight of which a child shares, and a ninth of zeros.
fn shared_pages(
    gates: &Gates,
) -> (Arc<Manager<Machine>>, AddressSpace<Machine>, AddressSpace<Machine>) {
    let machine = Traced::new(Sim::new(Computer { cpus: 2, ..Computer::calm() }), gates.clone());
    let manager = Manager::new(Arc::new(machine), Config::default());
    let layout = Layout::over(VirtAddr(0x1_0000)..VirtAddr(1 << 40));
    let space = AddressSpace::new(&manager, layout).unwrap();
    let request =
        MapRequest { placement: Placement::Fixed(BASE), ..MapRequest::anonymous(9 * PAGE) };
    space.mm().mmap(&request).unwrap();
    assert_eq!(space.mm().copy_to_user(BASE, &[1; 8 * PAGE as usize]), 0);
    // The frame of zeros: copying it waits for no flush.
    let mut byte = [1];
    assert_eq!(space.mm().copy_from_user(at(8), &mut byte), 0);
    assert_eq!(byte, [0]);
    let child = space.fork().unwrap();
    // The flush must concern another processor: one of the caller's own is not deferred.
    for cpu in [0, 1] {
        manager.machine().inner().cpu(cpu).switch(space.space().inner());
    }
    (manager, space, child)
}

fn end<const N: usize>(
    threads: [JoinHandle<()>; N],
    child: AddressSpace<Machine>,
    manager: &Manager<Machine>,
) {
    for thread in threads {
        thread.join().unwrap();
    }
    drop(child);
    manager.check().unwrap();
}

#[test]
fn a_later_change_does_not_keep_who_waits_for_earlier_ones() {
    let gates = Gates::default();
    let (manager, space, child) = shared_pages(&gates);

    let (let_first, first) = store_slowly(space.mm(), &gates, "first", 0);
    let (done, ends) = channel();
    let mm = space.mm().clone();
    let unmap = thread::spawn(move || {
        mm.munmap(at(4), PAGE).unwrap();
        done.send(()).unwrap();
    });
    let early = ends.recv_timeout(Duration::from_millis(200));
    assert!(early.is_err(), "munmap did not wait for the flush of an entry changed before");
    let (let_second, second) = store_slowly(space.mm(), &gates, "second", 8);
    let_first.send(()).unwrap();
    let late = ends.recv_timeout(Duration::from_secs(60));
    assert!(late.is_ok(), "munmap waits for the flush of an entry changed after");
    let_second.send(()).unwrap();
    end([first, second, unmap], child, &manager);
}

/// A fault replaces one page, and another thread's flush of another page is none of its business.
#[test]
fn a_fault_does_not_wait_for_the_flush_of_another_page() {
    let gates = Gates::default();
    let (manager, space, child) = shared_pages(&gates);
    let (let_first, first) = store_slowly(space.mm(), &gates, "first", 0);
    let (done, ends) = channel();
    let mm = space.mm().clone();
    let other = thread::spawn(move || {
        assert_eq!(mm.copy_to_user(at(4), &[2]), 0);
        done.send(()).unwrap();
    });
    let in_time = ends.recv_timeout(Duration::from_secs(60));
    let_first.send(()).unwrap();
    assert!(in_time.is_ok(), "a store waits for the flush of another page");
    end([first, other], child, &manager);
}

/// A processor may still use the page that was there.
#[test]
fn a_fault_waits_for_the_flush_of_its_own_page() {
    let gates = Gates::default();
    let (manager, space, child) = shared_pages(&gates);
    let (reaches, let_drop) = gates.add("drops");
    let mm = space.mm().clone();
    let drops = move || mm.madvise(at(4), PAGE, Advice::DontNeed).unwrap();
    let drops = thread::Builder::new().name("drops".into()).spawn(drops).unwrap();
    reaches.recv().unwrap();
    let (done, ends) = channel();
    let mm = space.mm().clone();
    let store = thread::spawn(move || {
        assert_eq!(mm.copy_to_user(at(4), &[2]), 0);
        done.send(()).unwrap();
    });
    let early = ends.recv_timeout(Duration::from_millis(200));
    let_drop.send(()).unwrap();
    assert!(early.is_err(), "a page was replaced that a processor may still use");
    let late = ends.recv_timeout(Duration::from_secs(60));
    assert!(late.is_ok(), "the flush did not wake the fault");
    end([drops, store], child, &manager);
}
