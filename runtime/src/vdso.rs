//! The vDSO, whose clock the runtime uses. The program may move it, unmap it or remove its rights.
//!
//! Virtual machines, sandboxes and checkpointing do so (valgrind unmaps it, CRIU moves it). From then
//! on the runtime makes a system call for the time.

use crate::{process, user};
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;
use linux_raw_sys::general as nr;

/// `AT_SYSINFO_EHDR`.
const VDSO: u64 = 33;
/// The maximum lengths of the vDSO, and of the data pages below it.
const REACH: u64 = 64 << 10;

/// Its address; 0 for none.
static START: AtomicU64 = AtomicU64::new(0);

/// Finds it on the program's initial stack: the argument count, then arguments, environment and
/// auxiliary vector, each with a zero after it.
pub fn begin() {
    let word = |at: u64| user::read::<u64>(at).unwrap_or(0);
    let mut at = process::boot().program_sp;
    at += 8 * (word(at) + 2);
    while word(at) != 0 {
        at += 8;
    }
    at += 8;
    while word(at) != 0 && word(at) != VDSO {
        at += 16;
    }
    match word(at) {
        VDSO => START.store(word(at + 8), Relaxed),
        _ => process::counter_off(),
    }
}

/// Notes a call that may change the mappings of its ranges.
pub fn note(number: u32, args: &[u64; 6]) {
    let [start, len, _, flags, new, _] = *args;
    match number {
        nr::__NR_munmap | nr::__NR_mprotect | nr::__NR_pkey_mprotect => note_range(start, len),
        nr::__NR_mmap if flags as u32 & nr::MAP_FIXED != 0 => note_range(start, len),
        nr::__NR_mremap => {
            note_range(start, len);
            note_range(new, args[2]);
        }
        _ => {}
    }
}

fn note_range(start: u64, len: u64) {
    let vdso = START.load(Relaxed);
    if start < vdso.saturating_add(REACH) && vdso < start.saturating_add(len.saturating_add(REACH))
    {
        process::counter_off();
    }
}
