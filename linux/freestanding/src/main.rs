//! A program without libc that manages its own memory, as a runtime inside of a foreign program
//! would: it takes the `SIGBUS` itself, adopts pages that were there before, has more memory than
//! frames, and lets the kernel store into pinned pages. Its status is 0, or the line that failed.
#![no_std]
#![no_main]

extern crate alloc;

mod support;

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::ops::Range;
use core::ptr::null_mut;
use core::sync::atomic::AtomicPtr;
use core::sync::atomic::Ordering::{Acquire, Release};
use pagefault::machine::{Access, PAGE_SIZE, VirtAddr};
use pagefault::swap::area::Priority;
use pagefault::{AddressSpace, Limits, MapRequest, Mm, Placement};
use pagefault_linux::store::{CompressedRam, SwapFile};
use pagefault_linux::{
    Answer, Config, Delivery, HostFault, Layout, LinuxMachine, adopt_present, answer, set_context,
};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};
use support::{exit, on_bus_error};

const PAGES: u64 = 512;
const FRAMES: u32 = 64;
/// The page that a system call stores to.
const FOR_THE_KERNEL: u64 = 100;

/// The status of the program tells the line.
macro_rules! ensure {
    ($condition:expr) => {
        if !$condition {
            exit(line!() as i32);
        }
    };
}

macro_rules! get {
    ($result:expr) => {
        match $result {
            Ok(value) => value,
            Err(_) => exit(line!() as i32),
        }
    };
}

static MM: AtomicPtr<Arc<Mm<LinuxMachine>>> = AtomicPtr::new(null_mut());

fn run() {
    set_context(|| 0);
    let range = map();
    // Pages that are there before anybody manages them.
    for index in [0, 7, PAGES - 1] {
        store(&range, index, 1000 + index);
    }
    let machine = get!(LinuxMachine::new(&Config {
        layout: Layout::Identity,
        delivery: Delivery::Inline,
        ..Config::new(FRAMES)
    }));
    let manager = pagefault::Manager::new(Arc::new(machine), pagefault::Config::default());
    let ram = get!(CompressedRam::new(1024, 256 << 10));
    let file = get!(SwapFile::temporary_at(c"/tmp", Some(64 << 20)));
    get!(manager.swap_on(Box::new(ram), Priority::Descending));
    get!(manager.swap_on(Box::new(file), Priority::Descending));
    let space = get!(manager.machine().new_space());
    let layout = pagefault::Layout::over(VirtAddr(0x1_0000)..VirtAddr(0x7fff_ffff_f000));
    let space = AddressSpace::with_space(&manager, layout, Limits::default(), space);
    MM.store(Box::into_raw(Box::new(space.mm().clone())), Release);
    on_bus_error(on_fault);

    get!(space.mmap(&MapRequest {
        placement: Placement::Fixed(range.start),
        ..MapRequest::anonymous(PAGES * PAGE_SIZE)
    }));
    // SAFETY: private memory that the memory manager has a region for.
    get!(unsafe { space.space().register_as_is(range.clone()) });
    // SAFETY: registered on the line before.
    ensure!(unsafe { adopt_present(space.mm(), range.clone()) } == Ok(3));
    ensure!(load(&range, 7) == 1007);

    fill_and_check(&range);
    ensure!(manager.machine().peak_frames() <= FRAMES);
    ensure!(manager.counters().swap_in > 0);
    for index in [0, 7, PAGES - 1] {
        // The second word of each page was never stored to here.
        ensure!(load_word(&range, index, 1) == 1000 + index);
    }
    let_the_kernel_store(space.mm(), &range);
}

/// Stores to all pages and finds it there again.
fn fill_and_check(range: &Range<VirtAddr>) {
    for round in 0..3 {
        for index in 0..PAGES {
            store_word(range, index, 0, index * 31 + round);
        }
        for index in 0..PAGES {
            ensure!(load(range, index) == index * 31 + round);
        }
    }
}

/// A system call on a page that is not there fails, and succeeds once the page is pinned.
fn let_the_kernel_store(mm: &Arc<Mm<LinuxMachine>>, range: &Range<VirtAddr>) {
    let source = get!(rustix::fs::memfd_create(c"source", rustix::fs::MemfdFlags::CLOEXEC));
    ensure!(rustix::io::write(&source, &[7; 64]) == Ok(64));
    // It left long ago.
    let start = range.start + FOR_THE_KERNEL * PAGE_SIZE;
    let page = start..start + PAGE_SIZE;
    // SAFETY: a page of the mapping that nobody refers to.
    let bytes = unsafe { core::slice::from_raw_parts_mut(page.start.value() as *mut u8, 64) };
    ensure!(rustix::io::pread(&source, &mut *bytes, 0) == Err(Errno::FAULT));
    let pin = get!(mm.pin(page.clone(), Access::Write));
    ensure!(mm.space().make_present(page.clone(), Access::Write).is_ok());
    ensure!(rustix::io::pread(&source, &mut *bytes, 0) == Ok(64));
    drop(pin);
    fill_others(range);
    ensure!(bytes.iter().all(|byte| *byte == 7));
}

/// Stores to all pages but the kernel's.
fn fill_others(range: &Range<VirtAddr>) {
    for index in (0..PAGES).filter(|index| *index != FOR_THE_KERNEL) {
        store_word(range, index, 0, index);
    }
}

fn on_fault(address: u64, code: u64, ip: u64, sp: u64) {
    // SAFETY: null, or stored by `run` and never freed.
    let Some(mm) = (unsafe { MM.load(Acquire).as_ref() }) else { exit(line!() as i32) };
    let access = if code & 2 != 0 { Access::Write } else { Access::Read };
    match answer(mm, &HostFault { address, access, ip, sp }) {
        Answer::Resume(_) => {}
        Answer::Signal(_) | Answer::Short | Answer::Stop(_) => exit(line!() as i32),
    }
}

fn map() -> Range<VirtAddr> {
    let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
    let len = (PAGES * PAGE_SIZE) as usize;
    // SAFETY: a fresh mapping.
    let start = unsafe { rustix::mm::mmap_anonymous(null_mut(), len, access, flags) };
    let start = VirtAddr(get!(start) as u64);
    start..start + PAGES * PAGE_SIZE
}

/// Stores to the first two words of a page.
fn store(range: &Range<VirtAddr>, index: u64, value: u64) {
    store_word(range, index, 0, value);
    store_word(range, index, 1, value);
}

fn store_word(range: &Range<VirtAddr>, index: u64, word: usize, value: u64) {
    // SAFETY: aligned, within the mapping, and nobody refers to it.
    unsafe { page(range, index).add(word).write_volatile(value) };
}

fn load(range: &Range<VirtAddr>, index: u64) -> u64 {
    load_word(range, index, 0)
}

fn load_word(range: &Range<VirtAddr>, index: u64, word: usize) -> u64 {
    // SAFETY: as in `store_word`.
    unsafe { page(range, index).add(word).read_volatile() }
}

fn page(range: &Range<VirtAddr>, index: u64) -> *mut u64 {
    (range.start + index * PAGE_SIZE).value() as *mut u64
}
