//! A memory manager of a hundred lines, to try the machine with: anonymous pages, first in first
//! out, evicted to the heap.

#![allow(dead_code)]

use pagefault_linux::{
    Answering, Config, Delivery, Layout, LinuxMachine, LinuxSpace, Pager, Resolution, Signal,
};
use pagefault_machine::{
    Access, Cursor, Entry, Fate, Frame, Machine, PAGE_SIZE, PageFault, Protection, Space, Stale,
    SwapSlot, VirtAddr,
};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

pub const PAGE: u64 = PAGE_SIZE;
/// Where the toy's only region starts.
pub const START: VirtAddr = VirtAddr(0x40_0000);

pub struct Toy {
    pub machine: LinuxMachine,
    pub space: LinuxSpace,
    start: VirtAddr,
    pages: u64,
    protection: Mutex<Protection>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    resident: VecDeque<(VirtAddr, Frame)>,
    store: HashMap<VirtAddr, Box<[u8; 4096]>>,
    faults: u64,
}

/// A toy that answers its machine's faults.
pub struct Running {
    // Dropped before the toy, so that no fault is under way when the space goes.
    _answering: Answering,
    pub toy: Arc<Toy>,
}

/// A toy over a window.
pub fn run(pages: u64, frames: u32, delivery: Delivery) -> Running {
    build(START, pages, &Config { delivery, ..Config::new(frames) })
}

/// A toy over memory of this process, which the caller has mapped.
pub fn run_identity(start: *mut u8, pages: u64, frames: u32, delivery: Delivery) -> Running {
    let layout = Layout::Identity;
    let start = VirtAddr(start as u64);
    let run = build(start, pages, &Config { delivery, layout, ..Config::new(frames) });
    // SAFETY: the caller has mapped the range, and does not refer to it yet.
    unsafe { run.toy.space.register(start..start + pages * PAGE) }.unwrap();
    run
}

fn build(start: VirtAddr, pages: u64, config: &Config) -> Running {
    let machine = LinuxMachine::new(config).unwrap();
    let space = machine.space().unwrap();
    let toy = Arc::new(Toy {
        machine: machine.clone(),
        space,
        start,
        pages,
        protection: Mutex::new(Protection::all()),
        state: Mutex::default(),
    });
    Running { _answering: machine.answer_with(toy.clone()).unwrap(), toy }
}

pub fn page(index: u64) -> VirtAddr {
    START + index * PAGE
}

impl Toy {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// How many faults the toy was asked about.
    pub fn faults(&self) -> u64 {
        self.state().faults
    }

    pub fn entry(&self, at: VirtAddr) -> Entry {
        self.space.lock(at..at + PAGE).unwrap().entry(at)
    }

    pub fn replace(&self, at: VirtAddr, entry: Entry) -> Entry {
        self.space.lock(at..at + PAGE).unwrap().replace(at, entry)
    }

    pub fn flush(&self, address: VirtAddr, frame: Frame, fate: Fate) {
        self.machine.flush(&self.space, &[Stale { address, frame, fate }]);
    }

    /// Evicts up to `count` pages.
    pub fn evict(&self, count: usize) {
        let mut state = self.state();
        self.evict_locked(&mut state, count);
    }

    /// Drops the content of a page.
    pub fn discard(&self, at: VirtAddr) {
        let mut state = self.state();
        state.store.remove(&at);
        if let Entry::Present { frame, .. } = self.replace(at, Entry::None) {
            self.flush(at, frame, Fate::Freed);
            self.machine.free(frame);
            state.resident.retain(|(_, f)| *f != frame);
        }
    }

    /// Sets the protection of the region.
    pub fn protect(&self, protection: Protection) {
        let state = self.state();
        *self.protection.lock().unwrap() = protection;
        let mut stale = Vec::new();
        for &(address, frame) in &state.resident {
            let mut cursor = self.space.lock(address..address + PAGE).unwrap();
            cursor.protect(address, protection.read_only());
            stale.push(Stale { address, frame, fate: Fate::Narrowed });
        }
        self.machine.flush(&self.space, &stale);
    }

    fn evict_locked(&self, state: &mut State, count: usize) {
        let victims: Vec<_> = (0..count).filter_map(|_| state.resident.pop_front()).collect();
        let mut stale = Vec::new();
        for &(address, frame) in &victims {
            self.replace(address, Entry::Swap(SwapSlot { area: 0, offset: 1 }));
            stale.push(Stale { address, frame, fate: Fate::Kept });
        }
        self.machine.flush(&self.space, &stale);
        for (address, frame) in victims {
            let copy = self.machine.drain(frame, |page| Box::new(*page));
            state.store.insert(address, copy);
            self.machine.free(frame);
        }
    }

    fn page_in(&self, state: &mut State, at: VirtAddr) -> Frame {
        let frame = loop {
            match self.machine.allocate() {
                Ok(frame) => break frame,
                Err(_) => self.evict_locked(state, 8),
            }
        };
        match state.store.get(&at) {
            Some(content) => self.machine.fill(frame, |page| page.copy_from_slice(&content[..])),
            None => self.machine.zero(frame),
        }
        state.resident.push_back((at, frame));
        frame
    }
}

impl Pager for Toy {
    fn fault(&self, id: u32, fault: &PageFault) -> Resolution {
        assert_eq!(id, self.space.id());
        let mut state = self.state();
        state.faults += 1;
        let at = fault.address.page();
        if at < self.start || at >= self.start + self.pages * PAGE {
            return Resolution::Signal(Signal::NotMapped);
        }
        let allowed = *self.protection.lock().unwrap();
        let wanted = match fault.access() {
            Access::Read => Protection::READ,
            Access::Write => Protection::WRITE,
            Access::Execute => Protection::EXECUTE,
        };
        if !allowed.contains(wanted) {
            return Resolution::Signal(Signal::Forbidden);
        }
        let frame = match self.entry(at) {
            Entry::Present { frame, .. } => frame,
            _ => self.page_in(&mut state, at),
        };
        let dirty = wanted == Protection::WRITE;
        let protection = if dirty { allowed } else { allowed.read_only() };
        self.replace(at, Entry::Present { frame, protection, accessed: true, dirty });
        Resolution::Resume
    }
}

/// The number of resident pages in a range of host addresses.
pub fn resident(start: *const u8, pages: usize) -> usize {
    let mut vector = vec![0_u8; pages];
    // SAFETY: asks about mapped memory; the vector has a byte for each page.
    let result =
        unsafe { libc::mincore(start.cast_mut().cast(), pages * 4096, vector.as_mut_ptr()) };
    assert_eq!(result, 0);
    vector.iter().filter(|byte| **byte & 1 != 0).count()
}
