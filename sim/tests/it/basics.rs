//! The computer does what a computer does.

use crate::common::{PAGE, RW, map, page, present, set, stale};
use pagefault_machine::{
    Cursor, Entry, ErrorCode, Fate, Frame, Machine, Mode, PAGE_SIZE, Protection, Space, Stale,
    SwapSlot, VirtAddr,
};
use pagefault_sim::{Alpha, Architecture, Computer, Config, ConfigError, Ia32, Pae, Sim, X86_64};

#[test]
fn bytes_are_stored_where_the_table_says() {
    fn check<A: Architecture>() {
        let sim = Computer::<A>::new(Config::calm());
        let cpu = sim.cpu(0);
        let space = sim.space().unwrap();
        let frame = map(&sim, &space, PAGE, RW);
        map(&sim, &space, page(1), RW);
        // Across the border of two pages.
        let bytes = b"a page and the next";
        cpu.store_bytes(&space, PAGE + 4090, Mode::User, bytes).unwrap();
        let mut read = [0; 19];
        cpu.load_bytes(&space, PAGE + 4090, Mode::User, &mut read).unwrap();
        assert_eq!(&read, bytes);
        sim.drain(frame, |page| assert_eq!(&page[4090..], &bytes[..6]));
    }
    check::<X86_64>();
    check::<Ia32>();
}

#[test]
fn error_codes_say_what_was_wrong() {
    let sim = Sim::new(Config::calm());
    let cpu = sim.cpu(0);
    let space = sim.space().unwrap();
    let code = |result: Result<u8, pagefault_machine::PageFault>| result.unwrap_err().code;
    let (p, w, u, i) = (ErrorCode::PROTECTION, ErrorCode::WRITE, ErrorCode::USER, ErrorCode::FETCH);
    assert_eq!(code(cpu.load(&space, PAGE, Mode::User)), u);
    assert_eq!(code(cpu.load(&space, PAGE, Mode::Kernel)), ErrorCode::empty());
    map(&sim, &space, PAGE, Protection::READ);
    let store = |mode| cpu.store(&space, PAGE, mode, 1).unwrap_err().code;
    assert_eq!(store(Mode::User), p | w | u);
    // The kernel's stores honour write protection (spec H3).
    assert_eq!(store(Mode::Kernel), p | w);
    assert_eq!(code(cpu.fetch(&space, PAGE, Mode::User)), p | u | i);
    // The same from the TLB.
    cpu.load(&space, PAGE, Mode::User).unwrap();
    assert_eq!(store(Mode::User), p | w | u);
    // PROT_NONE keeps its frame and satisfies nothing (spec I14): not present to the processor.
    map(&sim, &space, page(1), Protection::empty());
    assert_eq!(code(cpu.load(&space, page(1), Mode::User)), u);
    // A reserved bit (spec A10).
    let mut cursor = space.lock(PAGE..PAGE + PAGE_SIZE).unwrap();
    let raw = cursor.raw(PAGE);
    cursor.replace_raw(PAGE, raw | 1 << 50);
    drop(cursor);
    cpu.switch(sim.kernel());
    assert_eq!(code(cpu.load(&space, PAGE, Mode::User)), p | u | ErrorCode::RESERVED);
    // Not an address at all.
    assert_eq!(code(cpu.load(&space, VirtAddr(1 << 47), Mode::User)), u);
}

#[test]
fn without_nx_everything_readable_is_executable() {
    let sim = Computer::<Ia32>::new(Config::calm());
    let space = sim.space().unwrap();
    let cpu = sim.cpu(0);
    // The fetch is not distinguished from a load (spec A2).
    assert_eq!(cpu.fetch(&space, PAGE, Mode::User).unwrap_err().code, ErrorCode::USER);
    map(&sim, &space, PAGE, Protection::READ);
    assert_eq!(cpu.fetch(&space, PAGE, Mode::User), Ok(0));
}

#[test]
fn accessed_and_dirty_are_set_by_the_accesses_that_should() {
    let sim = Sim::new(Config::calm());
    let cpu = sim.cpu(0);
    let space = sim.space().unwrap();
    map(&sim, &space, PAGE, RW);
    let bits = || match space.lock(PAGE..PAGE + PAGE_SIZE).unwrap().entry(PAGE) {
        Entry::Present { accessed, dirty, .. } => (accessed, dirty),
        other => panic!("{other:?}"),
    };
    assert_eq!(bits(), (false, false));
    cpu.load(&space, PAGE, Mode::User).unwrap();
    assert_eq!(bits(), (true, false));
    cpu.store(&space, PAGE, Mode::User, 1).unwrap();
    assert_eq!(bits(), (true, true));
}

#[test]
fn a_cached_translation_does_not_mark_a_cleaned_entry_until_it_is_flushed() {
    let sim = Sim::new(Config::calm());
    let cpu = sim.cpu(0);
    let space = sim.space().unwrap();
    let frame = map(&sim, &space, PAGE, RW);
    cpu.store(&space, PAGE, Mode::User, 1).unwrap();
    set(&space, PAGE, present(frame, RW));
    cpu.store(&space, PAGE, Mode::User, 2).unwrap();
    let entry = || space.lock(PAGE..PAGE + PAGE_SIZE).unwrap().entry(PAGE);
    assert_eq!(entry(), present(frame, RW), "the stale translation was believed to be dirty");
    assert!(sim.check_tlbs().unwrap_err().to_string().contains("clean"));
    sim.flush(&space, &[Stale { fate: Fate::Narrowed, ..stale(PAGE, frame) }]);
    cpu.store(&space, PAGE, Mode::User, 3).unwrap();
    assert!(matches!(entry(), Entry::Present { dirty: true, .. }));
}

#[test]
fn a_fault_from_a_stale_translation_is_not_repeated() {
    let sim = Sim::new(Config::calm());
    let cpu = sim.cpu(0);
    let space = sim.space().unwrap();
    let frame = map(&sim, &space, PAGE, Protection::READ);
    cpu.load(&space, PAGE, Mode::User).unwrap();
    // The entry allows more now, without a flush (spec B5).
    set(&space, PAGE, present(frame, RW));
    assert!(cpu.store(&space, PAGE, Mode::User, 1).is_err());
    assert_eq!(sim.stats().stale_faults, 1);
    assert_eq!(cpu.store(&space, PAGE, Mode::User, 1), Ok(()));
}

#[test]
fn tables_take_frames_and_give_them_back() {
    fn check<A: Architecture>(levels: u32) {
        let sim = Computer::<A>::new(Config::calm());
        let before = sim.usage();
        let space = sim.space().unwrap();
        assert_eq!(sim.usage().tables, before.tables + 1);
        let swapped = Entry::Swap(SwapSlot { area: 1, offset: 99 });
        set(&space, PAGE, swapped);
        assert_eq!(sim.usage().tables, before.tables + levels);
        assert_eq!(space.leaves(), 1);
        let all = VirtAddr::ZERO..VirtAddr(1 << (A::TASK_SIZE.value().ilog2()));
        space.prune(all.clone(), all.clone());
        assert_eq!(space.leaves(), 1, "a table with entries stays");
        assert_eq!(set(&space, PAGE, Entry::None), swapped);
        space.prune(PAGE..PAGE + PAGE_SIZE, PAGE..PAGE + PAGE_SIZE);
        assert_eq!(space.leaves(), 1, "a table that serves more than the range stays");
        let far = VirtAddr(PAGE.value() + A::SPAN);
        space.prune(all.clone(), far..far + PAGE_SIZE);
        assert_eq!(space.leaves(), 1, "a table that serves nothing that was unmapped stays");
        space.prune(all, PAGE..PAGE + PAGE_SIZE);
        assert_eq!(space.leaves(), 0);
        assert_eq!(sim.usage().tables, before.tables + 1);
        set(&space, PAGE, swapped);
        drop(space);
        assert_eq!(sim.usage(), before);
    }
    check::<X86_64>(4);
    check::<Ia32>(2);
    check::<Pae>(3);
    check::<Alpha>(3);
}

#[test]
fn a_cursor_finds_the_entries_that_are_not_none() {
    let sim = Sim::new(Config::calm());
    let space = sim.space().unwrap();
    let block = VirtAddr(0x20_0000)..VirtAddr(0x40_0000);
    assert!(space.lock_existing(block.clone()).is_none());
    let at = VirtAddr(0x30_0000);
    set(&space, at, Entry::File(17));
    let cursor = space.lock_existing(block.clone()).unwrap();
    assert_eq!(cursor.next(block.start), Some(at));
    assert_eq!(cursor.entry(at), Entry::File(17));
    assert_eq!(cursor.next(at + PAGE_SIZE), None);
}

#[test]
fn the_nth_allocation_fails_once_and_levels_made_before_stay() {
    let sim = Sim::new(Config::calm());
    let space = sim.space().unwrap();
    sim.fail_nth_allocation(2);
    assert!(space.lock(PAGE..PAGE + PAGE_SIZE).is_err());
    let tables = sim.usage().tables;
    assert!(space.lock(PAGE..PAGE + PAGE_SIZE).is_ok());
    assert_eq!(sim.usage().tables, tables + 2);
    sim.fail_nth_allocation(1);
    assert!(sim.allocate().is_err());
    assert!(sim.allocate().is_ok());
}

#[test]
fn all_frames_can_be_had_and_no_more() {
    let sim = Sim::new(Config { frames: 16, ..Config::calm() });
    let frames: Vec<Frame> = std::iter::from_fn(|| sim.allocate().ok()).collect();
    // One is the reference table's root, one the frame of zeros.
    assert_eq!(frames.len(), 14);
    assert_eq!(sim.free_frames(), 0);
    assert!(sim.space().is_err());
    frames.into_iter().for_each(|frame| sim.free(frame));
    assert_eq!(sim.free_frames(), 14);
}

#[test]
fn computers_that_cannot_be_built_are_refused() {
    let refused = |config| Sim::try_new(config).unwrap_err();
    assert_eq!(refused(Config { frames: 3, ..Config::calm() }), ConfigError::Frames);
    assert_eq!(refused(Config { cpus: 0, ..Config::calm() }), ConfigError::Cpus);
    assert_eq!(refused(Config { cpus: 65, ..Config::calm() }), ConfigError::Cpus);
    let too_many = Config { frames: (1 << 20) + 1, ..Config::calm() };
    assert_eq!(Computer::<Ia32>::try_new(too_many).unwrap_err(), ConfigError::Frames);
    // An entry could name them, but the host has no memory for their records.
    for (frames, device_frames) in
        [(Config::MOST_FRAMES + 1, 0), (4, Config::MOST_FRAMES), (u32::MAX - 1, 0)]
    {
        let too_many = Config { frames, device_frames, ..Config::calm() };
        assert_eq!(refused(too_many), ConfigError::Frames);
    }
    assert!(Sim::try_new(Config { frames: 4, ..Config::calm() }).is_ok());
}

#[test]
fn a_walk_can_be_printed() {
    let sim = Sim::new(Config::calm());
    let space = sim.space().unwrap();
    assert_eq!(space.words(PAGE), [0]);
    let frame = map(&sim, &space, PAGE, RW);
    let words = space.words(PAGE);
    assert_eq!(words.len(), 4);
    assert_eq!(X86_64::frame(words[0]), space.top(PAGE).unwrap());
    assert_eq!(X86_64::decode(words[3]), present(frame, RW));
    assert_eq!(space.words(page(1))[3], 0);
}

#[test]
fn time_passes_with_what_is_done() {
    let sim = Sim::new(Config::calm());
    let before = sim.now();
    sim.free(sim.allocate().unwrap());
    assert!(sim.now() > before + 1);
    sim.advance(1_000_000);
    assert!(sim.now() > before + 1_000_000);
}
