//! Protection keys: the register `PKRU`, by which a program forbids itself memory.
//!
//! It holds for the runtime, too, and for the host's accesses in a call. A signal handler begins with the register's
//! initial value, which forbids every key but the first, whatever the program's own is. So once a program has a key, the
//! runtime opens all of them while it works. For the host's part of a call it loads the program's value, and on the way
//! out the program has its own again.

use crate::frame::fpstate_len;
use crate::thread::Thread;
use core::arch::asm;
use core::arch::x86_64::__cpuid_count;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize};

/// Where the register is in an extended state; 0 if the host has no keys.
static PLACE: AtomicUsize = AtomicUsize::new(0);
/// What a program and each handler begin with.
static INITIAL: AtomicU32 = AtomicU32::new(0);
/// Whether the program has ever had a key.
static USED: AtomicBool = AtomicBool::new(false);

/// Every key is open.
const OPEN: u32 = 0;
/// The number of the register among the parts of an extended state.
const PART: u32 = 9;
/// Where the header of an extended state begins, with a bit for each part that it holds.
const HEADER: usize = 512;

/// Finds out what the host has.
pub fn begin() {
    /// `OSPKE`.
    const ENABLED: u32 = 1 << 4;
    if __cpuid_count(0, 0).eax < 0xd || __cpuid_count(7, 0).ecx & ENABLED == 0 {
        return;
    }
    INITIAL.store(read(), Relaxed);
    PLACE.store(__cpuid_count(0xd, PART).ebx as usize, Relaxed);
}

/// Whether the host has keys.
pub fn are_there() -> bool {
    PLACE.load(Relaxed) != 0
}

fn read() -> u32 {
    let value;
    // SAFETY: the host has the register.
    unsafe {
        asm!("rdpkru", in("ecx") 0, out("eax") value, out("edx") _, options(nomem, nostack, preserves_flags));
    }
    value
}

fn write(value: u32) {
    // Accesses stay on their side of it.
    // SAFETY: the host has the register; the runtime's own memory has the first key, which stays open.
    unsafe {
        asm!("wrpkru", in("ecx") 0, in("eax") value, in("edx") 0, options(nostack, preserves_flags));
    }
}

/// Opens all keys, if the program has any, in a handler, whose own value is nobody's.
pub fn open_in_handler() {
    if USED.load(Relaxed) {
        write(OPEN);
    }
}

/// Opens all keys, if the program has any, and notes the value that closed some: the program's.
pub fn open() {
    if USED.load(Relaxed) {
        let value = read();
        if value != OPEN {
            Thread::current().keys.set(value);
            write(OPEN);
        }
    }
}

/// Opens all keys in a thread that runs nothing of the program's.
pub fn open_for_good() {
    if are_there() {
        write(OPEN);
    }
}

/// Enters the runtime from the program by a handler with this floating-point state, and notes the program's value.
pub fn enter(thread: &Thread, fpstate: u64) {
    if USED.load(Relaxed) {
        write(OPEN);
        // SAFETY: the kernel wrote the state for the running handler.
        thread.keys.set(unsafe { of_state(fpstate) });
    }
}

/// Enters it without a handler, until this is dropped.
pub struct Entered<'a>(&'a Thread);

impl<'a> Entered<'a> {
    pub fn new(thread: &'a Thread) -> Self {
        thread.keys.set(OPEN);
        open();
        Self(thread)
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        // Where they are not open, another thread has just got the first key.
        if USED.load(Relaxed) && read() == OPEN {
            write(self.0.keys.get());
        }
    }
}

/// Makes a call of the host's with the program's value.
pub fn as_program<R>(thread: &Thread, call: impl FnOnce() -> R) -> R {
    if !USED.load(Relaxed) {
        let result = call();
        // Another thread may have got the first key meanwhile.
        open();
        return result;
    }
    write(thread.keys.get());
    let result = call();
    write(OPEN);
    result
}

/// Has the host make a call that gives the program a key, and changes its value.
pub fn allocate(thread: &Thread, fpstate: u64, call: impl FnOnce() -> i64) -> i64 {
    if !are_there() {
        return call();
    }
    // SAFETY: the kernel wrote the state for the running handler.
    write(unsafe { of_state(fpstate) });
    let raw = call();
    let value = read();
    thread.keys.set(value);
    if raw >= 0 {
        USED.store(true, Relaxed);
    }
    write(OPEN);
    // SAFETY: as above.
    unsafe { set_in(fpstate, value) };
    raw
}

/// Makes the value in a handler's state the one that handlers begin with.
///
/// # Safety
/// As for [`fpstate_len`], and nobody else uses the state.
pub unsafe fn make_initial(fpstate: u64) {
    if are_there() {
        // SAFETY: passed on to the caller.
        unsafe { set_in(fpstate, INITIAL.load(Relaxed)) };
    }
}

/// The value in a state.
///
/// # Safety
/// As for [`fpstate_len`].
unsafe fn of_state(fpstate: u64) -> u32 {
    // SAFETY: the state is as long as it says.
    unsafe {
        let Some(place) = place_in(fpstate) else { return INITIAL.load(Relaxed) };
        let held = (fpstate as usize + HEADER) as *const u64;
        if held.read() >> PART & 1 == 0 { OPEN } else { (place as *const u32).read() }
    }
}

/// # Safety
/// As for [`fpstate_len`], and nobody else uses the state.
unsafe fn set_in(fpstate: u64, value: u32) {
    // SAFETY: the state is as long as it says.
    unsafe {
        let Some(place) = place_in(fpstate) else { return };
        let held = (fpstate as usize + HEADER) as *mut u64;
        held.write(held.read() | 1 << PART);
        (place as *mut u32).write(value);
    }
}

/// Where the register is in a state, if that has room for it.
///
/// # Safety
/// As for [`fpstate_len`].
unsafe fn place_in(fpstate: u64) -> Option<usize> {
    let place = PLACE.load(Relaxed);
    // SAFETY: passed on to the caller.
    let has_room =
        fpstate != 0 && place != 0 && place + size_of::<u32>() <= unsafe { fpstate_len(fpstate) };
    has_room.then_some(fpstate as usize + place)
}
