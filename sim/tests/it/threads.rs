//! Threads of the host that each drive a CPU, all at once.

use crate::common::{RW, page, present, set, stale};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use pagefault_machine::{Access, Cursor, Entry, Machine, Mode, PAGE_SIZE, Space, VirtAddr};
use pagefault_sim::{Config, Cpu, Hazards, Sim, SimSpace, X86_64};
use std::thread::scope;

/// Answers a fault as the smallest memory manager would: a frame of zeros, unless another CPU was
/// faster. The frame's first byte is the page's number, its second is the sign that it is complete.
fn fault(sim: &Sim, space: &SimSpace<X86_64>, address: VirtAddr) {
    let address = address.page();
    let frame = sim.allocate().unwrap();
    sim.fill(frame, |page| {
        page.fill(0);
        page[0] = address.page_number() as u8;
        page[1] = 0xc0;
    });
    let mut cursor = space.lock(address..address + PAGE_SIZE).unwrap();
    if cursor.entry(address).is_none() {
        cursor.replace(address, present(frame, RW));
    } else {
        drop(cursor);
        sim.free(frame);
    }
}

fn load(sim: &Sim, cpu: &Cpu<X86_64>, space: &SimSpace<X86_64>, address: VirtAddr) -> u8 {
    loop {
        match cpu.load(space, address, Mode::User) {
            Ok(byte) => return byte,
            Err(fault_at) => {
                assert_eq!(fault_at.access(), Access::Read);
                fault(sim, space, fault_at.address);
            }
        }
    }
}

#[test]
fn pages_appear_and_go_while_all_cpus_use_them() {
    const PAGES: u64 = 24;
    let hazards = Hazards { evictions: 64, prefetches: 64 };
    let sim = Sim::new(Config { cpus: 4, hazards, frames: 256, ..Config::default() });
    let space = sim.space().unwrap();
    let before = sim.usage();
    let done = AtomicBool::new(false);
    scope(|scope| {
        let users: Vec<_> = (0..3u32)
            .map(|number| {
                let (sim, space) = (&sim, &space);
                scope.spawn(move || {
                    let cpu = sim.cpu(number);
                    for round in 0..4000u64 {
                        let address = page((round * 7 + u64::from(number) * 5) % PAGES);
                        let byte = load(sim, &cpu, space, address);
                        assert_eq!(byte, address.page_number() as u8);
                        assert_eq!(load(sim, &cpu, space, address + 1), 0xc0);
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            let mut at = 0;
            while !done.load(SeqCst) {
                at = (at + 5) % PAGES;
                let old = set(&space, page(at), Entry::None);
                if let Some(frame) = old.frame() {
                    sim.flush(&space, &[stale(page(at), frame)]);
                    // Panics if any TLB still maps it.
                    sim.free(frame);
                }
                if at == 0 {
                    let all = VirtAddr::ZERO..VirtAddr(1 << 39);
                    space.prune(all.clone(), all);
                }
                std::thread::yield_now();
            }
        });
        users.into_iter().for_each(|user| user.join().unwrap());
        done.store(true, SeqCst);
    });
    sim.check_tlbs().unwrap();
    (0..PAGES).for_each(|index| crate::common::unmap(&sim, &space, page(index)));
    let all = VirtAddr::ZERO..VirtAddr(1 << 47);
    space.prune(all.clone(), all);
    assert_eq!(sim.usage(), before, "every frame and every table came back");
}

#[test]
fn levels_are_made_once_however_many_threads_need_them() {
    for _ in 0..50 {
        let sim = Sim::new(Config { frames: 64, ..Config::calm() });
        let space = sim.space().unwrap();
        let before = sim.usage().tables;
        scope(|scope| {
            for index in 0..4 {
                let space = &space;
                scope.spawn(move || set(space, page(index), Entry::File(index)));
            }
        });
        assert_eq!(space.leaves(), 1);
        assert_eq!(sim.usage().tables, before + 3);
        let all = space.lock_existing(page(0)..page(4)).unwrap();
        (0..4).for_each(|index| assert_eq!(all.entry(page(index)), Entry::File(index)));
    }
}

#[test]
fn stores_of_two_cpus_beside_each_other_are_both_kept() {
    let sim = Sim::new(Config { cpus: 2, ..Config::calm() });
    let space = sim.space().unwrap();
    crate::common::map(&sim, &space, page(0), RW);
    scope(|scope| {
        for cpu in 0..2u32 {
            let (sim, space) = (&sim, &space);
            scope.spawn(move || {
                let cpu = sim.cpu(cpu);
                for round in 0..2000u64 {
                    let at = page(0) + (round % 64) * 2 + u64::from(cpu.number());
                    cpu.store(space, at, Mode::User, (round / 64 + 1) as u8).unwrap();
                }
            });
        }
    });
    let mut bytes = [0; 128];
    sim.cpu(0).load_bytes(&space, page(0), Mode::User, &mut bytes).unwrap();
    for (index, byte) in bytes.into_iter().enumerate() {
        let last = if index / 2 < 2000 % 64 { 2000 / 64 + 1 } else { 2000 / 64 };
        assert_eq!(byte, last as u8, "byte {index}");
    }
}

#[test]
fn waiters_sleep_until_they_are_woken() {
    let sim = Sim::new(Config::calm());
    let word = AtomicU32::new(0);
    scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while word.load(SeqCst) == 0 {
                    sim.wait(&word, 0);
                }
            });
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
        word.store(1, SeqCst);
        sim.wake(&word);
    });
}

#[test]
fn living_threads_have_different_numbers() {
    let sim = Sim::new(Config::calm());
    let barrier = std::sync::Barrier::new(4);
    let numbers = std::sync::Mutex::new(std::collections::BTreeSet::new());
    scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                assert!(numbers.lock().unwrap().insert(sim.context().0));
                assert_eq!(sim.context(), sim.context());
                barrier.wait();
            });
        }
    });
    assert_eq!(numbers.lock().unwrap().len(), 4);
}
