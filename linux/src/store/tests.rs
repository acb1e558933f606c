use super::arena::Arena;
use super::offload::Offload;
use super::pool::{OwnPool, Pool, SPAN};
use super::scratch;
use super::*;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicBool, AtomicU32};
use pagefault_machine::store::PageBytes;
use pagefault_machine::{IoError, PAGE_SIZE, SwapDevice};
use std::thread;

mod files;

/// A page of one of the kinds that memory is made of: filled, text-like, random.
fn page(seed: u64) -> PageBytes {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut page = [0; PAGE_SIZE as usize];
    match seed % 4 {
        0 => page.as_chunks_mut().0.fill(seed.to_ne_bytes()),
        1 => page.fill_with(|| random.u8(..)),
        2 => page.fill_with(|| b"etaoin shrdlu"[random.usize(..13)]),
        _ => page[..random.usize(64..2048)].fill_with(|| random.u8(..)),
    }
    page
}

fn read(device: &impl SwapDevice, slot: u32) -> Result<PageBytes, IoError> {
    let mut page = [0xa5; PAGE_SIZE as usize];
    device.read(slot, &mut page).map(|()| page)
}

/// Writes, overwrites, reads and discards at random, and compares with what a table says.
fn compare_with_model(device: &impl SwapDevice, slots: u32, steps: u64) {
    let mut random = fastrand::Rng::with_seed(steps);
    let mut model = vec![None; slots as usize];
    for step in 0..steps {
        let slot = random.u32(1..slots);
        match random.u8(..4) {
            0 | 1 => {
                device.write(slot, &page(step)).unwrap();
                model[slot as usize] = Some(step);
            }
            2 => {
                device.discard(slot);
                model[slot as usize] = None;
            }
            _ => match model[slot as usize] {
                Some(seed) => assert_eq!(read(device, slot), Ok(page(seed)), "slot {slot}"),
                None => assert_eq!(read(device, slot), Err(IoError::Device), "slot {slot}"),
            },
        }
    }
    for slot in 1..slots {
        if let Some(seed) = model[slot as usize] {
            assert_eq!(read(device, slot), Ok(page(seed)), "slot {slot}");
            device.discard(slot);
        }
    }
}

#[test]
fn compressed_ram_keeps_what_a_table_keeps() {
    let ram = CompressedRam::new(500, 8 << 20).unwrap();
    compare_with_model(&ram, 500, 20_000);
    let stats = ram.stats();
    let held = (stats.pages, stats.stored_bytes, stats.same_filled, stats.incompressible);
    assert_eq!(held, (0, 0, 0, 0));
    assert!(stats.memory_bytes < 8 * SPAN as u64, "memory is kept: {stats:?}");
}

/// Compresses what waits when a random number says so, and gives up nothing by itself.
struct Whenever {
    places: Box<[Mutex<Mailbox>]>,
    random: Mutex<fastrand::Rng>,
}

struct Mailbox {
    page: Box<PageBytes>,
    result: Box<PageBytes>,
    waits: bool,
    len: Option<usize>,
}

impl Whenever {
    fn new(places: usize) -> Self {
        let page = || Box::new([0; PAGE_SIZE as usize]);
        let mailbox =
            || Mutex::new(Mailbox { page: page(), result: page(), waits: false, len: None });
        let random = Mutex::new(fastrand::Rng::with_seed(places as u64));
        Self { places: (0..places).map(|_| mailbox()).collect(), random }
    }
}

// SAFETY: each place has two pages of its own, and the result is written before its length is there.
unsafe impl Offload for Whenever {
    fn places(&self) -> usize {
        self.places.len()
    }

    fn page(&self, place: usize) -> *mut PageBytes {
        &raw mut *self.places[place].lock().page
    }

    fn result(&self, place: usize) -> *const u8 {
        (&raw const *self.places[place].lock().result).cast()
    }

    fn hand_over(&self, place: usize) {
        let mut mailbox = self.places[place].lock();
        assert!(!mailbox.waits, "a place is handed over twice");
        mailbox.waits = true;
    }

    fn take_back(&self, place: usize) {
        let mut mailbox = self.places[place].lock();
        (mailbox.waits, mailbox.len) = (false, None);
        mailbox.result.fill(0xee);
        mailbox.page.fill(0xdd);
    }

    fn finished(&self, place: usize) -> Option<usize> {
        let mut mailbox = self.places[place].lock();
        let mailbox = &mut *mailbox;
        if mailbox.waits && mailbox.len.is_none() && self.random.lock().bool() {
            let mut room = scratch::Scratch::new();
            mailbox.len = Some(match room.compress(&mailbox.page) {
                Some(bytes) => {
                    mailbox.result[..bytes.len()].copy_from_slice(bytes);
                    bytes.len()
                }
                None => mailbox.page.len(),
            });
        }
        mailbox.len
    }
}

#[test]
fn compressed_ram_keeps_what_a_table_keeps_while_pages_wait_for_others() {
    for places in [1, 5, 64] {
        let ram = CompressedRam::new(500, 8 << 20).unwrap();
        let ram = ram.with_offload(Box::new(Whenever::new(places)));
        compare_with_model(&ram, 500, 20_000);
        let stats = ram.stats();
        let held = (stats.pages, stats.stored_bytes, stats.same_filled, stats.incompressible);
        assert_eq!(held, (0, 0, 0, 0));
        assert_eq!(ram.waiting().count(), 0);
    }
}

#[test]
fn a_fork_takes_the_results_that_are_there_and_compresses_the_rest() {
    let ram = CompressedRam::new(500, 8 << 20).unwrap();
    let ram = ram.with_offload(Box::new(Whenever::new(64)));
    let text = |slot: u32| page(u64::from(slot) * 4 + 2);
    (1..=20).for_each(|slot| ram.write(slot, &text(slot)).unwrap());
    assert_eq!(ram.waiting().count(), 20, "too few for anybody to look for results");
    let Compressed { pages, elsewhere, .. } = ram.before_fork();
    assert_eq!((pages, ram.waiting().count()), (20, 0));
    assert!((1..20).contains(&elsewhere), "{elsewhere} of 20 results were taken");
    (1..=20).for_each(|slot| assert_eq!(read(&ram, slot), Ok(text(slot))));
}

#[test]
fn pages_that_wait_stay_where_they_are_while_the_pool_is_full() {
    let ram = CompressedRam::new(4096, 1 << 20).unwrap();
    let ram = ram.with_offload(Box::new(Whenever::new(16)));
    let random = |slot: u32| page(u64::from(slot) * 4 + 1);
    let full = (1..4096).find(|slot| ram.write(*slot, &random(*slot)).is_err()).unwrap();
    for _ in 0..100 {
        assert_eq!(ram.write(full, &random(full)), Err(IoError::Full));
    }
    assert!(ram.waiting().count() > 0);
    for slot in 1..full {
        assert_eq!(read(&ram, slot), Ok(random(slot)));
        ram.discard(slot);
    }
    assert_eq!((ram.waiting().count(), ram.stats().pages), (0, 0));
}

#[test]
fn compressed_ram_stops_at_its_cap_and_goes_on_once_there_is_room() {
    let cap = 1 << 20;
    let ram = CompressedRam::new(4096, cap).unwrap();
    let random = |slot: u32| page(u64::from(slot) * 4 + 1);
    let full = (1..4096).find(|slot| ram.write(*slot, &random(*slot)).is_err()).unwrap();
    assert_eq!(ram.write(full, &random(full)), Err(IoError::Full));
    assert!(full > 220, "a cap of 256 pages was reached at {full}");
    assert!(ram.stats().memory_bytes <= cap);
    assert_eq!(ram.stats().incompressible, u64::from(full) - 1);
    // What was refused is not there, the rest is.
    assert_eq!(read(&ram, full), Err(IoError::Device));
    for slot in 1..full {
        assert_eq!(read(&ram, slot), Ok(random(slot)));
    }
    ram.discard(7);
    assert_eq!(ram.write(full, &random(full)), Ok(()));
    assert_eq!(read(&ram, full), Ok(random(full)));
}

#[test]
fn full_compressed_ram_takes_what_costs_nothing_and_whatever_fits_once_a_page_is_freed() {
    let ram = CompressedRam::new(4096, 1 << 20).unwrap();
    let random = |slot: u32| page(u64::from(slot) * 4 + 1);
    let full = (1..4096).find(|slot| ram.write(*slot, &random(*slot)).is_err()).unwrap();
    assert_eq!(ram.write(full, &page(4)), Ok(()));
    ram.discard(full);
    assert_eq!(ram.write(full, &random(full)), Err(IoError::Full));
    // Overwriting frees what was there, and what is refused leaves the slot empty.
    assert_eq!(ram.write(1, &random(full)), Ok(()));
    assert_eq!(read(&ram, 1), Ok(random(full)));
    ram.discard(2);
    assert_eq!(ram.write(full, &random(2)), Ok(()));
    assert_eq!(read(&ram, full), Ok(random(2)));
}

#[test]
fn same_filled_pages_cost_a_line_of_the_table_only() {
    let ram = CompressedRam::new(100_000, 4 << 20).unwrap();
    for slot in 1..100_000 {
        ram.write(slot, &page(u64::from(slot) * 4)).unwrap();
    }
    let stats = ram.stats();
    assert_eq!((stats.pages, stats.same_filled, stats.stored_bytes), (99_999, 99_999, 0));
    assert!(stats.memory_bytes <= 100_000 * 16 + PAGE_SIZE);
    assert_eq!(read(&ram, 99_999), Ok(page(99_999 * 4)));
}

#[test]
fn slots_out_of_range_are_refused() {
    let ram = CompressedRam::new(8, 1 << 20).unwrap();
    assert_eq!(ram.write(8, &page(1)), Err(IoError::Device));
    assert_eq!(read(&ram, u32::MAX), Err(IoError::Device));
    ram.discard(8);
    let file = SwapFile::temporary(&std::env::temp_dir(), Some(8 * PAGE_SIZE)).unwrap();
    assert_eq!(file.write(8, &page(1)), Err(IoError::Device));
    assert_eq!(file.write(0, &page(1)), Err(IoError::Device));
    assert_eq!(read(&file, 8), Err(IoError::Device));
    file.discard(8);
}

#[test]
fn threads_share_compressed_ram() {
    let ram = CompressedRam::new(4000, 16 << 20).unwrap();
    thread::scope(|scope| {
        for part in 0..4 {
            let ram = &ram;
            scope.spawn(move || {
                for round in 0..5_u64 {
                    for slot in (part * 1000).max(1)..(part + 1) * 1000 {
                        let seed = u64::from(slot) * 7 + round;
                        ram.write(slot, &page(seed)).unwrap();
                        assert_eq!(read(ram, slot), Ok(page(seed)));
                        if slot % 3 == 0 {
                            ram.discard(slot);
                        }
                    }
                }
            });
        }
    });
    assert_eq!(ram.stats().pages, (1..4000).filter(|slot| slot % 3 != 0).count() as u64);
}

#[test]
fn objects_of_the_arena_never_overlap() {
    let arena = Arena::over(Box::new(OwnPool::new(2 << 20).unwrap())).unwrap();
    let mut random = fastrand::Rng::with_seed(3);
    let mut objects = Vec::new();
    for tag in 0..20_000_u32 {
        if random.bool() || objects.is_empty() {
            let len = random.usize(1..=4096);
            if let Some(place) = arena.allocate(len) {
                // SAFETY: the place was allocated just now for `len` bytes.
                unsafe { arena.address(place).write_bytes(tag as u8, len) };
                objects.push((place, len, tag as u8));
            }
        } else {
            let (place, len, tag) = objects.swap_remove(random.usize(..objects.len()));
            // SAFETY: the place is allocated and `len` bytes of it were written.
            let bytes = unsafe { core::slice::from_raw_parts(arena.address(place), len) };
            assert!(bytes.iter().all(|byte| *byte == tag));
            arena.free(place);
        }
        assert!(arena.pool().used() <= arena.pool().limit());
    }
}

/// A pool whose spans others can be made to hold too.
struct SharedPool {
    own: OwnPool,
    others: Vec<AtomicBool>,
    /// Spans that were let go while others held them.
    left: AtomicU32,
}

impl SharedPool {
    fn share(&self, held: bool) {
        self.others.iter().for_each(|others| others.store(held, Relaxed));
    }
}

// SAFETY: as the pool within.
unsafe impl Pool for &'static SharedPool {
    fn spans(&self) -> u32 {
        self.own.spans()
    }
    fn limit(&self) -> u64 {
        self.own.limit()
    }
    fn used(&self) -> u64 {
        self.own.used()
    }
    fn take(&self) -> Option<u32> {
        let span = self.own.take()?;
        self.others[span as usize].store(false, Relaxed);
        Some(span)
    }
    fn give(&self, span: u32) {
        match self.others[span as usize].load(Relaxed) {
            true => _ = self.left.fetch_add(1, Relaxed),
            false => self.own.give(span),
        }
    }
    fn is_sole(&self, span: u32) -> bool {
        !self.others[span as usize].load(Relaxed)
    }
    fn memory(&self, span: u32) -> *mut u8 {
        self.own.memory(span)
    }
    fn charge_page(&self) -> bool {
        true
    }
    fn uncharge_page(&self) {}
    fn may_have_room(&self) -> bool {
        true
    }
}

#[test]
fn nothing_is_written_to_memory_that_another_process_holds() {
    let own = OwnPool::new(4 << 20).unwrap();
    let others = (0..own.spans()).map(|_| AtomicBool::new(false)).collect();
    let pool = &*Box::leak(Box::new(SharedPool { own, others, left: AtomicU32::new(0) }));
    let ram = CompressedRam::over(1000, Box::new(pool)).unwrap();
    let image = |used: u64| -> Vec<u8> {
        // A span costs a little more than its memory.
        let spans = (used / SPAN as u64) as u32;
        // SAFETY: these spans were taken, and nobody writes meanwhile.
        let bytes = |span| unsafe { core::slice::from_raw_parts(pool.memory(span), SPAN) };
        (0..spans).flat_map(bytes).copied().collect()
    };
    (1..200).for_each(|slot| ram.write(slot, &page(slot.into())).unwrap());
    ram.before_fork();
    pool.share(true);
    let (before, used) = (image(pool.used()), pool.used());

    // Freed, overwritten and new pages all go elsewhere.
    (1..100).for_each(|slot| ram.discard(slot));
    (100..150).for_each(|slot| ram.write(slot, &page(u64::from(slot) + 1)).unwrap());
    (200..300).for_each(|slot| ram.write(slot, &page(slot.into())).unwrap());
    assert!(pool.used() > used);
    assert!(image(pool.used())[..before.len()] == before[..]);
    (100..150).for_each(|slot| assert_eq!(read(&ram, slot), Ok(page(u64::from(slot) + 1))));
    (150..300).for_each(|slot| assert_eq!(read(&ram, slot), Ok(page(slot.into()))));
    (150..200).for_each(|slot| ram.discard(slot));
    assert!(pool.left.load(Relaxed) > 0, "shared spans without a page of this process's are left");

    // What the other process let go is used again before more is taken.
    ram.before_fork();
    pool.share(true);
    (200..300).step_by(2).for_each(|slot| ram.discard(slot));
    pool.share(false);
    let used = pool.used();
    (200..300).step_by(2).for_each(|slot| ram.write(slot, &page(slot.into())).unwrap());
    assert_eq!(pool.used(), used);
    (200..300).for_each(|slot| assert_eq!(read(&ram, slot), Ok(page(slot.into()))));
}
