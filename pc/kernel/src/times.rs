//! The processor time that tasks use.
//!
//! How long a task ran is measured at each switch; how that divides into the program's own part and
//! the kernel's is sampled at each tick.

use crate::clock;
use crate::process::{self, Process};
use crate::task::Task;
use core::ops::{Add, AddAssign};
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicBool, AtomicU64};

/// Processor time in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTime {
    /// Of programs.
    pub user: u64,
    /// Of the kernel on their behalf.
    pub system: u64,
}

impl CpuTime {
    /// Both.
    pub const fn sum(self) -> u64 {
        self.user + self.system
    }
}

impl Add for CpuTime {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { user: self.user + other.user, system: self.system + other.system }
    }
}

impl AddAssign for CpuTime {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

/// The time that a task has used.
#[derive(Default)]
pub struct Meter {
    /// The time up to the last switch away from it.
    ran: AtomicU64,
    /// When it came in, and whether it is in now.
    since: AtomicU64,
    runs: AtomicBool,
    user_ticks: AtomicU64,
    system_ticks: AtomicU64,
}

impl Meter {
    /// The time used so far.
    pub fn total(&self) -> u64 {
        let more = if self.runs.load(Relaxed) {
            clock::nanoseconds().saturating_sub(self.since.load(Relaxed))
        } else {
            0
        };
        self.ran.load(Relaxed) + more
    }

    /// The same, divided in the proportion of the ticks.
    pub fn time(&self) -> CpuTime {
        let total = self.total();
        let (user, system) = (self.user_ticks.load(Relaxed), self.system_ticks.load(Relaxed));
        let ticks = u128::from(user + system);
        let system =
            (u128::from(total) * u128::from(system)).checked_div(ticks).unwrap_or(0) as u64;
        CpuTime { user: total - system, system }
    }
}

/// Notes that a CPU goes from one task to another. Called by the scheduler under its lock.
pub fn switch(from: &Task, to: &Task) {
    let now = clock::nanoseconds();
    let ran = now.saturating_sub(from.meter.since.load(Relaxed));
    from.meter.ran.fetch_add(ran, Relaxed);
    from.meter.runs.store(false, Relaxed);
    to.meter.since.store(now, Relaxed);
    to.meter.runs.store(true, Relaxed);
}

/// What a tick found a CPU at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A program.
    Program,
    /// The kernel.
    Kernel,
}

/// The ticks of all CPUs: in programs, in the kernel, with nothing to do.
static TICKS: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];

/// Notes a tick of the running task. Called with interrupts disabled.
pub fn tick(task: &Task, found: Found) {
    let (own, all) = match found {
        Found::Kernel if task.is_idle() => (&task.meter.system_ticks, &TICKS[2]),
        Found::Program => (&task.meter.user_ticks, &TICKS[0]),
        Found::Kernel => (&task.meter.system_ticks, &TICKS[1]),
    };
    own.fetch_add(1, Relaxed);
    all.fetch_add(1, Relaxed);
}

/// The ticks so far: in programs, in the kernel, with nothing to do.
pub fn ticks() -> [u64; 3] {
    [0, 1, 2].map(|i| TICKS[i].load(Relaxed))
}

/// The time of a process: that of its threads, and of those that have ended.
pub fn of(process: &Process) -> CpuTime {
    let ended = *process.ended_time.lock();
    let threads = process.threads.lock().clone();
    let tasks = threads.into_iter().filter_map(process::find_task);
    tasks.fold(ended, |sum, task| sum + task.meter.time())
}

/// A timer that counts processor time (`ITIMER_VIRTUAL`, `ITIMER_PROF`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTimer {
    /// At which processor time it ends; 0 for not at all.
    pub deadline: u64,
    /// The time between two ends.
    pub interval: u64,
}

/// The two timers of a process that count processor time.
#[derive(Default)]
pub struct CpuTimers {
    /// Whether one runs.
    is_set: AtomicBool,
    /// The one of programs' time alone, and the one of all.
    timers: crate::lock::Mutex<[CpuTimer; 2]>,
}

/// Which time a timer counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counts {
    /// The program's own.
    Program,
    /// The kernel's on its behalf too.
    All,
}

impl Counts {
    const fn of(self, time: CpuTime) -> u64 {
        match self {
            Self::Program => time.user,
            Self::All => time.sum(),
        }
    }
}

impl CpuTimers {
    /// Sets a timer, from now and then at intervals; returns what was set before, in the same way.
    pub fn set(&self, process: &Process, which: Counts, after: u64, interval: u64) -> (u64, u64) {
        let now = which.of(of(process));
        let deadline = if after == 0 { 0 } else { now.saturating_add(after) };
        let mut timers = self.timers.lock();
        let before =
            core::mem::replace(&mut timers[which as usize], CpuTimer { deadline, interval });
        self.is_set.store(timers.iter().any(|timer| timer.deadline != 0), Relaxed);
        (left(before, now), before.interval)
    }

    /// What a timer has left, and its interval.
    pub fn get(&self, process: &Process, which: Counts) -> (u64, u64) {
        let timer = self.timers.lock()[which as usize];
        (left(timer, which.of(of(process))), timer.interval)
    }

    /// Calls `ended` for each timer whose time has come, and sets it again. Called for the running
    /// thread's process on the way back to its program.
    #[inline]
    pub fn check(&self, process: &Process, ended: impl FnMut(Counts)) {
        if self.is_set.load(Relaxed) {
            self.check_set(process, ended);
        }
    }

    #[cold]
    fn check_set(&self, process: &Process, mut ended: impl FnMut(Counts)) {
        let time = of(process);
        for which in [Counts::Program, Counts::All] {
            let now = which.of(time);
            let is_due = {
                let mut timers = self.timers.lock();
                let timer = &mut timers[which as usize];
                let is_due = timer.deadline != 0 && timer.deadline <= now;
                if is_due {
                    let interval = timer.interval;
                    timer.deadline = if interval == 0 { 0 } else { now.saturating_add(interval) };
                }
                self.is_set.store(timers.iter().any(|timer| timer.deadline != 0), Relaxed);
                is_due
            };
            if is_due {
                ended(which);
            }
        }
    }
}

const fn left(timer: CpuTimer, now: u64) -> u64 {
    match timer.deadline {
        0 => 0,
        deadline if deadline <= now => 1,
        deadline => deadline - now,
    }
}
