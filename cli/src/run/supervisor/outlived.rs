//! Memory that outlives the process that it is charged to, because a `vfork` child or another process shares it
//! (`CLONE_VM`).
//!
//! A memory is accounted to the slot of its first process. So that slot stays taken until the last process
//! in the memory has ended or executed a program.

use super::{Supervisor, kill};
use crate::trees;
use pagefault_control::Slot;
use rustix::event::epoll;
use rustix::io::Errno;
use rustix::process::Pid;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering::Relaxed;

impl Supervisor<'_> {
    /// Frees the slot of a process that is gone, unless others use its memory.
    pub(super) fn leave_memory(&mut self, slot: u32) {
        let Some(found) = self.control.slots.get(slot) else { return };
        let others = found.memory();
        if others.is_none() && found.is_shared() && self.is_in_use(slot) {
            self.control.slots.outlive(slot);
            self.outlived.insert(slot);
            return;
        }
        self.let_go(slot);
        self.control.slots.release(slot);
        self.look_at_memory(others);
    }

    /// Prepares the slot of a process that has executed a program. If others use the memory that it left,
    /// it gets another slot. Returns its slot.
    pub(super) fn exchange_memory(&mut self, slot: u32) -> Result<u32, Errno> {
        let found = self.control.slots.get(slot).ok_or(Errno::INVAL)?;
        let others = found.memory();
        if others.is_none() && found.is_shared() && self.is_in_use(slot) {
            return self.move_to_new_slot(slot);
        }
        // The frames that the process was charged with are gone with its memory.
        self.control.slots.discharge(slot);
        self.let_go(slot);
        self.control.slots.leave_memory(slot);
        self.look_at_memory(others);
        Ok(slot)
    }

    /// Frees what a process held that executes a program without a runtime, if its old memory is gone. Its
    /// descriptors of ours are closed then.
    pub(super) fn look_at_unmanaged(&mut self, slot: u32) {
        let slots = &self.control.slots;
        let (Some(found), Some(member)) = (slots.get(slot), self.members.get(&slot)) else {
            return;
        };
        let copy = member.descriptor(found.control_fd.load(Relaxed));
        let has_executed = match copy {
            // The program may have opened a file of its own under the number.
            Ok(copy) => !is_same_file(&copy, self.departed.file()),
            Err(errno) => errno == Errno::BADF,
        };
        if !has_executed {
            return;
        }
        if let Ok(new) = self.exchange_memory(slot) {
            if new != slot {
                // Others may go on in the old memory, with their runtime.
                found.end_unmanaged();
            }
            if let Some(new) = self.control.slots.get(new) {
                new.begin_unmanaged();
            }
        }
    }

    fn move_to_new_slot(&mut self, old: u32) -> Result<u32, Errno> {
        let slots = &self.control.slots;
        let new = slots.take().ok_or(Errno::AGAIN)?;
        let (Some(from), Some(to)) = (slots.get(old), slots.get(new)) else {
            return Err(Errno::INVAL);
        };
        to.inherit(from);
        to.pid.store(from.pid.load(Relaxed), Relaxed);
        if let Some(member) = self.members.remove(&old) {
            if let Some(end) = &member.end {
                let data = epoll::EventData::new_u64(u64::from(new));
                epoll::modify(&self.events, end, data, epoll::EventFlags::IN)?;
            }
            self.members.insert(new, member);
        }
        slots.outlive(old);
        self.outlived.insert(old);
        if self.first == old {
            self.first = new;
        }
        Ok(new)
    }

    /// A process that uses the memory that is charged to a slot.
    pub(super) fn member_with(&self, slot: u32) -> Option<&super::Member> {
        let sharers = || self.control.slots.sharers(slot);
        let found = || sharers().find_map(|sharer| self.members.get(&sharer));
        self.members.get(&slot).or_else(found)
    }

    /// Frees the slot of an outlived memory, if the process that just left was its last one.
    fn look_at_memory(&mut self, slot: Option<u32>) {
        let Some(slot) = slot.filter(|slot| self.outlived.contains(slot)) else { return };
        if !self.is_in_use(slot) {
            self.outlived.remove(&slot);
            self.let_go(slot);
            self.control.slots.release(slot);
        }
    }

    /// Whether other processes use the memory that is charged to a slot. Watches these processes from now
    /// on.
    fn is_in_use(&mut self, memory: u32) -> bool {
        let sharers: Vec<u32> = self.control.slots.sharers(memory).collect();
        let (mut is_used, mut unheard) = (false, Vec::new());
        for slot in sharers {
            let number = self.control.slots.get(slot).and_then(Slot::unborn);
            if self.members.contains_key(&slot) {
                is_used = true;
            } else if let Some(number) = number {
                is_used |= self.adopt(slot, number);
            } else {
                unheard.push(slot);
            }
        }
        if !is_used {
            // Their parent is gone, so they do not exist, unless their message is on its way.
            unheard.retain(|slot| {
                let is_told_of = self.control.slots.get(*slot).is_some_and(Slot::is_told_of);
                if !is_told_of {
                    self.control.slots.release(*slot);
                }
                is_told_of
            });
        }
        is_used || !unheard.is_empty()
    }

    /// Watches a process whose parent is gone before it could wait. Returns whether the process
    /// exists.
    fn adopt(&mut self, slot: u32, number: u32) -> bool {
        let Some(found) = self.control.slots.get(slot).filter(|it| it.claim(None, number)) else {
            // Its parent lives, and frees the slot.
            return false;
        };
        found.pid.store(number, Relaxed);
        let Some(process) = Pid::from_raw(number as i32) else { return false };
        if self.watch(process, slot).is_err() {
            self.control.slots.release(slot);
            return false;
        }
        if self.is_doomed && trees::holds(number, self.departed.file()) {
            kill(process);
        }
        true
    }
}

/// Whether two descriptors name one file.
fn is_same_file(one: impl AsFd, other: impl AsFd) -> bool {
    let number = |file: BorrowedFd<'_>| {
        rustix::fs::fstat(file).ok().map(|status| (status.st_dev, status.st_ino))
    };
    let one = number(one.as_fd());
    one.is_some() && one == number(other.as_fd())
}
