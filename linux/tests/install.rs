//! Signal handlers that could not be installed are not taken for installed.

mod toy;

use pagefault_linux::{Config, LinuxMachine, Pager, Resolution};
use pagefault_machine::PageFault;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::sync::Arc;

/// Answers nothing.
struct Deaf;

impl Pager for Deaf {
    fn fault(&self, _: u32, _: &PageFault) -> Resolution {
        Resolution::Kill
    }
}

// Alone in its process, where the handlers have not been installed before.
#[test]
fn a_failed_installation_is_tried_again() {
    let machine = LinuxMachine::new(&Config::new(64)).unwrap();
    let before = getrlimit(Resource::As);
    // No room for the stacks that the handlers need.
    setrlimit(Resource::As, Rlimit { current: Some(0), ..before }).unwrap();
    let refused = [(); 2].map(|()| machine.answer_with(Arc::new(Deaf)).map(drop).is_err());
    setrlimit(Resource::As, before).unwrap();
    assert_eq!(refused, [true; 2], "the second try says that all is well");
    drop(machine);
    let run = toy::run(16, 8, pagefault_linux::Delivery::Inline);
    let page = toy::page(3);
    run.toy.space.store(page, b"works").unwrap();
    let mut bytes = [0; 5];
    run.toy.space.load(page, &mut bytes).unwrap();
    assert_eq!(&bytes, b"works");
}
