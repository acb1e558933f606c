//! Waiting for children.

use super::{Death, PROCESSES, Process, Reason, current};
use crate::errno::Errno;
use crate::scheduler::{self, Patience};
use crate::signal;
use crate::times::{self, CpuTime};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use core::sync::atomic::Ordering::Relaxed;
use pagefault::UsageNow;

/// Which children `wait4` waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Children {
    /// Any.
    Any,
    /// One by number.
    One(u32),
    /// Those of a process group.
    Group(u32),
}

/// Whether `wait4` waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hang {
    /// Until a child ends.
    Wait,
    /// Not at all (`WNOHANG`).
    Never,
}

/// What a parent learns of a child that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// Its number.
    pub id: u32,
    /// Why it ended.
    pub death: Death,
    /// The memory that it used.
    pub usage: UsageNow,
    /// The processor time that it used, with that of its children.
    pub time: CpuTime,
}

/// Whether a child that was waited for can be waited for again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// It is gone.
    No,
    /// It can (`WNOWAIT`).
    Yes,
}

/// Takes a child that has ended, or waits for one.
pub fn wait(which: Children, hang: Hang, keep: Keep) -> Result<Option<Ended>, Errno> {
    let process = current();
    loop {
        let event = process.event.load(Ordering::Acquire);
        let mut children = process.children.lock();
        let wanted = |child: &Arc<Process>| match which {
            Children::Any => true,
            Children::One(id) => child.id == id,
            Children::Group(group) => child.group.load(Relaxed) == group,
        };
        let traced: Vec<Arc<Process>> =
            super::all().into_iter().filter(|other| other.is_traced_by(process)).collect();
        if !children.iter().any(wanted) && !traced.iter().any(wanted) {
            return Err(Errno::ECHILD);
        }
        let stop = |other: &Arc<Process>| {
            let signal = other.untold_stop(process, keep)?;
            Some(Ended::stopped(other, signal))
        };
        if let Some(stopped) = traced.iter().filter(|other| wanted(other)).find_map(stop) {
            return Ok(Some(stopped));
        }
        let ended = |child: &Arc<Process>| wanted(child) && child.ended.load(Ordering::Acquire);
        if let Some(at) = children.iter().position(ended) {
            if keep == Keep::Yes {
                let child = children[at].clone();
                drop(children);
                return Ok(Some(Ended::of(&child)));
            }
            let child = children.swap_remove(at);
            drop(children);
            PROCESSES.lock().remove(&child.id);
            let ended = Ended::of(&child);
            let mut sum = process.children_usage.lock();
            sum.minor += ended.usage.minor;
            sum.major += ended.usage.major;
            sum.peak = sum.peak.max(ended.usage.peak);
            *process.children_time.lock() += ended.time;
            return Ok(Some(ended));
        }
        drop(children);
        if hang == Hang::Never {
            return Ok(None);
        }
        if signal::is_pending() {
            return Err(Errno::EINTR);
        }
        scheduler::wait_until(&process.event, event, u64::MAX, Patience::Signals);
    }
}

impl Ended {
    fn stopped(process: &Process, signal: u32) -> Self {
        let death = Death { reason: Reason::Stopped(signal) };
        let time = times::of(process) + *process.children_time.lock();
        Self { id: process.id, death, usage: process.usage(), time }
    }

    fn of(child: &Process) -> Self {
        let death = child.ending.lock().unwrap_or(Death { reason: Reason::Exit(0) });
        let time = times::of(child) + *child.children_time.lock();
        Self { id: child.id, death, usage: *child.usage.lock(), time }
    }
}
