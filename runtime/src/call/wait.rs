//! Waits with a timeout. After a reclaim request, a wait continues for the remaining time; the host would
//! restart the whole timeout.

use crate::entry::{self, RECLAIM_CAME};
use crate::thread::Thread;
use crate::{process, user};
use linux_raw_sys::general as nr;
use linux_raw_sys::ptrace;

const NANOSECONDS: u64 = 1_000_000_000;
const NANOSECONDS_OF_MILLISECOND: u64 = 1_000_000;

/// The argument with a call's timeout.
#[derive(Clone, Copy)]
enum Timeout {
    /// In milliseconds; a negative number means for ever.
    Milliseconds(usize),
    /// A `timespec`; null means for ever.
    Timespec(usize),
}

/// Makes a call of the program's.
///
/// # Safety
/// That of the call.
pub unsafe fn call(number: u32, args: &[u64; 6], thread: &Thread) -> i64 {
    let limit = timeout(number, args).and_then(|timeout| Some((timeout, timeout.time(args)?)));
    let Some((timeout, time)) = limit else {
        // SAFETY: passed on to the caller.
        return unsafe { entry::call(number, args, thread) };
    };
    let end = process::now().saturating_add(time);
    // SAFETY: passed on to the caller.
    let mut raw = unsafe { entry::call_once(number, args, thread) };
    while raw == RECLAIM_CAME {
        let left = end.saturating_sub(process::now());
        let timespec = [left / NANOSECONDS, left % NANOSECONDS];
        let mut again = *args;
        match timeout {
            Timeout::Milliseconds(arg) => again[arg] = left.div_ceil(NANOSECONDS_OF_MILLISECOND),
            Timeout::Timespec(arg) => again[arg] = (&raw const timespec) as u64,
        }
        // SAFETY: passed on to the caller; the time lives for the call.
        raw = entry::resumed(unsafe { entry::call_once(number, &again, thread) });
    }
    raw
}

/// The form of a call's timeout; `None` if it names a point in time instead, if it does not wait,
/// or if the host itself returns the remaining time.
fn timeout(number: u32, args: &[u64; 6]) -> Option<Timeout> {
    let is_of_time = [nr::CLOCK_REALTIME, nr::CLOCK_MONOTONIC, nr::CLOCK_BOOTTIME];
    match number {
        nr::__NR_poll => Some(Timeout::Milliseconds(2)),
        nr::__NR_epoll_wait | nr::__NR_epoll_pwait => Some(Timeout::Milliseconds(3)),
        nr::__NR_nanosleep => Some(Timeout::Timespec(0)),
        nr::__NR_clock_nanosleep => {
            let is_relative = args[1] as u32 & nr::TIMER_ABSTIME == 0;
            (is_relative && is_of_time.contains(&(args[0] as u32))).then_some(Timeout::Timespec(2))
        }
        nr::__NR_rt_sigtimedwait => Some(Timeout::Timespec(2)),
        nr::__NR_semtimedop | nr::__NR_epoll_pwait2 => Some(Timeout::Timespec(3)),
        nr::__NR_futex => (futex_operation(args) == nr::FUTEX_WAIT).then_some(Timeout::Timespec(3)),
        _ => None,
    }
}

/// Whether a call waits for a word to change, which it reads and never writes.
pub fn is_for_word(number: u32, args: &[u64; 6]) -> bool {
    number == nr::__NR_futex
        && matches!(futex_operation(args), nr::FUTEX_WAIT | nr::FUTEX_WAIT_BITSET)
}

/// Whether the kernel restarts a call after every handler, whatever the handler's flags (`ERESTARTNOINTR`).
pub fn always_restarts(number: u32, args: &[u64; 6]) -> bool {
    match number {
        nr::__NR_futex => matches!(
            futex_operation(args),
            nr::FUTEX_LOCK_PI | nr::FUTEX_LOCK_PI2 | nr::FUTEX_WAIT_REQUEUE_PI
        ),
        nr::__NR_ptrace => {
            matches!(args[0] as u32, ptrace::PTRACE_ATTACH | ptrace::PTRACE_SEIZE)
        }
        _ => false,
    }
}

/// The operation of `futex(2)`; the kernel reads only the lower half of the argument.
const fn futex_operation(args: &[u64; 6]) -> u32 {
    /// `FUTEX_PRIVATE_FLAG` and `FUTEX_CLOCK_REALTIME`.
    const FLAGS: u32 = 128 | 256;
    args[1] as u32 & !FLAGS
}

impl Timeout {
    /// The time in nanoseconds; `None` for ever, or if it is invalid.
    fn time(self, args: &[u64; 6]) -> Option<u64> {
        match self {
            Self::Milliseconds(arg) => {
                let time = u64::try_from(args[arg] as i32).ok()?;
                Some(time * NANOSECONDS_OF_MILLISECOND)
            }
            Self::Timespec(arg) if args[arg] == 0 => None,
            Self::Timespec(arg) => {
                let [seconds, nanoseconds] = user::read::<[u64; 2]>(args[arg]).ok()?;
                let valid = seconds <= i64::MAX as u64 && nanoseconds < NANOSECONDS;
                let time = seconds.saturating_mul(NANOSECONDS).saturating_add(nanoseconds);
                valid.then_some(time)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_wait_is_where_the_call_has_it() {
        let time = |number, args: &[u64; 6]| {
            timeout(number, args).and_then(|timeout| match timeout {
                Timeout::Milliseconds(_) => timeout.time(args),
                Timeout::Timespec(arg) => Some(args[arg]),
            })
        };
        assert_eq!(time(nr::__NR_poll, &[0, 0, 1500, 0, 0, 0]), Some(1_500_000_000));
        assert_eq!(time(nr::__NR_poll, &[0, 0, u64::from(u32::MAX), 0, 0, 0]), None);
        assert_eq!(time(nr::__NR_epoll_wait, &[3, 0, 8, 0, 0, 0]), Some(0));
        assert_eq!(time(nr::__NR_nanosleep, &[77, 0, 0, 0, 0, 0]), Some(77));
        assert_eq!(time(nr::__NR_clock_nanosleep, &[1, 0, 77, 0, 0, 0]), Some(77));
        // Until a moment, and by the time that the processor spends on the thread.
        assert_eq!(time(nr::__NR_clock_nanosleep, &[1, 1, 77, 0, 0, 0]), None);
        assert_eq!(time(nr::__NR_clock_nanosleep, &[3, 0, 77, 0, 0, 0]), None);
        assert_eq!(time(nr::__NR_futex, &[0, 128, 0, 77, 0, 0]), Some(77));
        // FUTEX_WAKE, FUTEX_WAIT_BITSET.
        assert_eq!(time(nr::__NR_futex, &[0, 129, 1, 77, 0, 0]), None);
        assert_eq!(time(nr::__NR_futex, &[0, 137, 1, 77, 0, 0]), None);
        assert_eq!(time(nr::__NR_read, &[0, 0, 77, 0, 0, 0]), None);
    }
}
