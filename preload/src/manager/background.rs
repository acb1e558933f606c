//! The thread that evicts ahead of need.

use super::Manager;
use pagefault_linux::LinuxMachine;
use pagefault_linux::lock::FutexMutex;
use pagefault_machine::Machine;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{AcqRel, Relaxed, Release};
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
        let run = || manager.memory.background(&manager.background.stop);
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
