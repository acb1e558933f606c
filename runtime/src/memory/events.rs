//! Events for `--report` and `--trace`.
//!
//! They go into the ring of the process's slot (`pagefault_control::Ring`). Without a reader there
//! is no ring, and an event costs one check of a pointer.

use crate::thread::Thread;
use crate::{process, shared, sys};
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicPtr, AtomicU32};
use pagefault::Weight;
use pagefault_control::{Control, Happening, Kind, Ring};
use pagefault_machine::{Access, PAGE_SIZE};

/// The ring of this process; null without a reader.
static RING: AtomicPtr<Ring> = AtomicPtr::new(core::ptr::null_mut());
/// This process's number, as it sees itself.
static PROCESS: AtomicU32 = AtomicU32::new(0);

/// Begins to keep events, if the command reads them.
pub fn start() {
    let Some(control) = process::control() else { return };
    let boot = process::boot();
    attach(control, boot.slot, boot.control_fd as u32);
}

/// Continues in a forked child, which has another slot.
pub fn after_fork_in_child(control: &Control, slot: u32, file: u32) {
    let old = RING.swap(core::ptr::null_mut(), Release);
    if old.is_null() {
        return;
    }
    // SAFETY: this is the child's only thread.
    unsafe { shared::unmap(old.cast(), size_of::<Ring>() as u64) };
    attach(control, slot, file);
    let time = process::now();
    keep(&Happening { time, ..nothing(Kind::Fork) });
}

fn attach(control: &Control, slot: u32, file: u32) {
    if !control.is_observed() {
        return;
    }
    PROCESS.store(sys::process_id(), Relaxed);
    let range = control.plan().ring(slot);
    // Without address space for it the program runs without events.
    if let Ok(start) = shared::map(file, range, shared::ACCESS) {
        RING.store(start.cast(), Release);
    }
}

/// The ring, if it has a reader.
fn ring() -> Option<&'static Ring> {
    let ring = RING.load(Acquire);
    // SAFETY: mapped as long as a ring, until a fork leaves the child with one thread.
    let ring = unsafe { ring.as_ref() }?;
    process::control().is_some_and(Control::is_observed).then_some(ring)
}

fn keep(event: &Happening) {
    if let Some(ring) = ring() {
        ring.write(event);
    }
}

/// An event of this thread without further facts.
fn nothing(kind: Kind) -> Happening {
    Happening {
        kind,
        write: false,
        major: false,
        in_call: false,
        time: 0,
        took: 0,
        page: 0,
        pages: 0,
        ip: 0,
        process: PROCESS.load(Relaxed),
        thread: Thread::current().number(),
    }
}

/// A thread's progress with a fault, for its events.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Under {
    /// It handles none: corrections belong to an access of a system call.
    #[default]
    NoFault,
    /// It handles one, without a correction so far.
    Fault,
    /// It handles one, with this correction.
    Corrected(Kind, Weight),
}

/// Pages of one block that came or went under a thread's current fault, and are not in the ring yet.
///
/// A fault in a run evicts a batch and brings a window of pages: as one event each, they would cost more than the
/// fault's own event many times over.
#[derive(Clone, Copy)]
pub struct Moves {
    kind: Kind,
    /// When the first of them moved.
    time: u64,
    block: u64,
    /// None if this is 0.
    pages: u64,
}

impl Moves {
    /// No pages.
    pub const NONE: Self = Self { kind: Kind::Evicted, time: 0, block: 0, pages: 0 };

    const BYTES: u64 = Happening::BLOCK * PAGE_SIZE;

    /// One page.
    fn begin(kind: Kind, page: u64) -> Self {
        let (block, pages) = Self::place(page);
        Self { kind, time: process::now(), block, pages }
    }

    /// The block of a page, and its bit there.
    const fn place(page: u64) -> (u64, u64) {
        (page & !(Self::BYTES - 1), 1 << (page / PAGE_SIZE % Happening::BLOCK))
    }

    /// The same with a page more, unless it moved in another way, or already, or is elsewhere.
    fn and(self, kind: Kind, page: u64) -> Option<Self> {
        let (block, bit) = Self::place(page);
        let fits = self.kind == kind && self.block == block && self.pages != 0;
        (fits && self.pages & bit == 0).then_some(Self { pages: self.pages | bit, ..self })
    }

    fn write(self, ring: &Ring) {
        if self.pages != 0 {
            let Self { kind, time, block: page, pages } = self;
            ring.write(&Happening { time, page, pages, ..nothing(kind) });
        }
    }
}

/// The calling thread begins a fault.
pub fn begin_fault() {
    if ring().is_some() {
        Thread::current().under.set(Under::Fault);
    }
}

/// What is known of a fault that has been answered.
pub struct Answered {
    pub access: Access,
    pub address: u64,
    pub ip: u64,
    pub begin: u64,
    pub took: u64,
}

/// The fault in hand has been answered.
pub fn end_fault(fault: &Answered) {
    let Some(ring) = ring() else { return };
    let thread = Thread::current();
    thread.moves.replace(Moves::NONE).write(ring);
    let (kind, weight) = match thread.under.replace(Under::NoFault) {
        // The fault began before there was a reader.
        Under::NoFault => return,
        Under::Fault => (Kind::Refill, Weight::Minor),
        Under::Corrected(kind, weight) => (kind, weight),
    };
    ring.write(&Happening {
        major: weight == Weight::Major,
        write: fault.access == Access::Write,
        time: fault.begin,
        took: fault.took,
        page: fault.address,
        ip: fault.ip,
        ..nothing(kind)
    });
}

/// The fault in hand is none of ours, or ends the program.
pub fn forget_fault() {
    let thread = Thread::current();
    thread.under.set(Under::NoFault);
    let moves = thread.moves.replace(Moves::NONE);
    if let Some(ring) = ring() {
        moves.write(ring);
    }
}

/// A correction was made, for the current fault or for a system call.
pub fn corrected(kind: Kind, page: u64, access: Access, weight: Weight) {
    let Some(ring) = ring() else { return };
    let thread = Thread::current();
    if thread.under.get() != Under::NoFault {
        return thread.under.set(Under::Corrected(kind, weight));
    }
    ring.write(&Happening {
        major: weight == Weight::Major,
        write: access == Access::Write,
        in_call: true,
        time: process::now(),
        page,
        ..nothing(kind)
    });
}

/// This many of the process's pages were taken over from the host since `begin`.
pub fn taken_over(begin: u64, pages: u64) {
    let Some(control) = process::control() else { return };
    control.counters.takeovers.add(1);
    control.counters.taken_over.add(pages);
    if let Some(ring) = ring() {
        let took = process::now().saturating_sub(begin);
        ring.write(&Happening { time: begin, took, ..nothing(Kind::Takeover) });
    }
}

/// A page came or went without a fault of its own.
pub fn moved(kind: Kind, page: u64) {
    let Some(ring) = ring() else { return };
    let thread = Thread::current();
    if thread.under.get() == Under::NoFault {
        // Nothing that follows would write it.
        return Moves::begin(kind, page).write(ring);
    }
    let moves = thread.moves.get();
    thread.moves.set(moves.and(kind, page).unwrap_or_else(|| {
        moves.write(ring);
        Moves::begin(kind, page)
    }));
}
