//! Makes room when no frame is free: this process evicts, and asks others to.

use super::{GATE, Manager, current, passive, serve};
use crate::call::tracees;
use crate::lock::Mutex;
use crate::thread::Thread;
use crate::{process, quiescence, supervisor, sys};
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{Relaxed, Release};

/// How many pages are evicted at a time.
const BATCH: usize = 32;
/// How many frames a reclaim request takes from a process, or an eighth of the tree's frames if that is
/// more.
const GIVEN: usize = 256;
/// How long a process looks for room before it gives up, in nanoseconds, and how often it must have
/// looked meanwhile: one that was stopped has only waited.
const PATIENCE: u64 = 20_000_000_000;
const ATTEMPTS: u32 = 1000;
/// With fewer pages than these that can leave, an instruction may need all of them and one more.
const FEW: usize = 8;
/// How long it waits before a retry.
const PAUSE: u64 = 500_000;

/// The search for frames.
pub struct Room {
    patience: Patience,
    /// The most that the caller has had so far.
    most: u64,
}

/// How long something has not got on.
struct Patience {
    /// When it stopped to get on.
    since: Option<u64>,
    /// The attempts since then.
    attempts: u32,
}

/// The patience with a swap file that is full while only a [`FEW`] pages go round.
static ROUND: Mutex<Patience> = Mutex::new(Patience::new());

impl Room {
    pub const fn new() -> Self {
        Self { patience: Patience::new(), most: 0 }
    }

    /// Makes room for a frame, or ends the program if there is none. The gate is not held.
    pub fn make(&mut self, manager: &Manager) {
        if try_to_make(manager) {
            self.patience = Patience::new();
        } else if self.patience.is_lost() {
            give_up_program(manager);
        }
    }

    /// Makes room for a caller that needs several pages at once and has `has` of them, or ends the program
    /// if it gets no further; returns whether pages left. The gate is not held.
    ///
    /// That pages leave is not enough here: they may be those that the caller has just brought in, and
    /// that it must bring in again.
    pub fn make_more(&mut self, manager: &Manager, has: u64) -> bool {
        if has > self.most {
            self.most = has;
            self.patience = Patience::new();
        } else if self.patience.is_lost() {
            give_up_program(manager);
        }
        try_to_make(manager)
    }
}

impl Patience {
    const fn new() -> Self {
        Self { since: None, attempts: 0 }
    }

    /// Notes an attempt that did not get on; returns whether there have been enough.
    fn is_lost(&mut self) -> bool {
        let now = process::now();
        let since = *self.since.get_or_insert(now);
        self.attempts = self.attempts.saturating_add(1);
        now - since > PATIENCE && self.attempts > ATTEMPTS
    }
}

/// Ends the program for want of frames.
fn give_up_program(manager: &Manager) -> ! {
    if let Some(shortage) = manager.swap.shortage().or_else(|| manager.swap.limit_reached()) {
        process::stop(format_args!("out of memory: {shortage}"));
    }
    process::stop(format_args!(
        "out of memory: all of --memory is in use and no page can leave: the swap areas are full, or \
         calls and locks hold the pages; give more --memory or swap (now {})",
        manager.swap
    ));
}

/// Notes how many pages left; returns whether the program has gone round with a few for too long. Under
/// the gate: a fork must not copy the lock while it is held.
///
/// Each of them that comes back for an instruction makes another leave that the same instruction
/// needs, so that every fault is answered and none is the last.
fn has_gone_round(manager: &Manager, freed: usize) -> bool {
    let goes_round = (1..FEW).contains(&freed) && manager.swap.shortage().is_some();
    let mut round = ROUND.lock();
    if freed > 0 && !goes_round {
        *round = Patience::new();
    }
    goes_round && round.is_lost()
}

/// Evicts pages of this process, or asks others to and waits a moment; returns whether any left.
fn try_to_make(manager: &Manager) -> bool {
    let (freed, is_lost) = {
        let _gate = GATE.read();
        let _section = quiescence::section(Thread::current());
        let freed = manager.mm().manager().reclaim(BATCH);
        (freed, has_gone_round(manager, freed))
    };
    if is_lost {
        give_up_program(manager);
    }
    if freed == 0 {
        supervisor::request_reclaim(Thread::current().member());
        // A signal ends it early, which is as good.
        sys::sleep(PAUSE);
    }
    freed > 0
}

/// What others ask of this process.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// They are short of frames.
    Frames = 1,
    /// They want to access its memory.
    Server = 2,
    /// Nobody does any more.
    EndServer = 4,
    /// Tracees may have stopped for their runtimes.
    Tracees = 8,
}

/// The requests to obey.
static ASKED: AtomicU32 = AtomicU32::new(0);

/// Notes a request, which a thread of this process will obey.
pub fn ask(request: Request) {
    ASKED.fetch_or(request as u32, Release);
}

/// Obeys the requests of others. The caller holds no lock.
pub fn obey_requests() {
    if ASKED.load(Relaxed) == 0 {
        return;
    }
    let asked = ASKED.swap(0, Relaxed);
    // A request comes while the thread waits in a call, too. A thread that is alone in the manager must not find a server
    // beside it.
    let _back = quiescence::back(Thread::current());
    obey(asked);
}

fn obey(asked: u32) {
    let is_asked = |request: Request| asked & request as u32 != 0;
    if is_asked(Request::Server) {
        serve::add();
    }
    if is_asked(Request::EndServer) {
        serve::end_idle();
    }
    if is_asked(Request::Frames) {
        give_up();
    }
    if is_asked(Request::Tracees) {
        tracees::look();
    }
}

/// Gives up frames if others asked for them, and leaves their other requests. The caller holds no lock.
pub fn give_up_asked() {
    if ASKED.fetch_and(!(Request::Frames as u32), Relaxed) & Request::Frames as u32 != 0 {
        give_up();
    }
}

fn give_up() {
    let Some(manager) = current() else { return };
    if passive::give_up(manager) {
        return;
    }
    // A thread that changes mappings is soon done, and then calls this again.
    let Some(_gate) = GATE.try_read() else { return ask(Request::Frames) };
    let all = manager.tree.charged() as usize;
    manager.mm().manager().reclaim(GIVEN.max(all / 8));
    manager.machine.give_back_frames();
}
