//! The operations of a random run that change address spaces and files.

use crate::common::PAGE;
use crate::model::oracle::{Content, Object, Slot, WINDOW};
use crate::model::run::{Process, Run, address};
use pagefault::machine::{Access, Protection, VirtAddr};
use pagefault::swap::area::Priority;
use pagefault::{
    Advice, FileAccess, MapOptions, MapRequest, Move, NonlinearPolicy, Placement, RegionReport,
    RemapRequest, Sharing, Source, SyncMode,
};
use pagefault_sim::Architecture;

/// So many locked pages are let be at most, so that a small memory does not run out.
const MOST_LOCKED: usize = 3;

/// A range that was moved by one of the processes.
struct Moved {
    who: usize,
    from: usize,
    to: usize,
    pages: usize,
    /// The regions that were there.
    left: Vec<RegionReport>,
}

impl<A: Architecture> Run<A> {
    pub fn step(&mut self) {
        match self.numbers.below(100) {
            0..32 => self.store(),
            32..56 => self.load(),
            56..58 => self.fetch(),
            58..62 => self.kernel_stores(),
            62..66 => self.kernel_loads(),
            66..72 => self.mmap(),
            72..74 => self.munmap(),
            74..77 => self.mprotect(),
            77..80 => self.mremap(),
            80..85 => self.madvise(),
            85..87 => self.fork(),
            87..88 => self.exit(),
            88..92 => drop(self.reclaim()),
            92..93 => self.remap_file_pages(),
            93..95 => self.truncate(),
            95..97 => self.write_file(),
            97..98 => self.mlock(),
            98..99 => self.msync_or_pin(),
            _ => self.swap_off(),
        }
    }

    fn protection(&mut self) -> Protection {
        match self.numbers.below(8) {
            0 => Protection::empty(),
            1 | 2 => Protection::READ,
            3 => Protection::READ | Protection::EXECUTE,
            4 => Protection::WRITE,
            _ => Protection::READ | Protection::WRITE,
        }
    }

    fn mmap(&mut self) {
        let (first, pages) = self.range(10);
        let who = self.pick();
        let protection = self.protection();
        let shared = self.numbers.one_in(3);
        let mut options = MapOptions::empty();
        options.set(MapOptions::NORESERVE, self.numbers.one_in(4));
        let no_replace = self.numbers.one_in(8);
        let at = address(first);
        let placement =
            if no_replace { Placement::FixedNoReplace(at) } else { Placement::Fixed(at) };
        let from_file = self.numbers.below(2 * self.files.len() as u64) as usize;
        let offset = self.numbers.below(5);
        // Populating a private mapping of a file copies what later changes would show.
        let copies = !shared && from_file < self.files.len();
        options.set(MapOptions::POPULATE, self.numbers.one_in(6) && !copies);
        let access = FileAccess::READ | FileAccess::WRITE;
        let source = match self.files.get(from_file) {
            Some(open) => Source::File { file: &open.file, offset: offset * PAGE, access },
            None => Source::Anonymous,
        };
        let request = MapRequest {
            length: pages as u64 * PAGE,
            protection,
            sharing: if shared { Sharing::Shared } else { Sharing::Private },
            placement,
            source,
            options,
        };
        let Process { space, window } = &mut self.processes[who];
        let taken = window.0[first..first + pages].iter().any(Option::is_some);
        match space.mm().mmap(&request) {
            Ok(got) => assert_eq!(got, at),
            Err(error) => {
                assert_eq!(error, pagefault::error::MapError::Occupied);
                assert!(no_replace && taken);
                return;
            }
        }
        assert!(!(no_replace && taken));
        let object = match self.files.get(from_file) {
            Some(open) => Some((open.object, offset)),
            None if shared => {
                self.objects.push(Object { bytes: vec![0; pages * PAGE as usize] });
                Some((self.objects.len() - 1, 0))
            }
            None => None,
        };
        for page in 0..pages {
            window.0[first + page] = Some(Slot {
                protection,
                shared,
                locked: false,
                stays_at_fork: false,
                object: object.map(|(object, index)| (object, index + page as u64)),
                own: None,
            });
        }
    }

    fn munmap(&mut self) {
        let (first, pages) = self.range(6);
        let who = self.pick();
        let Process { space, window } = &mut self.processes[who];
        space.mm().munmap(address(first), pages as u64 * PAGE).unwrap();
        window.0[first..first + pages].fill(None);
    }

    fn mprotect(&mut self) {
        let (first, pages) = self.range(8);
        let who = self.pick();
        let protection = self.protection();
        let Process { space, window } = &mut self.processes[who];
        let done = space.mm().mprotect(address(first), pages as u64 * PAGE, protection);
        let mapped = window.0[first..first + pages].iter_mut().map_while(Option::as_mut);
        let changed = mapped.map(|slot| slot.protection = protection).count();
        assert_eq!(done.is_ok(), changed == pages, "{done:?}");
    }

    fn mremap(&mut self) {
        match self.numbers.below(6) {
            0 => self.grow_in_place(),
            1 => self.duplicate(),
            2 | 3 => self.move_leaving(),
            _ => self.move_away(),
        }
    }

    /// Moves a range, gaps and all, to another place in the window.
    /// Moves a range to another place in the window; `None` if that is rightly refused.
    fn remap(&mut self, movement: impl Fn(VirtAddr) -> Move) -> Option<Moved> {
        let (from, pages) = self.range(6);
        let to = self.numbers.below((WINDOW - pages + 1) as u64) as usize;
        let who = self.pick();
        let Process { space, window } = &self.processes[who];
        let bytes = pages as u64 * PAGE;
        let left = space.mm().maps(address(from)..address(from + pages));
        let done = space.mm().mremap(&RemapRequest {
            address: address(from),
            old_length: bytes,
            new_length: bytes,
            movement: movement(address(to)),
        });
        let overlaps = from < to + pages && to < from + pages;
        if overlaps || window.0[from].is_none() {
            assert!(done.is_err());
            return None;
        }
        assert_eq!(done, Ok(address(to)));
        Some(Moved { who, from, to, pages, left })
    }

    fn move_away(&mut self) {
        let Some(Moved { who, from, to, pages, .. }) = self.remap(Move::To) else { return };
        let window = &mut self.processes[who].window;
        for page in 0..pages {
            if let Some(slot) = window.0[from + page].take() {
                window.0[to + page] = Some(slot);
            }
        }
    }

    /// Moves the pages of a range to another place in the window, and leaves the mappings.
    fn move_leaving(&mut self) {
        let leaving = |to| Move::Leaving(Placement::Fixed(to));
        let Some(Moved { who, from, to, pages, left }) = self.remap(leaving) else { return };
        let Process { space, window } = &mut self.processes[who];
        for page in from..from + pages {
            let at = address(page);
            let Some(region) = left.iter().find(|region| region.range.contains(&at)) else {
                continue;
            };
            let index = region.index + (at - region.range.start) / PAGE;
            let Some(slot) = window.0[page].take() else { unreachable!("mapped") };
            let object = slot.object.map(|(object, _)| (object, index));
            window.0[page] = Some(Slot { object, own: None, ..slot.clone() });
            window.0[to + page - from] = Some(slot);
        }
        // The rest of a locked region is unlocked, inside the range and around it.
        let kept = space.mm().maps(address(0)..address(WINDOW));
        for region in kept.iter().filter(|region| !region.locked) {
            for (page, slot) in window.0.iter_mut().enumerate() {
                if let Some(slot) = slot
                    && region.range.contains(&address(page))
                    && left.iter().any(|left| left.range.contains(&address(page)))
                {
                    slot.locked = false;
                }
            }
        }
    }

    fn grow_in_place(&mut self) {
        let (first, pages) = self.range(6);
        let more = 1 + self.numbers.below(3) as usize;
        let who = self.pick();
        let Process { space, window } = &mut self.processes[who];
        let region = space.mm().maps(address(first)..address(first) + 1).into_iter().next();
        let request = RemapRequest {
            address: address(first),
            old_length: pages as u64 * PAGE,
            new_length: (pages + more) as u64 * PAGE,
            movement: Move::Never,
        };
        let end = address(first + pages);
        let inside = first + pages + more <= WINDOW;
        if !inside {
            return;
        }
        let free = window.0[first + pages..first + pages + more].iter().all(Option::is_none);
        let done = space.mm().mremap(&request);
        let Some(region) = region.filter(|region| region.range.end == end && free) else {
            assert!(done.is_err());
            return;
        };
        assert_eq!(done, Ok(address(first)));
        let Some(last) = window.0[first + pages - 1].clone() else { unreachable!("mapped") };
        for page in first + pages..first + pages + more {
            let index = region.index + (address(page) - region.range.start) / PAGE;
            let object = last.object.map(|(object, _)| (object, index));
            window.0[page] = Some(Slot { object, own: None, ..last.clone() });
        }
    }

    /// Maps the pages of a shared object a second time (old length 0).
    fn duplicate(&mut self) {
        let (from, pages) = self.range(4);
        let to = self.numbers.below((WINDOW - pages + 1) as u64) as usize;
        let who = self.pick();
        let Process { space, window } = &mut self.processes[who];
        let source = window.0[from].clone();
        let region = space.mm().maps(address(from)..address(from) + 1).into_iter().next();
        let nonlinear = self.nonlinear == NonlinearPolicy::Entries;
        let target_hits = to <= from && from < to + pages;
        let shared = source.as_ref().is_some_and(|slot| slot.shared);
        // A nonlinear region's copy shows the linear pages; the model knows no regions.
        if !shared || target_hits || nonlinear {
            return;
        }
        let request = RemapRequest {
            address: address(from),
            old_length: 0,
            new_length: pages as u64 * PAGE,
            movement: Move::To(address(to)),
        };
        let done = space.mm().mremap(&request);
        assert_eq!(done, Ok(address(to)));
        let (Some(source), Some(region)) = (source, region) else { unreachable!("mapped") };
        for page in 0..pages {
            let index = region.index + (address(from + page) - region.range.start) / PAGE;
            let object = source.object.map(|(object, _)| (object, index));
            window.0[to + page] = Some(Slot { object, own: None, ..source.clone() });
        }
    }

    fn madvise(&mut self) {
        let (first, pages) = self.range(8);
        let who = self.pick();
        let advice = [
            Advice::Normal,
            Advice::Random,
            Advice::Sequential,
            Advice::WillNeed,
            Advice::DontNeed,
            Advice::DontNeed,
            Advice::Free,
            Advice::Remove,
            Advice::DontFork,
            Advice::DoFork,
            Advice::Cold,
            Advice::PageOut,
        ][self.numbers.below(12) as usize];
        let entries = self.nonlinear == NonlinearPolicy::Entries;
        let Process { space, window } = &mut self.processes[who];
        let slots = &mut window.0[first..first + pages];
        if advice == Advice::Remove && entries && slots.iter().flatten().any(|s| s.shared) {
            // Where entries are out of order the request is refused, which pages do not tell.
            return;
        }
        let done = space.mm().madvise(address(first), pages as u64 * PAGE, advice);
        let refused =
            slots.iter().position(|slot| slot.as_ref().is_some_and(|s| refuses(s, advice)));
        let gaps = slots[..refused.unwrap_or(pages)].iter().any(Option::is_none);
        assert_eq!(done.is_ok(), refused.is_none() && !gaps, "{advice:?}: {done:?}");
        let advised = &mut slots[..refused.unwrap_or(pages)];
        let mut holes = Vec::new();
        for slot in advised.iter_mut().flatten() {
            match advice {
                Advice::DontNeed => slot.own = None,
                Advice::Free => slot.own.iter_mut().for_each(Content::free_lazily),
                Advice::DontFork => slot.stays_at_fork = true,
                Advice::DoFork => slot.stays_at_fork = false,
                Advice::Remove => holes.extend(slot.object),
                _ => {}
            }
        }
        for (object, index) in holes {
            let object = &mut self.objects[object];
            let end = object.bytes.len();
            let start = ((index * PAGE) as usize).min(end);
            object.bytes[start..(start + PAGE as usize).min(end)].fill(0);
        }
    }

    fn fork(&mut self) {
        if self.processes.len() >= self.shape.processes {
            return;
        }
        let who = self.pick();
        // A small memory may have no room for another page table.
        if let Ok(space) = self.processes[who].space.fork() {
            let window = self.processes[who].window.fork();
            self.processes.push(Process { space, window });
        }
    }

    fn exit(&mut self) {
        if self.processes.len() > 1 {
            let who = self.pick();
            self.processes.swap_remove(who);
        }
    }

    fn reclaim(&mut self) -> usize {
        let pages = 1 + self.numbers.below(40) as usize;
        self.world.manager.reclaim(pages)
    }

    fn remap_file_pages(&mut self) {
        let (first, pages) = self.range(4);
        let who = self.pick();
        let index = self.numbers.below(8);
        let Process { space, window } = &mut self.processes[who];
        let region = space.mm().maps(address(first)..address(first) + 1).into_iter().next();
        let inside = region.is_some_and(|r| address(first + pages) <= r.range.end);
        let shared = window.0[first].as_ref().is_some_and(|slot| slot.shared);
        if !inside || !shared {
            return;
        }
        let length = pages as u64 * PAGE;
        space.mm().remap_file_pages(address(first), length, index).unwrap();
        let by_entries = self.nonlinear == NonlinearPolicy::Entries;
        let has_store = |object| self.files.iter().any(|f| f.object == object && f.store.is_some());
        for (page, slot) in window.0[first..first + pages].iter_mut().flatten().enumerate() {
            let Some((object, place)) = &mut slot.object else { unreachable!("shared") };
            *place = index + page as u64;
            if !by_entries || has_store(*object) {
                // A piece that becomes a region of its own starts without advice.
                slot.stays_at_fork = false;
            }
        }
    }

    fn truncate(&mut self) {
        let which = self.numbers.below(self.files.len() as u64) as usize;
        let open = &self.files[which];
        let pages = self.numbers.below(11);
        // Never one byte into a page: stores are two bytes long.
        let bytes = pages * PAGE + [0, 700, 4095, 0][self.numbers.below(4) as usize];
        open.file.truncate(bytes).unwrap();
        let object = open.object;
        let before = self.objects[object].bytes.len() as u64;
        self.objects[object].bytes.resize(bytes as usize, 0);
        if bytes >= before {
            return;
        }
        let first = bytes.div_ceil(PAGE);
        for slot in self.processes.iter_mut().flat_map(|p| &mut p.window.0).flatten() {
            if slot.object.is_some_and(|(o, index)| o == object && index >= first) {
                slot.own = None;
            }
        }
    }

    fn write_file(&mut self) {
        let which = self.numbers.below(self.files.len() as u64) as usize;
        let offset = self.numbers.below(9 * PAGE);
        let bytes = vec![self.numbers.below(256) as u8; 1 + self.numbers.below(6000) as usize];
        let open = &self.files[which];
        assert_eq!(open.file.write_at(offset, &bytes), Ok(bytes.len()));
        let content = &mut self.objects[open.object].bytes;
        let end = offset as usize + bytes.len();
        if content.len() < end {
            content.resize(end.max(2), 0);
        }
        content[offset as usize..end].copy_from_slice(&bytes);
        if self.numbers.one_in(4) {
            self.verify_files();
        }
    }

    fn mlock(&mut self) {
        let (first, pages) = self.range(3);
        let who = self.pick();
        let locked: usize = self.processes.iter().map(|process| process.window.locked()).sum();
        let Process { space, window } = &mut self.processes[who];
        let slots = &mut window.0[first..first + pages];
        let (at, length) = (address(first), pages as u64 * PAGE);
        let copies = |slot: &Slot| !slot.shared && slot.object.is_some();
        let lock = locked + pages <= MOST_LOCKED && !slots.iter().flatten().any(copies);
        let done = if lock { space.mm().mlock(at, length) } else { space.mm().munlock(at, length) };
        let mapped = slots.iter_mut().map_while(Option::as_mut);
        let changed = mapped.map(|slot| slot.locked = lock).count();
        if changed < pages {
            assert!(done.is_err());
        } else if !lock {
            assert_eq!(done, Ok(()));
        }
    }

    fn msync_or_pin(&mut self) {
        let (first, pages) = self.range(6);
        let who = self.pick();
        let write = self.numbers.one_in(2);
        let Process { space, window } = &mut self.processes[who];
        if write {
            let done = space.mm().msync(address(first), pages as u64 * PAGE, SyncMode::Sync);
            let gaps = window.0[first..first + pages].iter().any(Option::is_none);
            assert_eq!(done.is_ok(), !gaps, "{done:?}");
            return;
        }
        let range: core::ops::Range<VirtAddr> = address(first)..address(first + 1);
        let pinned = space.mm().pin(range, Access::Read).is_ok();
        let expected = window.expect(first, Protection::all(), &self.objects);
        assert_eq!(pinned, expected == crate::model::oracle::Expected::Fine);
        if let (true, Some(slot)) = (pinned, &mut window.0[first])
            && let (false, None, Some((object, index))) = (slot.shared, &slot.own, slot.object)
        {
            // From the pin on the page is the process's own.
            slot.own = Some(Content::of(self.objects[object].page(index)));
        }
    }

    fn swap_off(&mut self) {
        let which = self.numbers.below(self.disks.len() as u64) as usize;
        let (area, disk) = &self.disks[which];
        // Swapped pages may not fit a small memory; then the area stays.
        if self.world.manager.swap_off(*area).is_ok() {
            assert_eq!(disk.stats().stored, 0, "a page was left on a disk that was taken away");
            let priority = if which == 0 { Priority::Given(5) } else { Priority::Descending };
            self.disks[which] = self.world.add_disk(self.shape.disk_slots, priority);
        }
    }
}

/// Whether advice stops at a page.
fn refuses(slot: &Slot, advice: Advice) -> bool {
    match advice {
        Advice::DontNeed | Advice::Cold | Advice::PageOut => slot.locked,
        Advice::Free => slot.locked || slot.object.is_some(),
        Advice::Remove => slot.locked || !slot.shared,
        _ => false,
    }
}
