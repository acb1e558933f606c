//! Programs that the tree executes: the supervisor traces each from its request to its first instruction,
//! and places the runtime in it.

use super::{Supervisor, answer, ready};
use crate::run::place::{PlaceError, Process};
use crate::run::trace::{self, Resume, Stop, Tracee};
use pagefault_control::ask;
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdGetfdFlags};
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::Ordering::{Relaxed, Release};

/// A traced process, from its request to its exec.
pub(super) struct Traced {
    thread: Tracee,
    slot: u32,
    /// Whether its exec has failed, so that it must be released.
    cancelled: bool,
    /// Its standard error, for messages about the program.
    errors: Option<OwnedFd>,
}

impl Supervisor<'_> {
    /// Begins to trace the thread with which a process executes a program.
    pub(super) fn seize(&mut self, process: Pid, slot: u32) -> Result<(), Errno> {
        let number = process.as_raw_nonzero().get();
        let named = self.control.slots.get(slot).ok_or(Errno::INVAL)?.tid.load(Relaxed);
        let thread = Tracee(thread(number, named).ok_or(Errno::SRCH)?);
        // If it is traced already, its last exec failed and it was not released yet. Another traced
        // thread of the process is released when it stops.
        if self.traced.get(&number).is_none_or(|traced| traced.thread != thread) {
            let refused = |error| Errno::from_io_error(&error).unwrap_or(Errno::PERM);
            thread.seize().map_err(refused)?;
        }
        let member = self.members.get(&slot);
        let errors = member.and_then(|member| member.end.as_ref()).and_then(|process| {
            rustix::process::pidfd_getfd(process, 2, PidfdGetfdFlags::empty()).ok()
        });
        self.traced.insert(number, Traced { thread, slot, cancelled: false, errors });
        Ok(())
    }

    pub(super) fn cancel(&mut self, process: Pid) {
        let Some(traced) = self.traced.get_mut(&process.as_raw_nonzero().get()) else { return };
        traced.cancelled = true;
        traced.errors = None;
        if let Some(slot) = self.control.slots.get(traced.slot) {
            slot.word.store(ask::IDLE, Release);
        }
        // If it has ended, an event says so.
        let _ = traced.thread.interrupt();
    }

    pub(super) fn look_at_stops(&mut self) {
        // The content does not matter: several signals may have become one.
        let mut signals = [0; 128 * 8];
        while rustix::io::read(&self.stops, &mut signals).is_ok() {}
        while let Some((thread, stop)) = trace::wait_any() {
            self.stopped(thread, stop);
        }
    }

    fn stopped(&mut self, thread: Tracee, stop: Stop) {
        // At an exec the thread becomes the only one, and takes the process's ID.
        if stop == Stop::Exec {
            match self.traced.remove(&thread.0).filter(|traced| !traced.cancelled) {
                Some(traced) => self.executed(thread, traced),
                // It went on untraced after a failed exec.
                None => drop(thread.resume(Resume::Detach, 0)),
            }
            return;
        }
        let found = self.traced.iter().find(|(_, traced)| traced.thread == thread);
        let found = found.map(|(number, traced)| (*number, traced.cancelled));
        let Some((process, cancelled)) = found else {
            let signal = if let Stop::Signal(signal) = stop { signal } else { 0 };
            let _ = thread.resume(Resume::Detach, signal);
            return;
        };
        let (how, signal) = match stop {
            Stop::Ended => {
                self.traced.remove(&process);
                return;
            }
            _ if cancelled => {
                self.traced.remove(&process);
                (Resume::Detach, if let Stop::Signal(signal) = stop { signal } else { 0 })
            }
            Stop::Signal(signal) => (Resume::Run, signal),
            Stop::Group => (Resume::Listen, 0),
            Stop::Interrupted | Stop::Call | Stop::Exec => (Resume::Run, 0),
        };
        // If it has ended meanwhile, there is nothing to resume.
        let _ = thread.resume(how, signal);
    }

    /// Prepares a program that was executed and has not run yet.
    fn executed(&mut self, program: Tracee, mut traced: Traced) {
        let Some(slot) = self.control.slots.get(traced.slot) else {
            return drop(program.resume(Resume::Detach, 0));
        };
        let exchanged = self.exchange_memory(traced.slot);
        traced.slot = *exchanged.as_ref().unwrap_or(&traced.slot);
        let process = Process {
            slot: traced.slot,
            mask: slot.mask.load(Relaxed),
            control_fd: slot.control_fd.load(Relaxed),
            socket_fd: slot.socket_fd.load(Relaxed),
            code_fd: slot.code_fd.load(Relaxed),
            first: self.first == traced.slot && !self.begun,
        };
        let placed = exchanged.map_err(PlaceError::Slot);
        let placed = placed.and_then(|_| self.placer.place(program, process));
        answer(slot, ask::IDLE);
        match placed {
            Ok(()) => self.control.counters.programs.add(1),
            Err(PlaceError::Ended) => return,
            Err(why @ (PlaceError::Secure | PlaceError::Foreign | PlaceError::Unreadable)) => {
                // It executed with its signals blocked, so that none met a handler of its old memory.
                let _ = program.set_mask(process.mask);
                let text =
                    format!("pagefault: process {}: {why}, so it runs unmanaged\n", program.0);
                say(traced.errors, &text);
                self.ended(traced.slot);
            }
            Err(why) => self.stop(program, &why, traced.errors),
        }
        self.begun |= process.first;
        let _ = program.resume(Resume::Detach, 0);
    }

    /// Ends a program that cannot be managed and must not run unmanaged.
    fn stop(&self, program: Tracee, why: &PlaceError, errors: Option<OwnedFd>) {
        if !self.control.fail(program.0 as u32, &why.to_string()) {
            say(errors, &format!("pagefault: stopped process {}: {why}\n", program.0));
        }
        // It is within its `execve`, where it can make no other call.
        // SAFETY: kill has no preconditions.
        unsafe { libc::kill(program.0, libc::SIGKILL) };
    }
}

/// Writes a message to a process's standard error, if it has one.
fn say(errors: Option<OwnedFd>, text: &str) {
    if let Some(errors) = errors {
        // A failed write is ignored. A full pipe must not block the tree.
        if ready(&errors, PollFlags::OUT).contains(PollFlags::OUT) {
            let _ = File::from(errors).write_all(text.as_bytes());
        }
    }
}

/// Our ID of the thread that has a given ID in its process's own namespace.
fn thread(process: i32, named: u32) -> Option<i32> {
    let threads = format!("/proc/{process}/task");
    // The directory has two links of its own, and one for each thread.
    if std::fs::metadata(&threads).ok()?.nlink() == 3 {
        return Some(process);
    }
    let mut numbers: Vec<i32> = std::fs::read_dir(threads)
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    // The process itself is the most likely.
    numbers.sort_by_key(|number| *number != process);
    numbers.into_iter().find(|number| innermost(process, *number) == Some(named))
}

/// A thread's ID in its innermost namespace.
fn innermost(process: i32, thread: i32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{process}/task/{thread}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_whitespace().next_back()?.parse().ok()
}
