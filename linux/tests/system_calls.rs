//! Thread delivery: the kernel's accesses on the program's behalf; and what inline delivery says.

mod toy;

use pagefault_linux::Delivery;
use pagefault_machine::Protection;
use rustix::io::Errno;
use std::time::{Duration, Instant};
use toy::page;

/// Lets the kernel store bytes at an address, through a pipe.
fn kernel_store(to: *mut u8, bytes: &[u8]) -> Result<usize, Errno> {
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    rustix::io::write(&writer, bytes).unwrap();
    // SAFETY: the kernel checks the range; nobody refers to managed memory.
    rustix::io::read(&reader, unsafe { std::slice::from_raw_parts_mut(to, bytes.len()) })
}

#[test]
fn system_calls_reach_absent_and_evicted_pages() {
    let run = toy::run(64, 16, Delivery::Threads(2));
    let toy = &run.toy;
    for index in 0..64_u8 {
        let at = page(u64::from(index)) + 100;
        let host = toy.space.host_address(at).unwrap();
        assert_eq!(kernel_store(host, &[index; 200]), Ok(200));
    }
    for index in 0..64_u8 {
        let mut bytes = [0; 200];
        toy.space.load(page(u64::from(index)) + 100, &mut bytes).unwrap();
        assert_eq!(bytes, [index; 200]);
    }
}

#[test]
fn a_system_call_on_a_bad_address_fails_and_does_not_hang() {
    let run = toy::run(4, 16, Delivery::Threads(1));
    let toy = &run.toy;
    toy.protect(Protection::empty());
    let host = toy.space.host_address(page(1)).unwrap();
    assert_eq!(kernel_store(host, b"no"), Err(Errno::FAULT));
    // The program's own access still gets its signal.
    assert!(toy.space.store(page(1), b"no").is_err());
    toy.protect(Protection::all());
    let deadline = Instant::now() + Duration::from_secs(60);
    while kernel_store(host, b"yes") != Ok(3) {
        assert!(Instant::now() < deadline, "the page stays inaccessible");
    }
    let mut bytes = [0; 3];
    toy.space.load(page(1), &mut bytes).unwrap();
    assert_eq!(&bytes, b"yes");
}

#[test]
fn a_system_call_that_stores_to_a_read_only_page_fails() {
    let run = toy::run(4, 16, Delivery::Threads(1));
    let toy = &run.toy;
    toy.space.store(page(1), b"content").unwrap();
    toy.protect(Protection::READ);
    let mut bytes = [0; 7];
    toy.space.load(page(1), &mut bytes).unwrap();
    let host = toy.space.host_address(page(1)).unwrap();
    assert_eq!(kernel_store(host, b"no"), Err(Errno::FAULT));
    // Its content stays, and the program may load it at once.
    toy.space.load(page(1), &mut bytes).unwrap();
    assert_eq!(&bytes, b"content");
    toy.protect(Protection::all());
    assert_eq!(kernel_store(host, b"yes"), Ok(3));
    toy.space.load(page(1), &mut bytes).unwrap();
    assert_eq!(&bytes, b"yestent");
}

#[test]
fn a_poisoned_page_is_usable_at_once_by_the_program() {
    let run = toy::run(4, 16, Delivery::Threads(1));
    let toy = &run.toy;
    toy.protect(Protection::empty());
    let host = toy.space.host_address(page(2)).unwrap();
    for _ in 0..50 {
        assert_eq!(kernel_store(host, b"no"), Err(Errno::FAULT));
    }
    toy.protect(Protection::all());
    toy.space.store(page(2), b"now").unwrap();
    assert_eq!(kernel_store(host, b"too"), Ok(3));
}

#[test]
fn under_inline_delivery_absent_pages_are_bad_addresses() {
    let run = toy::run(4, 16, Delivery::Inline);
    let toy = &run.toy;
    let host = toy.space.host_address(page(1)).unwrap();
    assert_eq!(kernel_store(host, b"absent"), Err(Errno::FAULT));
    toy.space.store(page(1), b"present").unwrap();
    assert_eq!(kernel_store(host, b"present"), Ok(7));
}
