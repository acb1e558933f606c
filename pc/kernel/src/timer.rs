//! Alarms and timers: a task of the kernel that sends their signals when it is time.

use crate::clock::{self, Clock};
use crate::errno::Errno;
use crate::fs::event::Schedule;
use crate::process::{self, Process};
use crate::scheduler::{self, Patience};
use crate::signal::{self, Info};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

/// Counts changes of any alarm.
static CHANGES: AtomicU32 = AtomicU32::new(0);

/// `si_code` of a timer's signal.
const SI_TIMER: i32 = -2;

/// What a timer does when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Nothing (`SIGEV_NONE`).
    None,
    /// It sends a signal to the process.
    Process(u32),
    /// It sends a signal to a thread.
    Thread(u32, u32),
}

/// A timer that a program has made (`timer_create`).
#[derive(Clone, Copy, Debug)]
pub struct Timer {
    /// Its number.
    pub id: u32,
    /// The clock that its times are of.
    pub clock: Clock,
    /// What it does when it ends.
    pub notice: Notice,
    /// What comes with the signal.
    pub value: u64,
    /// When it ends.
    pub schedule: Schedule,
    /// How many ends the last signal did not tell of.
    pub overrun: u32,
}

/// Sets a process's alarm and returns what was set before.
pub fn set_alarm(process: &Process, schedule: Schedule) -> Schedule {
    let before = core::mem::replace(&mut *process.alarm.lock(), schedule);
    changed();
    before
}

/// Gives one of a process's timers another schedule; returns the former.
pub fn set(process: &Process, id: u32, schedule: Schedule) -> Result<Schedule, Errno> {
    let before = {
        let mut timers = process.timers.lock();
        let timer = timers.iter_mut().find(|timer| timer.id == id).ok_or(Errno::EINVAL)?;
        timer.overrun = 0;
        core::mem::replace(&mut timer.schedule, schedule)
    };
    changed();
    Ok(before)
}

fn changed() {
    CHANGES.fetch_add(1, Ordering::AcqRel);
    scheduler::wake(&CHANGES);
}

/// The task's life.
pub extern "C" fn run() -> ! {
    loop {
        let changes = CHANGES.load(Ordering::Acquire);
        let now = clock::nanoseconds();
        let next = process::all().iter().map(|process| ring(process, now)).min();
        scheduler::wait_until(&CHANGES, changes, next.unwrap_or(u64::MAX), Patience::Endless);
    }
}

/// Sends the signals of a process's timers whose time has come; returns when the next ends.
fn ring(process: &Arc<Process>, now: u64) -> u64 {
    let mut ended: Vec<(Notice, Info)> = Vec::new();
    let mut next = u64::MAX;
    let mut soonest = |schedule: &Schedule| {
        if schedule.deadline != 0 {
            next = next.min(schedule.deadline);
        }
    };
    {
        let mut alarm = process.alarm.lock();
        if alarm.pass(now) > 0 {
            let number = signal::SIGALRM;
            let info = Info { number, code: signal::SI_KERNEL, address: 0, status: 0 };
            ended.push((Notice::Process(number), info));
        }
        soonest(&alarm);
    }
    for timer in &mut *process.timers.lock() {
        let ends = timer.schedule.pass(now);
        if let (1.., Notice::Process(number) | Notice::Thread(_, number)) = (ends, timer.notice) {
            timer.overrun = (ends - 1).try_into().unwrap_or(i32::MAX as u32);
            let address = u64::from(timer.id) | u64::from(timer.overrun) << 32;
            let info = Info { number, code: SI_TIMER, address, status: timer.value };
            ended.push((timer.notice, info));
        }
        soonest(&timer.schedule);
    }
    for (notice, info) in ended {
        match notice {
            Notice::None => {}
            Notice::Process(_) => signal::send_with(process, info),
            // The thread may have ended, and its timer with it.
            Notice::Thread(thread, _) => _ = signal::send_to_thread(thread, info),
        }
    }
    next
}
