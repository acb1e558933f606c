//! The thread that evicts ahead of need, and our threads' place among the program's.

use super::Manager;
use crate::guard;
use pagefault_linux::LinuxMachine;
use pagefault_linux::lock::FutexMutex;
use pagefault_machine::Machine;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32};
use std::sync::Arc;
use std::thread::JoinHandle;

/// The thread, started when frames first become few: most programs never need it.
pub struct Background {
    thread: lock_api::Mutex<FutexMutex, Option<JoinHandle<()>>>,
    running: AtomicBool,
    stop: AtomicBool,
}

impl Background {
    pub const fn new() -> Self {
        Self {
            thread: lock_api::Mutex::new(None),
            running: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        }
    }

    /// Starts the thread if less than a quarter of the frames are free. Called by a thread of ours.
    pub fn start_if_low(&self, manager: &'static Manager) {
        let machine = &manager.machine;
        if self.running.load(Relaxed) || machine.free_frames() > machine.frames() / 4 {
            return;
        }
        if self.running.swap(true, AcqRel) {
            return;
        }
        self.stop.store(false, Release);
        let run = || {
            guard::stay_inside();
            hide_thread();
            manager.memory.background(&manager.background.stop);
            show_thread();
        };
        // Without it, faulting threads evict themselves.
        let started = std::thread::Builder::new().name("pagefault-evict".into()).spawn(run);
        *self.thread.lock() = started.ok();
    }

    /// Stops the thread and waits for it; a later fault starts it again.
    ///
    /// The machine's threads may be running, and may start it again until they are at rest.
    pub fn stop(&self, memory: &Arc<pagefault::Manager<LinuxMachine>>) {
        let Some(thread) = self.thread.lock().take() else { return };
        self.stop.store(true, Release);
        memory.wake_background();
        // A thread that panicked has aborted the process.
        let _ = thread.join();
        self.running.store(false, Release);
    }
}

/// libc's count of threads, if it can be had: when the last of them ends, the process does.
static COUNT: AtomicPtr<AtomicU32> = AtomicPtr::new(std::ptr::null_mut());

/// Finds libc's count of threads. Called once, before the first thread is started.
pub fn find_count() {
    // SAFETY: the names are strings of C's; a missing symbol is null.
    let count = unsafe {
        let (name, version) = (c"__nptl_nthreads", c"GLIBC_PRIVATE");
        libc::dlvsym(libc::RTLD_DEFAULT, name.as_ptr(), version.as_ptr())
    };
    COUNT.store(count.cast(), Release);
}

/// Takes the calling thread, which is ours, out of the count: a process whose own threads have all
/// ended must end, though ours wait for faults.
pub fn hide_thread() {
    // SAFETY: null, or libc's count, which is an unsigned int that it changes atomically itself.
    if let Some(count) = unsafe { COUNT.load(Acquire).as_ref() } {
        count.fetch_sub(1, AcqRel);
    }
}

/// Puts the calling thread back into the count, before it ends.
fn show_thread() {
    // SAFETY: as above.
    if let Some(count) = unsafe { COUNT.load(Acquire).as_ref() } {
        count.fetch_add(1, AcqRel);
    }
}
