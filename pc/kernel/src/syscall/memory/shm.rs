//! shmget, shmat, shmdt and shmctl.

use super::super::Result;
use super::mm;
use crate::errno::Errno;
use crate::shm::{self, Segment};
use crate::{process, user};
use alloc::vec::Vec;
use pagefault::machine::{PAGE_SIZE, Protection, VirtAddr};
use pagefault::{FileAccess, MapOptions, MapRequest, Placement, Sharing, Source};

const SHM_RDONLY: u32 = 0o10_000;
const SHM_RND: u32 = 0o20_000;
const SHM_REMAP: u32 = 0o40_000;
const SHM_EXEC: u32 = 0o100_000;

const IPC_RMID: u32 = 0;
const IPC_SET: u32 = 1;
const IPC_STAT: u32 = 2;
const IPC_INFO: u32 = 3;
const SHM_LOCK: u32 = 11;
const SHM_UNLOCK: u32 = 12;
const SHM_STAT: u32 = 13;
const SHM_INFO: u32 = 14;
const SHM_STAT_ANY: u32 = 15;
/// Structures of the 64-bit form, which are all that there are here.
const IPC_64: u32 = 0x100;

pub(super) fn get(key: u32, size: u64, flags: u32) -> Result {
    shm::get(key as i32, size, flags).map(u64::from)
}

pub(super) fn attach(number: u32, address: u64, flags: u32) -> Result {
    let segment = shm::find(number)?;
    let has = |flag| flags & flag != 0;
    let mut at = address;
    if !at.is_multiple_of(PAGE_SIZE) {
        if !has(SHM_RND) {
            return Err(Errno::EINVAL);
        }
        at -= at % PAGE_SIZE;
    }
    if at == 0 && has(SHM_REMAP) {
        return Err(Errno::EINVAL);
    }
    let length = segment.size.next_multiple_of(PAGE_SIZE);
    let placement = match VirtAddr(at) {
        VirtAddr(0) => Placement::Anywhere,
        at if has(SHM_REMAP) => Placement::Fixed(at),
        at => Placement::FixedNoReplace(at),
    };
    let mut protection = Protection::READ;
    protection.set(Protection::WRITE, !has(SHM_RDONLY));
    protection.set(Protection::EXECUTE, has(SHM_EXEC));
    let access = if has(SHM_RDONLY) { FileAccess::READ } else { FileAccess::all() };
    let source = Source::File { file: &segment.file, offset: 0, access };
    let (sharing, options) = (Sharing::Shared, MapOptions::empty());
    let request = MapRequest { length, protection, sharing, placement, source, options };
    let mapped = mm().mmap(&request).map_err(|error| match Errno::from(error) {
        // What is there is in the way.
        Errno::EEXIST => Errno::EINVAL,
        other => other,
    })?;
    shm::note_attached(number);
    Ok(mapped.value())
}

pub(super) fn detach(address: u64) -> Result {
    shm::detach(process::current(), address)?;
    Ok(0)
}

pub(super) fn control(number: u32, command: u32, to: u64) -> Result {
    match command & !IPC_64 {
        IPC_RMID => shm::remove(number).map(|()| 0),
        IPC_STAT => write_status(&shm::find(number)?, to).map(|_| 0),
        SHM_STAT | SHM_STAT_ANY => {
            let all = shm::all();
            let (id, segment) = all.get(number as usize).ok_or(Errno::EINVAL)?;
            write_status(segment, to).map(|_| u64::from(*id))
        }
        IPC_SET => {
            let word = |at: u64| user::read(to.wrapping_add(at)).map(u32::from_le_bytes);
            shm::set(number, [word(4)?, word(8)?], word(20)?).map(|()| 0)
        }
        IPC_INFO => {
            let words = [u64::MAX - (1 << 24), 1, 4096, 4096, u64::MAX - (1 << 24), 0, 0, 0, 0];
            write_words(to, &words)?;
            Ok(last_index())
        }
        SHM_INFO => {
            let all = shm::all();
            let pages = all.iter().map(|(_, segment)| segment.size.div_ceil(PAGE_SIZE)).sum();
            write_words(to, &[all.len() as u64, pages, 0, 0, 0, 0])?;
            Ok(last_index())
        }
        // Its pages may still go to swap.
        SHM_LOCK | SHM_UNLOCK => shm::find(number).map(|_| 0),
        _ => Err(Errno::EINVAL),
    }
}

fn last_index() -> u64 {
    shm::all().len().saturating_sub(1) as u64
}

fn write_words(to: u64, words: &[u64]) -> Result {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    user::write(to, &bytes)?;
    Ok(0)
}

/// Writes a `struct shmid_ds`.
fn write_status(segment: &Segment, to: u64) -> Result {
    let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    let [user, group, made_by, made_by_group] = segment.owners;
    let [attached, detached, changed] = segment.times;
    let words = [
        pair(segment.key as u32, user),
        pair(group, made_by),
        pair(made_by_group, segment.mode),
        0,
        0,
        0,
        segment.size,
        attached,
        detached,
        changed,
        pair(segment.maker, segment.last),
        segment.mappings(),
        0,
        0,
    ];
    write_words(to, &words)
}
