//! What safe code may try, and must not get: bytes that change behind a reference to a region, or frames of
//! another machine.

use pagefault::machine::{Access, Backing, IoError, Page, SwapDevice, VirtAddr};
use pagefault::{AddressSpace, Advice, Sharing};
use pagefault_linux::error::{MapError, UserError};
use pagefault_linux::memory::{Builder, Swap};
use pagefault_linux::runtime::{Reclaim, Runtime};
use pagefault_linux::{Answer, HostFault, Layout, LinuxMachine, Memory, Signal, answer};
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};

const PAGE: usize = 4096;
const LIMIT: u64 = 1 << 20;

/// A file of one page.
struct OnePage(Mutex<Page>);

impl OnePage {
    fn sevens() -> Arc<Self> {
        Arc::new(Self(Mutex::new([7; PAGE])))
    }
}

impl Backing for OnePage {
    fn read(&self, _index: u64, page: &mut Page) -> Result<(), IoError> {
        *page = *self.0.lock().unwrap();
        Ok(())
    }

    fn write(&self, _index: u64, page: &[u8]) -> Result<(), IoError> {
        self.0.lock().unwrap()[..page.len()].copy_from_slice(page);
        Ok(())
    }

    fn len(&self) -> Result<u64, IoError> {
        Ok(PAGE as u64)
    }
}

/// A shared mapping's copy sees later stores: slices of both would alias.
#[test]
fn shared_mappings_of_files_are_not_in_a_snapshot() {
    let memory = Memory::with_limit(LIMIT).unwrap();
    let file = memory.open(OnePage::sevens());
    for (sharing, is_there) in [(Sharing::Shared, false), (Sharing::Private, true)] {
        // SAFETY: the file is changed through this region alone.
        let mut region = unsafe { memory.map_file(&file, 0, PAGE, sharing).unwrap() };
        region[0] = 8;
        let mut snapshot = memory.snapshot().unwrap();
        assert_eq!(snapshot.get(&region).is_some(), is_there);
        assert_eq!(snapshot.get_mut(&region).is_some(), is_there);
    }
}

#[test]
fn a_file_of_another_memory_cannot_be_mapped() {
    let [own, other] = [(), ()].map(|()| Memory::with_limit(LIMIT).unwrap());
    let file = own.open(OnePage::sevens());
    // SAFETY: nothing is mapped.
    let foreign = unsafe { other.map_file(&file, 0, PAGE, Sharing::Private) };
    assert_eq!(foreign.err(), Some(MapError::Foreign));
}

/// A device that changes a byte of every page that it keeps.
#[derive(Default)]
struct Liar(Mutex<HashMap<u32, Page>>);

impl SwapDevice for Liar {
    fn slots(&self) -> u32 {
        100
    }

    fn read(&self, slot: u32, page: &mut Page) -> Result<(), IoError> {
        *page = *self.0.lock().unwrap().get(&slot).ok_or(IoError::Device)?;
        page[100] ^= 1;
        Ok(())
    }

    fn write(&self, slot: u32, page: &Page) -> Result<(), IoError> {
        self.0.lock().unwrap().insert(slot, *page);
        Ok(())
    }
}

#[test]
fn a_device_that_returns_other_bytes_is_an_unreadable_one() {
    let device = Arc::new(Liar::default());
    let memory = Memory::builder(LIMIT).swap([]).swap_device(device).build().unwrap();
    let mut region = memory.map(PAGE).unwrap();
    region.fill(1);
    region.advise(.., Advice::PageOut).unwrap();
    assert_eq!(memory.stats().swap[0].pages, 1);
    assert_eq!(region.pin(..).err(), Some(UserError::BadAddress));
    assert!(memory.stats().manager.io_errors > 0);
}

/// Frames of one machine's are numbers of other frames on another.
#[test]
fn an_address_space_of_another_machine_is_not_attached() {
    let bytes = 4 << 20;
    let layout = Layout::Windows { origin: VirtAddr::ZERO, bytes };
    let config = pagefault_linux::Config { layout, ..pagefault_linux::Config::new(64) };
    let [own, other] = [(), ()].map(|()| {
        let machine = LinuxMachine::new(&config).unwrap();
        Runtime::start(machine, pagefault::Config::default(), Reclaim::OnDemand).unwrap()
    });
    let space = |of: &Runtime| {
        let window = pagefault::Layout::over(VirtAddr::ZERO..VirtAddr(bytes));
        let table = of.machine().new_space().unwrap();
        AddressSpace::with_space(own.manager(), window, pagefault::Limits::default(), table)
    };
    let attach = |of| {
        let space = space(of);
        std::panic::catch_unwind(AssertUnwindSafe(|| drop(own.attach(&space)))).is_ok()
    };
    assert!(attach(&own));
    assert!(!attach(&other));

    // Nor is there anything below a window.
    let fault = HostFault { address: 0, access: Access::Read, ip: 0, sp: 0 };
    assert_eq!(answer(space(&own).mm(), &fault), Answer::Signal(Signal::NotMapped));
}

/// A device of so many slots, which has no room.
struct Slots(u32);

impl SwapDevice for Slots {
    fn slots(&self) -> u32 {
        self.0
    }

    fn read(&self, _slot: u32, _page: &mut Page) -> Result<(), IoError> {
        Err(IoError::Device)
    }

    fn write(&self, _slot: u32, _page: &Page) -> Result<(), IoError> {
        Err(IoError::Full)
    }
}

/// A memory that cannot be is refused, and one that can be works.
#[test]
fn every_memory_is_built_or_refused() {
    let works = |builder: Builder| match builder.build() {
        Ok(memory) => {
            let mut region = memory.map(PAGE).unwrap();
            region.fill(1);
            region.iter().all(|byte| *byte == 1)
        }
        Err(error) => !error.to_string().is_empty(),
    };
    for number in [0, 1, PAGE as u64, LIMIT, 1 << 46, 1 << 47, u64::MAX - 1, u64::MAX] {
        assert!(works(Memory::builder(number).swap([])), "a limit of {number}");
        assert!(works(Memory::builder(LIMIT).addresses(number)), "{number} addresses");
        let ram = Swap::Ram { bytes: number };
        assert!(works(Memory::builder(LIMIT).swap([ram])), "{number} bytes of RAM");
        let directory = std::env::temp_dir();
        let file = Swap::TemporaryFile { directory, bytes: Some(number) };
        assert!(works(Memory::builder(LIMIT).swap([file])), "a file of {number} bytes");
        let device = Arc::new(Slots(number as u32));
        assert!(works(Memory::builder(LIMIT).swap([]).swap_device(device)), "{number} slots");
        let memory = Memory::with_limit(LIMIT).unwrap();
        assert!(memory.map(number as usize).is_ok_and(|region| !region.is_empty()) || number != 1);
    }
    let many = (0..40).map(|_| Swap::Ram { bytes: LIMIT });
    assert!(Memory::builder(LIMIT).swap(many).build().is_err());
}
