//! Random mappings, accesses and protections against a model in plain bytes, with every hazard on:
//! a program that flushes by the rules never sees a difference, and one that forgets is caught.

use crate::common::{page, present};
use pagefault_machine::{
    Access, Cursor, Entry, Fate, Frame, Machine, Mode, PAGE_SIZE, Protection, Space, Stale,
    VirtAddr,
};
use pagefault_sim::{
    Architecture, Computer, Config, Cpu, Hazards, Ia32, OnViolation, SimSpace, X86_64,
};

const PAGES: u64 = 20;

/// A stream of numbers fixed by its seed (xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// The expected state of a page.
#[derive(Clone)]
struct Model {
    protection: Protection,
    bytes: [u8; 64],
}

/// Whether changes of entries are flushed.
#[derive(Clone, Copy, PartialEq)]
enum Discipline {
    Flush,
    Forget,
}

struct World<A: Architecture> {
    sim: Computer<A>,
    space: SimSpace<A>,
    model: Vec<Option<Model>>,
    discipline: Discipline,
}

impl<A: Architecture> World<A> {
    fn new(seed: u64, discipline: Discipline) -> Self {
        let hazards = Hazards { evictions: 100, prefetches: 100 };
        let on_violation = match discipline {
            Discipline::Flush => OnViolation::Panic,
            Discipline::Forget => OnViolation::Record,
        };
        let config = Config { seed, cpus: 3, frames: 64, hazards, on_violation, ..Config::calm() };
        let sim = Computer::new(config);
        let space = sim.space().unwrap();
        Self { sim, space, model: vec![None; PAGES as usize], discipline }
    }

    fn step(&mut self, numbers: &mut Numbers) {
        let index = numbers.below(PAGES);
        let cpu = self.sim.cpu(numbers.below(3) as u32);
        match numbers.below(12) {
            0 => self.map(index, numbers),
            1 => self.unmap(index),
            2 => self.protect(index, protection(numbers)),
            3 => cpu.idle(),
            4..8 => self.store(&cpu, index, numbers.below(64), numbers.below(256) as u8),
            _ => self.load(&cpu, index, numbers.below(64)),
        }
    }

    fn map(&mut self, index: u64, numbers: &mut Numbers) {
        if self.model[index as usize].is_some() {
            return;
        }
        let frame = self.sim.allocate().unwrap();
        self.sim.zero(frame);
        let protection = protection(numbers);
        crate::common::set(&self.space, page(index), present(frame, protection));
        self.model[index as usize] = Some(Model { protection, bytes: [0; 64] });
    }

    fn unmap(&mut self, index: u64) {
        let Some(model) = self.model[index as usize].take() else { return };
        let old = crate::common::set(&self.space, page(index), Entry::None);
        let Entry::Present { frame, dirty, .. } = old else { panic!("{old:?}") };
        self.flush(index, frame, Fate::Freed);
        self.sim.drain(frame, |page| assert_eq!(page[..64], model.bytes));
        assert!(dirty || model.bytes == [0; 64], "a store went unnoticed");
        self.sim.free(frame);
    }

    fn protect(&mut self, index: u64, protection: Protection) {
        let Some(model) = &mut self.model[index as usize] else { return };
        model.protection = protection;
        let address = page(index);
        let mut cursor = self.space.lock(address..address + PAGE_SIZE).unwrap();
        let old = cursor.protect(address, protection);
        drop(cursor);
        self.flush(index, old.frame().unwrap(), Fate::Narrowed);
    }

    fn store(&mut self, cpu: &Cpu<A>, index: u64, offset: u64, byte: u8) {
        let address = page(index) + offset;
        let allowed = self.allows(index, Protection::WRITE);
        // Stale rights that are too few show once.
        let result = cpu
            .store(&self.space, address, Mode::User, byte)
            .or_else(|_| cpu.store(&self.space, address, Mode::User, byte));
        self.check(address, Access::Write, allowed, result.map(|()| 0));
        if let (true, Some(model)) = (allowed, &mut self.model[index as usize]) {
            model.bytes[offset as usize] = byte;
        }
    }

    fn load(&mut self, cpu: &Cpu<A>, index: u64, offset: u64) {
        let address = page(index) + offset;
        let allowed = self.allows(index, Protection::READ);
        let result = cpu
            .load(&self.space, address, Mode::User)
            .or_else(|_| cpu.load(&self.space, address, Mode::User));
        if let (true, Some(model)) = (allowed, &self.model[index as usize]) {
            assert_eq!(result, Ok(model.bytes[offset as usize]), "{address}");
        }
        self.check(address, Access::Read, allowed, result);
    }

    fn allows(&self, index: u64, right: Protection) -> bool {
        let model = self.model[index as usize].as_ref();
        model.is_some_and(|model| model.protection.contains(right))
    }

    fn check(
        &self,
        address: VirtAddr,
        access: Access,
        allowed: bool,
        result: Result<u8, pagefault_machine::PageFault>,
    ) {
        assert_eq!(result.is_ok(), allowed, "{access:?} at {address}");
        if let Err(fault) = result {
            assert_eq!((fault.address, fault.access()), (address, access));
        }
    }

    fn flush(&self, index: u64, frame: Frame, fate: Fate) {
        if self.discipline == Discipline::Flush {
            self.sim.flush(&self.space, &[Stale { address: page(index), frame, fate }]);
            self.sim.check_tlbs().unwrap();
        }
    }
}

fn protection(numbers: &mut Numbers) -> Protection {
    match numbers.below(4) {
        0 => Protection::empty(),
        1 => Protection::READ,
        _ => Protection::READ | Protection::WRITE,
    }
}

fn run<A: Architecture>(seed: u64, steps: u32, discipline: Discipline) -> Computer<A> {
    let mut world = World::<A>::new(seed, discipline);
    let mut numbers = Numbers(seed * 2 + 1);
    (0..steps).for_each(|_| world.step(&mut numbers));
    (0..PAGES).for_each(|index| world.unmap(index));
    assert_eq!(world.sim.usage().allocated, 0);
    world.sim.clone()
}

#[test]
fn with_every_flush_nothing_is_ever_wrong() {
    for seed in 0..20 {
        run::<X86_64>(seed, 3000, Discipline::Flush);
        run::<Ia32>(seed, 3000, Discipline::Flush);
    }
}

#[test]
fn without_flushes_every_seed_is_caught() {
    for seed in 0..20 {
        let outcome = std::panic::catch_unwind(|| run::<X86_64>(seed, 3000, Discipline::Forget));
        // Either the bytes or the rights were wrong, or the computer noted what was broken.
        assert!(outcome.is_err() || !outcome.unwrap().violations().is_empty(), "seed {seed}");
    }
}
