//! A thread leaves the memory manager before a tracer sees it stopped.
//!
//! The kernel stops no thread that holds its locks. The manager's are held in user mode, where a signal stops a thread
//! anywhere, and others would wait for it as long as the tracer likes. So a managed tracer that finds a tracee stopped
//! in the manager lets it go on, and the tracee raises the signal again as it leaves (`call::stop`).
//!
//! All work of the manager is done under one lock, the gate, so taking and releasing it marks the work.

use crate::frame::Info;
use crate::keys;
use crate::sys;
use crate::thread::Thread;
use core::cell::Cell;
use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering::Relaxed;
use linux_raw_sys::general as nr;
use lock_api::{GuardNoSend, RawRwLock};
use pagefault_linux::lock::FutexRwLock;

/// Marks a thread's block, for a tracer that looks for one.
pub const MARK: u64 = 0x7066_626c_6f63_6b31;

/// No call: more than any number.
const NO_CALL: u64 = u64::MAX;

/// The most signals that wait until a thread leaves the manager: each stops it there once more.
pub const ROOM: usize = 4;

/// What a tracer reads and writes of a thread. All of it is read again at each use: the tracer writes while the thread is
/// stopped.
#[repr(C)]
pub struct Stops {
    /// [`MARK`].
    mark: Cell<u64>,
    /// The number of the call that the program asks for; [`NO_CALL`] while it asks for none.
    pub asked: Cell<u64>,
    /// How many gates the thread holds.
    pub held: Cell<u64>,
    /// Whether any request asks for a signal.
    pub waits: Cell<u64>,
    /// The signal that ends the process, which the host tells of a second time: first the runtime handled it. 0 for none.
    pub ends: Cell<u64>,
    /// The signals to raise once it holds no gate.
    pub requests: [Request; ROOM],
}

/// A signal that stopped the thread in the manager.
#[repr(C)]
pub struct Request {
    /// What to raise ([`Raise`]); 0 for nothing.
    pub asked: Cell<u64>,
    /// What it has raised, until the tracer has seen that.
    pub raised: Cell<u64>,
    /// What the signal tells.
    pub info: Cell<Info>,
}

/// A signal that a thread is to raise as it leaves the manager.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Raise {
    /// The thread: a forked child inherits the word.
    pub thread: u32,
    /// The signal.
    pub signal: u32,
    /// The event of ptrace's that it stands for; 0 for none.
    pub event: u32,
}

impl Raise {
    /// As a word.
    pub fn word(self) -> u64 {
        u64::from(self.thread) << 32 | u64::from(self.event) << 8 | u64::from(self.signal)
    }

    /// From a word; `None` for 0.
    pub fn of(word: u64) -> Option<Self> {
        let [thread, low] = [word >> 32, word & 0xffff_ffff].map(|half| half as u32);
        (word != 0).then_some(Self { thread, signal: low & 0xff, event: low >> 8 })
    }
}

impl Stops {
    pub const fn new() -> Self {
        Self {
            mark: Cell::new(MARK),
            asked: Cell::new(NO_CALL),
            held: Cell::new(0),
            waits: Cell::new(0),
            ends: Cell::new(0),
            requests: [const { Request::new() }; ROOM],
        }
    }

    /// Makes a call that the program asks for.
    pub fn in_call<R>(&self, number: u32, make: impl FnOnce() -> R) -> R {
        self.asked.set(number.into());
        let made = make();
        self.asked.set(NO_CALL);
        made
    }

    fn begin(&self) {
        self.held.set(self.held.get() + 1);
    }

    fn end(&self) {
        self.held.set(self.held.get() - 1);
        // The tracer may have written it.
        // SAFETY: the field is this thread's.
        let waits = unsafe { self.waits.as_ptr().read_volatile() };
        if waits != 0 && self.held.get() == 0 {
            self.raise();
        }
    }

    #[cold]
    fn raise(&self) {
        self.waits.set(0);
        self.requests.iter().for_each(Request::raise);
    }
}

impl Request {
    const fn new() -> Self {
        Self { asked: Cell::new(0), raised: Cell::new(0), info: Cell::new(Info::new(0, 0)) }
    }

    fn raise(&self) {
        let word = self.asked.replace(0);
        let own = sys::thread_id();
        let Some(raise) = Raise::of(word).filter(|raise| raise.thread == own) else { return };
        self.raised.set(word);
        let thread = [sys::process_id().into(), own.into(), raise.signal.into()];
        let [process, number, signal] = thread;
        let args = [process, number, signal, self.info.as_ptr() as u64];
        // SAFETY: a signal to this thread, whose information lives for the call. The host lets only a process's first
        // thread say what the kernel says; the tracer puts the rest right.
        unsafe {
            let queued = sys::call(nr::__NR_rt_tgsigqueueinfo, args);
            let _ = queued.or_else(|_| sys::call(nr::__NR_tgkill, thread));
        }
    }
}

/// Whether the first thread runs on its own block.
static HAVE_THREADS: AtomicBool = AtomicBool::new(false);

/// Begins to note who holds the gate, once the first thread runs on its own block.
pub fn begin() {
    HAVE_THREADS.store(true, Relaxed);
}

fn current() -> Option<&'static Thread> {
    HAVE_THREADS.load(Relaxed).then(Thread::current)
}

/// The calling thread holds the lock. Another thread may have got the program's first key since it entered the runtime.
fn begin_work() {
    keys::open();
    current().inspect(|thread| thread.stops.begin());
}

/// The lock of the manager, which notes that the calling thread holds it.
pub struct Gate(FutexRwLock);

// SAFETY: the lock within does all the work.
unsafe impl RawRwLock for Gate {
    #[allow(clippy::declare_interior_mutable_const)]
    const INIT: Self = Self(FutexRwLock::INIT);
    type GuardMarker = GuardNoSend;

    fn lock_shared(&self) {
        self.0.lock_shared();
        begin_work();
    }

    fn try_lock_shared(&self) -> bool {
        let is_locked = self.0.try_lock_shared();
        if is_locked {
            begin_work();
        }
        is_locked
    }

    unsafe fn unlock_shared(&self) {
        // SAFETY: passed on to the caller.
        unsafe { self.0.unlock_shared() };
        current().inspect(|thread| thread.stops.end());
    }

    fn lock_exclusive(&self) {
        self.0.lock_exclusive();
        begin_work();
    }

    fn try_lock_exclusive(&self) -> bool {
        let is_locked = self.0.try_lock_exclusive();
        if is_locked {
            begin_work();
        }
        is_locked
    }

    unsafe fn unlock_exclusive(&self) {
        // SAFETY: passed on to the caller.
        unsafe { self.0.unlock_exclusive() };
        current().inspect(|thread| thread.stops.end());
    }

    fn is_locked(&self) -> bool {
        self.0.is_locked()
    }

    fn is_locked_exclusive(&self) -> bool {
        self.0.is_locked_exclusive()
    }
}
