//! The machine under a toy memory manager: faults, eviction, protection, fetches, both deliveries.

mod toy;

use pagefault_linux::{Delivery, Signal};
use pagefault_machine::{Entry, Fate, Machine, Protection, VirtAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use toy::{PAGE, page};

const BOTH: [Delivery; 2] = [Delivery::Inline, Delivery::Threads(2)];

#[test]
fn anonymous_memory_reads_zero_and_keeps_what_is_stored() {
    for delivery in BOTH {
        let run = toy::run(16, 8, delivery);
        let space = &run.toy.space;
        let mut bytes = [1; 6];
        space.load(page(3) + 4093, &mut bytes).unwrap();
        assert_eq!(bytes, [0; 6]);
        space.store(page(3) + 4093, b"across").unwrap();
        space.load(page(3) + 4093, &mut bytes).unwrap();
        assert_eq!(&bytes, b"across");
        assert!(space.load(page(16), &mut bytes).is_err());
    }
}

#[test]
fn a_fault_that_is_a_signal_is_exact_to_the_byte() {
    for delivery in BOTH {
        let run = toy::run(2, 8, delivery);
        let fault = run.toy.space.store(page(2) - 5, b"0123456789").unwrap_err();
        assert_eq!((fault.signal, fault.address, fault.done), (Signal::NotMapped, page(2), 5));
        let mut bytes = [0; 5];
        run.toy.space.load(page(2) - 5, &mut bytes).unwrap();
        assert_eq!(&bytes, b"01234");
        let end = run.toy.space.range().end;
        assert_eq!(run.toy.space.load(end, &mut bytes).unwrap_err().signal, Signal::NotMapped);
        run.toy.protect(Protection::READ);
        run.toy.space.load(page(2) - 5, &mut bytes).unwrap();
        let fault = run.toy.space.store(page(1) + 7, &[1]).unwrap_err();
        assert_eq!((fault.signal, fault.address, fault.done), (Signal::Forbidden, page(1) + 7, 0));
        run.toy.protect(Protection::empty());
        let fault = run.toy.space.load(page(1) + 9, &mut bytes).unwrap_err();
        assert_eq!((fault.signal, fault.address), (Signal::Forbidden, page(1) + 9));
        run.toy.protect(Protection::READ | Protection::WRITE);
        run.toy.space.store(page(1) + 7, &[1]).unwrap();
    }
}

#[test]
fn evicted_pages_come_back_and_the_limit_holds() {
    for delivery in BOTH {
        let run = toy::run(400, 50, delivery);
        let toy = &run.toy;
        for round in 0..3_u64 {
            for index in 0..400 {
                let at = page(index) + index % 512 * 8;
                let mut bytes = [0; 8];
                toy.space.load(at, &mut bytes).unwrap();
                let expected = if round == 0 { 0 } else { index * 31 + round - 1 };
                assert_eq!(u64::from_ne_bytes(bytes), expected);
                toy.space.store(at, &(index * 31 + round).to_ne_bytes()).unwrap();
            }
            let resident = toy::resident(toy.space.host_address(page(0)).unwrap(), 400);
            let parked = toy.machine.counters().buffers_resident as usize;
            assert!(resident > 40 && resident + parked <= 50 + 64, "{resident} and {parked}");
        }
    }
}

#[test]
fn a_known_translation_does_not_trouble_the_manager() {
    let run = toy::run(8, 8, Delivery::Inline);
    let toy = &run.toy;
    toy.space.store(page(1), b"content").unwrap();
    let faults = toy.faults();
    let frame = toy.entry(page(1)).frame().unwrap();
    // Reading or copying a frame as the kernel does leaves its page the right to store on the host: a
    // call may have it pinned, and the host's own stores cannot wait for a fault.
    toy.machine.drain(frame, |page| assert_eq!(&page[..7], b"content"));
    let copy = toy.machine.allocate().unwrap();
    toy.machine.copy(frame, copy);
    toy.space.store(page(1), b"contend").unwrap();
    toy.machine.drain(copy, |page| assert_eq!(&page[..7], b"content"));
    assert_eq!(toy.machine.counters().absorbed, 0);
    // Changing a mapped frame as the kernel does takes the page from the host.
    toy.machine.fill(frame, |page| page[0] = b'C');
    let mut bytes = [0; 7];
    toy.space.load(page(1), &mut bytes).unwrap();
    assert_eq!(&bytes, b"Contend");
    assert_eq!(toy.faults(), faults);
    assert!(toy.machine.counters().absorbed >= 1);
    toy.machine.free(copy);
}

#[test]
fn a_frame_shared_by_two_addresses_is_pulled_over() {
    let run = toy::run(8, 8, Delivery::Inline);
    let toy = &run.toy;
    toy.space.store(page(1), b"shared").unwrap();
    let entry = toy.entry(page(1));
    toy.replace(page(5), entry);
    for round in 0..4_u8 {
        for index in [1, 5] {
            let mut bytes = [0; 6];
            toy.space.load(page(index), &mut bytes).unwrap();
            assert_eq!(&bytes[1..], b"hared");
            toy.space.store(page(index), &[round]).unwrap();
        }
        let mut first = [0];
        toy.space.load(page(1), &mut first).unwrap();
        assert_eq!(first, [round]);
    }
    assert!(toy.machine.counters().pulled >= 8);
    toy.replace(page(5), Entry::None);
    toy.flush(page(5), entry.frame().unwrap(), Fate::Kept);
}

#[test]
fn a_replaced_frame_makes_room_for_the_new_one() {
    let run = toy::run(8, 8, Delivery::Inline);
    let toy = &run.toy;
    toy.space.store(page(1), b"before").unwrap();
    let Entry::Present { frame: old, protection, accessed, dirty } = toy.entry(page(1)) else {
        panic!("the page is not present");
    };
    let new = toy.machine.allocate().unwrap();
    toy.machine.copy(old, new);
    toy.machine.fill(new, |page| page[..6].copy_from_slice(b"behind"));
    // The stale page is still on the host when the new entry is first used.
    toy.replace(page(1), Entry::Present { frame: new, protection, accessed, dirty });
    toy.flush(page(1), old, Fate::Kept);
    let mut bytes = [0; 6];
    toy.space.load(page(1), &mut bytes).unwrap();
    assert_eq!(&bytes, b"behind");
    toy.machine.drain(old, |page| assert_eq!(&page[..6], b"before"));
}

#[test]
fn fetches_need_the_right_to_execute() {
    for delivery in BOTH {
        let run = toy::run(8, 8, delivery);
        let toy = &run.toy;
        const RET: [u8; 1] = [0xc3];
        toy.space.store(page(1) + 17, &RET).unwrap();
        for _ in 0..3 {
            // SAFETY: the code is a return instruction.
            unsafe { toy.space.fetch(page(1) + 17) }.unwrap();
        }
        let faults = toy.faults();
        toy.protect(Protection::READ | Protection::WRITE);
        // SAFETY: as above.
        let fault = unsafe { toy.space.fetch(page(1) + 17) }.unwrap_err();
        assert_eq!((fault.signal, fault.address), (Signal::Forbidden, page(1) + 17));
        assert_eq!(toy.faults(), faults + 1);
        // SAFETY: as above.
        let fault = unsafe { toy.space.fetch(VirtAddr(0x1000)) }.unwrap_err();
        assert_eq!((fault.signal, fault.address), (Signal::NotMapped, VirtAddr(0x1000)));
        toy.protect(Protection::all());
        // SAFETY: as above.
        unsafe { toy.space.fetch(page(1) + 17) }.unwrap();
    }
}

#[test]
fn no_store_is_lost_under_concurrent_eviction() {
    for delivery in BOTH {
        const THREADS: u64 = 3;
        const PAGES: u64 = 130;
        let run = toy::run(PAGES, 40, delivery);
        let (toy, done, rounds) = (&run.toy, &AtomicBool::new(false), &AtomicU64::new(0));
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..THREADS)
                .map(|t| {
                    scope.spawn(move || {
                        for round in 0..150_u64 {
                            for i in 0..PAGES {
                                let index = (i * 37 + round * 11 * t) % PAGES;
                                let at = page(index) + t * 8;
                                let mut bytes = [0; 8];
                                toy.space.load(at, &mut bytes).unwrap();
                                assert_eq!(u64::from_ne_bytes(bytes), round, "page {index}");
                                toy.space.store(at, &(round + 1).to_ne_bytes()).unwrap();
                            }
                            rounds.fetch_add(1, Relaxed);
                        }
                    })
                })
                .collect();
            scope.spawn(move || {
                while !done.load(Relaxed) {
                    toy.evict(13);
                    std::thread::yield_now();
                }
            });
            for worker in workers {
                worker.join().unwrap();
            }
            done.store(true, Relaxed);
        });
        assert_eq!(rounds.load(Relaxed), THREADS * 150);
    }
}

#[test]
fn discarded_pages_read_zero() {
    let run = toy::run(8, 8, Delivery::Inline);
    for index in 0..8 {
        run.toy.space.store(page(index), &[7; 4096]).unwrap();
    }
    let free = run.toy.machine.free_frames();
    run.toy.discard(page(2));
    assert_eq!(run.toy.machine.free_frames(), free + 1);
    let mut bytes = [1; PAGE as usize];
    run.toy.space.load(page(2), &mut bytes).unwrap();
    assert_eq!(bytes, [0; PAGE as usize]);
}
