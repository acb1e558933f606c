//! A database's buffer pool: a store of its own, mapped within a limit, by two threads.
//!
//! The store is slow and may fail. A page that is pinned first gives an error then, and no signal.
//!
//! `cargo run --release -p pagefault-linux --example pool`

use pagefault_linux::{Backing, Event, IoError, Memory, Observer, Page, Sharing};
use std::error::Error;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const PAGES: usize = 2048;
const PAGE: usize = 4096;

/// Pages somewhere else: here in a vector, behind a delay.
struct Store {
    pages: Mutex<Vec<Page>>,
    is_down: AtomicBool,
}

impl Store {
    /// Calls `f` with a page. Its methods run within accesses to the pool, so no lock of the program's may be
    /// held there: this one is the store's alone.
    fn with<R>(&self, index: u64, f: impl FnOnce(&mut Page) -> R) -> Result<R, IoError> {
        if self.is_down.load(Relaxed) {
            return Err(IoError::Device);
        }
        std::thread::sleep(Duration::from_micros(50));
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        pages.get_mut(index as usize).map(f).ok_or(IoError::Device)
    }
}

impl Backing for Store {
    fn read(&self, index: u64, page: &mut Page) -> Result<(), IoError> {
        self.with(index, |stored| *page = *stored)
    }

    fn write(&self, index: u64, page: &[u8]) -> Result<(), IoError> {
        self.with(index, |stored| stored[..page.len()].copy_from_slice(page))
    }

    fn len(&self) -> Result<u64, IoError> {
        Ok((PAGES * PAGE) as u64)
    }
}

/// Counts faults and evictions.
#[derive(Default)]
struct Counts {
    faults: AtomicU64,
    evicted: AtomicU64,
}

impl Observer for Counts {
    fn event(&self, event: &Event) {
        match event {
            Event::Corrected { .. } => self.faults.fetch_add(1, Relaxed),
            Event::Evicted { .. } => self.evicted.fetch_add(1, Relaxed),
            _ => 0,
        };
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let counts = Arc::<Counts>::default();
    let memory = Memory::builder(2 << 20).observer(Box::new(counts.clone())).build()?;
    let pages = Mutex::new(vec![[0; PAGE]; PAGES]);
    let store = Arc::new(Store { pages, is_down: AtomicBool::new(false) });
    let file = memory.open(store.clone());
    // SAFETY: the store is changed through this region alone, and reads back what was written.
    let mut pool = unsafe { memory.map_file(&file, 0, PAGES * PAGE, Sharing::Shared)? };

    // Two threads change half of the pages each: four times the limit in all.
    std::thread::scope(|scope| {
        for half in pool.chunks_mut(PAGES * PAGE / 2) {
            scope.spawn(|| half.chunks_mut(PAGE).for_each(|page| page[0] += 1));
        }
    });
    pool.sync(..)?;

    // The store fails, and the first page left long ago: an access would raise SIGBUS, a pin returns the error.
    store.is_down.store(true, Relaxed);
    let Err(error) = pool.pin(..PAGE) else { return Err("the page was still there".into()) };
    println!("while the store is down: {error}");
    store.is_down.store(false, Relaxed);
    println!("later: {}", pool.pin(..PAGE)?[0]);

    let changed = pool.chunks(PAGE).filter(|page| page[0] == 1).count();
    let (faults, evicted) = (counts.faults.load(Relaxed), counts.evicted.load(Relaxed));
    println!("{changed} of {PAGES} pages changed, {faults} faults, {evicted} evictions");
    println!("{} KiB resident", memory.stats().resident_bytes >> 10);
    Ok(())
}
