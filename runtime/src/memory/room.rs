//! Makes room when no frame is free: this process evicts, and asks others to.

use super::{GATE, Manager, current, light};
use crate::thread::Thread;
use crate::{keeper, process, solitude, sys};
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{Relaxed, Release};
use linux_raw_sys::general as nr;

/// How many pages are evicted at a time.
const BATCH: usize = 32;
/// How many a pressed process gives up at a time, or an eighth of the tree's frames if that is
/// more.
const GIVEN: usize = 256;
/// How long a process waits for others before it gives up, in nanoseconds.
const PATIENCE: u64 = 20_000_000_000;
/// How long it waits before a retry.
const PAUSE: u64 = 500_000;

/// The search for a frame.
pub struct Room {
    /// When this process first failed to make room alone.
    since: Option<u64>,
}

impl Room {
    pub const fn new() -> Self {
        Self { since: None }
    }

    /// Makes room for a frame, or ends the program if there is none. The gate is not held.
    pub fn make(&mut self, manager: &Manager) {
        if try_to_make(manager) {
            self.since = None;
            return;
        }
        let now = process::now();
        let since = *self.since.get_or_insert(now);
        if now - since > PATIENCE {
            if let Some(shortage) = manager.swap.shortage() {
                process::stop(format_args!("out of memory: {shortage}"));
            }
            process::stop(format_args!(
                "out of memory: all of --memory is in use and the swap areas are full; give more of \
                 either (now {})",
                manager.swap
            ));
        }
    }
}

/// Evicts pages of this process, or asks others to and waits a moment; returns whether any left.
pub fn try_to_make(manager: &Manager) -> bool {
    let freed = {
        let _gate = GATE.read();
        let _section = solitude::section(Thread::current());
        manager.mm().manager().reclaim(BATCH)
    };
    if freed == 0 {
        keeper::press(Thread::current().member());
        let pause = [0, PAUSE];
        // SAFETY: the time lives for the call. A signal ends it early, which is as good.
        let _ = unsafe { sys::call(nr::__NR_nanosleep, [(&raw const pause) as u64, 0]) };
    }
    freed > 0
}

/// How many frames other processes asked of this one.
static ASKED: AtomicU32 = AtomicU32::new(0);

/// Notes that others are short of frames.
pub fn ask() {
    ASKED.store(1, Release);
}

/// Gives up frames if others asked for them. The caller holds no lock.
pub fn give_up_asked() {
    if ASKED.load(Relaxed) != 0 && ASKED.swap(0, Relaxed) != 0 {
        // A press comes while the thread waits in a call, too.
        solitude::back_for(Thread::current(), give_up);
    }
}

fn give_up() {
    let Some(manager) = current() else { return };
    if light::give_up(manager) {
        return;
    }
    // A thread that changes mappings is soon done, and then calls this again.
    let Some(_gate) = GATE.try_read() else { return ask() };
    let all = manager.tree.charged() as usize;
    manager.mm().manager().reclaim(GIVEN.max(all / 8));
    manager.machine.give_back_frames();
}
