//! Clocks, sleeping, timers, and the processor time that was used.

use super::{Arguments, Result};
use crate::clock::{self, Clock};
use crate::errno::Errno;
use crate::fs::event::Schedule;
use crate::process::{self, Process};
use crate::scheduler::{self, Patience};
use crate::timer::{self, Notice, Timer};
use crate::times::{self, Counts, CpuTime};
use crate::{cpu, signal, user};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::AtomicU32;
use linux_raw_sys::general as nr;
use pagefault::UsageNow;
use pagefault::machine::PAGE_SIZE;

const SECOND: u64 = 1_000_000_000;
const MICROSECOND: u64 = 1000;
/// `times` counts in hundredths of a second.
const CLOCK_TICK: u64 = 10_000_000;

pub(super) fn call(number: u32, arguments: Arguments) -> Option<Result> {
    let Arguments { a, b, c, d, .. } = arguments;
    Some(match number {
        nr::__NR_clock_gettime => read_clock(a as i32).and_then(|now| write_pair(b, now, 1)),
        nr::__NR_clock_getres => read_clock(a as i32).and_then(|_| write_pair(b, 1, 1)),
        nr::__NR_gettimeofday => write_pair(a, clock::since_1970(), MICROSECOND),
        nr::__NR_time => time(a),
        nr::__NR_nanosleep => {
            read_time(a).and_then(|time| sleep(clock::nanoseconds().saturating_add(time), b))
        }
        nr::__NR_clock_nanosleep => clock_nanosleep(a as i32, b as u32, c, d),
        nr::__NR_alarm => {
            let now = clock::nanoseconds();
            let deadline = if a == 0 { 0 } else { now + u64::from(a as u32) * SECOND };
            let before = timer::set_alarm(process::current(), Schedule { deadline, interval: 0 });
            Ok(before.left(now).div_ceil(SECOND))
        }
        nr::__NR_setitimer => setitimer(a, b, c),
        nr::__NR_getitimer => match a {
            ITIMER_REAL => {
                let alarm = *process::current().alarm.lock();
                write_interval(b, alarm.left(clock::nanoseconds()), alarm.interval)
            }
            which => counts(which).and_then(|which| {
                let (left, interval) = process::current().cpu_timers.get(process::current(), which);
                write_interval(b, left, interval)
            }),
        },
        nr::__NR_timer_create => timer_create(a as i32, b, c),
        nr::__NR_timer_settime => timer_settime(a as u32, b as u32, c, d),
        nr::__NR_timer_gettime => {
            find_timer(a as u32).and_then(|timer| write_itimer(b, timer.schedule))
        }
        nr::__NR_timer_getoverrun => find_timer(a as u32).map(|timer| timer.overrun.into()),
        nr::__NR_timer_delete => find_timer(a as u32).map(|timer| {
            process::current().timers.lock().retain(|other| other.id != timer.id);
            0
        }),
        nr::__NR_times => write_times(a),
        nr::__NR_getrusage => getrusage(a as i32, b),
        _ => return None,
    })
}

/// A `struct timespec` as nanoseconds, if there is one.
pub(super) fn duration(at: u64) -> core::result::Result<Option<u64>, Errno> {
    if at == 0 { Ok(None) } else { read_time(at).map(Some) }
}

/// Reads a `struct timespec` as nanoseconds.
pub(super) fn read_time(at: u64) -> core::result::Result<u64, Errno> {
    let (seconds, nanoseconds) = (user::read_u64(at)?, user::read_u64(at + 8)?);
    if seconds > i64::MAX as u64 || nanoseconds >= SECOND {
        return Err(Errno::EINVAL);
    }
    // The clocks end after 292 years.
    Ok(seconds.saturating_mul(SECOND).saturating_add(nanoseconds).min(i64::MAX as u64))
}

/// Writes seconds and parts of them.
fn write_pair(to: u64, nanoseconds: u64, unit: u64) -> Result {
    if to == 0 {
        return Ok(0);
    }
    write_words(to, &[nanoseconds / SECOND, nanoseconds % SECOND / unit])
}

fn write_words(at: u64, words: &[u64]) -> Result {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    user::write(at, &bytes)?;
    Ok(0)
}

fn time(to: u64) -> Result {
    let seconds = clock::since_1970() / SECOND;
    if to != 0 {
        write_words(to, &[seconds])?;
    }
    Ok(seconds)
}

/// What a clock says, in nanoseconds.
fn read_clock(which: i32) -> core::result::Result<u64, Errno> {
    const REALTIME_ALARM: u32 = 8;
    const BOOTTIME_ALARM: u32 = 9;
    if which < 0 {
        return processor_time(which);
    }
    match which as u32 {
        nr::CLOCK_REALTIME | nr::CLOCK_REALTIME_COARSE | nr::CLOCK_TAI | REALTIME_ALARM => {
            Ok(clock::since_1970())
        }
        nr::CLOCK_MONOTONIC
        | nr::CLOCK_MONOTONIC_RAW
        | nr::CLOCK_MONOTONIC_COARSE
        | nr::CLOCK_BOOTTIME
        | BOOTTIME_ALARM => Ok(clock::nanoseconds()),
        nr::CLOCK_PROCESS_CPUTIME_ID => Ok(times::of(process::current()).sum()),
        nr::CLOCK_THREAD_CPUTIME_ID => Ok(scheduler::current().meter.total()),
        _ => Err(Errno::EINVAL),
    }
}

/// The processor time of the process or thread whose number such a clock's number contains.
fn processor_time(which: i32) -> core::result::Result<u64, Errno> {
    const OF_THREAD: i32 = 4;
    let id = !(which >> 3) as u32;
    if which & OF_THREAD != 0 {
        let id = if id == 0 { cpu::task_id() } else { id };
        let task = process::find_task(id).ok_or(Errno::EINVAL)?;
        return Ok(task.meter.total());
    }
    let process = if id == 0 { Some(process::current().clone()) } else { process::find(id) };
    Ok(times::of(&*process.ok_or(Errno::EINVAL)?).sum())
}

/// Sleeps until a time; when a signal comes before, what is left is written.
fn sleep(deadline: u64, left: u64) -> Result {
    let never = AtomicU32::new(0);
    loop {
        let now = clock::nanoseconds();
        if now >= deadline {
            return Ok(0);
        }
        if signal::is_pending() {
            if left != 0 {
                write_pair(left, deadline - now, 1)?;
            }
            return Err(Errno::EINTR);
        }
        scheduler::wait_until(&never, 0, deadline, Patience::Signals);
    }
}

/// One of the clocks that go by themselves.
pub(super) const fn clock_of(which: i32) -> core::result::Result<Clock, Errno> {
    match which as u32 {
        nr::CLOCK_REALTIME | nr::CLOCK_TAI => Ok(Clock::Since1970),
        nr::CLOCK_MONOTONIC | nr::CLOCK_BOOTTIME => Ok(Clock::SinceStart),
        _ => Err(Errno::EINVAL),
    }
}

fn clock_nanosleep(which: i32, flags: u32, request: u64, left: u64) -> Result {
    let clock = clock_of(which)?;
    let time = read_time(request)?;
    if flags & nr::TIMER_ABSTIME != 0 {
        return sleep(clock.here(time), 0);
    }
    sleep(clock::nanoseconds().saturating_add(time), left)
}

const ITIMER_REAL: u64 = 0;

fn counts(which: u64) -> core::result::Result<Counts, Errno> {
    match which {
        1 => Ok(Counts::Program),
        2 => Ok(Counts::All),
        _ => Err(Errno::EINVAL),
    }
}

/// Reads a `struct timeval` as nanoseconds.
fn read_timeval(at: u64) -> core::result::Result<u64, Errno> {
    let (seconds, microseconds) = (user::read_u64(at)?, user::read_u64(at + 8)?);
    if seconds > i64::MAX as u64 || microseconds >= 1_000_000 {
        return Err(Errno::EINVAL);
    }
    let time = seconds.saturating_mul(SECOND).saturating_add(microseconds * MICROSECOND);
    Ok(time.min(i64::MAX as u64))
}

/// Writes `struct itimerval`.
fn write_interval(to: u64, left: u64, interval: u64) -> Result {
    // What is left of a timer that runs is never nothing.
    let left = if left == 0 { 0 } else { left.max(MICROSECOND) };
    write_pair(to, interval, MICROSECOND)?;
    write_pair(to + 16, left, MICROSECOND)
}

fn setitimer(which: u64, new: u64, old: u64) -> Result {
    let process = process::current();
    let (interval, after) = match new {
        0 => (0, 0),
        new => (read_timeval(new)?, read_timeval(new + 16)?),
    };
    let now = clock::nanoseconds();
    let (left, before) = if which == ITIMER_REAL {
        let deadline = if after == 0 { 0 } else { now.saturating_add(after) };
        let before = timer::set_alarm(process, Schedule { deadline, interval });
        (before.left(now), before.interval)
    } else {
        process.cpu_timers.set(process, counts(which)?, after, interval)
    };
    if old != 0 { write_interval(old, left, before) } else { Ok(0) }
}

/// Reads `struct itimerspec` as a schedule. Its time is one of a clock, or counts from now.
pub(super) fn read_itimer(at: u64, of: Option<Clock>) -> core::result::Result<Schedule, Errno> {
    let (interval, time) = (read_time(at)?, read_time(at + 16)?);
    let deadline = match (time, of) {
        (0, _) => 0,
        (time, Some(clock)) => clock.here(time).max(1),
        (time, None) => clock::nanoseconds().saturating_add(time),
    };
    Ok(Schedule { deadline, interval })
}

/// Writes a schedule as `struct itimerspec`.
pub(super) fn write_itimer(to: u64, schedule: Schedule) -> Result {
    write_pair(to, schedule.interval, 1)?;
    write_pair(to + 16, schedule.left(clock::nanoseconds()), 1)
}

/// The most timers of a process.
const TIMERS: u32 = 256;

fn timer_create(which: i32, event: u64, to: u64) -> Result {
    let clock = clock_of(which)?;
    let notice = read_notice(event)?;
    let process = process::current();
    let id = {
        let mut timers = process.timers.lock();
        let is_free = |id: &u32| timers.iter().all(|timer| timer.id != *id);
        let id = (0..TIMERS).find(is_free).ok_or(Errno::EAGAIN)?;
        // Without an event, the timer's number comes with the signal.
        let (notice, value) = notice.unwrap_or((Notice::Process(signal::SIGALRM), id.into()));
        let schedule = Schedule::default();
        timers.push(Timer { id, clock, notice, value, schedule, overrun: 0 });
        id
    };
    if let Err(error) = user::write(to, &id.to_le_bytes()) {
        process.timers.lock().retain(|timer| timer.id != id);
        return Err(error.into());
    }
    Ok(0)
}

/// Reads `struct sigevent`: what a timer does when it ends, and what comes with it.
fn read_notice(event: u64) -> core::result::Result<Option<(Notice, u64)>, Errno> {
    const SIGEV_SIGNAL: u32 = 0;
    const SIGEV_NONE: u32 = 1;
    const SIGEV_THREAD_ID: u32 = 4;
    if event == 0 {
        return Ok(None);
    }
    let value = user::read_u64(event)?;
    let word = |offset| user::read(event + offset).map(u32::from_le_bytes);
    let number = word(8)?;
    let notice = match word(12)? {
        SIGEV_NONE => Notice::None,
        _ if !(1..=64).contains(&number) => return Err(Errno::EINVAL),
        SIGEV_SIGNAL => Notice::Process(number),
        SIGEV_THREAD_ID => {
            let thread = word(16)?;
            if !process::current().threads.lock().contains(&thread) {
                return Err(Errno::EINVAL);
            }
            Notice::Thread(thread, number)
        }
        _ => return Err(Errno::EINVAL),
    };
    Ok(Some((notice, value)))
}

fn find_timer(id: u32) -> core::result::Result<Timer, Errno> {
    let timers = process::current().timers.lock();
    timers.iter().find(|timer| timer.id == id).copied().ok_or(Errno::EINVAL)
}

fn timer_settime(id: u32, flags: u32, new: u64, old: u64) -> Result {
    let clock = find_timer(id)?.clock;
    let schedule = read_itimer(new, (flags & nr::TIMER_ABSTIME != 0).then_some(clock))?;
    let before = timer::set(process::current(), id, schedule)?;
    if old != 0 { write_itimer(old, before) } else { Ok(0) }
}

fn write_times(to: u64) -> Result {
    let process = process::current();
    let (own, children) = (times::of(process), *process.children_time.lock());
    if to != 0 {
        let words = [own.user, own.system, children.user, children.system];
        write_words(to, &words.map(|time| time / CLOCK_TICK))?;
    }
    Ok(clock::nanoseconds() / CLOCK_TICK)
}

/// Writes `struct rusage`: times, faults and the peak.
pub(super) fn write_usage(to: u64, usage: &UsageNow, time: CpuTime) -> Result {
    let mut words = [0; 18];
    for (pair, time) in words.chunks_exact_mut(2).zip([time.user, time.system]) {
        pair.copy_from_slice(&[time / SECOND, time % SECOND / MICROSECOND]);
    }
    words[4] = usage.peak * PAGE_SIZE / 1024;
    words[8] = usage.minor;
    words[9] = usage.major;
    write_words(to, &words)
}

fn getrusage(who: i32, to: u64) -> Result {
    const CHILDREN: i32 = -1;
    const THREAD: i32 = 1;
    let process: &Arc<Process> = process::current();
    match who {
        CHILDREN => {
            let (usage, time) = (*process.children_usage.lock(), *process.children_time.lock());
            write_usage(to, &usage, time)
        }
        0 => write_usage(to, &process.usage(), times::of(process)),
        THREAD => write_usage(to, &process.usage(), scheduler::current().meter.time()),
        _ => Err(Errno::EINVAL),
    }
}
