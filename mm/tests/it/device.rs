//! Memory of devices (spec B13): mapped as it is, and never counted, owned, evicted or pinned. A private
//! mapping stores to copies, which are pages like others.
//!
//! The answers to advice, locking and moving are those that Linux 6.18 gave about the `vvar` of a process,
//! which is such a region.

use crate::common::{PAGE, RW, World, at};
use pagefault::entry::{Signal, Verdict};
use pagefault::error::{AdviseError, RemapError, UserError};
use pagefault::machine::{Access, Frame, Machine, NoPage, Protection, VirtAddr};
use pagefault::{
    AddressSpace, Advice, Config, File, FileAccess, MapOptions, MapRequest, Move, Placement,
    RemapRequest, Sharing, Source, SyncMode, UsageNow, VmaFlags,
};
use pagefault_sim::{Config as Machines, Sim, SimDevice, X86_64};
use std::cell::Cell;
use std::sync::Arc;

const PAGES: u64 = 4;

/// A machine that sets the bits of entries, and one that sets none.
fn machines() -> [Machines; 2] {
    let bits = Machines { frames: 64, device_frames: 8, ..Machines::calm() };
    [bits, Machines { accessed_bits: false, dirty_bits: false, zero_frame: false, ..bits }]
}

struct Scene {
    world: World<X86_64>,
    device: SimDevice,
    file: File<Sim>,
    space: AddressSpace<Sim>,
    /// How many mappings of the device were made.
    mapped: Cell<u64>,
}

fn scene(machine: Machines) -> Scene {
    let (world, _) = World::new(machine, Config::default()).with_disk(64);
    let device = world.sim.device(PAGES as u32).unwrap();
    let file = File::device(&world.manager, Arc::new(device.clone()));
    for (number, frame) in (1..).zip(device.frames()) {
        world.sim.write(frame, 0, &[number]);
    }
    let space = world.process();
    Scene { world, device, file, space, mapped: Cell::new(0) }
}

impl Scene {
    /// Maps the device's pages from a page on.
    fn map(&self, first: u64, sharing: Sharing) {
        self.map_with(first, sharing, RW, MapOptions::empty());
    }

    fn map_with(&self, first: u64, sharing: Sharing, rights: Protection, options: MapOptions) {
        let access = FileAccess::READ | FileAccess::WRITE;
        let request = MapRequest {
            length: PAGES * PAGE,
            protection: rights,
            sharing,
            placement: Placement::Fixed(at(first)),
            source: Source::File { file: &self.file, offset: 0, access },
            options,
        };
        self.space.mm().mmap(&request).unwrap();
        self.mapped.set(self.mapped.get() + 1);
    }

    fn load(&self, at: VirtAddr) -> Result<u8, Verdict> {
        self.world.load_byte(self.space.mm(), 0, at)
    }

    fn store(&self, at: VirtAddr, byte: u8) -> Result<(), Verdict> {
        self.world.store(self.space.mm(), 0, at, &[byte])
    }

    /// The first byte of a page as the device sees it.
    fn of_device(&self, page: usize) -> u8 {
        self.world.sim.drain(self.device.frames()[page], |bytes| bytes[0])
    }

    fn usage(&self) -> UsageNow {
        self.space.mm().usage()
    }

    fn flags(&self, page: u64) -> VmaFlags {
        self.space.mm().maps(at(page)..at(page + 1))[0].flags
    }

    /// Everything goes, and nothing is left.
    fn end(self) {
        let Self { world, file, space, device, mapped } = self;
        world.check();
        drop((space, file));
        world.manager.reclaim(100);
        world.check_empty();
        let stats = device.stats();
        assert_eq!(
            stats.closed,
            stats.opened + mapped.get(),
            "regions that came and went: {stats:?}"
        );
    }
}

#[test]
fn b13_a_shared_region_shows_the_device_itself() {
    for machine in machines() {
        let scene = scene(machine);
        scene.map(0, Sharing::Shared);
        scene.map(8, Sharing::Shared);
        let before = scene.world.sim.usage().allocated;
        assert_eq!(scene.load(at(0)), Ok(1));
        scene.store(at(0), 21).unwrap();
        scene.store(at(1), 22).unwrap();
        assert_eq!((scene.of_device(0), scene.of_device(1)), (21, 22));
        assert_eq!((scene.load(at(8)), scene.load(at(9))), (Ok(21), Ok(22)));
        // The device's own stores show too.
        scene.world.sim.write(scene.device.frames()[0], 0, &[77]);
        assert_eq!(scene.load(at(0)), Ok(77));
        let usage = scene.usage();
        assert_eq!((usage.anonymous, usage.file), (0, 0), "resident pages");
        assert_eq!(scene.world.sim.usage().allocated, before, "frames taken");
        assert_eq!(scene.world.manager.counters().device, 4, "corrections");
        scene.world.check();
        assert!(scene.flags(0).contains(VmaFlags::DEVICE));
        scene.end();
    }
}

#[test]
fn b13_a_store_to_a_private_region_goes_to_a_copy() {
    for machine in machines() {
        let scene = scene(machine);
        scene.map(0, Sharing::Private);
        scene.map(8, Sharing::Shared);
        // After a load, and at once.
        assert_eq!(scene.load(at(0)), Ok(1));
        scene.store(at(0), 31).unwrap();
        scene.store(at(1) + 1, 32).unwrap();
        assert_eq!((scene.of_device(0), scene.of_device(1)), (1, 2));
        assert_eq!((scene.load(at(0)), scene.load(at(1))), (Ok(31), Ok(2)));
        assert_eq!(scene.load(at(1) + 1), Ok(32));
        let usage = scene.usage();
        assert_eq!((usage.anonymous, usage.file), (2, 0));
        assert_eq!(scene.world.manager.counters().copy_on_write, 2);
        // The device still changes pages that were not copied.
        scene.store(at(10), 55).unwrap();
        assert_eq!(scene.load(at(2)), Ok(55));
        scene.end();
    }
}

#[test]
fn b13_a_fork_copies_the_entries() {
    for machine in machines() {
        let scene = scene(machine);
        scene.map(0, Sharing::Private);
        scene.map(8, Sharing::Shared);
        scene.store(at(0), 41).unwrap();
        assert_eq!(scene.load(at(1)), Ok(2));
        scene.store(at(8), 9).unwrap();
        let asked = scene.device.stats().asked;
        let child = scene.space.fork().unwrap();
        scene.world.check();
        let (mm, load) = (child.mm(), |page| scene.world.load_byte(child.mm(), 0, at(page)));
        assert_eq!((load(0), load(1), load(8)), (Ok(41), Ok(2), Ok(9)));
        assert_eq!(scene.device.stats().asked, asked, "the child has the parent's entries");
        scene.world.store(mm, 0, at(1), &[42]).unwrap();
        scene.world.store(mm, 0, at(0), &[43]).unwrap();
        scene.world.store(mm, 0, at(8), &[44]).unwrap();
        assert_eq!((scene.load(at(0)), scene.load(at(1))), (Ok(41), Ok(2)));
        assert_eq!((scene.load(at(8)), scene.of_device(0)), (Ok(44), 44));
        assert_eq!((scene.usage().anonymous, mm.usage().anonymous), (1, 2));
        scene.world.check();
        drop(child);
        scene.end();
    }
}

/// Copies go to swap and come back; the device's own frames stay where they are.
#[test]
fn b13_reclaim_and_swapoff_know_the_copies_alone() {
    for machine in machines() {
        let scene = scene(machine);
        scene.map(0, Sharing::Private);
        scene.store(at(0), 51).unwrap();
        scene.store(at(1), 52).unwrap();
        assert_eq!((scene.load(at(2)), scene.load(at(3))), (Ok(3), Ok(4)));
        for _ in 0..4 {
            scene.world.manager.reclaim(64);
        }
        scene.world.check();
        assert_eq!(scene.usage().anonymous, 0, "both copies are out");
        let mut present = 0;
        scene.space.mm().pages(at(0)..at(PAGES), |page| {
            present += u32::from(page.entry.frame().is_some());
            assert!(page.entry.frame().is_none() || (!page.anonymous && page.maps == 0));
        });
        assert_eq!(present, 2, "what the device shows is still there");
        scene.world.manager.swap_off(0).unwrap();
        assert_eq!((scene.load(at(0)), scene.load(at(1))), (Ok(51), Ok(52)));
        scene.end();
    }
}

#[test]
fn b13_b20_nothing_of_a_device_can_be_pinned_or_forced() {
    let scene = scene(machines()[0]);
    scene.map(0, Sharing::Shared);
    scene.map(8, Sharing::Private);
    let mm = scene.space.mm();
    let refused = |page| {
        for access in [Access::Read, Access::Write] {
            let pin = mm.pin(at(page)..at(page + 1), access);
            assert_eq!(pin.map(drop), Err(UserError::BadAddress), "page {page}, {access:?}");
        }
        assert_eq!(mm.read_forced(at(page), &mut [0; 8]).0, 0);
        assert_eq!(mm.write_forced(at(page), &[1; 8]).0, 0);
    };
    refused(0);
    refused(8);
    // Not even once they are mapped.
    scene.store(at(0), 5).unwrap();
    assert_eq!(scene.load(at(8)), Ok(5));
    refused(0);
    refused(8);
    assert_eq!(scene.of_device(0), 5);
    scene.end();
}

/// A piece of a device's mapping that shows another page is a device's still.
#[test]
fn b13_c19_a_piece_out_of_order_is_of_the_device() {
    for machine in machines() {
        let scene = scene(machine);
        scene.map(0, Sharing::Shared);
        scene.space.remap_file_pages(at(0), PAGE, 2).unwrap();
        assert!(scene.flags(0).contains(VmaFlags::DEVICE));
        assert_eq!((scene.load(at(0)), scene.load(at(1))), (Ok(3), Ok(2)));
        scene.store(at(0), 9).unwrap();
        assert_eq!((scene.of_device(2), scene.usage().file), (9, 0));
        scene.end();
    }
}

#[test]
fn b13_h2_the_kernel_copies_to_and_from_a_device() {
    for machine in machines() {
        let scene = scene(machine);
        scene.map(0, Sharing::Shared);
        scene.map(8, Sharing::Private);
        let mm = scene.space.mm();
        assert_eq!(mm.copy_to_user(at(1) - 2, b"abcd"), 0);
        let mut bytes = [0; 4];
        assert_eq!(mm.copy_from_user(at(9) - 2, &mut bytes), 0);
        assert_eq!(&bytes, b"abcd");
        assert_eq!(mm.copy_to_user(at(8), b"x"), 0);
        assert_eq!((scene.of_device(0), scene.of_device(1)), (1, b'c'));
        assert_eq!((scene.load(at(8)), scene.usage().anonymous), (Ok(b'x'), 1));
        scene.end();
    }
}

#[test]
fn b13_c16_what_the_host_says_of_advice() {
    let scene = scene(machines()[0]);
    scene.map(0, Sharing::Private);
    assert_eq!(scene.load(at(0)), Ok(1));
    scene.store(at(1), 9).unwrap();
    let advise = |advice| scene.space.mm().madvise(at(0), PAGES * PAGE, advice);
    use Advice as A;
    let taken = [
        A::Normal,
        A::Random,
        A::Sequential,
        A::WillNeed,
        A::DontFork,
        A::Mergeable,
        A::Unmergeable,
        A::HugePage,
        A::NoHugePage,
        A::DontDump,
        A::KeepOnFork,
    ];
    for advice in taken {
        assert_eq!(advise(advice), Ok(()), "{advice:?}");
    }
    let refused = [
        A::DontNeed,
        A::DontNeedLocked,
        A::Free,
        A::DoFork,
        A::DoDump,
        A::WipeOnFork,
        A::Cold,
        A::PageOut,
        A::GuardInstall,
        A::GuardRemove,
    ];
    for advice in refused {
        assert_eq!(advise(advice), Err(AdviseError::Unsuitable), "{advice:?}");
    }
    for advice in [A::PopulateRead, A::PopulateWrite] {
        assert_eq!(advise(advice), Err(AdviseError::Denied), "{advice:?}");
    }
    assert_eq!(advise(A::Remove), Err(AdviseError::OfDevice));
    assert!(!scene.flags(0).contains(VmaFlags::MERGEABLE));
    assert_eq!((scene.load(at(0)), scene.load(at(1))), (Ok(1), Ok(9)));
    scene.end();
}

#[test]
fn b13_c12_to_c18_the_other_calls() {
    let scene = scene(machines()[0]);
    scene.map(0, Sharing::Shared);
    let mm = scene.space.mm();
    // Locking means nothing, and counts for nothing.
    mm.mlock(at(0), PAGES * PAGE).unwrap();
    mm.mlock_on_fault(at(0), PAGE).unwrap();
    mm.munlock(at(0), PAGE).unwrap();
    let options = MapOptions::LOCKED | MapOptions::POPULATE;
    scene.map_with(8, Sharing::Shared, RW, options);
    assert_eq!((scene.usage().locked, scene.device.stats().asked), (0, 0));
    assert!(!scene.flags(8).intersects(VmaFlags::LOCKS));
    // Beside it, the rest of the range is locked and brought in.
    crate::common::map(&scene.space, PAGES, 1, RW);
    mm.mlock(at(0), (PAGES + 1) * PAGE).unwrap();
    assert_eq!((scene.usage().locked, scene.usage().anonymous), (1, 1));
    mm.munlock(at(PAGES), PAGE).unwrap();
    // Residency is that of the entry.
    scene.store(at(1), 3).unwrap();
    let mut resident = Vec::new();
    mm.mincore(at(0), 2 * PAGE, |_, is| resident.push(is)).unwrap();
    assert_eq!(resident, [false, true]);
    mm.msync(at(0), PAGES * PAGE, SyncMode::Sync).unwrap();
    mm.msync(at(0), PAGES * PAGE, SyncMode::Invalidate).unwrap();
    // Rights go and come back; so does the right to store.
    mm.mprotect(at(0), 2 * PAGE, Protection::empty()).unwrap();
    assert!(matches!(scene.load(at(1)), Err(Verdict::Signal(Signal::Segv(_)))));
    mm.mprotect(at(0), 2 * PAGE, Protection::READ).unwrap();
    assert_eq!(scene.load(at(1)), Ok(3));
    assert!(scene.store(at(1), 4).is_err());
    mm.mprotect(at(0), 2 * PAGE, RW).unwrap();
    scene.store(at(1), 5).unwrap();
    assert_eq!(scene.of_device(1), 5);
    scene.world.check();
    let remap = |old, new, movement| {
        let (old_length, new_length) = (old * PAGE, new * PAGE);
        mm.mremap(&RemapRequest { address: at(8), old_length, new_length, movement })
    };
    assert_eq!(remap(PAGES, PAGES + 1, Move::Anywhere), Err(RemapError::NotResizable));
    assert_eq!(remap(0, PAGES, Move::Anywhere), Err(RemapError::NotResizable));
    let leaving = Move::Leaving(Placement::Anywhere);
    assert_eq!(remap(PAGES, PAGES, leaving), Err(RemapError::CannotStay));
    scene.store(at(9), 8).unwrap();
    assert_eq!(remap(PAGES, PAGES, Move::To(at(32))), Ok(at(32)));
    assert_eq!(scene.load(at(33)), Ok(8));
    scene.world.check();
    assert_eq!(scene.file.read_at(0, &mut [0; 4]).map_err(|e| e.errno().number()), Err(22));
    assert!(scene.file.truncate(0).is_err() && scene.file.punch(0..1).is_err());
    scene.end();
}

/// Two neighbouring regions of a device stay two (`VM_SPECIAL`), and what is left of one keeps its pages.
#[test]
fn b13_c05_regions_of_a_device_split_and_do_not_join() {
    let scene = scene(machines()[0]);
    scene.map(0, Sharing::Shared);
    let mm = scene.space.mm();
    for page in 0..PAGES {
        scene.store(at(page), 60 + page as u8).unwrap();
    }
    mm.munmap(at(1), PAGE).unwrap();
    scene.world.check();
    assert_eq!((scene.load(at(0)), scene.load(at(2))), (Ok(60), Ok(62)));
    mm.madvise(at(2), PAGE, Advice::Random).unwrap();
    mm.madvise(at(2), PAGE, Advice::Normal).unwrap();
    assert_eq!(mm.maps(at(0)..at(PAGES)).len(), 3);
    scene.end();
}

#[test]
fn b13_what_a_device_answers() {
    let scene = scene(machines()[0]);
    scene.map(0, Sharing::Shared);
    // Busy: the instruction runs again.
    scene.device.refuse_next(NoPage::Again);
    assert_eq!((scene.load(at(0)), scene.device.stats().asked), (Ok(1), 2));
    scene.device.refuse_next(NoPage::Bus);
    assert_eq!(scene.load(at(1)), Err(Verdict::Signal(Signal::Bus)));
    scene.device.refuse_next(NoPage::OutOfMemory);
    assert_eq!(scene.load(at(1)), Err(Verdict::OutOfMemory));
    scene.device.refuse_next(NoPage::Bus);
    assert_eq!(scene.space.mm().copy_to_user(at(1), b"x"), 1);
    assert_eq!(scene.load(at(1)), Ok(2));
    // A region that is longer than the device.
    let access = FileAccess::READ | FileAccess::WRITE;
    let source = Source::File { file: &scene.file, offset: PAGES * PAGE, access };
    let placement = Placement::Fixed(at(16));
    let beyond = MapRequest { placement, source, ..MapRequest::anonymous(PAGE) };
    scene.space.mm().mmap(&beyond).unwrap();
    scene.mapped.set(2);
    assert_eq!(scene.load(at(16)), Err(Verdict::Signal(Signal::Bus)));
    scene.end();
}

/// A frame that is the memory manager's would be mapped uncounted: the device does not get its way.
#[test]
fn b13_a_device_cannot_show_a_page_of_the_managers() {
    let Scene { world, space, .. } = scene(machines()[0]);
    let wrong = SimDevice::over(vec![Frame(0), Frame(20)]);
    let file = File::device(&world.manager, Arc::new(wrong));
    let access = FileAccess::READ;
    let source = Source::File { file: &file, offset: 0, access };
    let request = MapRequest {
        placement: Placement::Fixed(at(0)),
        protection: Protection::READ,
        source,
        ..MapRequest::anonymous(2 * PAGE)
    };
    space.mm().mmap(&request).unwrap();
    for page in 0..2 {
        let loaded = world.load_byte(space.mm(), 0, at(page));
        assert_eq!(loaded, Err(Verdict::Signal(Signal::Bus)));
    }
    world.check();
}

#[test]
fn b13_a_device_takes_its_pages_back() {
    for machine in machines() {
        let scene = scene(machine);
        scene.map(0, Sharing::Shared);
        scene.map(8, Sharing::Private);
        let child = scene.space.fork().unwrap();
        for page in 0..2 {
            assert_eq!(scene.load(at(page)), Ok(page as u8 + 1));
            assert_eq!(scene.load(at(8 + page)), Ok(page as u8 + 1));
            let childs = scene.world.load_byte(child.mm(), 0, at(page));
            assert_eq!(childs, Ok(page as u8 + 1));
        }
        scene.store(at(8), 90).unwrap();
        scene.device.exchange(0, 1);
        scene.file.revoke(0..2);
        scene.world.check();
        assert_eq!((scene.load(at(0)), scene.load(at(1))), (Ok(2), Ok(1)));
        assert_eq!(scene.world.load_byte(child.mm(), 0, at(0)), Ok(2));
        // The copy stays; what was not copied follows the device.
        assert_eq!((scene.load(at(8)), scene.load(at(9))), (Ok(90), Ok(1)));
        drop(child);
        scene.end();
    }
}
