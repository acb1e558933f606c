//! The takeover, from passive to active: the memory manager takes over the host's pages.
//!
//! The gate is held exclusively to the end. Threads of the program run on: they stop at the gate
//! with their next fault on an absent page, and with their next call. Accesses to present pages
//! need no fault, and those pages are adopted in place.
//!
//! The host's calls in progress continue too. Their pages are made present before anything is
//! registered, while the host still does that itself. They are adopted and pinned before any page
//! can be evicted.

use super::{GATE, Manager, PAGE, Pins, addresses, events};
use super::{passive, room};
use crate::thread::Thread;
use crate::{call, process, supervisor, sys, tracer, user};
use alloc::vec::Vec;
use core::ops::{ControlFlow, Range};
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{Relaxed, Release};
use linux_raw_sys::general as nr;
use pagefault::error::AdoptError;
use pagefault_calls::{Area, Kind};
use pagefault_linux::{AdoptPresentError, Standing};
use pagefault_machine::{Access, Protection};

/// The thread that converts, by its number; 0 for none.
static CONVERTER: AtomicU32 = AtomicU32::new(0);

/// Whether the calling thread is converting: it holds the gate, and faults of its copies do not
/// concern managed memory.
pub fn is_converting() -> bool {
    CONVERTER.load(Relaxed) == Thread::current().context()
}

/// How long to wait for frames, in nanoseconds, and how long between two checks.
const PATIENCE: u64 = 20_000_000_000;
const PAUSE: u64 = 500_000;

/// Memory that the host uses for a thread.
struct Use {
    thread: &'static Thread,
    area: Area,
    lasts: Lasts,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Lasts {
    /// As long as the current call.
    Call,
    /// As long as the thread.
    Thread,
}

impl Manager {
    /// Makes a passive process active. The gate is held exclusively; `empty` is a range that was just
    /// mapped and has no page.
    pub(super) fn convert(&self, empty: &Range<u64>) {
        debug_assert!(GATE.is_locked_exclusive());
        if !passive::end() {
            return;
        }
        let begin = process::now();
        self.begin_machine();
        CONVERTER.store(Thread::current().context(), Relaxed);
        let mut bound = core::mem::take(&mut *self.bound.lock());
        let parts = self.parts(&(PAGE..user::END));
        let uses = uses();
        let mut standing = look();
        let mut filled = Vec::new();
        for (part, _) in parts.iter().filter(|(_, protection)| !protection.is_empty()) {
            filled.extend(drop_zeros(part, &bound, &mut standing));
        }
        for page in &filled {
            bound.stored.insert(page);
        }
        bound.stored.remove(empty);
        uses.iter().for_each(|used| self.touch(used));
        for freed in bound.freed.within(&(0..user::END)) {
            let _ = standing.runs(freed, |run| {
                keep(&run);
                Ok(())
            });
        }
        for (part, _) in &parts {
            // SAFETY: private anonymous memory of the program's, and every call that changes its
            // mapping comes through here.
            let registered = unsafe { self.mm().space().register_as_is(addresses(part)) };
            if let Err(errno) = registered {
                process::stop(format_args!("the host refuses to hand over its faults: {errno}"));
            }
        }
        self.machine.grant_frames(bound.paid as u32);
        let mut adopted = 0;
        for used in &uses {
            let pages = used.area.start & !(PAGE - 1)..used.area.end().next_multiple_of(PAGE);
            for (part, protection) in self.parts(&pages) {
                adopted += self.adopt_standing(&mut standing, &part, protection);
            }
            self.pin_for(used);
        }
        for (part, protection) in &parts {
            for stored in bound.stored.within(part) {
                adopted += self.adopt_standing(&mut standing, &stored, *protection);
            }
        }
        self.machine.give_back_frames();
        CONVERTER.store(0, Release);
        passive::say(self);
        if tracer::is_traced() {
            room::ask(room::Request::Server);
        }
        events::taken_over(begin, adopted);
    }

    /// Makes the pages of a use present while the host does so by itself.
    fn touch(&self, used: &Use) {
        for (part, _) in self.parts(&(used.area.start & !(PAGE - 1)..used.area.end())) {
            for page in part.step_by(PAGE as usize) {
                // The host refuses unreadable memory.
                let _ = user::read::<u8>(page);
            }
        }
    }

    /// Adopts the pages in a part of a region; returns how many.
    fn adopt_standing(
        &self,
        standing: &mut Standing,
        part: &Range<u64>,
        protection: Protection,
    ) -> u64 {
        let since = process::now();
        loop {
            let range = addresses(part);
            // SAFETY: registered, and the gate keeps the mappings as they are.
            let adopted = unsafe {
                if protection.is_empty() {
                    standing.adopt_unreadable(self.mm(), range)
                } else {
                    standing.adopt(self.mm(), range)
                }
            };
            match adopted {
                Ok(pages) => return pages,
                Err(AdoptPresentError::Refused(AdoptError::OutOfMemory))
                    if process::now() - since < PATIENCE =>
                {
                    supervisor::request_reclaim(Thread::current().member());
                    sys::sleep(PAUSE);
                }
                Err(error) => process::stop(format_args!("{error}")),
            }
        }
    }

    /// Keeps the pages of a use resident as long as it lasts.
    fn pin_for(&self, used: &Use) {
        let access = if used.area.access.writes() { Access::Write } else { Access::Read };
        let (start, len) = (used.area.start, used.area.len);
        let pin = |pins: &mut Pins| {
            let is_word = used.area.kind == Kind::Word;
            if !is_word || pins.add_held(self, start, len, Access::Write) == 0 {
                pins.add_held(self, start, len, access);
            }
        };
        match used.lasts {
            Lasts::Call => pin(&mut used.thread.flight.pins().borrow_mut()),
            Lasts::Thread => {
                let mut pins = Pins::new();
                pin(&mut pins);
                used.thread.kept.borrow_mut().push(pins);
            }
        }
    }
}

/// How to find pages: by a descriptor only if no other thread could close it.
pub(super) fn look() -> Standing {
    if Thread::all().len() > 1 { Standing::resident() } else { Standing::new() }
}

/// The program's memory that the host currently uses, for each thread.
fn uses() -> Vec<Use> {
    let mut uses = Vec::new();
    for thread in Thread::all() {
        for area in thread.later.take() {
            uses.push(Use { thread, area, lasts: Lasts::Thread });
        }
        let Some((number, args)) = thread.flight.call() else { continue };
        let mut left = Pins::most() as u64 * PAGE;
        call::each_area(number, &args, &mut |area| {
            let area = Area { len: area.len.min(left), ..area };
            left -= area.len;
            uses.push(Use { thread, area, lasts: Lasts::Call });
            if left > 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
    }
    uses
}

/// Empties the pages of a never-writable region that show the host's zeros: those do not count, but
/// a frame of ours would. Returns the pages that have content anyway: a debugger may have put it
/// there.
fn drop_zeros(
    part: &Range<u64>,
    bound: &passive::Bound,
    standing: &mut Standing,
) -> Vec<Range<u64>> {
    let mut filled = Vec::new();
    let mut from = part.start;
    for stored in bound.stored.within(part).into_iter().chain(core::iter::once(part.end..part.end))
    {
        let _ = standing.runs(from..stored.start, |run| {
            for page in run.step_by(PAGE as usize) {
                if is_zero(page) {
                    // SAFETY: zeros come back.
                    let _ = unsafe { sys::advise(page as usize, PAGE as usize, nr::MADV_DONTNEED) };
                } else {
                    filled.push(page..page + PAGE);
                }
            }
            Ok(())
        });
        from = stored.end;
    }
    filled
}

/// Whether a readable page holds only zeros.
fn is_zero(page: u64) -> bool {
    let mut bytes = [0; PAGE as usize];
    user::read_bytes(page, &mut bytes) == Ok(()) && bytes.iter().all(|byte| *byte == 0)
}

/// Has the host keep pages that it was allowed to drop: they count as stored to.
pub(super) fn keep(run: &Range<u64>) {
    let len = (run.end - run.start) as usize;
    // SAFETY: the pages are there and keep their content.
    let _ = unsafe { sys::advise(run.start as usize, len, nr::MADV_POPULATE_WRITE) };
}
