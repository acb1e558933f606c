//! Thread delivery: threads of the machine's own read the userfaultfd.
//!
//! They also answer faults that the kernel takes on the program's behalf, so system calls work on
//! absent pages.

use super::pager::answer;
use super::signal::{FaultInfo, OURS};
use super::{Answer, Report, Signal, stop};
use crate::host::PAGE;
use crate::lock::{FutexMutex, FutexRwLock};
use crate::machine::Shared;
use crate::place::Refilled;
use crate::runtime::Quiet;
use crate::space;
use crate::store::descriptor::{self, Kept};
use crate::uffd::UffdFeatures;
use lock_api::RwLock;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::fd::{AsFd, AsRawFd};
use rustix::io::Errno;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

/// The threads of a machine.
pub(crate) struct Threads {
    running: lock_api::Mutex<FutexMutex, Option<Running>>,
    /// Held shared while faults are answered. An exclusive holder knows that no thread of the
    /// machine holds any other lock.
    pub gate: RwLock<FutexRwLock, ()>,
    poisoned: lock_api::Mutex<FutexMutex, Poisoned>,
}

/// Pages that were poisoned to make a system call fail.
struct Poisoned {
    pages: [u64; POISONED],
    len: usize,
}

/// The most pages poisoned at once.
const POISONED: usize = 32;

struct Running {
    stop: Arc<Kept>,
    /// The descriptors that each thread waits on.
    waits: Vec<Arc<Kept>>,
    handles: Vec<JoinHandle<()>>,
}

impl Threads {
    pub fn new() -> Self {
        Self {
            running: lock_api::Mutex::new(None),
            gate: RwLock::new(()),
            poisoned: lock_api::Mutex::new(Poisoned { pages: [0; POISONED], len: 0 }),
        }
    }

    /// Stops the threads and waits for them.
    pub fn stop(&self) {
        let Some(running) = self.running.lock().take() else { return };
        // The counter cannot overflow from one write.
        let _ = rustix::io::write(&*running.stop, &1_u64.to_ne_bytes());
        for handle in running.handles {
            // A thread that panicked has already printed its message.
            let _ = handle.join();
        }
    }

    /// After a process fork the child has no threads; forgets them and returns how many there were.
    pub fn forget(&self) -> usize {
        match self.running.lock().take() {
            Some(running) => {
                let count = running.handles.len();
                // Joining or detaching a thread of another process makes no sense.
                running.handles.into_iter().for_each(std::mem::forget);
                count
            }
            None => 0,
        }
    }

    /// Forgets poisoned pages in a range of host addresses that is about to go.
    pub fn forget_poisoned(&self, range: &std::ops::Range<u64>) {
        let mut poisoned = self.poisoned.lock();
        let (all, mut kept) = (poisoned.pages, 0);
        for host in all[..poisoned.len].iter().filter(|host| !range.contains(host)) {
            poisoned.pages[kept] = *host;
            kept += 1;
        }
        poisoned.len = kept;
    }

    /// The descriptors of the threads, which the program must not close.
    pub fn descriptors(&self) -> Vec<i32> {
        let running = self.running.lock();
        let all = |running: &Running| {
            let mine = running.waits.iter().chain([&running.stop]);
            mine.map(|kept| kept.as_fd().as_raw_fd()).collect()
        };
        running.as_ref().map(all).unwrap_or_default()
    }
}

/// Starts threads that answer faults.
pub(crate) fn start(shared: &Arc<Shared>, count: usize) -> Result<(), Errno> {
    let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let stop = Arc::new(descriptor::keep(stop));
    let waits: Vec<_> =
        (0..count).map(|_| waiting_for(shared, &stop).map(Arc::new)).collect::<Result<_, _>>()?;
    let spawn = |wait: &Arc<Kept>| {
        let (shared, wait) = (Arc::downgrade(shared), wait.clone());
        let builder = std::thread::Builder::new().name("pagefault".into());
        builder.spawn(move || serve(&shared, &wait))
    };
    // Threads inherit the mask: none of ours may run the program's handlers, which could touch
    // managed memory.
    let quiet = Quiet::new();
    let mut handles = Vec::with_capacity(count);
    let spawned = waits.iter().try_for_each(|wait| spawn(wait).map(|handle| handles.push(handle)));
    drop(quiet);
    let threads = &shared.pagers.threads;
    *threads.running.lock() = Some(Running { stop, waits, handles });
    spawned.map_err(|error: std::io::Error| {
        // The others must not wait forever for faults that nobody answers.
        threads.stop();
        Errno::from_io_error(&error).unwrap_or(Errno::AGAIN)
    })
}

const STOP: u64 = 0;
const FAULT: u64 = 1;

/// The descriptors that one thread waits on. A fault wakes only the first idle thread; with `poll`
/// it would wake them all.
fn waiting_for(shared: &Shared, stop: &Kept) -> Result<Kept, Errno> {
    let wait = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&wait, stop.as_fd(), EventData::new_u64(STOP), EventFlags::IN)?;
    let fault = EventFlags::IN | EventFlags::EXCLUSIVE;
    epoll::add(&wait, &shared.descriptor, EventData::new_u64(FAULT), fault)?;
    Ok(descriptor::keep(wait))
}

fn serve(shared: &Weak<Shared>, wait: &Kept) {
    let Some(shared) = shared.upgrade() else { return };
    shared.pagers.with_current(|pager| pager.thread_started());
    let empty = Event { flags: EventFlags::empty(), data: EventData::new_u64(FAULT) };
    loop {
        let threads = &shared.pagers.threads;
        let pause = (threads.poisoned.lock().len > 0).then_some(&POISON_TIME);
        let mut events = [empty; 2];
        // Interrupted or refused: reading the descriptor anyway does no harm.
        let ready = epoll::wait(wait.as_fd(), &mut events[..], pause);
        let ready_count = ready.unwrap_or(0);
        if events[..ready_count].iter().any(|event| event.data.u64() == STOP) {
            return;
        }
        let _answering = threads.gate.read();
        if pause.is_some() && ready == Ok(0) {
            unpoison(&shared);
        }
        shared.take_reports(|report| answer_report(&shared, &report));
    }
}

/// How long a page stays poisoned. The system call that accesses it fails at once; if its thread is
/// late, the fault is reported again.
const POISON_TIME: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };

fn unpoison(shared: &Shared) {
    shared.pagers.threads.poisoned.lock().clear(shared);
}

/// Poisons the page at an accessed host address; false if the host cannot.
fn poison(shared: &Shared, host: u64) -> bool {
    // SAFETY: the access waits for its answer, so its space is there.
    let Some(space) = (unsafe { space::find(host) }) else { return false };
    if !shared.probe.features.contains(UffdFeatures::POISON) {
        return false;
    }
    let mut poisoned = shared.pagers.threads.poisoned.lock();
    if poisoned.len == POISONED {
        poisoned.clear(shared);
    }
    let index = poisoned.len;
    let done = shared.poison(space, space.index_of(host));
    if done {
        poisoned.pages[index] = host;
        poisoned.len += 1;
    }
    done
}

impl Poisoned {
    fn clear(&mut self, shared: &Shared) {
        let len = std::mem::take(&mut self.len);
        for &host in &self.pages[..len] {
            // SAFETY: whoever drops a space first takes its pages off this list, whose lock is
            // held.
            if let Some(space) = unsafe { space::find(host) } {
                shared.unpoison(space, space.index_of(host));
            }
        }
    }
}

fn answer_report(shared: &Shared, report: &Report) {
    // SAFETY: the faulting access waits for the answer; whoever drops a space answers for there
    // being none.
    let outcome = match unsafe { space::find(report.address) } {
        Some(space) => answer(space, &report.fault()),
        None => Answer::Signal(Signal::NotMapped),
    };
    match outcome {
        Answer::Resume(Refilled::Changed) => return,
        Answer::Resume(Refilled::Unchanged) => {}
        Answer::Signal(signal) => deny(shared, report, signal),
        Answer::Short => stop("pagefault: out of memory\n"),
        Answer::Stop(text) => stop(text),
    }
    shared.wake_waiters(report);
}

/// Makes an access fail: a program's by a signal, the kernel's by poisoning the page, since the
/// kernel would retry forever with the signal pending.
fn deny(shared: &Shared, report: &Report, signal: Signal) {
    let page = report.address & !(PAGE as u64 - 1);
    if report.thread != 0 && !in_system_call(report.thread) {
        send(report.thread, signal, report.address);
        return;
    }
    if !poison(shared, page) {
        stop("pagefault: a system call was given an address that it may not use\n");
    }
}

/// Whether a thread that waits for a page is inside a system call, by /proc.
fn in_system_call(thread: u32) -> bool {
    use rustix::fs::{CWD, Mode, OFlags, openat};
    use std::io::Write;
    let mut path = [0_u8; 48];
    // The longest number fits.
    let _ = write!(&mut path[..], "/proc/self/task/{thread}/syscall");
    let Ok(path) = std::ffi::CStr::from_bytes_until_nul(&path) else { return false };
    let Ok(file) = openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) else {
        return false;
    };
    let mut text = [0_u8; 2];
    // "-1 …" for a thread blocked outside of system calls, a number for one inside.
    rustix::io::read(&file, &mut text).is_ok_and(|n| n > 0) && text[0].is_ascii_digit()
}

/// Sends a thread the signal that its access raised, in the form that our handler expects.
fn send(thread: u32, signal: Signal, address: u64) {
    let (number, code) = signal.numbers();
    let info = FaultInfo {
        signal: number,
        errno: OURS,
        // Another thread's signal may not claim to be the kernel's.
        code: libc::SI_QUEUE,
        pad: 0,
        address,
        meant: code as u64,
        rest: [0; 12],
    };
    // SAFETY: queues a signal to a thread of this process, with a siginfo of the kernel's size.
    unsafe {
        libc::syscall(libc::SYS_rt_tgsigqueueinfo, libc::getpid(), thread, number, &info);
    }
}
