//! Alarms: a task of the kernel that sends `SIGALRM` when it is time.

use crate::clock;
use crate::process::{self, Process};
use crate::scheduler::{self, Patience};
use crate::signal::{self, Info};
use core::sync::atomic::{AtomicU32, Ordering};

/// Counts changes of any alarm.
static CHANGES: AtomicU32 = AtomicU32::new(0);

/// `si_code` of a timer's signal.
const SI_KERNEL: i32 = 0x80;

/// Sets a process's alarm, from now in nanoseconds and then at intervals; returns what was set
/// before, in the same way. 0 is none.
pub fn set(process: &Process, after: u64, interval: u64) -> (u64, u64) {
    let now = clock::nanoseconds();
    let deadline = if after == 0 { 0 } else { now.saturating_add(after) };
    let (deadline, interval) = core::mem::replace(&mut *process.alarm.lock(), (deadline, interval));
    CHANGES.fetch_add(1, Ordering::AcqRel);
    scheduler::wake(&CHANGES);
    (remaining(deadline, now), interval)
}

const fn remaining(deadline: u64, now: u64) -> u64 {
    match deadline {
        0 => 0,
        // An alarm that is due has not been sent yet.
        deadline if deadline <= now => 1,
        deadline => deadline - now,
    }
}

/// The task's life.
pub extern "C" fn run() -> ! {
    loop {
        let changes = CHANGES.load(Ordering::Acquire);
        let now = clock::nanoseconds();
        let mut next = u64::MAX;
        for process in process::all() {
            if is_due(&process, now) {
                let info = Info { number: signal::SIGALRM, code: SI_KERNEL, address: 0, status: 0 };
                signal::send_with(&process, info);
            }
            let deadline = process.alarm.lock().0;
            next = if deadline == 0 { next } else { next.min(deadline) };
        }
        scheduler::wait_until(&CHANGES, changes, next, Patience::Endless);
    }
}

/// Whether a process's alarm is due; sets the next one.
fn is_due(process: &Process, now: u64) -> bool {
    let mut alarm = process.alarm.lock();
    let (deadline, interval) = *alarm;
    let is_due = deadline != 0 && deadline <= now;
    if is_due {
        alarm.0 = if interval == 0 { 0 } else { now.saturating_add(interval) };
    }
    is_due
}
