//! Signals.

use super::time::duration;
use super::{Arguments, Result};
use crate::errno::Errno;
use crate::scheduler::{self, Patience};
use crate::signal::{self, Action, Info};
use crate::{clock, kernel, process, user};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use linux_raw_sys::general as nr;

const SI_USER: i32 = 0;
const SI_TKILL: i32 = -6;
/// The bytes of a set of signals.
const SET_BYTES: u64 = 8;

pub(super) fn call(number: u32, arguments: Arguments) -> Option<Result> {
    let Arguments { a, b, c, d, .. } = arguments;
    let to_thread = |id: u64, info: core::result::Result<Info, Errno>| {
        signal::send_to_thread(id as u32, info?).map(|()| 0)
    };
    Some(match number {
        nr::__NR_pause => pause(),
        nr::__NR_kill => sent(b as u32, SI_USER).and_then(|info| kill(a as i32, info)),
        nr::__NR_tkill => to_thread(a, sent(b as u32, SI_TKILL)),
        nr::__NR_tgkill => of_process(a, b).and_then(|()| to_thread(b, sent(c as u32, SI_TKILL))),
        nr::__NR_rt_sigqueueinfo => said(a, b as u32, c).and_then(|info| kill(a as i32, info)),
        nr::__NR_rt_tgsigqueueinfo => {
            of_process(a, b).and_then(|()| to_thread(b, said(a, c as u32, d)))
        }
        nr::__NR_rt_sigaction => of_size(d).and_then(|()| sigaction(a as u32, b, c)),
        nr::__NR_rt_sigprocmask => of_size(d).and_then(|()| sigprocmask(a as u32, b, c)),
        nr::__NR_rt_sigpending => pending(a, b),
        nr::__NR_rt_sigsuspend => of_size(b).and_then(|()| sigsuspend(a)),
        nr::__NR_rt_sigtimedwait => of_size(d).and_then(|()| timed_wait(a, b, c)),
        _ => return None,
    })
}

/// Refuses sets of signals of any size but a word's.
pub(super) fn of_size(bytes: u64) -> core::result::Result<(), Errno> {
    if bytes == SET_BYTES { Ok(()) } else { Err(Errno::EINVAL) }
}

/// Tells the first bytes of the set of blocked signals that wait.
fn pending(to: u64, bytes: u64) -> Result {
    if bytes > SET_BYTES {
        return Err(Errno::EINVAL);
    }
    let pending = signal::pending() & process::thread().mask.load(Ordering::Relaxed);
    user::write(to, &pending.to_le_bytes()[..bytes as usize])?;
    Ok(0)
}

/// Whether a thread is a process's.
fn of_process(process: u64, thread: u64) -> core::result::Result<(), Errno> {
    let (process, thread) = (process as u32, thread as u32);
    if process as i32 <= 0 || thread as i32 <= 0 {
        return Err(Errno::EINVAL);
    }
    let process = process::find(process).ok_or(Errno::ESRCH)?;
    if process.threads.lock().contains(&thread) { Ok(()) } else { Err(Errno::ESRCH) }
}

fn pause() -> Result {
    let never = AtomicU32::new(0);
    while !signal::is_pending() {
        scheduler::wait_until(&never, 0, u64::MAX, Patience::Signals);
    }
    Err(Errno::EINTR)
}

fn kill(pid: i32, info: Info) -> Result {
    let group = match pid {
        0 => process::current().group.load(Ordering::Relaxed),
        pid => pid.unsigned_abs(),
    };
    let own = process::current().id;
    let targets: Vec<_> = match pid {
        1.. => process::find(pid as u32).into_iter().collect(),
        // All but the first and the caller.
        -1 => {
            let mut all = process::all();
            all.retain(|process| process.id != own && process.id != kernel().init);
            all
        }
        _ => {
            let mut all = process::all();
            all.retain(|process| process.group.load(Ordering::Relaxed) == group);
            all
        }
    };
    if targets.is_empty() {
        return Err(Errno::ESRCH);
    }
    let mut refused = Ok(0);
    if info.number != 0 {
        for target in &targets {
            if let Err(error) = signal::queue(target, info) {
                refused = Err(error);
            }
        }
    }
    refused
}

/// What comes with a signal that a program sends (`SI_USER`, `SI_TKILL`).
fn sent(number: u32, code: i32) -> core::result::Result<Info, Errno> {
    let address = process::current().id.into();
    if number > 64 { Err(Errno::EINVAL) } else { Ok(Info { number, code, address, status: 0 }) }
}

/// What a program says that comes with a signal to a process (`sigqueue`).
fn said(to: u64, number: u32, at: u64) -> core::result::Result<Info, Errno> {
    let code = user::read(at.wrapping_add(8)).map(i32::from_le_bytes)?;
    let (address, status) = (user::read_u64(at + 16)?, user::read_u64(at + 24)?);
    // Only the kernel says what comes from the kernel, except to the program itself.
    if (code >= 0 || code == SI_TKILL) && to as u32 != process::current().id {
        return Err(Errno::EPERM);
    }
    Ok(Info { code, address, status, ..sent(number, 0)? })
}

fn timed_wait(set: u64, to: u64, time: u64) -> Result {
    let set = user::read_u64(set)?;
    let deadline = match duration(time)? {
        None => u64::MAX,
        Some(time) => clock::nanoseconds().saturating_add(time),
    };
    let info = signal::wait_for(set, deadline)?;
    if to != 0 {
        let mut words = [0; 16];
        words[..4].copy_from_slice(&info.words());
        let bytes: Vec<u8> = words.iter().flat_map(|word: &u64| word.to_le_bytes()).collect();
        user::write(to, &bytes)?;
    }
    Ok(info.number.into())
}

fn sigaction(number: u32, new: u64, old: u64) -> Result {
    let is_fixed = matches!(number, signal::SIGKILL | signal::SIGSTOP);
    if !(1..=64).contains(&number) || is_fixed && new != 0 {
        return Err(Errno::EINVAL);
    }
    let words = |at: u64| -> core::result::Result<[u64; 4], Errno> {
        Ok([
            user::read_u64(at)?,
            user::read_u64(at + 8)?,
            user::read_u64(at + 16)?,
            user::read_u64(at + 24)?,
        ])
    };
    let action = match new {
        0 => None,
        at => {
            let [handler, flags, restorer, mask] = words(at)?;
            Some(Action { handler, flags, restorer, mask })
        }
    };
    let before = match action {
        Some(action) => signal::set_action(number, action),
        None => process::current().actions.lock().0[number as usize],
    };
    if old != 0 {
        for (i, word) in (0..).zip([before.handler, before.flags, before.restorer, before.mask]) {
            user::write(old + 8 * i, &word.to_le_bytes())?;
        }
    }
    Ok(0)
}

fn sigprocmask(how: u32, new: u64, old: u64) -> Result {
    let mask = &process::thread().mask;
    let before = mask.load(Ordering::Relaxed);
    if new != 0 {
        let set = user::read_u64(new)?;
        let now = match how {
            nr::SIG_BLOCK => before | set,
            nr::SIG_UNBLOCK => before & !set,
            nr::SIG_SETMASK => set,
            _ => return Err(Errno::EINVAL),
        };
        mask.store(now & !signal::UNBLOCKABLE, Ordering::Relaxed);
    }
    if old != 0 {
        user::write(old, &before.to_le_bytes())?;
    }
    Ok(0)
}

/// Waits for a signal with another mask; the former is restored when the handler has returned.
fn sigsuspend(new: u64) -> Result {
    signal::block_meanwhile(user::read_u64(new)?);
    pause()
}
