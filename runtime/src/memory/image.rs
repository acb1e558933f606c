//! Memory that the program has at its first instruction: the parts of its image and interpreter
//! beyond their files (`.bss`).
//!
//! The search happens before the runtime maps private memory, which would look the same.

use super::{Manager, passive};
use crate::maps::{Line, each_line};
use crate::process::{self, boot};
use crate::sys;
use core::cell::UnsafeCell;
use core::ops::Range;
use linux_raw_sys::general as nr;
use pagefault_linux::Delivery;

/// The smallest size worth managing.
const LEAST: u64 = 64 << 10;
/// How many such mappings are noted; an image and an interpreter have one each.
const MOST: usize = 8;

struct Found(UnsafeCell<[Range<u64>; MOST]>);

// SAFETY: written at the start, by the only thread.
unsafe impl Sync for Found {}

static FOUND: Found = Found(UnsafeCell::new([const { 0..0 }; MOST]));

/// Searches for it, on the boot stack, before the runtime has a heap.
pub fn look() {
    let path = c"/proc/self/maps";
    let flags = u64::from(nr::O_RDONLY | nr::O_CLOEXEC);
    // SAFETY: the path is ours.
    let Ok(file) = (unsafe { sys::call(nr::__NR_open, [path.as_ptr() as u64, flags, 0]) }) else {
        return;
    };
    // SAFETY: there is one thread.
    let mut places = unsafe { &mut *FOUND.0.get() }.iter_mut();
    each_line(
        |rest| {
            let args = [file, rest.as_mut_ptr() as u64, rest.len() as u64];
            // SAFETY: the buffer is ours.
            unsafe { sys::call(nr::__NR_read, args) }.unwrap_or(0) as usize
        },
        |line| {
            if let Some(range) = anonymous(line)
                && let Some(place) = places.next()
            {
                *place = range;
            }
        },
    );
    // SAFETY: just opened, and nobody else's.
    let _ = unsafe { sys::call(nr::__NR_close, [file]) };
}

/// The range of a line that shows private memory without a name, to read and write.
fn anonymous(line: &[u8]) -> Option<Range<u64>> {
    let Line { range, rights, is_file, has_name } = Line::of(line)?;
    if rights != b"rw-p" || is_file || has_name {
        return None;
    }
    let boot = boot();
    let ours = [
        boot.image_start..boot.image_start + boot.image_len,
        boot.stack_start..boot.stack_start + boot.stack_len,
    ];
    let is_ours = ours.iter().any(|own| range.start < own.end && own.start < range.end);
    (!is_ours && range.end - range.start >= LEAST).then_some(range)
}

/// Takes it under management.
pub fn adopt(manager: &Manager) {
    // SAFETY: written before, by this thread.
    let found = unsafe { &*FOUND.0.get() };
    if manager.delivery == Delivery::Inline {
        manager.begin_passive(found);
    }
    for range in found.iter().filter(|range| !range.is_empty()) {
        if let Err(errno) = manager.adopt(range, nr::PROT_READ | nr::PROT_WRITE) {
            process::stop(format_args!("the image's memory cannot be managed: error {}", errno.0));
        }
        if passive::is_passive() {
            continue;
        }
        let addresses = super::addresses(range);
        // SAFETY: the range was just registered as it is, and the program has not begun.
        if let Err(error) = unsafe { pagefault_linux::adopt_present(manager.mm(), addresses) } {
            process::stop(format_args!("{error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_large_private_memory_without_a_name_is_the_image_s() {
        let of = |line: &str| anonymous(line.as_bytes());
        let bss = "00500000-00600000 rw-p 00000000 00:00 0 ";
        assert_eq!(of(bss), Some(0x50_0000..0x60_0000));
        for other in [
            "00500000-00501000 rw-p 00000000 00:00 0",
            "00500000-00600000 r--p 00000000 00:00 0",
            "00500000-00600000 rw-s 00000000 00:00 0",
            "00500000-00600000 rw-p 00001000 08:01 77 /bin/true",
            "7ffd00000000-7ffd00100000 rw-p 00000000 00:00 0 [stack]",
            "",
            "garbage",
            "x-y rw-p 00000000 00:00 0",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
