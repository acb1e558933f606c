//! Pages that are flushed together: their frames are held, and each step is taken for all of them at once.

use crate::frame::{Frames, Held, Location};
use crate::host::{self, PAGE};
use crate::machine::Shared;
use crate::pipe::Referenced;
use crate::place::set_executable;
use crate::space::SpaceCore;
use crate::stats::Counter;
use crate::sweep::{BATCH, Ranges};
use crate::uffd::Mapped;
use arrayvec::ArrayVec;
use pagefault_machine::machine::Page;
use pagefault_machine::{Access, Entry, Fate, Frame, Protection, Stale};

/// The treatment of a page whose frame is held.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    /// The content is dead.
    Drop,
    /// The content moves to a buffer.
    Park,
    /// Stores must fault.
    Protect,
}

/// How the content of a page to park gets into its buffer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// It is copied while nobody can store to the page.
    Copy,
    /// Others may store to the page until it is dropped, and a pipe has it until then.
    Pipe,
    /// The page itself has moved, and its place is empty.
    Moved,
}

struct Item<'a> {
    held: Held<'a>,
    page: usize,
    host: u64,
    action: Action,
    way: Way,
    /// The buffer for parked content.
    slot: u32,
}

impl Item<'_> {
    /// Whether the page is parked, and stores to it do not fault.
    fn is_open(&self) -> bool {
        self.action == Action::Park
            && self.held.location() == Location::At(self.host, Mapped::Writable)
    }

    /// Whether it is such a page that has not moved.
    fn is_to_copy(&self) -> bool {
        self.is_open() && self.way == Way::Copy
    }
}

/// A batch of pages being flushed, their frames held.
///
/// It needs no page-table lock: a fault that needs a frame of the batch, or its place, waits for
/// the frame's lock, and then finds a consistent state.
pub struct Batch<'a> {
    shared: &'a Shared,
    space: &'a SpaceCore,
    items: ArrayVec<Item<'a>, BATCH>,
    /// How many pages others could store to while they are parked, if the caller is not alone.
    open: usize,
}

impl<'a> Batch<'a> {
    pub fn new(shared: &'a Shared, space: &'a SpaceCore) -> Self {
        Self { shared, space, items: ArrayVec::new(), open: 0 }
    }

    pub fn add(&mut self, stale: &Stale) {
        let Some(page) = self.space.page_of(stale.address) else { return };
        let host = self.space.host_of(page);
        // A frame that arrives at this address later comes from an entry newer than the stale one.
        if self.space.table.shown(page, host, &self.shared.frames) != Some(stale.frame) {
            return;
        }
        let held = self.hold(stale.frame);
        let Location::At(at, mapped) = held.location() else { return };
        if at != host {
            return;
        }
        let entry = self.space.table.entry(page);
        if let Some(action) = action(entry, stale, mapped) {
            let item = Item { held, page, host, action, way: Way::Copy, slot: 0 };
            self.open += usize::from(item.is_open() && !self.shared.is_alone());
            self.items.push(item);
        }
        self.forbid_execution(page, entry);
        if self.items.is_full() || self.open == Referenced::MOST {
            self.settle();
        }
    }

    /// Holds one more frame. On contention it first finishes the batch so far, since a thread that
    /// waits for a frame must hold none.
    fn hold(&mut self, frame: Frame) -> Held<'a> {
        let frames: &'a Frames = &self.shared.frames;
        if let Some(held) = frames.try_hold(frame) {
            return held;
        }
        self.settle();
        frames.hold(frame)
    }

    fn forbid_execution(&self, page: usize, entry: Entry) {
        if self.space.table.is_executable(page)
            && let Entry::Present { protection, .. } = entry
        {
            // If the host refuses, it lacks memory for its own tables. The next refill of the page
            // then fails in the same way, and reports it.
            let _ = set_executable(self.space, page, protection, Access::Read);
        }
    }

    /// Does the collected work and releases the frames.
    pub fn settle(&mut self) {
        self.items.sort_unstable_by_key(|item| item.host);
        self.move_out();
        let referenced = self.reference();
        self.write_protect();
        self.copy_out();
        self.drop_pages();
        if let Some(referenced) = referenced {
            self.read(referenced);
        }
        self.note();
        self.items.clear();
        self.open = 0;
    }

    /// Moves runs of neighbouring pages to park into buffers, where that is cheaper than to copy them.
    fn move_out(&mut self) {
        let mut at = 0;
        while at < self.items.len() {
            let pages = self.run_to_park(at);
            let mut moved = 0;
            if pages > 0 {
                // SAFETY: the pages' frames are held, and located there.
                let slots = unsafe { self.shared.move_out(self.items[at].host, pages) };
                moved = slots.len();
                for (item, slot) in self.items[at..].iter_mut().zip(slots) {
                    self.open -= usize::from(item.is_open() && !self.shared.is_alone());
                    (item.way, item.slot) = (Way::Moved, slot);
                }
                self.shared.counters.add(Counter::Parked, moved as u64);
            }
            // The rest may move by another call. A run whose first page cannot move is copied.
            at += if moved > 0 { moved } else { pages.max(1) };
        }
    }

    /// How many pages to park follow each other from an item on.
    fn run_to_park(&self, at: usize) -> usize {
        let items = &self.items[at..];
        let start = items.first().map_or(0, |item| item.host);
        let follow = |(index, item): &(usize, &Item<'_>)| {
            item.action == Action::Park && item.host == start + (index * PAGE) as u64
        };
        items.iter().enumerate().take_while(follow).count()
    }

    /// Lets a pipe have the pages to which others could store while they are parked.
    fn reference(&mut self) -> Option<Referenced<'a>> {
        // A forked child that does not continue the machine has its parent's pipes.
        if self.open == 0 || !self.shared.descriptor.is_ours() {
            return None;
        }
        let mut hosts = [0; Referenced::MOST];
        let mut count = 0;
        for (host, item) in hosts.iter_mut().zip(self.items.iter().filter(|item| item.is_to_copy()))
        {
            *host = item.host;
            count += 1;
        }
        // SAFETY: the pages' frames are held, so they stay. Their locations say that the program may store to
        // them, as the host's mapping allows as long as it is registered.
        let referenced = unsafe { self.shared.pipes.reference(&hosts[..count]) }?;
        let open = self.items.iter_mut().filter(|item| item.is_to_copy());
        for item in open.take(referenced.len()) {
            item.way = Way::Pipe;
            item.slot = self.shared.buffers.take();
        }
        Some(referenced)
    }

    /// Reads what the pipe has of pages that are dropped by now.
    fn read(&self, referenced: Referenced<'_>) {
        let mut buffers = [core::ptr::null_mut::<Page>(); Referenced::MOST];
        let items = self.items.iter().filter(|item| item.way == Way::Pipe);
        for (buffer, item) in buffers.iter_mut().zip(items) {
            *buffer = self.shared.buffers.page(item.slot);
        }
        let count = referenced.len();
        // SAFETY: the buffers were taken for these pages, and are nobody else's.
        unsafe { referenced.read(&buffers[..count]) };
        self.shared.counters.add(Counter::Parked, count as u64);
    }

    /// Write-protects the pages that must lose the right to store, and those that others could
    /// store to during the copy.
    fn write_protect(&self) {
        let mut ranges = Ranges::new();
        let is_watched = self.open > 0;
        let is_protected = |item: &&Item<'_>| match item.action {
            Action::Protect => true,
            Action::Park => is_watched && item.way == Way::Copy,
            Action::Drop => false,
        };
        for item in self.items.iter().filter(is_protected) {
            if item.held.location() == Location::At(item.host, Mapped::Writable) {
                ranges.push(item.host);
                item.held.set_location(Location::At(item.host, Mapped::WriteProtected));
            }
        }
        for range in ranges.iter() {
            // As in `write_protect_held`.
            let _ = self.shared.protect_range(range);
        }
    }

    /// Copies the pages to park to buffers; no thread can store to them any more.
    fn copy_out(&mut self) {
        let buffers = &self.shared.buffers;
        let is_copied = |item: &Item<'_>| item.action == Action::Park && item.way == Way::Copy;
        let mut parked = 0;
        for at in 0..self.items.len() {
            if let Some(next) = self.items.get(at + 1).filter(|next| is_copied(next)) {
                host::prefetch_page(next.host as *const u8);
            }
            let item = &mut self.items[at];
            if !is_copied(item) {
                continue;
            }
            item.slot = buffers.take();
            // SAFETY: as in `Shared::park`.
            unsafe {
                buffers.page(item.slot).copy_from_nonoverlapping(item.host as *const _, 1);
            }
            parked += 1;
        }
        self.shared.counters.add(Counter::Parked, parked);
    }

    /// Empties the host pages of all frames that leave them.
    fn drop_pages(&self) {
        let mut gone = Ranges::new();
        let mut count = 0;
        for item in self.items.iter().filter(|item| item.action != Action::Protect) {
            count += 1;
            if item.way != Way::Moved {
                gone.push(item.host);
            }
        }
        self.shared.counters.add(Counter::Dropped, count);
        if gone.is_empty() {
            return;
        }
        // As in `drop_page`.
        // SAFETY: the pages' frames are held. Their content is dead, was copied while nobody could store
        // to it, or is referenced by a pipe.
        let _ = unsafe { self.shared.sweep.drop_pages(&gone) };
    }

    /// Changes the table's notes and the frames' locations, once the host pages are empty: a fault reads them
    /// without the frame's lock to learn whether the place is empty.
    fn note(&self) {
        for item in &self.items {
            if item.action != Action::Protect {
                self.space.table.clear_shown(item.page, item.held.frame());
            }
            match item.action {
                Action::Drop => item.held.set_location(Location::Zero),
                Action::Park => {
                    self.shared.credits.own(item.held.frame());
                    item.held.set_location(Location::Buffer(item.slot));
                }
                Action::Protect => {}
            }
        }
    }
}

/// The treatment of a stale page, if any, by its current entry.
fn action(entry: Entry, stale: &Stale, mapped: Mapped) -> Option<Action> {
    match entry {
        Entry::Present { frame, protection, .. } if frame == stale.frame => {
            if protection.is_empty() {
                Some(Action::Park)
            } else if mapped == Mapped::Writable && !protection.contains(Protection::WRITE) {
                Some(Action::Protect)
            } else {
                None
            }
        }
        _ if stale.fate == Fate::Freed => Some(Action::Drop),
        _ => Some(Action::Park),
    }
}
