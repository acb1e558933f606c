//! Making processors forget translations (spec G1, G3).

use crate::cpu;
use crate::space::PcSpace;
use core::sync::atomic::Ordering;
use pagefault::machine::{Stale, VirtAddr};
use x86_64::instructions::tlb;
use x86_64::registers::control::Cr3;

/// From this many pages on, forgetting everything is cheaper than one after the other (Linux:
/// `tlb_single_page_flush_ceiling`).
const CEILING: usize = 33;

/// Forgets pages of a space.
pub fn flush(space: &PcSpace, stale: &[Stale]) {
    if !is_loaded(space) {
        return;
    }
    if stale.len() >= CEILING {
        reload();
        return;
    }
    for page in stale {
        invalidate(page.address);
    }
}

/// Forgets all that a space translates, upper levels included.
pub fn flush_all(space: &PcSpace) {
    if is_loaded(space) {
        reload();
    }
}

/// Makes the processors that still have a dying space loaded load the reference table.
pub fn leave(space: &PcSpace) {
    if is_loaded(space) {
        cpu::load_reference();
    }
    debug_assert_eq!(space.cpus.load(Ordering::Relaxed), 0, "a CPU still runs a dying space");
}

fn is_loaded(space: &PcSpace) -> bool {
    cpu::root() == space.root()
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
