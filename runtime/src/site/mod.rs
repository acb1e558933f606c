//! Rewrites frequent call sites of the program, so that their calls need no trap.
//!
//! A system call that traps costs a signal and the return from it, ten times the call itself. So the
//! traps of each `syscall` instruction are counted, and a frequent one is replaced by a jump to a
//! *stub* near it. The stub enters the runtime like a function, and continues after the call.
//!
//! | module | what it does |
//! |---|---|
//! | `shape` | which instructions after a `syscall` may move |
//! | `stub` | the code of a stub, and its place |
//! | `text` | writes code that other threads may be executing |
//! | `enter` | the path from a stub into the runtime and back |
//!
//! A jump has five bytes and `syscall` two, so the instructions after it move into the stub. Other
//! code may still jump to them. So where one of them began, the jump has a byte that faults (`hlt`),
//! and a thread that arrives there continues in the stub ([`correct`]). The stub's address is chosen
//! so that the jump has these bytes.
//!
//! The program sees only its own addresses: a handler that interrupts a stub gets the address of the
//! original site ([`show`]). A stub is never freed or changed, so a thread in it is safe, whatever
//! happens to the site.

mod enter;
mod shape;
mod stub;
mod text;

pub use enter::{
    State, is_within, leave_window, may_resume, of_program, resume, use_shadow_stack, watch,
};
pub use stub::{overlaps, record_of_trap};

use crate::frame::Registers;
use crate::lock::Mutex;
use crate::process;
use crate::thread::Thread;
use crate::{call, user};
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicBool, AtomicU64};
use lock_api::MutexGuard;
use pagefault_control::{Boot, Calls, Delivery};
use pagefault_linux::lock::FutexMutex;
use shape::Shape;
use stub::Record;

/// The number of traps after which a site is rewritten.
const OFTEN: u64 = 32;
/// The count of a site that cannot be rewritten.
const NEVER: u64 = 0xffff;
/// The counts of sites: the upper 48 bits are the address.
static COUNTS: [AtomicU64; 1024] = [const { AtomicU64::new(0) }; 1024];
/// After this many sites that cannot be rewritten, no more are tried: each try reads
/// `/proc/self/maps`.
const MOST_REFUSED: u64 = 64;
static REFUSED: AtomicU64 = AtomicU64::new(0);

/// Whether this process rewrites sites.
static ENABLED: AtomicBool = AtomicBool::new(false);
/// Held while a site is rewritten, and across a fork.
static REWRITING: Mutex<()> = Mutex::new(());

/// Decides at the program's start whether sites are rewritten.
pub fn begin(thread: &Thread) {
    let wanted = process::control().is_some_and(|control| {
        // `--delivery=threads` is for readers from outside, which must see the program's own code.
        control.calls() == Calls::Rewritten && control.delivery() == Some(Delivery::Inline)
    });
    if wanted && process::boot().flags & Boot::GS_BASE != 0 {
        enter::arm(thread);
        ENABLED.store(true, Relaxed);
    }
}

/// Lets a new thread call through stubs if its parent does.
pub fn begin_thread(thread: &Thread, parent: u64) {
    if ENABLED.load(Relaxed) && enter::is_armed(parent) {
        enter::arm(thread);
    }
}

/// Whether the base of `gs` is ours; the program believes that it is zero.
pub fn has_gs(thread: &Thread) -> bool {
    ENABLED.load(Relaxed) && enter::is_armed(thread.block() as u64)
}

/// Prevents rewriting until the guard is dropped; across a fork, on both sides.
pub fn hold() -> MutexGuard<'static, FutexMutex, ()> {
    REWRITING.lock()
}

/// Counts a trap of the `syscall` instruction that ends at `ip`, and rewrites it if it traps often.
pub fn count(thread: &Thread, ip: u64, number: u32) {
    let is_tried = ENABLED.load(Relaxed) && REFUSED.load(Relaxed) < MOST_REFUSED;
    if !is_tried || !call::is_direct(number) || !thread.seccomp.is_off() {
        return;
    }
    let count = &COUNTS[(ip ^ ip >> 10) as usize % COUNTS.len()];
    let was = count.load(Relaxed);
    // Counts lost between threads do not matter.
    let now = match was & 0xffff {
        _ if was >> 16 != ip => 1,
        NEVER => return,
        times => times + 1,
    };
    count.store(ip << 16 | now, Relaxed);
    if now >= OFTEN && rewrite(ip - 2).is_none() {
        count.store(ip << 16 | NEVER, Relaxed);
        REFUSED.fetch_add(1, Relaxed);
    }
}

/// Rewrites the `syscall` instruction at an address; `None` if that is impossible.
fn rewrite(place: u64) -> Option<()> {
    // Another thread is rewriting, perhaps this site. A later trap tries again.
    let Some(_rewriting) = REWRITING.try_lock() else { return Some(()) };
    if crate::tracer::is_traced() {
        return None;
    }
    let mut code = [0; shape::LONGEST];
    let read = user::read_some(place, &mut code);
    let shape = Shape::of(place, &code[..read])?;
    let file = text::Text::open()?;
    let maps = text::Maps::read()?;
    if !maps.is_plain_code(place, shape::JUMP as u64) {
        return None;
    }
    let record = match Record::find(place) {
        // Code was replaced by the same code, as when a library is unloaded and loaded again.
        Some(record) if record.has(&code[2..2 + shape.moved]) => record,
        Some(_) => return None,
        None => Record::make(place, &shape, &code, &file, &maps)?,
    };
    record.set_written(true);
    let done = file.patch(place, &shape, &record.jump());
    let is_half = done.is_none() && user::read::<u8>(place) == Ok(shape::FAULTING);
    record.set_written(is_half);
    done
}

/// Handles a fault at a byte of a jump where an instruction began, or in a stub that cannot read the
/// program's `gs`: the thread continues in the stub. Returns whether it was such a fault.
pub fn correct(registers: &mut Registers) -> bool {
    /// The number of the processor's general protection fault.
    const PROTECTION: u64 = 13;
    let ip = registers.rip;
    if let Some(record) = Record::of_stub(ip) {
        let reads_gs = ip == record.stub();
        if reads_gs {
            registers.rip = record.slow();
        }
        return reads_gs;
    }
    if registers.trap != PROTECTION {
        return false;
    }
    let Some((record, to)) = Record::of_interior(ip) else { return false };
    // Read first: once it is not being written, the code is the jump or the program's.
    let is_written = record.is_written();
    let mut code = [0; shape::JUMP];
    if user::read_bytes(record.place(), &mut code).is_err() {
        return false;
    }
    // Other code may be there by now, with its own privileged instruction.
    let is_ours = code == record.jump() || is_written && code[0] == shape::FAULTING;
    if is_ours {
        registers.rip = to;
    }
    is_ours
}

/// If code was interrupted in a stub, or on the path to or from one, sets its address to the
/// program's, also where a call leaves it in rcx.
pub fn show(registers: &mut Registers) {
    if let Some(ip) = enter::shown(registers) {
        registers.rip = ip;
        if let Some(record) = Record::of_stub(registers.rcx) {
            registers.rcx = record.behind();
        }
    }
}
