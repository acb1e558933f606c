//! Makes processors forget translations (spec G1, G3).
//!
//! # Which processors
//! A space knows the CPUs that have its page table loaded. Some of them run its program
//! ([`Presence::active`]). The others are idle or run a task of the kernel, and have not loaded
//! another table yet. They do not use the space's pages, so a changed page does not interrupt them.
//! Instead, the sender notes that they missed a change, and they forget everything before they run
//! the program again. The sender writes its note and then reads whether the CPU is active. The CPU
//! makes itself active and then reads the notes. So one of the two sees the other.
//!
//! When tables themselves go, every CPU is interrupted, since a processor may walk them at any
//! time. A CPU that does not use the space then loads the reference table, and is not interrupted
//! again.
//!
//! # How
//! Each CPU has room for one request of its own, and a set of the CPUs whose requests it must
//! answer. The sender waits with interrupts enabled, and answers others meanwhile, so no two wait
//! for each other. The sender holds no lock that is taken with interrupts disabled, and a CPU with
//! interrupts disabled waits only for such locks. So every CPU eventually answers.

use crate::cpu;
use crate::space::PcSpace;
use crate::{apic, smp};
use core::cell::UnsafeCell;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use pagefault::machine::{Stale, VirtAddr};
use x86_64::instructions::{interrupts, tlb};
use x86_64::registers::control::Cr3;

/// From this many pages on, forgetting everything is cheaper than one after the other (Linux:
/// `tlb_single_page_flush_ceiling`).
const CEILING: usize = 33;

/// How often a sender looks for answers before it sleeps.
const SPINS: u32 = 1000;

/// Where a space is in use, as sets of CPUs.
#[derive(Debug, Default)]
pub struct Presence {
    /// The CPUs that have its page table loaded, and may hold translations (spec G3).
    loaded: AtomicU64,
    /// Those of them that run its program.
    active: AtomicU64,
    /// Those that have not been told of every change.
    missed: AtomicU64,
}

/// What this CPU is called in a set.
fn own_bit() -> u64 {
    1 << cpu::number()
}

/// Makes this CPU run the program of a space, or none. Called with interrupts disabled.
pub fn enter(space: Option<&PcSpace>) {
    let own = own_bit();
    // SAFETY: a space waits at its end until no CPU has it loaded.
    let before = unsafe { cpu::space().as_ref() };
    let Some(space) = space else {
        if let Some(before) = before {
            before.presence.active.fetch_and(!own, Ordering::Release);
        }
        return;
    };
    let presence = &space.presence;
    if before.is_some_and(|before| ptr::eq(before, space)) {
        if presence.active.load(Ordering::Relaxed) & own == 0 {
            presence.active.fetch_or(own, Ordering::SeqCst);
            if presence.missed.load(Ordering::SeqCst) & own != 0 {
                presence.missed.fetch_and(!own, Ordering::Relaxed);
                reload();
            }
        }
        return;
    }
    presence.missed.fetch_and(!own, Ordering::SeqCst);
    presence.loaded.fetch_or(own, Ordering::SeqCst);
    presence.active.fetch_or(own, Ordering::SeqCst);
    // SAFETY: the kernel half was copied from the reference table; the space waits at its end.
    unsafe { cpu::load(space.root(), space) };
    if let Some(before) = before {
        before.presence.active.fetch_and(!own, Ordering::Relaxed);
        // The last use of the former: its end may wait for this.
        before.presence.loaded.fetch_and(!own, Ordering::Release);
    }
}

/// Makes all CPUs forget pages of a space, before they use them again.
pub fn flush(space: &PcSpace, stale: &[Stale]) {
    let presence = &space.presence;
    let others = presence.loaded.load(Ordering::SeqCst) & !own_bit();
    let what = if stale.len() < CEILING { What::Pages(space, stale) } else { What::All(space) };
    if others == 0 {
        return carry_out(what);
    }
    let mut told = presence.active.load(Ordering::SeqCst) & others;
    let lazy = others & !told;
    if lazy != 0 {
        presence.missed.fetch_or(lazy, Ordering::SeqCst);
        told |= presence.active.load(Ordering::SeqCst) & lazy;
    }
    AVOIDED.fetch_add((others & !told).count_ones().into(), Ordering::Relaxed);
    tell(what, told);
}

/// Makes this CPU forget a page of a space, if no other has the space loaded; else does nothing and
/// returns `false`. The entry was changed before: a CPU that loads the space from now on reads it anew.
pub fn flush_here(space: &PcSpace, stale: Stale) -> bool {
    let is_alone = space.presence.loaded.load(Ordering::SeqCst) & !own_bit() == 0;
    if is_alone && ptr::eq(cpu::space(), space) {
        invalidate(stale.address);
    }
    is_alone
}

/// Makes all CPUs forget all that a space translates, upper levels included.
pub fn flush_all(space: &PcSpace) {
    let others = space.presence.loaded.load(Ordering::SeqCst) & !own_bit();
    tell(What::All(space), others);
}

/// Makes the CPUs that still have a dying space loaded load the reference table.
pub fn leave(space: &PcSpace) {
    let others = space.presence.loaded.load(Ordering::SeqCst) & !own_bit();
    tell(What::Leave(space), others);
    let left = space.presence.loaded.load(Ordering::Acquire);
    assert_eq!(left, 0, "a CPU still has a dying space loaded");
}

/// Makes all CPUs forget pages of the kernel.
pub fn forget(pages: impl Iterator<Item = u64> + Clone) {
    let mut some = [0; BATCH];
    let mut pages = pages.peekable();
    while pages.peek().is_some() {
        let mut count = 0;
        for (slot, page) in some.iter_mut().zip(&mut pages) {
            *slot = page;
            count += 1;
        }
        tell(What::Kernel(&some[..count]), ((1 << smp::count()) - 1) & !own_bit());
    }
}

/// How many pages of the kernel are forgotten at once.
const BATCH: usize = 64;

/// What a CPU is asked to do.
#[derive(Clone, Copy)]
enum What<'a> {
    /// Forget these pages of a space.
    Pages(&'a PcSpace, &'a [Stale]),
    /// Forget everything of it; or load the reference table, where its program does not run.
    All(&'a PcSpace),
    /// Load the reference table, if the space's is loaded.
    Leave(&'a PcSpace),
    /// Forget these pages of the kernel.
    Kernel(&'a [u64]),
}

/// A request that a CPU sends. Its content is the sender's to write while nobody is `awaited`, and
/// to be read by those who are.
struct Request {
    content: UnsafeCell<Option<What<'static>>>,
    /// The CPUs that have not answered.
    awaited: AtomicU64,
    /// The sender sleeps until they have.
    sleeps: AtomicBool,
}

impl Request {
    const fn new() -> Self {
        let (awaited, sleeps) = (AtomicU64::new(0), AtomicBool::new(false));
        Self { content: UnsafeCell::new(None), awaited, sleeps }
    }
}

// SAFETY: by what `awaited` means, nobody reads the content while it is written; the space and the
// pages are the sender's, which waits for all answers.
unsafe impl Sync for Request {}

static REQUESTS: [Request; cpu::LIMIT] = [const { Request::new() }; cpu::LIMIT];

/// For each CPU, those whose requests it is to answer.
static SENDERS: [AtomicU64; cpu::LIMIT] = [const { AtomicU64::new(0) }; cpu::LIMIT];

/// Interrupts that were sent.
static SENT: AtomicU64 = AtomicU64::new(0);
/// Requests that were answered.
static ANSWERED: AtomicU64 = AtomicU64::new(0);
/// Interrupts that were not sent, because the CPU did not run the program.
static AVOIDED: AtomicU64 = AtomicU64::new(0);

/// Calls `f` with the name and value of each counter.
pub fn visit_counters(mut f: impl FnMut(&'static str, u64)) {
    f("cpus", smp::count().into());
    f("shootdowns_sent", SENT.load(Ordering::Relaxed));
    f("shootdowns_answered", ANSWERED.load(Ordering::Relaxed));
    f("shootdowns_avoided", AVOIDED.load(Ordering::Relaxed));
}

/// Does what is asked here, and on other CPUs.
fn tell(what: What<'_>, others: u64) {
    if others == 0 {
        return carry_out(what);
    }
    assert!(interrupts::are_enabled(), "a CPU that waits for others answers none");
    let own = cpu::number();
    let request = &REQUESTS[own as usize];
    // SAFETY: the former request was answered by all, or this function would not have returned; the
    // kernel is not preempted, so no other task is here on this CPU. The lifetime is over when all
    // have answered, before which this function does not return.
    unsafe {
        let what = core::mem::transmute::<What<'_>, What<'static>>(what);
        *request.content.get() = Some(what);
    }
    request.awaited.store(others, Ordering::Release);
    SENT.fetch_add(others.count_ones().into(), Ordering::Relaxed);
    for cpu in (0..cpu::LIMIT as u32).filter(|cpu| others & 1 << cpu != 0) {
        // A CPU that has been asked by another and has not looked yet finds both requests.
        if SENDERS[cpu as usize].fetch_or(1 << own, Ordering::AcqRel) == 0 {
            apic::interrupt(cpu, apic::SHOOTDOWN);
        }
    }
    carry_out(what);
    await_answers(request);
}

/// Waits until all have answered: awake for a moment, and then asleep. Where the CPUs are threads of
/// an emulator on fewer processors, those that are to answer can run only while this one does not.
fn await_answers(request: &Request) {
    for _ in 0..SPINS {
        if request.awaited.load(Ordering::Acquire) == 0 {
            return;
        }
        core::hint::spin_loop();
    }
    request.sleeps.store(true, Ordering::SeqCst);
    loop {
        interrupts::disable();
        if request.awaited.load(Ordering::SeqCst) == 0 {
            break;
        }
        // The last to answer sees `sleeps` and sends an interrupt.
        interrupts::enable_and_hlt();
    }
    interrupts::enable();
    request.sleeps.store(false, Ordering::Relaxed);
}

/// Answers the requests of other CPUs. Called with interrupts disabled.
pub fn answer() {
    let own = cpu::number();
    let senders = SENDERS[own as usize].swap(0, Ordering::AcqRel);
    for sender in (0..cpu::LIMIT).filter(|sender| senders & 1 << sender != 0) {
        let request = &REQUESTS[sender];
        // SAFETY: the sender waits for this CPU's answer, and keeps what it is about so long.
        if let Some(what) = unsafe { *request.content.get() } {
            carry_out(what);
        }
        ANSWERED.fetch_add(1, Ordering::Relaxed);
        let before = request.awaited.fetch_and(!(1 << own), Ordering::SeqCst);
        if before == 1 << own && request.sleeps.load(Ordering::SeqCst) {
            apic::interrupt(sender as u32, apic::LOOK);
        }
    }
}

/// Does what is asked, on this CPU.
fn carry_out(what: What<'_>) {
    let space = match what {
        What::Kernel(pages) => return pages.iter().for_each(|page| invalidate(VirtAddr(*page))),
        What::Pages(space, _) | What::All(space) | What::Leave(space) => space,
    };
    if !ptr::eq(cpu::space(), space) {
        return;
    }
    let is_active = space.presence.active.load(Ordering::Relaxed) & own_bit() != 0;
    match what {
        What::Pages(_, stale) => stale.iter().for_each(|page| invalidate(page.address)),
        What::All(_) if is_active => reload(),
        // A CPU that makes no use of the space is not told a second time.
        _ => interrupts::without_interrupts(|| {
            cpu::load_reference();
            space.presence.loaded.fetch_and(!own_bit(), Ordering::Release);
        }),
    }
}

fn invalidate(address: VirtAddr) {
    tlb::flush(x86_64::VirtAddr::new(address.value()));
}

/// Forgets every translation but global ones.
fn reload() {
    let (root, flags) = Cr3::read();
    // SAFETY: the root that is loaded stays loaded.
    unsafe { Cr3::write(root, flags) };
}
