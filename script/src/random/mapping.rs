//! Lines that map, change mappings and advise.

use super::Writer;
use super::world::{LONGEST_FILE, Region};
use crate::ast::{
    Address, Advice, Begin, Content, LockAll, Locking, MapFlags, Mmap, Moving, Mremap, Op, PAGE,
    Protection, Range, Sharing, SyncFlag,
};

/// Lengths that no mapping can have.
const ABSURD: [u64; 7] =
    [u64::MAX, u64::MAX - PAGE + 1, 1 << 63, (1 << 63) - PAGE, 1 << 48, 1 << 47, 0x7fff_ffff_f000];

impl Writer {
    /// A mapping at an address of the runner's choice.
    pub(super) fn map(&mut self) {
        let op = self.new_mapping(None);
        self.line(op);
    }

    /// A mapping at a fixed address in or near another one.
    pub(super) fn map_over(&mut self) {
        let mut at = self.range().address;
        if self.rarely(30) {
            at.offset += 1 + self.rng.u64(..PAGE - 1);
        }
        let op = self.new_mapping(Some(at));
        self.line(op);
    }

    fn new_mapping(&mut self, at: Option<Address>) -> Op {
        let sharing = self.choose(&[Sharing::Private, Sharing::Private, Sharing::Shared]);
        let content = self.content();
        let protection = self.protection();
        let pages = if self.rarely(12) { self.rng.u64(24..72) } else { self.rng.u64(1..20) };
        let length = match self.rng.u32(..40) {
            0 => 0,
            1 => self.choose(&ABSURD),
            2..5 => (pages * PAGE) - self.rng.u64(1..PAGE),
            _ => pages * PAGE,
        };
        let mut flags = MapFlags::empty();
        for (flag, one_in) in [
            (MapFlags::NOREPLACE, if at.is_some() { 4 } else { 20 }),
            (MapFlags::GROWSDOWN, 40),
            (MapFlags::NORESERVE, 12),
            (MapFlags::POPULATE, 10),
        ] {
            flags.set(flag, self.rarely(one_in));
        }
        let name = self.world.fresh();
        self.world.add(Region { name: name.clone(), pages, sharing });
        Op::Mmap(Mmap { name, length, protection, sharing, content, at, flags })
    }

    fn content(&mut self) -> Content {
        if self.rng.bool() {
            return Content::Anonymous;
        }
        let file = self.rng.usize(..self.world.files.len());
        let pages = self.world.files[file].pages;
        let offset = match self.rng.u32(..30) {
            0 => self.rng.u64(..LONGEST_FILE * PAGE),
            1 => self.choose(&[u64::MAX - PAGE + 1, 1 << 63, (1 << 63) - 2 * PAGE]),
            2..20 => 0,
            _ => self.rng.u64(..pages + 2) * PAGE,
        };
        Content::File { name: self.world.files[file].name.clone(), offset }
    }

    fn protection(&mut self) -> Protection {
        const R: Protection = Protection::READ;
        const W: Protection = Protection::WRITE;
        const X: Protection = Protection::EXEC;
        match self.rng.u32(..100) {
            0..64 => R | W,
            64..78 => R,
            78..84 => R | X,
            84..90 => R | W | X,
            90..93 => W,
            93..95 => X,
            _ => Protection::empty(),
        }
    }

    /// A growing stack with room below it, and a mapping below the room.
    pub(super) fn stack(&mut self) {
        let (room, stack) = (self.world.fresh(), self.world.fresh());
        let pages = self.rng.u64(12..28);
        let whole =
            Range { address: Address { name: room.clone(), offset: 0 }, length: pages * PAGE };
        self.world.add(Region { name: room.clone(), pages, sharing: Sharing::Private });
        self.line(Op::Mmap(Mmap {
            name: room.clone(),
            length: whole.length,
            protection: Protection::empty(),
            sharing: Sharing::Private,
            content: Content::Anonymous,
            at: None,
            flags: MapFlags::NORESERVE,
        }));
        self.line(Op::Munmap(whole));
        let at = Address { name: room, offset: (pages - 3) * PAGE };
        let protection = self.protection();
        self.line(Op::Mmap(Mmap {
            name: stack,
            length: 2 * PAGE,
            protection,
            sharing: Sharing::Private,
            content: Content::Anonymous,
            at: Some(at),
            flags: MapFlags::GROWSDOWN,
        }));
    }

    pub(super) fn unmap(&mut self) {
        let range = self.faulty_range();
        self.line(Op::Munmap(range));
    }

    /// Unmaps whole regions until the process has room again.
    pub(super) fn make_room(&mut self) {
        while self.world.is_crowded() {
            let Some(region) = self.world.forget_one(&mut self.rng) else {
                return;
            };
            self.line(Op::Munmap(Range {
                length: region.length(),
                address: Address { name: region.name, offset: 0 },
            }));
        }
    }

    pub(super) fn protect(&mut self) {
        let range = self.faulty_range();
        let protection = self.protection();
        let begin = if self.rng.u32(..12) == 0 { Begin::Stack } else { Begin::Address };
        self.line(Op::Mprotect(range, protection, begin));
    }

    pub(super) fn remap(&mut self) {
        let source = self.region();
        let range = self.range_in(&source);
        let old = match self.rng.u32(..20) {
            0 => 0,
            1 => self.choose(&ABSURD),
            2 => range.length + self.rng.u64(..8) * PAGE,
            3 => range.length.saturating_sub(self.rng.u64(1..PAGE)),
            _ => range.length,
        };
        let new = match self.rng.u32(..20) {
            0 => 0,
            1 => self.choose(&ABSURD),
            2..8 => range.length,
            8..13 => range.length + self.rng.u64(1..12) * PAGE,
            13 => range.length + self.rng.u64(1..PAGE),
            _ => self.rng.u64(1..range.length / PAGE + 2) * PAGE,
        };
        let mut address = range.address;
        if self.rarely(50) {
            address.offset += 8;
        }
        let moving = match self.rng.u32(..8) {
            0..3 => Moving::Stay,
            3..7 => Moving::May,
            _ => Moving::Leaving,
        };
        let new = if moving == Moving::Leaving && !self.rarely(8) { old } else { new };
        let at = self.rarely(4).then(|| self.range().address);
        let name = self.world.fresh();
        self.world.add(Region {
            name: name.clone(),
            pages: new.min(32 * PAGE).div_ceil(PAGE).max(1),
            ..source
        });
        self.line(Op::Mremap(Mremap { address, old, new, moving, at, bind: Some(name) }));
    }

    pub(super) fn advise(&mut self) {
        // Other code writes `free`, except where it is refused.
        let advice = match self.choose(&Advice::ALL) {
            Advice::GuardInstall if !self.has_guards => Advice::GuardRemove,
            advice => advice,
        };
        let mut range = self.faulty_range();
        if advice == Advice::Free {
            range.address.offset |= 1;
        }
        self.line(Op::Madvise(range, advice));
    }

    /// Fresh memory that is stored to, freed lazily, and stored to again before any load.
    pub(super) fn lazily_freed(&mut self) {
        let name = self.world.fresh();
        let pages = self.rng.u64(1..8);
        let whole =
            Range { address: Address { name: name.clone(), offset: 0 }, length: pages * PAGE };
        let rw = Protection::READ | Protection::WRITE;
        self.world.add(Region { name: name.clone(), pages, sharing: Sharing::Private });
        self.line(Op::Mmap(Mmap {
            name,
            length: whole.length,
            protection: rw,
            sharing: Sharing::Private,
            content: Content::Anonymous,
            at: None,
            flags: MapFlags::empty(),
        }));
        if self.rng.bool() {
            let byte = self.rng.u8(..);
            self.line(Op::Fill(whole.clone(), byte));
        }
        self.line(Op::Madvise(whole.clone(), Advice::Free));
        if self.rng.bool() {
            self.reclaim();
        }
        let byte = self.rng.u8(..);
        self.line(Op::Fill(whole.clone(), byte));
        self.line(Op::Read(whole));
    }

    pub(super) fn lock(&mut self) {
        let range = self.faulty_range();
        let op = match self.rng.u32(..20) {
            0..6 => Op::Mlock(range, Locking::AtOnce),
            6..9 => Op::Mlock(range, Locking::OnFault),
            9..17 => Op::Munlock(range),
            17 => {
                let what = LockAll::from_bits_truncate(self.rng.u32(..8));
                // What the oracle's process has mapped may not fit a small machine.
                let waits = what.contains(LockAll::CURRENT);
                Op::MlockAll(if waits { what | LockAll::ON_FAULT } else { what })
            }
            18 => Op::MunlockAll,
            _ => Op::Mseal(range),
        };
        self.line(op);
    }

    pub(super) fn sync(&mut self) {
        let range = self.faulty_range();
        let sync = self.choose(&[SyncFlag::Sync, SyncFlag::Async, SyncFlag::Invalidate]);
        self.line(Op::Msync(range, sync));
    }

    pub(super) fn remap_file_pages(&mut self) {
        let mut source = self.region();
        for _ in 0..4 {
            if source.sharing == Sharing::Shared {
                break;
            }
            source = self.region();
        }
        let mut range = self.range_in(&source);
        if self.has_guards {
            range.length = PAGE;
        }
        if self.rarely(8) {
            range.length = self.choose(&ABSURD);
        }
        let page = match self.rng.u32(..20) {
            0 => self.choose(&[u64::MAX, 1 << 52, (1 << 51) - 1, 1 << 40]),
            _ => self.rng.u64(..40),
        };
        self.line(Op::RemapFilePages(range, page));
    }

    pub(super) fn mincore(&mut self) {
        let range = self.faulty_range();
        self.line(Op::Mincore(range));
    }

    /// One of the process's regions, more often a young one.
    pub(super) fn region(&mut self) -> Region {
        if self.world.current().regions.is_empty() {
            self.map();
        }
        let count = self.world.current().regions.len();
        let back = self.rng.usize(..count).min(self.rng.usize(..count));
        self.world.current().regions[count - 1 - back].clone()
    }

    /// Whole pages, mostly inside a region.
    pub(super) fn range(&mut self) -> Range {
        let region = self.region();
        self.range_in(&region)
    }

    /// Whole pages of `region`, often across the table boundary at its fifth page, seldom beyond
    /// its end.
    pub(super) fn range_in(&mut self, region: &Region) -> Range {
        let pages = region.pages;
        let start = match self.rng.u32(..10) {
            0..3 => 0,
            3..5 => self.rng.u64(2..6).min(pages - 1),
            _ => self.rng.u64(..pages),
        };
        let length = match self.rng.u32(..10) {
            0..2 => pages - start,
            2 => pages - start + self.rng.u64(1..3),
            _ => self.rng.u64(1..=(pages - start).min(6)),
        };
        Range {
            address: Address { name: region.name.clone(), offset: start * PAGE },
            length: length * PAGE,
        }
    }

    /// A range that is sometimes unaligned, empty or absurd.
    fn faulty_range(&mut self) -> Range {
        let mut range = self.range();
        match self.rng.u32(..40) {
            0 => range.address.offset += self.rng.u64(1..PAGE),
            1 => range.length = 0,
            2 => range.length = self.choose(&ABSURD),
            3..7 => range.length -= self.rng.u64(1..PAGE),
            _ => {}
        }
        range
    }
}
