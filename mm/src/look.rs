//! Views of the manager for tools: pages, queues and the path through the tree of regions.
//!
//! Tools read them between two operations; no fault does. State that changes meanwhile shows as
//! before or after the change.

use crate::machine::{Frame, Machine, SwapSlot, VirtAddr};
use crate::manager::Manager;
use crate::mm::Mm;
use crate::page::{Owner, PageFlags};
use crate::replacement::Queue;
use alloc::vec::Vec;
use core::ops::Range;

/// The state of a page that is in use (Linux: `struct page`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameReport {
    /// The frame.
    pub frame: Frame,
    /// References: one for each entry, cache, pin and passing user (spec I2).
    pub refs: u32,
    /// Present entries that name the frame (spec I3).
    pub maps: u32,
    /// Devices that use it.
    pub pins: u32,
    /// The owner of its content.
    pub owner: PageOwner,
    /// The page index: in the file, or of the anonymous memory.
    pub index: u64,
    /// Its slot, if it is in the swap cache.
    pub slot: Option<SwapSlot>,
    /// Whether it is in the page cache.
    pub in_page_cache: bool,
    /// Whether its content is complete.
    pub uptodate: bool,
    /// Whether its content differs from its backing store, or has no store.
    pub dirty: bool,
    /// Whether reclaim saw that it was used.
    pub referenced: bool,
    /// Whether its content may be discarded while it stays clean (spec J9).
    pub lazily_freed: bool,
}

/// The owner of a page's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageOwner {
    /// None yet.
    Nobody,
    /// Anonymous memory of the family of regions with this number.
    Anonymous(u64),
    /// The file or shared object with this number.
    File(u64),
}

/// The replacement queues, each starting with the page that leaves first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueReport {
    /// The queue of newcomers.
    pub small: Vec<Frame>,
    /// The queue of pages that proved their worth.
    pub main: Vec<Frame>,
    /// Pages that leave next unless they are used, on a machine without accessed bits.
    pub standby: Vec<Frame>,
}

/// A region that a search for an address visits (spec A13).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visit {
    /// Its addresses.
    pub range: Range<VirtAddr>,
    /// Where the search continues.
    pub turn: Turn,
}

/// Where a search in the tree of regions continues from a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// In the regions below: this one starts and ends above the address.
    Left,
    /// In the regions above: this one ends at or below the address.
    Right,
    /// Nowhere: it contains the address.
    Found,
}

impl<M: Machine> Manager<M> {
    /// The state of a frame, unless it is free or belongs to the machine.
    pub fn frame_report(&self, frame: Frame) -> Option<FrameReport> {
        if self.is_device(frame) {
            return None;
        }
        let page = self.page(frame);
        let refs = page.refs();
        (refs > 0).then(|| FrameReport {
            frame,
            refs,
            maps: page.maps(),
            pins: page.pins(),
            owner: match page.owner() {
                Owner::None => PageOwner::Nobody,
                Owner::Anon(family) => PageOwner::Anonymous(family),
                Owner::File(mapping) => PageOwner::File(mapping),
            },
            index: page.index(),
            slot: page.slot(),
            in_page_cache: page.has(PageFlags::PAGE_CACHE),
            uptodate: page.has(PageFlags::UPTODATE),
            dirty: page.has(PageFlags::DIRTY),
            referenced: page.has(PageFlags::REFERENCED),
            lazily_freed: page.has(PageFlags::LAZY_FREE),
        })
    }

    /// The slots of a swap area that are used, and how many refer to each (spec F4).
    pub fn slot_report(&self, area: u8) -> Vec<(SwapSlot, u32)> {
        self.swap.used(area).map(|slot| (slot, self.swap.count(slot))).collect()
    }

    /// The replacement queues. Their shards are listed one after the other.
    pub fn queue_report(&self) -> QueueReport {
        let mut report = QueueReport::default();
        self.queues.visit(&self.pages, &self.order, |frame, which| match which {
            Queue::Small => report.small.push(frame),
            Queue::Main => report.main.push(frame),
            Queue::Standby => report.standby.push(frame),
        });
        report
    }
}

impl<M: Machine> Mm<M> {
    /// The nodes of the tree of regions that a search for an address visits, the root first.
    pub fn look_up(&self, address: VirtAddr) -> Vec<Visit> {
        let mut visits = Vec::new();
        self.regions.read(&self.manager.order, |tree| {
            tree.visit(address, |vma| {
                let turn = if vma.end <= address {
                    Turn::Right
                } else if vma.start <= address {
                    Turn::Found
                } else {
                    Turn::Left
                };
                visits.push(Visit { range: vma.range(), turn });
            });
        });
        visits
    }
}
