//! Everything fails once (spec I21, I22): a fixed scenario runs again and again, and each time
//! another allocation, read or write fails. The failed operation returns its own error, keeps every
//! invariant, and succeeds when it is retried; at the end every byte is right and nothing leaks.

use crate::common::{BASE, PAGE, World};
use pagefault::entry::{Signal, Verdict};
use pagefault::error::Errno;
use pagefault::machine::{Access, Protection, VirtAddr};
use pagefault::swap::area::Priority;
use pagefault::{
    AddressSpace, Advice, Config, File, FileAccess, MapOptions, MapRequest, Move, NonlinearPolicy,
    Overcommit, Placement, RemapRequest, Sharing, Source, SyncMode,
};
use pagefault_sim::{Config as Machine, Sim, SimDisk, SimFile, X86_64};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Frame,
    SwapRead,
    SwapWrite,
    FileRead,
    FileWrite,
    MakeWritable,
    Length,
}

/// What an operation says it failed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Memory,
    Device,
}

/// An error that tells its cause.
trait Failure: std::fmt::Debug {
    fn cause(&self) -> Option<Cause>;
}

impl Failure for Verdict {
    fn cause(&self) -> Option<Cause> {
        match self {
            Self::OutOfMemory => Some(Cause::Memory),
            Self::Signal(Signal::Bus) => Some(Cause::Device),
            _ => None,
        }
    }
}

macro_rules! by_errno {
    ($($name:ident)+) => {
        $(impl Failure for pagefault::error::$name {
            fn cause(&self) -> Option<Cause> {
                match self.errno() {
                    Errno::ENOMEM | Errno::EAGAIN => Some(Cause::Memory),
                    Errno::EIO | Errno::ENOSPC => Some(Cause::Device),
                    _ => None,
                }
            }
        })+
    };
}

by_errno!(MapError UnmapError ProtectError RemapError AdviseError SyncError ForkError SwapOffError);
by_errno!(FileError RemapPagesError LockError);

/// A user access by the kernel that did not get through says only that; so many bytes were left.
#[derive(Debug)]
struct Left(#[allow(dead_code, reason = "shown when a test fails")] usize);

impl Failure for Left {
    fn cause(&self) -> Option<Cause> {
        None
    }
}

struct Story {
    world: World<X86_64>,
    disk: SimDisk,
    area: u8,
    store: SimFile,
    /// The operations whose failure may show.
    causes: &'static [Cause],
    failures: Vec<String>,
    /// Frames that the story cannot have until something has failed.
    withheld: Vec<pagefault::machine::Frame>,
    /// What the first byte of each page must be, in each process.
    bytes: BTreeMap<(u8, u64), u8>,
}

const ANON: u64 = 0x4000_0000;
const PRIVATE: u64 = 0x4100_0000;
const SHARED: u64 = 0x4200_0000;
const MEMORY: u64 = 0x4300_0000;
const MOVED: u64 = 0x4400_0000;

impl Story {
    fn new(frames: u32) -> Self {
        let machine = Machine { frames, cpus: 2, ..Machine::calm() };
        let config = Config {
            nonlinear: NonlinearPolicy::Entries,
            overcommit: Overcommit::Always,
            ..Config::default()
        };
        let world = World::new(machine, config);
        let (area, disk) = world.add_disk(512, Priority::Descending);
        Self {
            world,
            disk,
            area,
            store: SimFile::pattern(8 * PAGE + 100, 3),
            causes: &[],
            failures: Vec::new(),
            withheld: Vec::new(),
            bytes: BTreeMap::new(),
        }
    }

    fn fail(&mut self, kind: Kind, nth: u64) {
        self.causes = &[Cause::Memory, Cause::Device];
        match kind {
            Kind::Frame => self.world.sim.fail_nth_allocation(nth),
            Kind::SwapRead => self.disk.fail_nth_read(nth),
            Kind::SwapWrite => self.disk.fail_nth_write(nth),
            Kind::FileRead => self.store.fail_nth_read(nth),
            Kind::FileWrite => self.store.fail_nth_write(nth),
            Kind::MakeWritable => self.store.fail_nth_make_writable(nth),
            Kind::Length => self.store.fail_nth_length(nth),
        }
    }

    /// How often each thing was done that can fail.
    fn count(&self, kind: Kind) -> u64 {
        match kind {
            // Page tables are not counted among the allocations.
            Kind::Frame => self.world.sim.stats().allocations + 60,
            Kind::SwapRead => self.disk.stats().reads,
            Kind::SwapWrite => self.disk.stats().writes,
            Kind::FileRead => self.store.stats().reads,
            Kind::FileWrite => self.store.stats().writes,
            Kind::MakeWritable => self.store.stats().made_writable,
            Kind::Length => self.store.stats().lengths,
        }
    }

    /// Does something that may fail for the reason that was prepared; the second time it must work.
    fn must<T, E: Failure>(&mut self, what: &str, mut f: impl FnMut(&Self) -> Result<T, E>) -> T {
        let error = match f(self) {
            Ok(done) => return done,
            Err(error) => error,
        };
        let known = error.cause().is_none_or(|cause| self.causes.contains(&cause));
        assert!(known && !self.causes.is_empty(), "{what}: {error:?}");
        assert!(self.failures.is_empty(), "{what}: {error:?} after {:?}", self.failures);
        self.failures.push(format!("{what}: {error:?}"));
        self.world.check();
        for frame in self.withheld.drain(..) {
            pagefault::machine::Machine::free(&self.world.sim, frame);
        }
        match f(self) {
            Ok(done) => done,
            Err(again) => panic!("{what}: {again:?} again"),
        }
    }

    fn store(&mut self, who: u8, space: &AddressSpace<Sim>, at: u64, byte: u8) {
        self.must(&format!("store at {at:#x}"), |story| {
            story.world.store(space.mm(), 0, VirtAddr(at), &[byte])
        });
        self.bytes.insert((who, at), byte);
    }

    fn load(&mut self, space: &AddressSpace<Sim>, at: u64, expected: u8) {
        let byte = self.must(&format!("load at {at:#x}"), |story| {
            story.world.load_byte(space.mm(), 1, VirtAddr(at))
        });
        assert_eq!(byte, expected, "at {at:#x}");
    }

    /// Loads every byte that was ever stored for a process.
    fn verify(&mut self, who: u8, space: &AddressSpace<Sim>) {
        let mine: Vec<_> = self.bytes.range((who, 0)..(who + 1, 0)).collect();
        let mine: Vec<_> = mine.into_iter().map(|((_, at), byte)| (*at, *byte)).collect();
        for (at, byte) in mine {
            self.load(space, at, byte);
        }
    }

    fn reclaim(&self, pages: usize) {
        self.world.manager.reclaim(pages);
        self.world.check();
    }

    /// Forgets what was known of a range, and says what is known now.
    fn set(&mut self, who: u8, at: u64, pages: u64, byte: Option<u8>) {
        for page in 0..pages {
            match byte {
                Some(byte) => self.bytes.insert((who, at + page * PAGE), byte),
                None => self.bytes.remove(&(who, at + page * PAGE)),
            };
        }
    }

    fn tell(&mut self) {
        let space = self.must("new space", |story| {
            AddressSpace::new(&story.world.manager, World::<X86_64>::layout())
        });
        let file = File::open(&self.world.manager, Arc::new(self.store.clone()));
        self.map_everything(&space, &file);
        self.store_everywhere(&space);
        self.reclaim(60);
        self.verify(0, &space);
        let child = self.must("fork", |_| space.fork());
        self.part_ways(&space, &child);
        self.reclaim(60);
        self.verify(0, &space);
        self.verify(1, &child);
        self.move_and_advise(&space);
        drop(child);
        self.verify(0, &space);
        self.change_files(&space, &file);
        self.reclaim(60);
        self.verify(0, &space);
        self.take_swap_away();
        self.verify(0, &space);
        drop(space);
        // The loss of a last failed write can no longer be reported.
        self.must("last sync", |_| file.sync());
        drop(file);
    }

    fn map_everything(&mut self, space: &AddressSpace<Sim>, file: &File<Sim>) {
        let access = FileAccess::READ | FileAccess::WRITE;
        let map = |at, pages, sharing, from_file: bool| MapRequest {
            length: pages * PAGE,
            protection: Protection::READ | Protection::WRITE,
            sharing,
            placement: Placement::Fixed(VirtAddr(at)),
            source: match from_file {
                true => Source::File { file, offset: 0, access },
                false => Source::Anonymous,
            },
            options: MapOptions::empty(),
        };
        let requests = [
            map(ANON, 20, Sharing::Private, false),
            map(PRIVATE, 9, Sharing::Private, true),
            map(SHARED, 9, Sharing::Shared, true),
            map(MEMORY, 6, Sharing::Shared, false),
        ];
        for request in &requests {
            self.must("mmap", |_| space.mm().mmap(request));
        }
    }

    fn store_everywhere(&mut self, space: &AddressSpace<Sim>) {
        for page in 0..9 {
            let byte = SimFile::pattern_byte(page * PAGE, 3);
            self.load(space, PRIVATE + page * PAGE, byte);
            self.bytes.insert((0, PRIVATE + page * PAGE), byte);
        }
        for page in 0..20 {
            if page % 3 == 0 {
                self.load(space, ANON + page * PAGE, 0);
            }
            self.store(0, space, ANON + page * PAGE, page as u8 + 1);
        }
        for page in [1, 3, 8] {
            self.store(0, space, PRIVATE + page * PAGE, 0x40 + page as u8);
        }
        for page in [0, 2, 8] {
            self.store(0, space, SHARED + page * PAGE, 0x50 + page as u8);
            if ![1, 3, 8].contains(&page) {
                self.bytes.insert((0, PRIVATE + page * PAGE), 0x50 + page as u8);
            }
        }
        for page in 0..6 {
            self.store(0, space, MEMORY + page * PAGE, 0x60 + page as u8);
        }
    }

    /// Parent and child each store where the other still sees the old content.
    fn part_ways(&mut self, space: &AddressSpace<Sim>, child: &AddressSpace<Sim>) {
        let mine: Vec<_> = self.bytes.iter().map(|((_, at), byte)| ((1, *at), *byte)).collect();
        self.bytes.extend(mine);
        for page in 0..10 {
            self.store(1, child, ANON + 2 * page * PAGE, 0x80 + page as u8);
            self.store(0, space, ANON + (2 * page + 1) * PAGE, 0x90 + page as u8);
        }
        self.store(1, child, MEMORY, 0xaa);
        self.bytes.insert((0, MEMORY), 0xaa);
        let data = [7u8; 2 * PAGE as usize];
        self.must("copy to user", |_| {
            match child.mm().copy_to_user(VirtAddr(ANON + 4 * PAGE), &data) {
                0 => Ok(()),
                left => Err(Left(left)),
            }
        });
        self.set(1, ANON + 4 * PAGE, 2, Some(7));
        let mut back = [0; 3 * PAGE as usize];
        self.must("copy from user", |_| {
            match space.mm().copy_from_user(VirtAddr(ANON + 4 * PAGE), &mut back) {
                0 => Ok(()),
                left => Err(Left(left)),
            }
        });
        for page in 0..3u64 {
            let expected = self.bytes[&(0, ANON + (4 + page) * PAGE)];
            assert_eq!(back[(page * PAGE) as usize], expected);
        }
    }

    fn move_and_advise(&mut self, space: &AddressSpace<Sim>) {
        let request = RemapRequest {
            address: VirtAddr(ANON + 10 * PAGE),
            old_length: 6 * PAGE,
            new_length: 8 * PAGE,
            movement: Move::To(VirtAddr(MOVED)),
        };
        self.must("mremap", |_| space.mm().mremap(&request));
        for page in 0..6 {
            let byte = self.bytes.remove(&(0, ANON + (10 + page) * PAGE));
            self.bytes.extend(byte.map(|byte| ((0, MOVED + page * PAGE), byte)));
        }
        self.set(0, MOVED + 6 * PAGE, 2, Some(0));
        let mm = space.mm();
        self.must("mprotect", |_| mm.mprotect(VirtAddr(ANON), 4 * PAGE, Protection::READ));
        self.verify(0, space);
        let rw = Protection::READ | Protection::WRITE;
        self.must("mprotect", |_| mm.mprotect(VirtAddr(ANON), 4 * PAGE, rw));
        self.must("dontneed", |_| mm.madvise(VirtAddr(ANON + PAGE), 2 * PAGE, Advice::DontNeed));
        self.set(0, ANON + PAGE, 2, Some(0));
        self.must("pageout", |_| mm.madvise(VirtAddr(ANON), 10 * PAGE, Advice::PageOut));
        self.must("willneed", |_| mm.madvise(VirtAddr(ANON), 10 * PAGE, Advice::WillNeed));
        self.must("populate", |_| mm.madvise(VirtAddr(ANON), 4 * PAGE, Advice::PopulateWrite));
        self.must("mlock", |_| mm.mlock(VirtAddr(ANON), 2 * PAGE));
        self.must("munlock", |_| mm.munlock(VirtAddr(ANON), 2 * PAGE));
        self.must("pin", |_| {
            let pinned = mm.pin(VirtAddr(ANON)..VirtAddr(ANON + 3 * PAGE), Access::Write);
            pinned.map(drop).map_err(|_| Left(0))
        });
        self.store(0, space, ANON, 0xcc);
    }

    fn change_files(&mut self, space: &AddressSpace<Sim>, file: &File<Sim>) {
        let mm = space.mm();
        self.must("msync", |_| mm.msync(VirtAddr(SHARED), 9 * PAGE, SyncMode::Sync));
        assert_eq!(self.store.contents()[2 * PAGE as usize], 0x52);
        self.must("truncate", |_| file.truncate(5 * PAGE + 10));
        self.set(0, PRIVATE + 6 * PAGE, 3, None);
        self.set(0, SHARED + 6 * PAGE, 3, None);
        self.must("truncate", |_| file.truncate(8 * PAGE));
        self.set(0, PRIVATE + 6 * PAGE, 2, Some(0));
        self.set(0, SHARED + 6 * PAGE, 2, Some(0));
        self.must("pwrite", |_| file.write_all_at(6 * PAGE, &[0xdd; PAGE as usize + 1]));
        self.set(0, PRIVATE + 6 * PAGE, 2, Some(0xdd));
        self.set(0, SHARED + 6 * PAGE, 2, Some(0xdd));
        let mut byte = [0];
        self.must("pread", |_| file.read_at(6 * PAGE, &mut byte));
        assert_eq!(byte, [0xdd]);
        self.must("sync", |_| file.sync());
        let remap = |_: &Self| mm.remap_file_pages(VirtAddr(MEMORY), 2 * PAGE, 3);
        self.must("remap_file_pages", remap);
        for page in 0..2 {
            let byte = self.bytes[&(0, MEMORY + (3 + page) * PAGE)];
            self.set(0, MEMORY + page * PAGE, 1, Some(byte));
        }
        self.must("munmap", |_| mm.munmap(VirtAddr(SHARED), 9 * PAGE));
        self.set(0, SHARED, 9, None);
    }

    fn take_swap_away(&mut self) {
        let (area, disk) = self.world.add_disk(512, Priority::Descending);
        let old = std::mem::replace(&mut self.area, area);
        self.must("swapoff", |story| story.world.manager.swap_off(old));
        assert_eq!(self.disk.stats().stored, 0);
        self.world.check();
        // Counts go on with the first disk.
        drop(disk);
    }
}

fn told(frames: u32, prepare: impl FnOnce(&mut Story)) -> Story {
    let mut story = Story::new(frames);
    prepare(&mut story);
    story.tell();
    story.world.check_empty();
    story
}

/// Tells the story once for each time something can fail in it.
fn fail_each(kind: Kind, visible: &'static [Cause]) {
    let frames = 64;
    let times = told(frames, |_| {}).count(kind);
    assert!(times > 1, "{kind:?} happens {times} times");
    let mut seen = 0;
    for nth in 1..=times {
        let label = crate::common::Label { what: format!("{kind:?} number {nth}"), step: nth };
        let story = told(frames, |story| {
            story.fail(kind, nth);
            story.causes = visible;
        });
        seen += story.failures.len();
        drop(label);
    }
    assert_eq!(seen > 0, !visible.is_empty(), "{kind:?}: {seen} failures were seen");
}

/// A single failure makes the manager reclaim and retry; no caller notices.
#[test]
fn i21_one_frame_that_is_not_had() {
    fail_each(Kind::Frame, &[]);
}

#[test]
fn i21_one_read_of_swap_that_fails() {
    fail_each(Kind::SwapRead, &[Cause::Device]);
}

/// What cannot be written stays in memory, or goes elsewhere.
#[test]
fn i21_one_write_to_swap_that_fails() {
    fail_each(Kind::SwapWrite, &[]);
}

#[test]
fn i21_one_read_of_a_file_that_fails() {
    fail_each(Kind::FileRead, &[Cause::Device]);
}

/// Only the caller of a sync gets the error (spec D8).
#[test]
fn i21_one_write_to_a_file_that_fails() {
    fail_each(Kind::FileWrite, &[Cause::Device]);
}

#[test]
fn i21_one_page_that_may_not_be_written() {
    fail_each(Kind::MakeWritable, &[Cause::Device]);
}

/// No dirty page is given up if the length is unknown.
#[test]
fn i21_one_length_that_cannot_be_told() {
    fail_each(Kind::Length, &[Cause::Device]);
}

/// The scenario starts with few frames, and gets the rest after the first failure for want of one.
/// So memory runs out at every place that needs a frame.
#[test]
fn i22_memory_that_ends_anywhere() {
    let mut met = std::collections::BTreeSet::new();
    for free in 0..=90 {
        let label = crate::common::Label { what: format!("{free} frames"), step: free };
        let mut story = Story::new(160);
        story.causes = &[Cause::Memory];
        // Without swap nothing anonymous can leave.
        story.world.manager.swap_off(story.area).unwrap();
        while u64::from(story.world.free()) > free {
            let frame = pagefault::machine::Machine::allocate(&story.world.sim).unwrap();
            story.withheld.push(frame);
        }
        let (area, disk) = (story.area, story.disk.clone());
        let number = story.world.manager.swap_on(Box::new(disk), Priority::Descending).unwrap();
        assert_eq!(number, area);
        // The disk is full from the start, as far as it says, until memory was short once.
        story.disk.set_capacity(0);
        story.tell();
        for frame in story.withheld.drain(..) {
            pagefault::machine::Machine::free(&story.world.sim, frame);
        }
        story.world.check_empty();
        let what = story.failures.first().map(|f| f.split(':').next().unwrap_or("").to_owned());
        met.extend(what.map(|what| what.split(" at ").next().unwrap_or("").to_owned()));
        drop(label);
    }
    for expected in ["new space", "store", "load", "fork"] {
        assert!(met.contains(expected), "{expected} never met the end of memory: {met:?}");
    }
}

/// The anchor of the addresses above.
const _: () = assert!(ANON == BASE.0);
