//! Swap areas with a header, on the simulated computer (spec F1).

use crate::common::{PAGE, at, stored, world_with};
use pagefault::machine::store::PageBytes;
use pagefault::machine::{IoError, SwapDevice};
use pagefault::swap::area::Priority;
use pagefault::swap::header::{FormattedError, Header, HeaderError, Medium};
use pagefault::{Advice, Config};
use std::collections::BTreeMap;
use std::process::Command;
use std::sync::{Arc, Mutex};

/// A disk that tells which of its pages were written.
#[derive(Clone)]
struct Disk {
    slots: u32,
    pages: Arc<Mutex<BTreeMap<u32, Box<PageBytes>>>>,
}

impl Disk {
    fn new(slots: u32, first: PageBytes) -> Self {
        Self { slots, pages: Arc::new(Mutex::new(BTreeMap::from([(0, Box::new(first))]))) }
    }

    fn formatted(slots: u32, header: &Header) -> Self {
        let mut first = [0; PAGE as usize];
        header.write(&mut first).unwrap();
        Self::new(slots, first)
    }

    fn written(&self) -> Vec<u32> {
        self.pages.lock().unwrap().keys().copied().filter(|page| *page > 0).collect()
    }
}

impl SwapDevice for Disk {
    fn slots(&self) -> u32 {
        self.slots
    }

    fn read(&self, slot: u32, page: &mut PageBytes) -> Result<(), IoError> {
        *page = **self.pages.lock().unwrap().get(&slot).ok_or(IoError::Device)?;
        Ok(())
    }

    fn write(&self, slot: u32, page: &PageBytes) -> Result<(), IoError> {
        self.pages.lock().unwrap().insert(slot, Box::new(*page));
        Ok(())
    }
}

#[test]
fn f1_slots_are_what_the_header_says() {
    let world = world_with(64, Config { read_ahead: 1, ..Config::default() });
    let disk = Disk::formatted(100, &Header { last_page: 9, bad: vec![2, 5] });
    let device = Box::new(disk.clone());
    world.manager.swap_on_formatted(device, Medium::Disk, Priority::Descending).unwrap();
    assert_eq!(world.manager.swap_areas().total(), 6);
    let space = world.process();
    stored(&world, &space, 8);
    space.mm().madvise(at(0), 8 * PAGE, Advice::PageOut).unwrap();
    assert_eq!(disk.written(), [1, 3, 4, 6, 7, 8]);
    for page in 0..8 {
        assert_eq!(world.load_byte(space.mm(), 0, at(page)).unwrap(), page as u8 + 1);
    }
    world.check();
}

#[test]
fn f1_what_is_no_area_is_refused() {
    let world = world_with(64, Config::default());
    let on = |disk: Disk, medium| {
        world.manager.swap_on_formatted(Box::new(disk), medium, Priority::Descending)
    };
    let header = Header { last_page: 9, bad: vec![2] };
    let blank = Disk::new(10, [0; PAGE as usize]);
    assert_eq!(on(blank, Medium::Disk), Err(FormattedError::Header(HeaderError::NoMagic)));
    assert_eq!(on(Disk::formatted(9, &header), Medium::Disk), Err(FormattedError::Short));
    assert_eq!(on(Disk::formatted(10, &header), Medium::File), Err(FormattedError::BadOnFile));
    assert!(on(Disk::formatted(10, &header), Medium::Disk).is_ok());
}

#[test]
fn f1_what_mkswap_writes_is_understood() {
    let path = std::env::temp_dir().join(format!("pagefault-mkswap-{}", std::process::id()));
    std::fs::write(&path, vec![0; 64 * PAGE as usize]).unwrap();
    let made = Command::new("mkswap").arg(&path).output();
    let bytes = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    // Where there is none, the other tests remain.
    let Ok(made) = made else { return };
    assert!(made.status.success(), "{made:?}");
    let first: PageBytes = bytes[..PAGE as usize].try_into().unwrap();
    assert_eq!(Header::parse(&first), Ok(Header { last_page: 63, bad: Vec::new() }));
}
