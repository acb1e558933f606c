//! A complete machine to copy: frames with content, page tables, and a processor with a TLB.
//!
//! It faults, swaps and forks in `main`. Scripts run on it in `script/examples/own_machine.rs`.

use pagefault::entry::Verdict;
use pagefault::exception::ExceptionTables;
use pagefault::machine::lock_api::ArcMutexGuard;
use pagefault::machine::*;
use pagefault::swap::area::Priority;
use pagefault::{AddressSpace, Config, Layout, Manager, MapRequest, Mm};
use pagefault_sim::SimDisk;
use parking_lot::{Mutex, RawMutex, RawRwLock};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// The end of user space, and how many entries a leaf table has.
const USER_END: u64 = 0x7fff_ffff_f000;
const ENTRIES: usize = 512;

/// Memory and a processor. A page of memory has a lock, as it is shared without unsafe code.
#[derive(Default)]
pub struct Board {
    memory: Box<[Mutex<Page>]>,
    free: Mutex<Vec<Frame>>,
    /// What the processor remembers of page tables, by space and page.
    tlb: Mutex<HashMap<(u32, VirtAddr), Entry>>,
    spaces: AtomicU32,
    clock: AtomicU64,
}

impl Board {
    /// Memory of so many frames.
    pub fn new(frames: u32) -> Self {
        Self {
            memory: (0..frames).map(|_| Mutex::new([0; PAGE_SIZE as usize])).collect(),
            // Frame 0 is the shared frame of zeros.
            free: Mutex::new((1..frames).rev().map(Frame).collect()),
            ..Self::default()
        }
    }

    /// One access to a byte: the processor looks into the TLB, then walks the page table, then gives
    /// up with a fault. `f` loads from the byte or stores to it.
    pub fn access<R>(
        &self,
        table: &Table,
        at: VirtAddr,
        access: Access,
        f: impl FnOnce(&mut u8) -> R,
    ) -> Result<R, PageFault> {
        let (fault, page) = (PageFault::user(at, access), at.page());
        let byte = |frame: Frame| f(&mut self.memory[frame.index()].lock()[at.page_offset()]);
        // The TLB stays locked during the access: a flush that has returned has outlived it.
        let tlb = self.tlb.lock();
        let hit = tlb.get(&(table.id, page)).filter(|entry| entry.allows(access));
        if let Some(Entry::Present { frame, .. }) = hit {
            return Ok(byte(*frame));
        }
        drop(tlb);
        let mut cursor = table.lock_existing(page..page + PAGE_SIZE).ok_or(fault)?;
        let entry = cursor.entry(page);
        let Entry::Present { frame, protection, dirty, .. } = entry else { return Err(fault) };
        if !entry.allows(access) {
            return Err(PageFault { code: fault.code | ErrorCode::PROTECTION, ..fault });
        }
        // The processor sets the bits. It remembers the right to store once the dirty bit is set.
        let (accessed, dirty) = (true, dirty || access == Access::Write);
        cursor.replace(page, Entry::Present { frame, protection, accessed, dirty });
        let protection = if dirty { protection } else { protection.read_only() };
        let remembered = Entry::Present { frame, protection, accessed, dirty };
        self.tlb.lock().insert((table.id, page), remembered);
        // The cursor keeps the entry as it is until the access is done.
        Ok(byte(frame))
    }
}

impl Machine for Board {
    type Space = Table;
    type Mutex = RawMutex;
    type RwLock = RawRwLock;

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            accessed: true,
            dirty: true,
            task_size: VirtAddr(USER_END),
            no_execute: true,
            file_index_limit: u64::MAX >> PAGE_SHIFT,
            last_swap_slot: u32::MAX,
        }
    }

    fn frames(&self) -> u32 {
        self.memory.len() as u32
    }
    fn free_frames(&self) -> u32 {
        self.free.lock().len() as u32
    }
    fn zero_frame(&self) -> Option<Frame> {
        Some(Frame(0))
    }
    fn allocate(&self) -> Result<Frame, OutOfFrames> {
        self.free.lock().pop().ok_or(OutOfFrames)
    }
    fn free(&self, frame: Frame) {
        self.free.lock().push(frame);
    }

    fn zero(&self, frame: Frame) {
        self.memory[frame.index()].lock().fill(0);
    }
    fn copy(&self, from: Frame, to: Frame) {
        let content = *self.memory[from.index()].lock();
        *self.memory[to.index()].lock() = content;
    }
    fn fill<R>(&self, frame: Frame, f: impl FnOnce(&mut Page) -> R) -> R {
        f(&mut self.memory[frame.index()].lock())
    }
    fn drain<R>(&self, frame: Frame, f: impl FnOnce(&Page) -> R) -> R {
        f(&self.memory[frame.index()].lock())
    }

    fn space(&self) -> Result<Table, NoSpace> {
        Ok(Table { id: self.spaces.fetch_add(1, Relaxed), leaves: Mutex::default() })
    }
    fn flush(&self, space: &Table, stale: &[Stale]) {
        let gone = |at: VirtAddr| stale.iter().any(|stale| stale.address == at);
        self.tlb.lock().retain(|(id, at), _| *id != space.id || !gone(*at));
    }

    fn context(&self) -> ContextId {
        static THREADS: AtomicU32 = AtomicU32::new(0);
        thread_local!(static THREAD: u32 = THREADS.fetch_add(1, Relaxed));
        ContextId(THREAD.with(|number| *number))
    }
    /// May return early, so yielding the CPU is enough; a kernel sleeps on a queue.
    fn wait(&self, _word: &AtomicU32, _value: u32) {
        self.pause();
    }
    fn wake(&self, _word: &AtomicU32) {}
    fn pause(&self) {
        std::thread::yield_now();
    }
    fn now(&self) -> u64 {
        self.clock.fetch_add(1, Relaxed)
    }
}

/// The entries of a leaf table, which cover 2 MiB.
type Leaf = Arc<Mutex<[Entry; ENTRIES]>>;

/// A page table: a directory of leaves, each with a lock of its own.
pub struct Table {
    id: u32,
    leaves: Mutex<BTreeMap<u64, Leaf>>,
}

impl Space for Table {
    type Cursor<'a> = Locked;
    const SPAN: u64 = ENTRIES as u64 * PAGE_SIZE;

    fn id(&self) -> u32 {
        self.id
    }
    fn lock(&self, range: Range<VirtAddr>) -> Result<Locked, OutOfFrames> {
        let empty = || Arc::new(Mutex::new([Entry::None; ENTRIES]));
        self.leaves.lock().entry(range.start.value() / Self::SPAN).or_insert_with(empty);
        self.lock_existing(range).ok_or(OutOfFrames)
    }
    fn lock_existing(&self, range: Range<VirtAddr>) -> Option<Locked> {
        let leaf = self.leaves.lock().get(&(range.start.value() / Self::SPAN))?.clone();
        Some(Locked { leaf: leaf.lock_arc(), end: range.end })
    }
    fn prune(&self, hole: Range<VirtAddr>, _unmapped: Range<VirtAddr>) {
        let whole = hole.start.value().div_ceil(Self::SPAN)..hole.end.value() / Self::SPAN;
        self.leaves.lock().retain(|block, _| !whole.contains(block));
    }
    fn leaves(&self) -> usize {
        self.leaves.lock().len()
    }
}

/// A cursor: a leaf table that is locked. It owns a share of the leaf, so `prune` need not wait.
pub struct Locked {
    leaf: ArcMutexGuard<RawMutex, [Entry; ENTRIES]>,
    end: VirtAddr,
}

impl Cursor for Locked {
    fn entry(&self, at: VirtAddr) -> Entry {
        self.leaf[at.page_number() as usize % ENTRIES]
    }
    fn replace(&mut self, at: VirtAddr, entry: Entry) -> Entry {
        std::mem::replace(&mut self.leaf[at.page_number() as usize % ENTRIES], entry)
    }
    fn next(&self, from: VirtAddr) -> Option<VirtAddr> {
        let pages = (from.value()..self.end.value()).step_by(PAGE_SIZE as usize).map(VirtAddr);
        pages.into_iter().find(|&page| !self.entry(page).is_none())
    }
}

/// What a trap handler does: an access that faults is repeated until the memory manager has met it.
fn byte(mm: &Arc<Mm<Board>>, at: VirtAddr, store: Option<u8>) -> Result<u8, Verdict> {
    let access = if store.is_some() { Access::Write } else { Access::Read };
    let act = |byte: &mut u8| std::mem::replace(byte, store.unwrap_or(*byte));
    loop {
        let fault = match mm.manager().machine().access(mm.space(), at, access, act) {
            Ok(byte) => return Ok(byte),
            Err(fault) => fault,
        };
        let verdict = mm.manager().page_fault(Some(mm), &fault, &ExceptionTables::default());
        if verdict != Verdict::Resume {
            return Err(verdict);
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // 64 frames, and a swap area on a disk in memory.
    let manager = Manager::new(Arc::new(Board::new(64)), Config::default());
    manager.swap_on(Box::new(SimDisk::new(1024)), Priority::Descending)?;
    let layout = Layout::over(VirtAddr(0x1_0000)..VirtAddr(USER_END));
    let parent = AddressSpace::new(&manager, layout)?;

    // It swaps: 200 pages do not fit into 64 frames, and keep what was stored.
    let start = parent.mmap(&MapRequest::anonymous(200 * PAGE_SIZE))?;
    let page = |index: u64| start + index * PAGE_SIZE;
    for index in 0..200 {
        assert_eq!(byte(&parent, page(index), Some(index as u8)), Ok(0));
    }
    assert!((0..200).all(|index| byte(&parent, page(index), None) == Ok(index as u8)));

    // It forks: neither sees what the other stores from now on.
    let child = parent.fork()?;
    assert_eq!(byte(&child, page(7), Some(70)), Ok(7));
    assert_eq!((byte(&parent, page(7), None), byte(&child, page(7), None)), (Ok(7), Ok(70)));

    // It faults: nothing is mapped past the end.
    assert!(matches!(byte(&parent, page(200), None), Err(Verdict::Signal(_))));

    // Every invariant holds, and in the end every frame but that of zeros is free.
    manager.check()?;
    drop((parent, child));
    assert_eq!(manager.machine().free_frames(), 63);
    println!("a machine of one's own faults, swaps and forks");
    Ok(())
}
