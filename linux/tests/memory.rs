//! Memory for a Rust program: the limit, every byte, snapshots, files, pins.

use pagefault::machine::{Access, Backing, IoError, Page, Protection, SwapDevice};
use pagefault::{Advice, Sharing};
use pagefault_linux::memory::{CreateError, Memory, SnapshotError, Swap};
use pagefault_linux::replacement::{Queue, Replacement, Shares};
use pagefault_linux::runtime::Reclaim;
use pagefault_linux::{Delivery, Layout, LinuxMachine, Probe, UffdFeatures};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

const PAGE: usize = 4096;
const MIB: usize = 1 << 20;
const BOTH: [Delivery; 2] = [Delivery::Inline, Delivery::Threads(2)];

fn small(delivery: Delivery) -> Memory {
    let swap = [
        Swap::Ram { bytes: MIB as u64 },
        Swap::TemporaryFile { directory: std::env::temp_dir(), bytes: Some(64 << 20) },
    ];
    Memory::builder(2 * MIB as u64).delivery(delivery).swap(swap).build().unwrap()
}

/// A word that no other page has.
fn word(page: usize, round: u64) -> u64 {
    (page as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ round
}

fn put(bytes: &mut [u8], page: usize, round: u64) {
    for (i, chunk) in bytes[page * PAGE..][..PAGE].chunks_exact_mut(8).enumerate() {
        chunk.copy_from_slice(&word(page + i, round).to_ne_bytes());
    }
}

fn is(bytes: &[u8], page: usize, round: u64) -> bool {
    let chunks = bytes[page * PAGE..][..PAGE].chunks_exact(8).enumerate();
    chunks
        .map(|(i, chunk)| (i, u64::from_ne_bytes(chunk.try_into().unwrap())))
        .all(|(i, value)| value == word(page + i, round))
}

#[test]
fn a_region_larger_than_the_limit_keeps_every_byte() {
    for delivery in BOTH {
        let memory = small(delivery);
        let mut region = memory.map(16 * MIB).unwrap();
        assert!(region.iter().step_by(512).all(|byte| *byte == 0));
        let pages = region.len() / PAGE;
        for round in 0..2 {
            for page in 0..pages {
                put(&mut region, page, round);
            }
            assert!((0..pages).all(|page| is(&region, page, round)));
        }
        let stats = memory.stats();
        assert!(stats.resident_bytes <= stats.limit_bytes, "{stats:?}");
        assert!(stats.peak_bytes <= stats.limit_bytes);
        assert!(stats.swap[0].writes > 0 && stats.swap[1].writes > 0, "both areas: {stats:?}");
    }
}

/// Whether the host moves pages at all.
fn host_moves_pages() -> bool {
    Probe::new().unwrap().features.contains(UffdFeatures::MOVE)
}

#[test]
fn pages_of_a_sequential_pass_move_instead_of_being_copied() {
    for delivery in BOTH {
        let memory = small(delivery);
        let mut region = memory.map(16 * MIB).unwrap();
        let pages = region.len() / PAGE;
        (0..pages).for_each(|page| put(&mut region, page, 0));
        for round in 1..4 {
            for page in 0..pages {
                assert!(is(&region, page, round - 1), "page {page} in round {round}");
                put(&mut region, page, round);
            }
        }
        let stats = memory.stats();
        assert!(stats.resident_bytes <= stats.limit_bytes, "{stats:?}");
        let moved = (stats.machine.moved_in > 1000, stats.machine.moved_out > 1000);
        assert_eq!(moved, (host_moves_pages(), host_moves_pages()), "{:?}", stats.machine);
    }
}

#[test]
fn a_store_by_another_thread_moves_with_its_page() {
    for delivery in BOTH {
        let memory = small(delivery);
        let mut region = memory.map(8 * MIB).unwrap();
        let words = region.len() / 8;
        let address = region.as_mut_ptr() as usize;
        let rounds = 24;
        std::thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || {
                    // Each thread counts in a word of its own in every page, so that all store to every page.
                    for _ in 0..rounds {
                        for at in (thread..words).step_by(512) {
                            // SAFETY: within the region, and no other thread touches this word.
                            unsafe { *(address as *mut u64).add(at) += 1 };
                        }
                    }
                });
            }
        });
        let (numbers, _) = region.as_chunks::<8>();
        let counts = numbers.iter().map(|number| u64::from_ne_bytes(*number)).enumerate();
        for (at, count) in counts {
            assert_eq!(count, if at % 512 < 4 { rounds } else { 0 }, "word {at}");
        }
        let machine = memory.stats().machine;
        assert_eq!(machine.moved_out > 0, host_moves_pages(), "{machine:?}");
    }
}

#[test]
fn a_snapshot_stays_as_it_was() {
    for delivery in BOTH {
        let memory = small(delivery);
        let mut region = memory.map(8 * MIB).unwrap();
        let pages = region.len() / PAGE;
        (0..pages).for_each(|page| put(&mut region, page, 1));
        let mut first = memory.snapshot().unwrap();
        (0..pages).step_by(2).for_each(|page| put(&mut region, page, 2));
        let second = memory.snapshot().unwrap();
        (0..pages).step_by(3).for_each(|page| put(first.get_mut(&region).unwrap(), page, 3));
        for page in 0..pages {
            let changed = if page % 2 == 0 { 2 } else { 1 };
            assert!(is(&region, page, changed), "page {page} of the memory");
            assert!(is(second.get(&region).unwrap(), page, changed), "page {page} of the second");
            let own = if page % 3 == 0 { 3 } else { 1 };
            assert!(is(first.get(&region).unwrap(), page, own), "page {page} of the first");
        }
        let younger = memory.map(PAGE).unwrap();
        assert!(first.get(&younger).is_none());
        assert!(small(delivery).snapshot().unwrap().get(&region).is_none());
        drop(second);
        drop(memory);
        assert!(is(first.get(&region).unwrap(), 3, 3));
        let stats = small(delivery).stats();
        assert!(stats.resident_bytes <= stats.limit_bytes);
    }
}

#[test]
fn what_is_withheld_from_a_snapshot_is_not_in_it() {
    let memory = small(Delivery::Inline);
    let mut region = memory.map(16 * 4096).unwrap();
    region.fill(7);
    region.advise(4096..2 * 4096, Advice::DontFork).unwrap();
    let mut snapshot = memory.snapshot().unwrap();
    // A slice over the hole would be a segmentation violation in safe code.
    assert!(snapshot.get(&region).is_none() && snapshot.get_mut(&region).is_none());
    region.advise(4096..2 * 4096, Advice::DoFork).unwrap();
    let snapshot = memory.snapshot().unwrap();
    assert!(snapshot.get(&region).is_some_and(|bytes| bytes.iter().all(|byte| *byte == 7)));
}

#[test]
fn a_part_without_bytes_has_no_page() {
    let memory = small(Delivery::Inline);
    let mut region = memory.map(4 * PAGE).unwrap();
    region.fill(7);
    region.advise(5..5, Advice::DontNeed).unwrap();
    region.advise(4 * PAGE.., Advice::DontNeed).unwrap();
    region.protect(PAGE + 1..PAGE + 1, Protection::empty()).unwrap();
    assert!(region.pin(5..5).is_ok_and(|pinned| pinned.is_empty()));
    assert!(region.iter().all(|byte| *byte == 7));
    // One byte represents its page.
    region.advise(PAGE + 5..=PAGE + 5, Advice::DontNeed).unwrap();
    let zeros: Vec<usize> = (0..4 * PAGE).filter(|at| region[*at] == 0).collect();
    assert_eq!((zeros[0], zeros.len()), (PAGE, PAGE));
    let beyond = std::panic::AssertUnwindSafe(|| region.lock(..=usize::MAX));
    assert!(std::panic::catch_unwind(beyond).is_err(), "as a slice panics");
}

#[test]
fn advice_and_protection_take_effect() {
    let memory = small(Delivery::Inline);
    let mut region = memory.map(64 * PAGE).unwrap();
    (0..64).for_each(|page| put(&mut region, page, 1));
    region.advise(8 * PAGE..16 * PAGE, Advice::DontNeed).unwrap();
    assert!(region[8 * PAGE..16 * PAGE].iter().all(|byte| *byte == 0));
    assert!(is(&region, 7, 1) && is(&region, 16, 1));
    region.advise(.., Advice::PageOut).unwrap();
    assert!(is(&region, 20, 1));
    region.protect(.., Protection::READ).unwrap();
    assert!(is(&region, 21, 1));
    region.protect(.., Protection::READ | Protection::WRITE).unwrap();
    put(&mut region, 21, 2);
    region.lock(..4 * PAGE).unwrap();
    region.unlock(..4 * PAGE).unwrap();
    assert!(is(&region, 21, 2));
}

/// Bytes that became zeros when reclaim wants their page would change under shared references.
#[test]
fn freed_bytes_are_zeros_at_once() {
    for delivery in BOTH {
        let memory = small(delivery);
        let mut region = memory.map(4 * PAGE).unwrap();
        region.fill(7);
        region.advise(PAGE..3 * PAGE, Advice::Free).unwrap();
        assert_eq!(region.iter().position(|byte| *byte != 7), Some(PAGE));
        assert!(region[PAGE..3 * PAGE].iter().all(|byte| *byte == 0));
        assert!(region[3 * PAGE..].iter().all(|byte| *byte == 7));
        region.lock(..PAGE).unwrap();
        assert!(region.advise(..PAGE, Advice::Free).is_err());
        assert!(region[..PAGE].iter().all(|byte| *byte == 7));
    }
}

#[test]
fn pinned_bytes_are_there_for_system_calls() {
    for delivery in BOTH {
        let memory = small(delivery);
        let mut region = memory.map(8 * MIB).unwrap();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        for page in (0..region.len() / PAGE).step_by(97) {
            rustix::io::write(&writer, &[7; 100]).unwrap();
            let at = page * PAGE + 4000;
            let mut pinned = region.pin(at..at + 100).unwrap();
            assert_eq!(memory.snapshot().err(), Some(SnapshotError::Pinned));
            assert_eq!(rustix::io::read(&reader, &mut pinned[..]), Ok(100));
            drop(pinned);
            assert!(region[at..at + 100].iter().all(|byte| *byte == 7));
        }
        region.populate(.., Access::Read).unwrap();
        memory.snapshot().unwrap();
    }
}

struct Bytes(Mutex<Vec<u8>>);

impl Backing for Bytes {
    fn read(&self, index: u64, page: &mut [u8; PAGE]) -> Result<(), IoError> {
        let content = self.0.lock().unwrap();
        let part = &content[index as usize * PAGE..];
        let part = &part[..part.len().min(PAGE)];
        page[..part.len()].copy_from_slice(part);
        Ok(())
    }

    fn write(&self, index: u64, page: &[u8]) -> Result<(), IoError> {
        self.0.lock().unwrap()[index as usize * PAGE..][..page.len()].copy_from_slice(page);
        Ok(())
    }

    fn len(&self) -> Result<u64, IoError> {
        Ok(self.0.lock().unwrap().len() as u64)
    }
}

#[test]
fn a_backing_is_read_on_touch_and_written_on_sync() {
    for delivery in BOTH {
        let memory = small(delivery);
        let pages = 2000;
        let backing = Arc::new(Bytes(Mutex::new(vec![0; pages * PAGE])));
        (0..pages).for_each(|page| put(&mut backing.0.lock().unwrap(), page, 5));
        let file = memory.open(backing.clone());
        // SAFETY: the file is changed through this region alone.
        let shared = unsafe { memory.map_file(&file, 0, pages * PAGE, Sharing::Shared) };
        let mut shared = shared.unwrap();
        assert!((0..pages).all(|page| is(&shared, page, 5)));
        (0..pages).for_each(|page| put(&mut shared, page, 6));
        shared.sync(..).unwrap();
        {
            let content = backing.0.lock().unwrap();
            assert!((0..pages).all(|page| is(&content, page, 6)));
        }
        drop(shared);
        // SAFETY: nothing changes the file any more.
        let private = unsafe { memory.map_file(&file, 0, pages * PAGE, Sharing::Private) };
        let mut private = private.unwrap();
        put(&mut private, 3, 9);
        assert!(is(&private, 3, 9) && is(&private, 4, 6));
        private.advise(.., Advice::DontNeed).unwrap();
        assert!(is(&private, 3, 6));
    }
}

#[test]
fn what_cannot_be_built_says_why() {
    let Err(error) = Memory::with_limit(1000) else { panic!("a memory of 1000 bytes") };
    assert!(matches!(error, CreateError::LimitTooSmall { given: 1000, .. }));
    assert!(error.to_string().contains("give at least"), "{error}");
    let swap = [Swap::File { path: "/".into(), bytes: Some(1 << 20) }];
    let Err(error) = Memory::builder(4 << 20).swap(swap).build() else { panic!("swap to /") };
    assert!(error.to_string().contains("directory"), "{error}");
    let layout = Layout::Windows { origin: pagefault::machine::VirtAddr(4096), bytes: 1 << 21 };
    let config = pagefault_linux::Config { layout, ..pagefault_linux::Config::new(10) };
    assert!(LinuxMachine::new(&config).is_err());
}

#[test]
fn memory_that_is_dropped_is_given_back() {
    let memory = small(Delivery::Inline);
    for _ in 0..5 {
        let mut region = memory.map(4 * MIB).unwrap();
        region.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
    }
    let stats = memory.stats();
    assert!(stats.resident_bytes < MIB as u64, "{stats:?}");
    assert_eq!(stats.swap.iter().map(|area| area.pages).sum::<u64>(), 0);
}

#[test]
fn eviction_on_demand_needs_no_thread() {
    let memory = Memory::builder(2 << 20).reclaim(Reclaim::OnDemand).build().unwrap();
    let mut region = memory.map(8 * MIB).unwrap();
    for page in 0..region.len() / PAGE {
        put(&mut region, page, 1);
    }
    assert!((0..region.len() / PAGE).all(|page| is(&region, page, 1)));
    assert_eq!(memory.stats().manager.background_passes, 0);
}

/// A swap device of the embedder's: a table of pages.
#[derive(Default)]
struct Table(Mutex<HashMap<u32, Box<Page>>>);

impl SwapDevice for Table {
    fn slots(&self) -> u32 {
        10_000
    }

    fn read(&self, slot: u32, page: &mut Page) -> Result<(), IoError> {
        *page = **self.0.lock().unwrap().get(&slot).ok_or(IoError::Device)?;
        Ok(())
    }

    fn write(&self, slot: u32, page: &Page) -> Result<(), IoError> {
        self.0.lock().unwrap().insert(slot, Box::new(*page));
        Ok(())
    }

    fn discard(&self, slot: u32) {
        self.0.lock().unwrap().remove(&slot);
    }
}

#[test]
fn a_device_of_the_embedder_s_fills_last_and_keeps_every_byte() {
    for delivery in BOTH {
        let table = Arc::<Table>::default();
        let memory = Memory::builder(2 * MIB as u64)
            .delivery(delivery)
            .swap([Swap::Ram { bytes: MIB as u64 }])
            .swap_device(table.clone())
            .build()
            .unwrap();
        let mut region = memory.map(16 * MIB).unwrap();
        let pages = region.len() / PAGE;
        (0..pages).for_each(|page| put(&mut region, page, 1));
        let stats = memory.stats();
        assert_eq!(stats.swap.len(), 2);
        assert_eq!(stats.swap[1].pages as usize, table.0.lock().unwrap().len());
        assert!(stats.swap[0].pages > 0 && stats.swap[1].pages > 0, "{stats:?}");
        assert!((0..pages).all(|page| is(&region, page, 1)));
        drop(region);
        assert!(table.0.lock().unwrap().is_empty());
    }
}

/// A policy that lets pages leave at once if they came back, and counts both.
#[derive(Debug, Default)]
struct Counting {
    came_back: AtomicUsize,
    left: AtomicUsize,
}

impl Replacement for Counting {
    fn shares(&self) -> Shares {
        Shares { standby: 25, ..Shares::default() }
    }

    fn admit(&self, key: Option<u64>) -> Queue {
        match key {
            Some(_) => {
                self.came_back.fetch_add(1, Relaxed);
                Queue::Small
            }
            None => Queue::Main,
        }
    }

    fn evicted(&self, _key: u64) {
        self.left.fetch_add(1, Relaxed);
    }
}

#[test]
fn a_policy_of_the_embedder_s_decides_what_leaves() {
    let policy = Arc::<Counting>::default();
    let memory = Memory::builder(2 << 20).replacement(Box::new(policy.clone())).build().unwrap();
    let mut region = memory.map(8 * MIB).unwrap();
    let pages = region.len() / PAGE;
    (0..pages).for_each(|page| put(&mut region, page, 1));
    assert!((0..pages).all(|page| is(&region, page, 1)));
    let (back, left) = (policy.came_back.load(Relaxed), policy.left.load(Relaxed));
    // Three quarters of the pages at least were out, and are not all in memory.
    assert!(back >= pages * 3 / 4 && left > back, "{back} of {left} came back");
}

/// Several threads fault, evict, discard, map and unmap at once; every byte is checked, and the
/// host's own account of resident pages stays below the limit.
#[test]
fn nothing_is_lost_when_everything_happens_at_once() {
    for delivery in BOTH {
        let memory = small(delivery);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..3)
                .map(|seed| {
                    let memory = memory.clone();
                    scope.spawn(move || work(&memory, seed))
                })
                .collect();
            scope.spawn(|| churn(&memory, &done));
            scope.spawn(|| watch(&memory, &done));
            let ends: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
            done.store(true, Relaxed);
            assert!(ends.iter().all(Result::is_ok));
        });
        let stats = memory.stats();
        assert!(stats.peak_bytes <= stats.limit_bytes);
        assert!(stats.manager.evicted > 1000, "{stats:?}");
    }
}

/// Stores to random pages of a region and checks random pages against what it stored.
fn work(memory: &Memory, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let pages = 400;
    let mut region = memory.map(pages * PAGE).unwrap();
    let mut rounds = vec![None; pages];
    for _ in 0..6000 {
        let page = random.usize(..pages);
        match rounds[page] {
            None => assert!(region[page * PAGE..][..PAGE].iter().all(|byte| *byte == 0)),
            Some(round) => assert!(is(&region, page, round), "page {page}, thread {seed}"),
        }
        match random.u32(..40) {
            0 => {
                region.advise(page * PAGE..(page + 1) * PAGE, Advice::DontNeed).unwrap();
                rounds[page] = None;
            }
            1 => region.advise(page * PAGE..(page + 1) * PAGE, Advice::PageOut).unwrap(),
            2..20 => {
                let round = random.u64(..);
                put(&mut region, page, round);
                rounds[page] = Some(round);
            }
            _ => {}
        }
    }
}

/// Maps, fills and unmaps regions, and takes snapshots.
fn churn(memory: &Memory, done: &AtomicBool) {
    while !done.load(Relaxed) {
        let mut region = memory.map(50 * PAGE).unwrap();
        (0..50).for_each(|page| put(&mut region, page, 7));
        let snapshot = memory.snapshot().unwrap();
        (0..50).step_by(3).for_each(|page| put(&mut region, page, 8));
        let before = snapshot.get(&region).unwrap();
        for page in 0..50 {
            assert!(is(before, page, 7), "page {page}: {}", describe(&before[page * PAGE..], page));
        }
    }
}

/// A description of a page with wrong content.
fn describe(bytes: &[u8], page: usize) -> String {
    let words = bytes[..PAGE].chunks_exact(8).map(|c| u64::from_ne_bytes(c.try_into().unwrap()));
    let rounds: Vec<_> = words.enumerate().map(|(i, value)| value ^ word(page + i, 0)).collect();
    let zeros = bytes[..PAGE].iter().filter(|byte| **byte == 0).count();
    format!("rounds {:?}, {zeros} bytes of zeros", &rounds[..4])
}

/// Watches what the memory says is resident.
fn watch(memory: &Memory, done: &AtomicBool) {
    while !done.load(Relaxed) {
        let stats = memory.stats();
        assert!(stats.resident_bytes <= stats.limit_bytes, "{stats:?}");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

#[test]
fn the_host_agrees_about_what_is_resident() {
    let memory = small(Delivery::Inline);
    let mut region = memory.map(16 * MIB).unwrap();
    let pages = region.len() / PAGE;
    for page in 0..pages {
        put(&mut region, page, 1);
        if page % 256 == 0 {
            let mut present = vec![0_u8; pages];
            // SAFETY: asks about a mapped range; the vector has a byte for each of its pages.
            let result = unsafe {
                libc::mincore(region.as_ptr().cast_mut().cast(), region.len(), present.as_mut_ptr())
            };
            assert_eq!(result, 0);
            let present = present.iter().filter(|byte| **byte & 1 != 0).count();
            let parked = memory.stats().machine.buffers_resident as usize;
            assert!((present + parked) * PAGE <= 2 * MIB, "{present} present, {parked} parked");
            assert!(page < 300 || present > 200, "{present} present");
        }
    }
}

#[test]
fn a_forked_child_cannot_touch_its_parents_memory() {
    for delivery in BOTH {
        let memory = small(delivery);
        let mut region = memory.map(8 * MIB).unwrap();
        let pages = region.len() / PAGE;
        (0..pages).for_each(|page| put(&mut region, page, 1));
        for touch in [true, false] {
            // SAFETY: the child touches the region or drops everything, and leaves by `_exit`.
            let child = unsafe { libc::fork() };
            if child == 0 {
                let limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
                // SAFETY: no core file is wanted.
                unsafe { libc::setrlimit(libc::RLIMIT_CORE, &limit) };
                if touch {
                    std::hint::black_box(region[5 * PAGE]);
                }
                drop(region);
                drop(memory);
                // SAFETY: leaves without running the parent's destructors.
                unsafe { libc::_exit(0) };
            }
            let mut status = 0;
            // SAFETY: waits for the child just made.
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            let expected = if touch { libc::SIGSEGV } else { 0 };
            assert_eq!(status & 0x7f, expected, "{status:#x}");
        }
        assert!((0..pages).all(|page| is(&region, page, 1)));
    }
}

#[test]
fn a_file_of_the_host_is_mapped_and_written_back() {
    let path = std::env::temp_dir().join(format!("pagefault-backing-{}", std::process::id()));
    let mut options = std::fs::File::options();
    let file = options.read(true).write(true).create(true).truncate(true).open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let content: Vec<u8> = (0..3 * 4096 + 100).map(|byte| (byte / 7) as u8).collect();
    std::os::unix::fs::FileExt::write_all_at(&file, &content, 0).unwrap();
    let memory = small(Delivery::Inline);
    let opened = memory.open(Arc::new(file.try_clone().unwrap()));
    // SAFETY: nobody else uses the file while the region is there.
    let mut region = unsafe { memory.map_file(&opened, 0, 4 * 4096, Sharing::Shared) }.unwrap();
    assert_eq!(region[..content.len()], content);
    assert!(region[content.len()..].iter().all(|byte| *byte == 0));
    region[5000] = 250;
    region[content.len()] = 7;
    region.sync(..).unwrap();
    let mut written = vec![0; content.len() + 1];
    let read = std::os::unix::fs::FileExt::read_at(&file, &mut written, 0).unwrap();
    assert_eq!(read, content.len(), "stores past the end do not reach the file");
    assert_eq!(written[5000], 250);
    assert_eq!(written[..5000], content[..5000]);
}
