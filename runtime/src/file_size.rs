//! The program's limit of file sizes (`RLIMIT_FSIZE`), which must not apply to the runtime's own
//! files.
//!
//! The host's soft limit is the program's, except while the runtime writes. The host's hard limit
//! stays as at the start; the runtime remembers how far the program lowered its own.

use crate::lock::Mutex;
use crate::process::{self, control};
use crate::sys::{self, Errno, Result};
use crate::thread::Thread;
use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use linux_raw_sys::general as nr;
use lock_api::RawMutex;
use pagefault_control::Slot;

/// `RLIM_INFINITY`.
const INFINITY: u64 = u64::MAX;

/// Whether there is a limit.
static IS_LIMITED: AtomicBool = AtomicBool::new(false);

/// Held while the host's limit differs from the program's.
static LIMIT: Mutex<()> = Mutex::new(());

/// Notes the limit that the program begins with.
pub fn begin() {
    IS_LIMITED.store(host().is_ok_and(|[soft, _]| soft != INFINITY), Release);
}

/// Reads and changes the program's limit: the soft and the hard one.
pub fn exchange_limit(new: Option<[u64; 2]>) -> Result<[u64; 2]> {
    let _limit = LIMIT.lock();
    let [host_soft, host_hard] = host()?;
    let was = [host_soft, virtual_hard(slot(), host_hard)];
    let Some([soft, hard]) = new else { return Ok(was) };
    if soft > hard {
        return Err(Errno::EINVAL);
    }
    if hard > was[1] && !process::may_raise_limits() {
        return Err(Errno::EPERM);
    }
    set_host([soft, host_hard.max(hard)])?;
    note_hard(slot(), hard);
    IS_LIMITED.store(soft != INFINITY, Release);
    Ok(was)
}

/// Makes the host's limit the program's, before the runtime goes; returns the host's own.
pub fn settle() -> Option<[u64; 2]> {
    let [soft, hard] = host().ok()?;
    let _ = set_host([soft, virtual_hard(slot(), hard)]);
    Some([soft, hard])
}

/// Takes the host's own limit back after an exec that failed, if the rights permit.
pub fn unsettle(own: Option<[u64; 2]>) {
    if let Some(own) = own {
        let _ = set_host(own);
    }
}

/// Runs an operation on a file of the runtime's, to which the program's limit does not apply.
pub fn unlimited<R>(work: impl FnOnce() -> R) -> R {
    if !IS_LIMITED.load(Acquire) {
        return work();
    }
    // If even the hard limit is too low, the host sends a signal, which is not for the program.
    let mask = sys::exchange_mask(u64::MAX);
    let result = {
        let _limit = LIMIT.lock();
        let own = host();
        if let Ok([_, hard]) = own {
            let _ = set_host([hard, hard]);
        }
        let result = work();
        if let Ok(own) = own {
            let _ = set_host(own);
        }
        result
    };
    take_signal();
    sys::exchange_mask(mask);
    result
}

/// Takes the lock of the limit for a fork.
pub fn hold() {
    // SAFETY: unlocked by `let_go`, on either side of the fork.
    unsafe { LIMIT.raw() }.lock();
}

/// Ends [`hold`].
pub fn let_go() {
    // SAFETY: held by this thread, or by the one that it is a copy of.
    unsafe { LIMIT.raw().unlock() };
}

fn take_signal() {
    let set = 1_u64 << (nr::SIGXFSZ - 1);
    let now = [0_u64; 2];
    let args = [(&raw const set) as u64, 0, (&raw const now) as u64, 8];
    // SAFETY: the set and the time live for the call.
    let _ = unsafe { sys::call(nr::__NR_rt_sigtimedwait, args) };
}

fn slot() -> Option<&'static Slot> {
    control()?.slots.get(Thread::current().member().slot())
}

/// The program's hard limit: the slot keeps how far it is below infinity.
fn virtual_hard(slot: Option<&Slot>, host: u64) -> u64 {
    slot.map_or(host, |slot| host.min(!slot.file_size_below.load(Relaxed)))
}

fn note_hard(slot: Option<&Slot>, hard: u64) {
    if let Some(slot) = slot {
        slot.file_size_below.store(!hard, Relaxed);
    }
}

fn host() -> Result<[u64; 2]> {
    let mut limit = [0_u64; 2];
    let args = [0, nr::RLIMIT_FSIZE.into(), 0, (&raw mut limit) as u64];
    // SAFETY: the structure is ours.
    unsafe { sys::call(nr::__NR_prlimit64, args) }?;
    Ok(limit)
}

fn set_host(limit: [u64; 2]) -> Result<()> {
    let args = [0, nr::RLIMIT_FSIZE.into(), (&raw const limit) as u64, 0];
    // SAFETY: as above.
    unsafe { sys::call(nr::__NR_prlimit64, args) }.map(drop)
}
