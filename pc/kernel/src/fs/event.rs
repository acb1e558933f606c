//! Files that are counters: `eventfd` counts what is written to it, `timerfd` what time has passed.

use super::Reading;
use super::ready::{Changes, Ready};
use crate::clock::{self, Clock};
use crate::errno::Errno;
use crate::lock::Mutex;

/// What a read of an `eventfd` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// The whole count.
    All,
    /// One (`EFD_SEMAPHORE`).
    One,
}

/// An `eventfd`.
pub struct Counter {
    count: Mutex<u64>,
    changes: Changes,
    take: Take,
}

impl Counter {
    /// A counter that begins with a number.
    pub const fn new(count: u64, take: Take) -> Self {
        Self { count: Mutex::new(count), changes: Changes::new(), take }
    }

    /// Reads the count and lowers it, waiting until it is not zero.
    pub fn read(&self, bytes: &mut [u8], reading: Reading) -> Result<usize, Errno> {
        let word = bytes.get_mut(..8).ok_or(Errno::EINVAL)?;
        let count = self.wait(reading, |count| {
            let taken = if self.take == Take::One { (*count).min(1) } else { *count };
            *count -= taken;
            (taken > 0).then_some(taken)
        })?;
        word.copy_from_slice(&count.to_le_bytes());
        Ok(8)
    }

    /// Adds to the count, waiting until there is room.
    pub fn write(&self, bytes: &[u8], reading: Reading) -> Result<usize, Errno> {
        let word = bytes.get(..8).and_then(|word| word.try_into().ok()).ok_or(Errno::EINVAL)?;
        let more = u64::from_le_bytes(word);
        if more == u64::MAX {
            return Err(Errno::EINVAL);
        }
        self.wait(reading, |count| {
            *count = count.checked_add(more).filter(|sum| *sum < u64::MAX)?;
            Some(())
        })?;
        Ok(8)
    }

    fn wait<T>(
        &self,
        reading: Reading,
        mut change: impl FnMut(&mut u64) -> Option<T>,
    ) -> Result<T, Errno> {
        loop {
            let seen = self.changes.now();
            let changed = change(&mut self.count.lock());
            if let Some(value) = changed {
                self.changes.tell();
                return Ok(value);
            }
            self.changes.wait(seen, reading)?;
        }
    }

    /// What it is ready for, and a count of its changes.
    pub fn ready(&self) -> (Ready, u64) {
        let count = *self.count.lock();
        let mut ready = Ready::empty();
        ready.set(Ready::IN, count > 0);
        ready.set(Ready::OUT, count < u64::MAX - 1);
        (ready, self.changes.now().into())
    }
}

/// When a timer ends, and the time between two ends after that; in nanoseconds, 0 for not at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// When it ends, on the kernel's clock.
    pub deadline: u64,
    /// The time between two ends.
    pub interval: u64,
}

impl Schedule {
    /// Counts the ends up to now, and moves the schedule on.
    pub fn pass(&mut self, now: u64) -> u64 {
        if self.deadline == 0 || now < self.deadline {
            return 0;
        }
        let more = (now - self.deadline).checked_div(self.interval);
        self.deadline = more.map_or(0, |more| self.deadline + (more + 1) * self.interval);
        1 + more.unwrap_or(0)
    }

    /// The time that is left, at least 1 of a timer that runs.
    pub const fn left(&self, now: u64) -> u64 {
        match self.deadline {
            0 => 0,
            deadline if deadline <= now => 1,
            deadline => deadline - now,
        }
    }
}

/// A `timerfd`.
#[derive(Default)]
pub struct Timer {
    /// The clock that its times are of.
    pub clock: Clock,
    state: Mutex<(Schedule, u64)>,
    changes: Changes,
}

impl Timer {
    /// A timer that does not run.
    pub fn new(clock: Clock) -> Self {
        Self { clock, ..Self::default() }
    }

    /// Gives it a schedule and returns the one before.
    pub fn set(&self, schedule: Schedule) -> Schedule {
        let before = core::mem::replace(&mut *self.state.lock(), (schedule, 0)).0;
        self.changes.tell();
        before
    }

    /// Its schedule now.
    pub fn get(&self) -> Schedule {
        self.look();
        self.state.lock().0
    }

    /// The ends that nobody has read, and when the next is.
    fn look(&self) -> (u64, u64) {
        let mut state = self.state.lock();
        state.1 += state.0.pass(clock::nanoseconds());
        (state.1, state.0.deadline)
    }

    /// Reads how often it has ended, waiting for the first time.
    pub fn read(&self, bytes: &mut [u8], reading: Reading) -> Result<usize, Errno> {
        let word = bytes.get_mut(..8).ok_or(Errno::EINVAL)?;
        loop {
            let seen = self.changes.now();
            let (ended, next) = self.look();
            if ended > 0 {
                // Another reader may have been faster.
                let ended = core::mem::take(&mut self.state.lock().1);
                if ended > 0 {
                    word.copy_from_slice(&ended.to_le_bytes());
                    return Ok(8);
                }
                continue;
            }
            let next = if next == 0 { u64::MAX } else { next };
            self.changes.wait_until(seen, next, reading)?;
        }
    }

    /// What it is ready for, and a count of its ends.
    pub fn ready(&self) -> (Ready, u64) {
        let (ended, _) = self.look();
        let mut ready = Ready::empty();
        ready.set(Ready::IN, ended > 0);
        (ready, ended)
    }
}
