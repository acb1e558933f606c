//! The vDSO, whose clock the runtime uses. The program may move it, unmap it or remove its rights.
//!
//! Virtual machines, sandboxes and checkpointing do so (valgrind unmaps it, CRIU moves it). From then
//! on the runtime makes a system call for the time.

use crate::{process, user};
use core::ops::Range;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;
use linux_raw_sys::general as nr;
use pagefault_machine::PAGE_SIZE;

/// `AT_SYSINFO_EHDR`.
const VDSO: u64 = 33;
/// The data pages that its clock reads are just below it: at most four, and two of hypervisors.
const DATA: u64 = 6 * PAGE_SIZE;

/// Its address and its length; 0 for none.
static START: AtomicU64 = AtomicU64::new(0);
static LENGTH: AtomicU64 = AtomicU64::new(0);

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
        VDSO => {
            let start = word(at + 8);
            START.store(start, Relaxed);
            LENGTH.store(length(start), Relaxed);
        }
        _ => process::counter_off(),
    }
}

/// The length of an ELF image in memory, in whole pages.
fn length(image: u64) -> u64 {
    const LOAD: u32 = 1;
    const HEADER: u64 = 56;
    let word = |at: u64| user::read::<u64>(at).unwrap_or(0);
    let first = image + word(image + 32);
    let count = user::read::<u16>(image + 56).unwrap_or(0);
    let headers = (0..u64::from(count)).map(|number| first + number * HEADER);
    let is_loaded = |header: &u64| user::read::<u32>(*header) == Ok(LOAD);
    let ends = headers.filter(is_loaded).map(|header| word(header + 16) + word(header + 40));
    ends.max().unwrap_or(0).max(1).next_multiple_of(PAGE_SIZE)
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
    if is_of(START.load(Relaxed), LENGTH.load(Relaxed), start..start.saturating_add(len)) {
        process::counter_off();
    }
}

/// Whether a range has pages of a vDSO or of its data. The kernel may place the vDSO between mappings of the
/// program's own: just below its dynamic loader, which protects and unmaps its neighbours.
fn is_of(vdso: u64, length: u64, range: Range<u64>) -> bool {
    range.start < vdso.saturating_add(length) && vdso.saturating_sub(DATA) < range.end
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    #[test]
    fn neighbours_are_no_part_of_it() {
        const VDSO: u64 = 0x7fff_0000_0000;
        let is_of = |pages: Range<i64>| {
            let at = |page: i64| VDSO.wrapping_add_signed(page * PAGE_SIZE as i64);
            super::is_of(VDSO, 2 * PAGE_SIZE, at(pages.start)..at(pages.end))
        };
        // A page below its data, and the loader above it.
        assert!(!is_of(-20..-6) && !is_of(2..60));
        assert!(is_of(-20..-5) && is_of(-1..0) && is_of(0..1) && is_of(1..2) && is_of(-20..20));
    }

    #[test]
    fn its_headers_tell_its_length() {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let Some(line) = maps.lines().find(|line| line.ends_with("[vdso]")) else { return };
        let range = crate::maps::Line::of(line.as_bytes()).unwrap().range;
        assert_eq!(length(range.start), range.end - range.start);
    }
}
