//! The signals that wait for a thread or a process, each with what comes with it.

use super::{Info, bit};
use crate::errno::Errno;
use crate::lock::Mutex;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

/// The first real-time signal. Of one below, only the first waits.
const REAL_TIME: u32 = 32;
/// The most signals that wait with what comes with them.
const MOST: usize = 1024;
/// `si_code` of a timer's signal.
const SI_TIMER: i32 = -2;

/// Signals that wait.
#[derive(Default)]
pub struct Queue {
    /// A bit for each of `infos`, changed under its lock.
    bits: AtomicU64,
    /// In the order in which they came.
    infos: Mutex<Vec<Info>>,
}

impl Queue {
    /// The set of those that wait.
    pub fn set(&self) -> u64 {
        self.bits.load(Ordering::Acquire)
    }

    /// Adds a signal. Without room, one that a program queued is refused, and any other comes without a cause.
    pub fn add(&self, info: Info) -> Result<(), Errno> {
        let mut infos = self.infos.lock();
        let there = infos.iter().position(|other| other.number == info.number);
        let same_timer = |other: &&mut Info| {
            let timer = |of: &Info| (of.number, of.code, of.address as u32);
            info.code == SI_TIMER && timer(other) == timer(&info)
        };
        if let Some(other) = infos.iter_mut().find(same_timer) {
            // It tells how often the timer has ended.
            *other = info;
        } else if there.is_none() || info.number >= REAL_TIME {
            if infos.len() < MOST {
                infos.push(info);
            } else if info.number >= REAL_TIME && info.code < 0 {
                return Err(Errno::EAGAIN);
            }
        }
        self.bits.fetch_or(bit(info.number), Ordering::AcqRel);
        Ok(())
    }

    /// Adds a signal that a fault raised; one that waits tells of the fault instead.
    pub fn force(&self, info: Info) {
        let mut infos = self.infos.lock();
        infos.retain(|other| other.number != info.number);
        infos.push(info);
        self.bits.fetch_or(bit(info.number), Ordering::AcqRel);
    }

    /// Takes the first that waits of a number; `None` if there is none.
    pub fn take(&self, number: u32) -> Option<Info> {
        let mut infos = self.infos.lock();
        if self.set() & bit(number) == 0 {
            return None;
        }
        let first = infos.iter().position(|info| info.number == number);
        let info = first.map(|at| infos.remove(at));
        if !infos.iter().any(|info| info.number == number) {
            self.bits.fetch_and(!bit(number), Ordering::AcqRel);
        }
        Some(info.unwrap_or(Info { number, code: 0, address: 0, status: 0 }))
    }

    /// Drops all of a number.
    pub fn forget(&self, number: u32) {
        let mut infos = self.infos.lock();
        infos.retain(|info| info.number != number);
        self.bits.fetch_and(!bit(number), Ordering::AcqRel);
    }
}
