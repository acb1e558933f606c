//! Faults as messages of the userfaultfd, without signals.

use super::HostFault;
use crate::host::PAGE;
use crate::machine::{LinuxMachine, Shared};
use pagefault_machine::Access;
use rustix::fd::{AsFd, BorrowedFd};

/// A fault whose thread waits to be woken; the access is the program's, or the kernel's for any
/// process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// The host address, to the byte if the host reports it.
    pub address: u64,
    /// The access; a fetch is reported as a load.
    pub access: Access,
    /// The number of the thread; 0 if the host does not report it.
    pub thread: u32,
}

/// A message of the kernel's (`struct uffd_msg`), for a page fault.
#[repr(C)]
#[derive(Clone, Copy)]
struct Message {
    event: u8,
    reserved: [u8; 7],
    flags: u64,
    address: u64,
    thread: u32,
    pad: u32,
}

const EVENT_PAGEFAULT: u8 = 0x12;
const FLAG_WRITE: u64 = 1;
const FLAG_WP: u64 = 2;
/// The most messages that a thread of the machine's takes with one read.
#[cfg(feature = "std")]
const MESSAGES: usize = 16;

impl Report {
    /// The fault to answer.
    pub fn fault(&self) -> HostFault {
        HostFault { address: self.address, access: self.access, ip: 0, sp: 0 }
    }

    fn of(message: &Message) -> Option<Self> {
        let write = message.flags & (FLAG_WRITE | FLAG_WP) != 0;
        (message.event == EVENT_PAGEFAULT).then_some(Self {
            address: message.address,
            access: if write { Access::Write } else { Access::Read },
            thread: message.thread,
        })
    }
}

impl Shared {
    /// Takes up to [`MESSAGES`] reports.
    #[cfg(feature = "std")]
    pub fn take_reports(&self, f: impl FnMut(Report)) {
        self.take::<{ MESSAGES * size_of::<Message>() }>(f);
    }

    fn take<const BYTES: usize>(&self, f: impl FnMut(Report)) {
        let mut bytes = [0_u8; BYTES];
        // Another thread may have taken the messages: then there is nothing to read.
        let Ok(count) = rustix::io::read(&self.descriptor, &mut bytes) else { return };
        let messages = bytes[..count].chunks_exact(size_of::<Message>()).map(|chunk| {
            // SAFETY: the chunk has the size of a message, and every pattern of bits is one.
            unsafe { chunk.as_ptr().cast::<Message>().read_unaligned() }
        });
        messages.filter_map(|message| Report::of(&message)).for_each(f);
    }

    /// Lets whoever waits for a page try again.
    pub fn wake_waiters(&self, report: &Report) {
        let page = report.address & !(PAGE as u64 - 1);
        // Perhaps no thread waits any more.
        let _ = self.descriptor.wake(page..page + PAGE as u64);
    }
}

impl LinuxMachine {
    /// The descriptor that is readable while there are faults to answer, for an embedder with a
    /// thread of its own under [`Delivery::Threads`](crate::Delivery::Threads).
    pub fn reports(&self) -> BorrowedFd<'_> {
        self.shared.descriptor.as_fd()
    }

    /// Takes one report, if there is one. The faulting thread sleeps until the page is filled
    /// ([`Refilled::Changed`](crate::Refilled::Changed)) or it is [woken](Self::wake_waiters).
    pub fn take_report(&self) -> Option<Report> {
        let mut report = None;
        self.shared.take::<{ size_of::<Message>() }>(|taken| report = Some(taken));
        report
    }

    /// Lets whoever waits for a page try again.
    pub fn wake_waiters(&self, report: &Report) {
        self.shared.wake_waiters(report);
    }
}
