//! The answerer of faults stays until the faults in progress are answered.

use pagefault_linux::{Config, LinuxMachine, Pager, Resolution, Signal};
use pagefault_machine::{PageFault, VirtAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::thread::{scope, yield_now};

static INSIDE: AtomicBool = AtomicBool::new(false);
static GO_ON: AtomicBool = AtomicBool::new(false);
static GONE: AtomicBool = AtomicBool::new(false);

struct Slow;

impl Pager for Slow {
    fn fault(&self, _: u32, _: &PageFault) -> Resolution {
        INSIDE.store(true, SeqCst);
        while !GO_ON.load(SeqCst) {
            yield_now();
        }
        Resolution::Signal(if GONE.load(SeqCst) { Signal::NoContent } else { Signal::NotMapped })
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        GONE.store(true, SeqCst);
    }
}

#[test]
fn a_pager_is_not_dropped_while_it_answers() {
    let machine = LinuxMachine::new(&Config::new(64)).unwrap();
    let space = machine.new_space().unwrap();
    let answering = machine.answer_with(Arc::new(Slow)).unwrap();
    scope(|scope| {
        let faulting = scope.spawn(|| space.load(VirtAddr(0x1000), &mut [0]));
        while !INSIDE.load(SeqCst) {
            yield_now();
        }
        let dropping = scope.spawn(|| drop(answering));
        // Time enough to drop it too early.
        for _ in 0..1000 {
            yield_now();
        }
        assert!(!GONE.load(SeqCst), "the pager went while it answered");
        GO_ON.store(true, SeqCst);
        assert_eq!(faulting.join().unwrap().unwrap_err().signal, Signal::NotMapped);
        dropping.join().unwrap();
    });
    assert!(GONE.load(SeqCst));
}
