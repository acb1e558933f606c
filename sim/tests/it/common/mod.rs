//! Helpers of the tests.

use pagefault_machine::{
    Cursor, Entry, Fate, Frame, Machine, PAGE_SIZE, Protection, Space, Stale, VirtAddr,
};
use pagefault_sim::{Architecture, Computer, SimSpace};

pub const PAGE: VirtAddr = VirtAddr(0x40_0000);
pub const RW: Protection = Protection::READ.union(Protection::WRITE);

/// The address of page number `index` from [`PAGE`].
pub fn page(index: u64) -> VirtAddr {
    PAGE + index * PAGE_SIZE
}

/// Maps a fresh frame of zeros.
pub fn map<A: Architecture>(
    sim: &Computer<A>,
    space: &SimSpace<A>,
    page: VirtAddr,
    protection: Protection,
) -> Frame {
    let frame = sim.allocate().unwrap();
    sim.zero(frame);
    set(space, page, present(frame, protection));
    frame
}

pub fn present(frame: Frame, protection: Protection) -> Entry {
    Entry::Present { frame, protection, accessed: false, dirty: false }
}

pub fn set<S: Space>(space: &S, page: VirtAddr, entry: Entry) -> Entry {
    space.lock(page..page + PAGE_SIZE).unwrap().replace(page, entry)
}

pub fn entry<S: Space>(space: &S, page: VirtAddr) -> Entry {
    space.lock(page..page + PAGE_SIZE).unwrap().entry(page)
}

pub fn stale(address: VirtAddr, frame: Frame) -> Stale {
    Stale { address, frame, fate: Fate::Freed }
}

/// Takes a page away in the right order: entry, flush, frame.
pub fn unmap<A: Architecture>(sim: &Computer<A>, space: &SimSpace<A>, page: VirtAddr) {
    if let Some(frame) = set(space, page, Entry::None).frame() {
        sim.flush(space, &[stale(page, frame)]);
        sim.free(frame);
    }
}
