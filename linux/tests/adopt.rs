//! Host pages that were there before the manager.

use pagefault::machine::{Access, PAGE_SIZE, VirtAddr};
use pagefault::swap::area::Priority;
use pagefault::{AddressSpace, Advice, Limits, MapRequest, Move, Placement, RemapRequest};
use pagefault_linux::runtime::{Attached, Reclaim, Runtime};
use pagefault_linux::store::CompressedRam;
use pagefault_linux::{Config, Layout, LinuxMachine, PresentError, adopt_present};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use std::ops::Range;
use std::ptr::null_mut;
use std::sync::{Mutex, MutexGuard};

const PAGES: u64 = 256;
const FRAMES: u32 = 80;

/// A process has one identity space at a time.
static ONE: Mutex<()> = Mutex::new(());

/// A mapping of the host's, and a memory manager that has a region there.
struct Managed {
    space: AddressSpace<LinuxMachine>,
    _attached: Attached,
    runtime: Runtime,
    range: Range<VirtAddr>,
    _one: MutexGuard<'static, ()>,
}

impl Managed {
    /// The pages in `before` are stored to before the range is registered.
    fn new(before: impl IntoIterator<Item = u64>) -> Self {
        let _one = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let len = (PAGES * PAGE_SIZE) as usize;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping.
        let start = unsafe { mmap_anonymous(null_mut(), len, access, MapFlags::PRIVATE) };
        let start = VirtAddr(start.unwrap() as u64);
        let range = start..start + PAGES * PAGE_SIZE;
        let machine =
            LinuxMachine::new(&Config { layout: Layout::Identity, ..Config::new(FRAMES) }).unwrap();
        let runtime =
            Runtime::start(machine, pagefault::Config::default(), Reclaim::OnDemand).unwrap();
        let ram = CompressedRam::new(4096, 4 << 20).unwrap();
        runtime.manager().swap_on(Box::new(ram), Priority::Descending).unwrap();
        let table = runtime.machine().new_space().unwrap();
        let layout = pagefault::Layout::over(VirtAddr(0x1_0000)..VirtAddr(0x7fff_ffff_f000));
        let space = AddressSpace::with_space(runtime.manager(), layout, Limits::default(), table);
        let _attached = runtime.attach(&space);
        for index in before {
            store(&range, index, index + 1000);
        }
        space
            .mmap(&MapRequest {
                placement: Placement::Fixed(range.start),
                ..MapRequest::anonymous(PAGES * PAGE_SIZE)
            })
            .unwrap();
        // SAFETY: private memory that the memory manager has a region for.
        unsafe { space.space().register_as_is(range.clone()) }.unwrap();
        Self { space, _attached, runtime, range, _one }
    }

    fn adopt(&self) -> u64 {
        // SAFETY: registered by `new`.
        unsafe { adopt_present(self.space.mm(), self.range.clone()) }.unwrap()
    }

    fn advise(&self, pages: Range<u64>, advice: Advice) {
        let start = self.range.start + pages.start * PAGE_SIZE;
        self.space.madvise(start, (pages.end - pages.start) * PAGE_SIZE, advice).unwrap();
    }

    fn pages(&self, pages: Range<u64>) -> Range<VirtAddr> {
        self.range.start + pages.start * PAGE_SIZE..self.range.start + pages.end * PAGE_SIZE
    }

    fn is(&self, index: u64, value: u64) -> bool {
        // SAFETY: mapped, aligned memory that only this thread uses.
        unsafe { word(&self.range, index).read_volatile() == value }
    }
}

impl Drop for Managed {
    fn drop(&mut self) {
        self.space.munmap(self.range.start, PAGES * PAGE_SIZE).unwrap();
        let start = self.range.start.value() as *mut _;
        // SAFETY: mapped by `new`, and no longer managed; the test is over.
        unsafe { munmap(start, (PAGES * PAGE_SIZE) as usize) }.unwrap();
    }
}

fn word(range: &Range<VirtAddr>, index: u64) -> *mut u64 {
    (range.start + index * PAGE_SIZE).value() as *mut u64
}

fn store(range: &Range<VirtAddr>, index: u64, value: u64) {
    // SAFETY: mapped, aligned memory that only this thread uses.
    unsafe { word(range, index).write_volatile(value) };
}

#[test]
fn pages_that_were_there_become_ordinary_ones() {
    let managed = Managed::new(0..40);
    assert_eq!(managed.adopt(), 40);
    assert_eq!(managed.space.usage().anonymous, 40);
    assert_eq!(managed.adopt(), 0, "they are known now");
    managed.runtime.manager().check().unwrap();
    for index in 40..PAGES {
        store(&managed.range, index, index + 1000);
    }
    let counters = managed.runtime.manager().counters();
    assert!(counters.evicted > 0, "the first pages had to leave: {counters:?}");
    assert!((0..PAGES).all(|index| managed.is(index, index + 1000)));
}

#[test]
fn more_pages_than_frames_are_adopted() {
    let managed = Managed::new(0..PAGES);
    assert_eq!(managed.adopt(), PAGES);
    assert!(managed.runtime.machine().peak_frames() <= FRAMES);
    assert!((0..PAGES).all(|index| managed.is(index, index + 1000)));
}

#[test]
fn an_adopted_page_is_discarded_and_moved_as_any_other() {
    let managed = Managed::new(0..8);
    managed.adopt();
    managed.advise(0..4, Advice::DontNeed);
    assert!((0..4).all(|index| managed.is(index, 0)));
    let target = managed.pages(100..104);
    managed
        .space
        .mremap(&RemapRequest {
            address: managed.pages(4..8).start,
            old_length: 4 * PAGE_SIZE,
            new_length: 4 * PAGE_SIZE,
            movement: Move::To(target.start),
        })
        .unwrap();
    assert!((4..8).all(|index| managed.is(index + 96, index + 1000)));
}

#[test]
fn a_page_that_came_unseen_is_adopted_when_its_place_is_filled() {
    // The search for them is left out, as if they had come after it.
    let managed = Managed::new([3, 4]);
    managed.advise(0..8, Advice::PopulateWrite);
    managed.space.space().make_present(managed.pages(0..8), Access::Write).unwrap();
    assert!(managed.is(3, 1003) && managed.is(4, 1004) && managed.is(5, 0));
    store(&managed.range, 3, 7);
    for index in 8..PAGES {
        store(&managed.range, index, index);
    }
    assert!(managed.is(3, 7) && managed.is(4, 1004));
}

#[test]
fn zeros_that_came_unseen_are_as_good_as_ours() {
    let managed = Managed::new([]);
    let unregistered = managed.pages(0..4);
    // SAFETY: the test refers to the range by raw pointers alone.
    unsafe { managed.space.space().unregister(unregistered.clone()) }.unwrap();
    assert!((0..4).all(|index| managed.is(index, 0)));
    // SAFETY: as above.
    unsafe { managed.space.space().register_as_is(unregistered.clone()) }.unwrap();
    managed.advise(0..4, Advice::PopulateRead);
    managed.space.space().make_present(unregistered, Access::Read).unwrap();
    (0..4).for_each(|index| store(&managed.range, index, index + 1));
    for index in 4..PAGES {
        store(&managed.range, index, index);
    }
    assert!((0..4).all(|index| managed.is(index, index + 1)));
}

#[test]
fn what_is_not_pinned_is_not_made_present() {
    let managed = Managed::new([]);
    let page = managed.pages(9..10);
    let present = managed.space.space().make_present(page.clone(), Access::Read);
    assert_eq!(present, Err(PresentError::Forbidden { address: page.start }));
    let pin = managed.space.pin(page.clone(), Access::Write).unwrap();
    managed.space.space().make_present(page.clone(), Access::Write).unwrap();
    // SAFETY: a page of the mapping that nobody refers to.
    let bytes = unsafe { std::slice::from_raw_parts_mut(page.start.value() as *mut u8, 16) };
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    rustix::io::write(&writer, b"sixteen bytes in").unwrap();
    assert_eq!(rustix::io::read(&reader, &mut *bytes), Ok(16));
    assert_eq!(bytes, b"sixteen bytes in");
    drop(pin);
}
