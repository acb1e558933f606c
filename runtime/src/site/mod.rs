//! Places of the program's code that call often, rewritten so that their calls need no trap.
//!
//! A system call that traps costs a signal and the return from it, ten times the call itself. So the
//! traps of each `syscall` instruction are counted, and one that traps often is replaced by a jump
//! to a *stub* near it. The stub enters the runtime as a function is entered, and goes on behind the
//! call.
//!
//! | module | what it does |
//! |---|---|
//! | `shape` | which instructions behind a `syscall` may move |
//! | `stub` | the code of a stub, and where it lies |
//! | `text` | writes code that other threads may be executing |
//! | `enter` | the way from a stub into the runtime and back |
//!
//! A jump is five bytes long and `syscall` two, so the instructions behind it move into the stub.
//! Nobody can prove that nothing else comes to them. So where one of them began, the jump has a byte
//! that faults (`hlt`), and whoever comes there is sent on in the stub ([`correct`]). The stub's
//! address is chosen so that the jump has these bytes.
//!
//! The program sees its own addresses alone: a handler that interrupts a stub is shown the place that
//! the stub stands for ([`show`]). A stub is never freed or changed, so what runs in it is safe
//! whatever becomes of the place.

mod enter;
mod shape;
mod stub;
mod text;

pub use enter::{State, leave_window, resume, use_shadow_stack, watch};
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

/// After how many traps a place is rewritten.
const OFTEN: u64 = 32;
/// The count of a place that cannot be rewritten.
const NEVER: u64 = 0xffff;
/// The counts of places: the upper 48 bits are the address.
static COUNTS: [AtomicU64; 1024] = [const { AtomicU64::new(0) }; 1024];
/// How many places are looked at that cannot be rewritten: each look costs a read of
/// `/proc/self/maps`.
const MOST_REFUSED: u64 = 64;
static REFUSED: AtomicU64 = AtomicU64::new(0);

/// Whether places are rewritten in this process.
static ENABLED: AtomicBool = AtomicBool::new(false);
/// Held while a place is rewritten, and over a fork.
static REWRITING: Mutex<()> = Mutex::new(());

/// Decides, at the program's start, whether places are rewritten.
pub fn begin(thread: &Thread) {
    let wanted = process::control().is_some_and(|control| {
        // Whoever wants to look from outside is to see the program as it is.
        control.calls() == Calls::Rewritten && control.delivery() == Some(Delivery::Inline)
    });
    if wanted && process::boot().flags & Boot::GS_BASE != 0 {
        enter::arm(thread);
        stub::begin();
        ENABLED.store(true, Relaxed);
    }
}

/// Lets a new thread call by stubs if the one that made it does.
pub fn begin_thread(thread: &Thread, parent: u64) {
    if ENABLED.load(Relaxed) && enter::is_armed(parent) {
        enter::arm(thread);
    }
}

/// Whether the base of `gs` is ours, which the program takes for zero.
pub fn has_gs(thread: &Thread) -> bool {
    ENABLED.load(Relaxed) && enter::is_armed(thread.block() as u64)
}

/// Keeps code as it is until the guard is dropped, over a fork on either side.
pub fn hold() -> MutexGuard<'static, FutexMutex, ()> {
    REWRITING.lock()
}

/// Counts a trap of the `syscall` instruction that ends at `ip`, and rewrites it when it was often
/// enough.
pub fn count(thread: &Thread, ip: u64, number: u32) {
    let is_tried = ENABLED.load(Relaxed) && REFUSED.load(Relaxed) < MOST_REFUSED;
    if !is_tried || !call::is_direct(number) || !thread.seccomp.is_off() {
        return;
    }
    let count = &COUNTS[(ip ^ ip >> 10) as usize % COUNTS.len()];
    let was = count.load(Relaxed);
    // Counts that are lost between threads do not matter.
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

/// Rewrites the `syscall` instruction at an address; `None` where that cannot be done.
fn rewrite(place: u64) -> Option<()> {
    // Somebody else may be at it, for this place too. It comes again.
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
        // Code was replaced by the same code, as where a library is unloaded and loaded again.
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

/// Sends a thread on that has come to a byte of a jump where an instruction was, or whose stub could
/// not read the program's `gs`. Whether it was so.
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
    // Looked at first: what is not written any more is a jump, or the program's.
    let is_written = record.is_written();
    let mut code = [0; shape::JUMP];
    if user::read_bytes(record.place(), &mut code).is_err() {
        return false;
    }
    // Other code may have come there that has such an instruction of its own.
    let is_ours = code == record.jump() || is_written && code[0] == shape::FAULTING;
    if is_ours {
        registers.rip = to;
    }
    is_ours
}

/// Makes interrupted code be at an address of the program's, where it is in a stub or on the way
/// from or to one.
pub fn show(registers: &mut Registers) {
    if let Some(ip) = enter::shown(registers) {
        registers.rip = ip;
    }
}
