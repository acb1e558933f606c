//! System V shared memory: segments by number and by key.
//!
//! A segment is a shared memory object with a handle here. How many mappings there are of it is
//! counted when someone asks, over all processes: what fork, munmap and exec do needs no word to us.

use crate::errno::Errno;
use crate::layout::TASK_SIZE;
use crate::machine::Pc;
use crate::process::{self, Process};
use crate::sleep::SleepMutex;
use crate::{clock, kernel};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use pagefault::machine::{PAGE_SIZE, VirtAddr};
use pagefault::{File, RegionReport};

/// The key that names no segment.
pub const PRIVATE: i32 = 0;

const IPC_CREAT: u32 = 0o1000;
const IPC_EXCL: u32 = 0o2000;

/// The most segments (Linux: `SHMMNI`).
const MOST: usize = 4096;

const SECOND: u64 = 1_000_000_000;

/// A segment.
#[derive(Clone)]
pub struct Segment {
    /// Its key; [`PRIVATE`] also once it is to go.
    pub key: i32,
    /// The key that it was made with, by which `maps` calls it.
    pub name: i32,
    /// Its memory.
    pub file: File<Pc>,
    /// Its size in bytes, as asked for.
    pub size: u64,
    /// The permissions, and whether it is to go ([`DESTROYED`]).
    pub mode: u32,
    /// Owner and group, then the same of who made it.
    pub owners: [u32; 4],
    /// Who made it.
    pub maker: u32,
    /// Who attached or detached it last.
    pub last: u32,
    /// When it was attached, detached and changed last, in seconds since 1970.
    pub times: [u64; 3],
}

/// In the mode: it goes with its last mapping.
pub const DESTROYED: u32 = 0o1000;

/// A time to note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Time {
    Attached,
    Detached,
    Changed,
}

struct Segments {
    by_number: BTreeMap<u32, Segment>,
    next: u32,
}

static SEGMENTS: SleepMutex<Segments> =
    SleepMutex::new(Segments { by_number: BTreeMap::new(), next: 0 });

impl Segment {
    fn note(&mut self, time: Time) {
        self.times[time as usize] = clock::since_1970() / SECOND;
        if time != Time::Changed {
            self.last = process::current().id;
        }
    }

    /// How many regions there are over it, in all processes.
    pub fn mappings(&self) -> u64 {
        let mut spaces: Vec<_> =
            process::all().iter().filter_map(|process| process.space.lock().clone()).collect();
        spaces.sort_by_key(|space| space.id());
        spaces.dedup_by_key(|space| space.id());
        let maps = |space: &Arc<pagefault::AddressSpace<Pc>>| {
            let all = space.maps(VirtAddr(0)..VirtAddr(TASK_SIZE));
            all.iter().filter(|region| region.object == Some(self.file.id())).count() as u64
        };
        spaces.iter().map(maps).sum()
    }
}

/// Finds or makes a segment (`shmget`).
pub fn get(key: i32, size: u64, flags: u32) -> Result<u32, Errno> {
    sweep();
    let mut segments = SEGMENTS.lock();
    let found = segments.by_number.iter().find(|(_, segment)| segment.key == key);
    if let Some((number, segment)) = found.filter(|_| key != PRIVATE) {
        if flags & IPC_CREAT != 0 && flags & IPC_EXCL != 0 {
            return Err(Errno::EEXIST);
        }
        return if size > segment.size { Err(Errno::EINVAL) } else { Ok(*number) };
    }
    if key != PRIVATE && flags & IPC_CREAT == 0 {
        return Err(Errno::ENOENT);
    }
    if size == 0 || i64::try_from(size).is_err() {
        return Err(Errno::EINVAL);
    }
    if segments.by_number.len() >= MOST {
        return Err(Errno::ENOSPC);
    }
    let process = process::current();
    let [user, group] = {
        let identity = process.identity.lock();
        [identity.users[1], identity.groups[1]]
    };
    let segment = Segment {
        key,
        name: key,
        file: File::shared(&kernel().manager, size),
        size,
        mode: flags & 0o777,
        owners: [user, group, user, group],
        maker: process.id,
        last: 0,
        times: [0, 0, clock::since_1970() / SECOND],
    };
    let number = segments.next;
    segments.next = (number + 1) & i32::MAX as u32;
    segments.by_number.insert(number, segment);
    Ok(number)
}

/// A segment by number.
pub fn find(number: u32) -> Result<Segment, Errno> {
    sweep();
    SEGMENTS.lock().by_number.get(&number).cloned().ok_or(Errno::EINVAL)
}

/// The segments with their numbers.
pub fn all() -> Vec<(u32, Segment)> {
    sweep();
    SEGMENTS.lock().by_number.iter().map(|(number, segment)| (*number, segment.clone())).collect()
}

/// Changes a segment.
fn change(number: u32, f: impl FnOnce(&mut Segment)) {
    if let Some(segment) = SEGMENTS.lock().by_number.get_mut(&number) {
        f(segment);
    }
}

/// Notes that a process has mapped a segment.
pub fn note_attached(number: u32) {
    change(number, |segment| segment.note(Time::Attached));
}

/// Gives a segment another owner and other permissions (`IPC_SET`).
pub fn set(number: u32, owners: [u32; 2], mode: u32) -> Result<(), Errno> {
    find(number)?;
    change(number, |segment| {
        segment.owners[..2].copy_from_slice(&owners);
        segment.mode = segment.mode & !0o777 | mode & 0o777;
        segment.note(Time::Changed);
    });
    Ok(())
}

/// Lets a segment go with its last mapping (`IPC_RMID`).
pub fn remove(number: u32) -> Result<(), Errno> {
    find(number)?;
    change(number, |segment| {
        segment.key = PRIVATE;
        segment.mode |= DESTROYED;
    });
    sweep();
    Ok(())
}

/// Removes the deleted segments that no process maps any more.
fn sweep() {
    let marked: Vec<u32> = {
        let segments = SEGMENTS.lock();
        let marked = segments.by_number.iter().filter(|(_, s)| s.mode & DESTROYED != 0);
        marked.map(|(number, _)| *number).collect()
    };
    for number in marked {
        // Counted without the lock: that looks at every process.
        let segment = SEGMENTS.lock().by_number.get(&number).cloned();
        if segment.is_some_and(|segment| segment.mappings() == 0) {
            let gone = SEGMENTS.lock().by_number.remove(&number);
            drop(gone);
        }
    }
}

/// Unmaps the segment that is mapped from an address on (`shmdt`).
pub fn detach(process: &Process, address: u64) -> Result<(), Errno> {
    let space = process.space.lock().clone().ok_or(Errno::EINVAL)?;
    let regions = space.maps(VirtAddr(address)..VirtAddr(TASK_SIZE));
    let is_whole = |region: &&RegionReport| {
        region.range.start.value().wrapping_sub(address) / PAGE_SIZE == region.index
    };
    let segments = all();
    let segment_of = |region: &RegionReport| {
        segments.iter().find(|(_, segment)| Some(segment.file.id()) == region.object)
    };
    let found = regions.iter().filter(is_whole).find_map(segment_of);
    let &(number, ref segment) = found.ok_or(Errno::EINVAL)?;
    let end = VirtAddr(address.saturating_add(segment.size.next_multiple_of(PAGE_SIZE)));
    // Another thread may have unmapped it meanwhile, and mapped something else there.
    if !space.unmap_object(VirtAddr(address)..end, segment.file.id()) {
        return Err(Errno::EINVAL);
    }
    change(number, |segment| segment.note(Time::Detached));
    drop(segments);
    sweep();
    Ok(())
}
