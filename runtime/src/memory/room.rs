//! What is done when no frame is to be had: this process evicts, and others are pressed to.

use super::{GATE, Manager, current, light};
use crate::thread::Thread;
use crate::{keeper, process, solitude, sys};
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{Relaxed, Release};
use linux_raw_sys::general as nr;

/// How many pages are evicted at a time.
const BATCH: usize = 32;
/// How many a process that is pressed gives up at a time, or an eighth of what the tree has.
const GIVEN: usize = 256;
/// How long a process waits for others before it gives up, in nanoseconds.
const PATIENCE: u64 = 20_000_000_000;
/// How long it waits before it looks again.
const PAUSE: u64 = 500_000;

/// The search for a frame.
pub struct Room {
    /// When it began, once this process alone could not help itself.
    since: Option<u64>,
}

impl Room {
    pub const fn new() -> Self {
        Self { since: None }
    }

    /// Makes room for a frame, or ends the program where there is none. The gate is not held.
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
                 either"
            ));
        }
    }
}

/// Evicts pages of this process, or else asks others to and waits a moment; whether any left.
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

/// How many frames this process was asked for by others.
static ASKED: AtomicU32 = AtomicU32::new(0);

/// Notes that others are short of frames.
pub fn ask() {
    ASKED.store(1, Release);
}

/// Gives frames up if others asked for them. Called where no lock is held.
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
    // Whoever changes mappings is soon done; then this is asked again.
    let Some(_gate) = GATE.try_read() else { return ask() };
    let all = manager.tree.charged() as usize;
    manager.mm().manager().reclaim(GIVEN.max(all / 8));
    manager.machine.give_back_frames();
}
