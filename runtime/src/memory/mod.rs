//! Managed memory: the program's private anonymous mappings, whose pages the memory manager brings
//! in and evicts.
//!
//! | module | what it does |
//! |---|---|
//! | `manager` | the memory manager of this process, and its swap |
//! | `fault` | answers a fault |
//! | `forced` | accesses that ignore protection |
//! | `map`, `remap` | makes, removes, moves and changes mappings |
//! | `image` | memory that the program has at its first instruction |
//! | `advise`, `lock` | madvise and its kin, mlock and its kin |
//! | `guard` | guard pages |
//! | `pin` | pages kept resident for the host's own accesses |
//! | `passive`, `convert` | the host owns the pages while all fits; the manager takes them over |
//! | `offload` | pages that the supervisor's compressor compresses |
//! | `pool` | the compressed memory of the tree |
//! | `ranges` | sets of addresses |
//! | `quota`, `room` | the frames of the tree, and the search for one when none is free |
//! | [`dump`] | completes core dumps |
//! | `events` | events for `--report` and `--trace` |
//! | `fork` | prepares and completes a process fork |
//! | [`serve`] | a process of ours that answers while the program's threads cannot |
//! | [`outside`] | accesses to the memory of another process, which its server makes |
//!
//! The host has every mapping too, and goes first: a refused call changes nothing. The memory
//! manager follows, under the gate held exclusively, so that no fault sees only one of the changes
//! (Linux: `mmap_lock`). Faults hold the gate shared.

mod advise;
mod convert;
pub mod dump;
mod events;
mod extents;
mod fault;
mod forced;
mod fork;
mod guard;
mod image;
mod lock;
mod manager;
mod map;
mod offload;
pub mod outside;
mod passive;
mod pin;
mod pool;
mod quota;
mod ranges;
mod remap;
mod room;
pub mod serve;
mod statistics;
mod swap;

pub use advise::{advise, seal};
pub use events::{Moves, Under};
pub use fault::{Answer, fault};
pub use forced::Forced;
pub use fork::{
    Made, after_fork_in_child, after_fork_in_parent, before_fork, before_other_descriptors,
};
pub use image::look as look_at_image;
pub use lock::{
    admit_lock, grow_break, lock, lock_all, lock_new, protect, remap, unlock, unlock_all,
};
pub use manager::{Manager, begin_threads, current, prepare_for_threads, start};
pub use map::{MapCall, attach, map, unmap};
pub use passive::{Flight, is_passive, note};
pub use pin::{Pins, end_thread, keep_resident, pin_words};
pub use quota::{charge_again, discharge};
pub use room::{Request, ask, obey_requests};

use crate::stops::Gate;
use crate::sys;
use core::ops::Range;
use lock_api::RwLock;
use pagefault_machine::VirtAddr;

/// Held shared by faults, exclusively by changes of mappings.
static GATE: RwLock<Gate, ()> = RwLock::new(());

/// Stops the memory manager until the guard is dropped.
pub fn rest() -> lock_api::RwLockWriteGuard<'static, Gate, ()> {
    GATE.write()
}

/// The bytes of a page.
pub const PAGE: u64 = 4096;

/// A length rounded up to whole pages; `None` if that overflows.
pub fn page_up(len: u64) -> Option<u64> {
    len.checked_next_multiple_of(PAGE)
}

/// The whole pages of a range that a call names, if it can be one.
pub fn pages(start: u64, len: u64) -> Option<Range<u64>> {
    let end = start.checked_add(page_up(len)?)?;
    (start.is_multiple_of(PAGE) && end <= crate::user::END && len > 0).then_some(start..end)
}

/// Whether the host accepts a start and a length as a range: it refuses others before it does
/// anything.
fn is_range(start: u64, len: u64) -> bool {
    let end = page_up(len).and_then(|len| start.checked_add(len));
    start.is_multiple_of(PAGE) && end.is_some()
}

/// The host's answer to a call about a range whose beginning is not mapped, with a call's other
/// arguments: it checks those first.
fn answer_unmapped(number: u32, rest: [u64; 2]) -> sys::Result {
    let [first, second] = rest;
    // SAFETY: no mapping reaches there.
    let answer = unsafe { sys::call(number, [crate::user::END, PAGE, first, second]) };
    answer.and(Err(sys::Errno::ENOMEM))
}

/// The bytes within the program's addresses of a range that ends beyond them.
///
/// The host processes all of these, and then reports a gap.
fn beyond_end(start: u64, len: u64) -> Option<u64> {
    let end = start.checked_add(page_up(len)?)?;
    let within = crate::user::END.checked_sub(start).filter(|within| *within > 0)?;
    (start.is_multiple_of(PAGE) && end > crate::user::END).then_some(within)
}

/// The end of the longest beginning of a range that the host obeys a call about.
fn obeyed_below(range: &Range<u64>, obeys: impl Fn(u64) -> bool) -> u64 {
    let (mut obeyed, mut refused) = (range.start, range.end);
    while refused - obeyed > PAGE {
        let middle = obeyed + (refused - obeyed) / PAGE / 2 * PAGE;
        match obeys(middle) {
            true => obeyed = middle,
            false => refused = middle,
        }
    }
    obeyed
}

fn addresses(range: &Range<u64>) -> Range<VirtAddr> {
    VirtAddr(range.start)..VirtAddr(range.end)
}
