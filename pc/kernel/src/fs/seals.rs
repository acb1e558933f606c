//! What may not be done to a file any more (`F_ADD_SEALS`).

use crate::errno::Errno;
use crate::machine::Pc;
use crate::sleep::{Sleep, SleepMutex};
use core::sync::atomic::{AtomicU32, Ordering};
use linux_raw_sys::general as nr;
use pagefault::File;

const ALL: u32 = nr::F_SEAL_SEAL
    | nr::F_SEAL_SHRINK
    | nr::F_SEAL_GROW
    | nr::F_SEAL_WRITE
    | nr::F_SEAL_FUTURE_WRITE
    | nr::F_SEAL_EXEC;

/// A file's seals, which come and never go. One that was not made to be sealed has the seal against
/// further seals.
pub struct SealSet {
    flags: AtomicU32,
    /// Held while a seal is added, and while something is done that a seal may forbid.
    turn: SleepMutex<()>,
}

/// The seals stay as they are until this is dropped.
pub type Kept<'a> = Option<lock_api::MutexGuard<'a, Sleep, ()>>;

impl Default for SealSet {
    fn default() -> Self {
        Self { flags: AtomicU32::new(nr::F_SEAL_SEAL), turn: SleepMutex::new(()) }
    }
}

impl SealSet {
    /// Lets a new file be sealed.
    pub fn begin(&self, seals: u32) {
        self.flags.store(seals, Ordering::Relaxed);
    }

    /// The seals, as flags.
    pub fn get(&self) -> u32 {
        self.flags.load(Ordering::Acquire)
    }

    /// Keeps other threads from adding seals between a check and what it allows. A file that can get no more
    /// seals needs no lock.
    pub fn keep(&self) -> Kept<'_> {
        let may_come = !self.has(nr::F_SEAL_SEAL);
        may_come.then(|| self.turn.lock())
    }

    fn has(&self, seals: u32) -> bool {
        self.get() & seals != 0
    }

    /// Adds seals to the file with this content.
    pub fn add(&self, seals: u32, content: &File<Pc>) -> Result<(), Errno> {
        if seals & !ALL != 0 {
            return Err(Errno::EINVAL);
        }
        let _turn = self.turn.lock();
        if self.has(nr::F_SEAL_SEAL) {
            return Err(Errno::EPERM);
        }
        if seals & nr::F_SEAL_WRITE != 0 && !self.is_write_sealed() && content.is_mapped_to_write()
        {
            return Err(Errno::EBUSY);
        }
        self.flags.fetch_or(seals, Ordering::AcqRel);
        Ok(())
    }

    /// Whether no new mapping and no call may store to the file. A caller that then stores keeps the seals.
    pub fn is_write_sealed(&self) -> bool {
        self.has(nr::F_SEAL_WRITE | nr::F_SEAL_FUTURE_WRITE)
    }

    /// Whether a call may write up to `end`. The caller keeps the seals until it has.
    pub fn check_write(&self, end: u64, len: impl FnOnce() -> u64) -> Result<(), Errno> {
        let refused = self.is_write_sealed() || self.has(nr::F_SEAL_GROW) && end > len();
        if refused { Err(Errno::EPERM) } else { Ok(()) }
    }

    /// Whether the file may have another length. The caller keeps the seals until it has.
    pub fn check_length(&self, new: u64, old: u64) -> Result<(), Errno> {
        let refused =
            self.has(nr::F_SEAL_SHRINK) && new < old || self.has(nr::F_SEAL_GROW) && new > old;
        if refused { Err(Errno::EPERM) } else { Ok(()) }
    }
}
