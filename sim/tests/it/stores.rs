//! The disk and the file.

use pagefault_machine::{Backing, IoError, PAGE_SIZE, SwapDevice};
use pagefault_sim::{DiskStats, SimDisk, SimFile, SimRwLock};
use std::panic::{AssertUnwindSafe, catch_unwind};

const SIZE: usize = PAGE_SIZE as usize;

#[test]
fn a_disk_gives_back_what_was_written_last() {
    let disk = SimDisk::new(4);
    let mut page = [0; SIZE];
    disk.write(1, &[1; SIZE]).unwrap();
    disk.write(3, &[3; SIZE]).unwrap();
    disk.write(1, &[2; SIZE]).unwrap();
    disk.read(1, &mut page).unwrap();
    assert_eq!(page, [2; SIZE]);
    disk.discard(1);
    assert!(!disk.holds(1) && disk.holds(3));
    assert_eq!(disk.read(1, &mut page), Err(IoError::Device));
    assert_eq!(disk.write(0, &page), Err(IoError::Device));
    assert_eq!(disk.write(4, &page), Err(IoError::Device));
    assert_eq!(disk.stats(), DiskStats { reads: 2, writes: 5, discards: 1, stored: 1 });
}

#[test]
fn the_nth_operation_of_a_disk_fails_once() {
    let disk = SimDisk::new(4);
    let mut page = [0; SIZE];
    disk.fail_nth_write(2);
    assert_eq!(disk.write(1, &page), Ok(()));
    assert_eq!(disk.write(2, &page), Err(IoError::Device));
    assert_eq!(disk.write(2, &page), Ok(()));
    disk.fail_nth_read(1);
    assert_eq!(disk.read(1, &mut page), Err(IoError::Device));
    assert_eq!(disk.read(1, &mut page), Ok(()));
}

#[test]
fn a_disk_can_be_full_before_its_slots_are_used() {
    let disk = SimDisk::new(10);
    disk.set_capacity(1);
    assert_eq!(disk.write(5, &[1; SIZE]), Ok(()));
    assert_eq!(disk.write(6, &[1; SIZE]), Err(IoError::Full));
    assert_eq!(disk.write(5, &[2; SIZE]), Ok(()), "replacing a page takes no more room");
    disk.discard(5);
    assert_eq!(disk.write(6, &[1; SIZE]), Ok(()));
}

#[test]
fn a_file_reads_by_page_and_ends_where_it_ends() {
    let file = SimFile::pattern(PAGE_SIZE + 10, 5);
    let mut page = [0; SIZE];
    file.read(1, &mut page).unwrap();
    for (index, byte) in (PAGE_SIZE..PAGE_SIZE + 10).zip(page) {
        assert_eq!(byte, SimFile::pattern_byte(index, 5));
        assert_eq!(byte, (index * 31 + 7 + 5) as u8);
    }
    assert!(page[10..].iter().all(|byte| *byte == 0));
    // The last page is written only as far as the file reaches.
    file.write(1, &[9; 10]).unwrap();
    assert_eq!(file.len(), Ok(PAGE_SIZE + 10));
    assert_eq!(&file.contents()[SIZE..], [9; 10]);
    // A write that lost a race with a truncation is dropped.
    file.set_len(5).unwrap();
    file.write(1, &[1; 10]).unwrap();
    assert_eq!(file.len(), Ok(5));
    file.set_len(8).unwrap();
    assert_eq!(&file.contents()[5..], [0; 3]);
}

#[test]
fn a_file_is_sparse_to_the_last_offset() {
    const LAST: u64 = i64::MAX as u64 / PAGE_SIZE;
    let file = SimFile::zeros(i64::MAX as u64);
    file.write(LAST, &[7; SIZE]).unwrap();
    let mut page = [0; SIZE];
    file.read(LAST, &mut page).unwrap();
    assert_eq!((page[SIZE - 2], page[SIZE - 1]), (7, 0), "the file ends a byte before its page");
    file.set_len(LAST * PAGE_SIZE + 1).unwrap();
    file.set_len(LAST * PAGE_SIZE + 3).unwrap();
    file.read(LAST, &mut page).unwrap();
    assert_eq!(page[..3], [7, 0, 0], "what a shorter file lost is zeros");
    // A store across pages, and what lies beyond a whole page.
    file.overwrite(PAGE_SIZE - 1, &[1, 2]);
    file.set_len(PAGE_SIZE).unwrap();
    file.set_len(2 * PAGE_SIZE).unwrap();
    assert_eq!(file.contents()[SIZE - 1..=SIZE], [1, 0]);
}

#[test]
fn the_nth_operation_of_a_file_fails_once() {
    let file = SimFile::new(vec![0; SIZE]);
    let mut page = [0; SIZE];
    file.fail_nth_read(1);
    file.fail_nth_write(1);
    file.fail_nth_make_writable(1);
    assert_eq!(file.read(0, &mut page), Err(IoError::Device));
    assert_eq!(file.write(0, &page), Err(IoError::Device));
    assert_eq!(file.make_writable(0), Err(IoError::Device));
    assert_eq!(file.read(0, &mut page), Ok(()));
    assert_eq!(file.write(0, &page), Ok(()));
    assert_eq!(file.make_writable(0), Ok(()));
    file.opened();
    file.closed();
    file.sync().unwrap();
    let stats = file.stats();
    assert_eq!((stats.reads, stats.writes, stats.made_writable), (2, 2, 2));
    assert_eq!((stats.opened, stats.closed, stats.syncs), (1, 1, 1));
}

#[test]
fn devices_are_not_to_be_called_under_a_lock() {
    let lock = lock_api::RwLock::<SimRwLock, _>::new(());
    let disk = SimDisk::new(4);
    let write = || catch_unwind(AssertUnwindSafe(|| disk.write(1, &[0; SIZE])));
    assert!(write().is_ok());
    let guard = lock.read();
    let payload = write().unwrap_err();
    let message = payload.downcast_ref::<String>().unwrap();
    assert!(message.contains("holds 1 locks"), "{message}");
    disk.tolerate_locks();
    assert!(write().is_ok());
    drop(guard);
}
