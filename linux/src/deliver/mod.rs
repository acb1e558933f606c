//! The way of a fault: from the host, through our page table, to the memory manager.
//!
//! A host fault is first looked up in our own page table, as a processor walks its tables on a TLB
//! miss. If the entry allows the access, the machine fills the host page without calling the memory
//! manager. Otherwise it calls the memory manager: from the embedder's own handler through
//! [`answer()`], or through a [`Pager`], *inline* in the faulting thread (`signal`) or on a
//! *thread* of the machine's (`thread`).

mod answer;
#[cfg(feature = "std")]
pub(crate) mod guard;
#[cfg(feature = "std")]
pub(crate) mod pager;
mod report;
#[cfg(feature = "std")]
pub(crate) mod signal;
#[cfg(feature = "std")]
mod stack;
#[cfg(feature = "std")]
pub(crate) mod thread;

pub use answer::{Answer, HostFault, Resolution, Signal, answer, correct};
#[cfg(feature = "std")]
pub use pager::{Answering, Pager};
pub use report::Report;
use rustix::fd::BorrowedFd;

/// Ends the process with a message, when continuing would mean a wrong byte or a hang.
pub(crate) fn stop(message: &str) -> ! {
    // SAFETY: where the program has closed its standard error the write fails, or goes to what the
    // program has there instead, as its own messages do.
    let stderr = unsafe { BorrowedFd::borrow_raw(2) };
    let _ = rustix::io::write(stderr, message.as_bytes());
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    loop {
        rustix::thread::sched_yield();
    }
}
