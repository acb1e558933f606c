//! The runtime's messages to the supervisor: requests before an exec, and reports of children.

use crate::member::Member;
use crate::sys::{self, Errno};
use crate::{files, process};
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use linux_raw_sys::general as nr;
use linux_raw_sys::net::{MSG_DONTWAIT, MSG_NOSIGNAL};
use linux_raw_sys::prctl::PR_SET_PTRACER;
use pagefault_control::{Control, Message, ask, tree};

/// `PR_SET_PTRACER_ANY`.
const ANYBODY: u64 = u64::MAX;
/// How often a waiting process checks that the supervisor is alive, in nanoseconds.
const LOOK: u64 = 100_000_000;

/// The supervisor's answer.
pub enum Answer {
    /// It waits for the exec.
    Seized,
    /// It cannot, and why.
    Refused(Errno),
}

/// Asks the supervisor to wait for the calling thread's exec and to give the new program its mask, and
/// waits until it does.
pub fn ask(control: &Control, member: &Member, mask: u64) -> Answer {
    let Some(slot) = control.slots.get(member.slot()) else {
        return Answer::Refused(Errno::EAGAIN);
    };
    // Without Yama this fails, and is not needed.
    set_tracer(ANYBODY);
    slot.tid.store(sys::thread_id(), Relaxed);
    slot.mask.store(mask, Relaxed);
    slot.word.store(ask::ASKED, Release);
    member.enrol();
    send(member, Message::Exec { slot: member.slot() });
    let answer = loop {
        match slot.word.load(Acquire) {
            ask::SEIZED => break Answer::Seized,
            ask::REFUSED => break Answer::Refused(Errno(slot.error.load(Relaxed))),
            word => {
                let waited = sys::wait_on(&slot.word, word, LOOK);
                if waited == Err(Errno(linux_raw_sys::errno::ETIMEDOUT as i32)) && is_gone(member) {
                    gone();
                }
            }
        }
    };
    set_tracer(0);
    answer
}

/// Tells the supervisor that the exec failed.
pub fn cancel(member: &Member) {
    send(member, Message::Cancel { slot: member.slot() });
}

/// Tells the supervisor of a child that has begun.
pub fn born(member: &Member) {
    member.enrol();
    send(member, Message::Born { slot: member.slot() });
}

/// Asks the supervisor to make the process with the most frames give some up; at most once in a while.
pub fn request_reclaim(member: &Member) {
    /// The time between two of these, in nanoseconds.
    const INTERVAL: u64 = 1_000_000;
    static LAST: AtomicU64 = AtomicU64::new(0);
    let now = process::now();
    let due = |last: u64| (now.saturating_sub(last) >= INTERVAL).then_some(now);
    if LAST.fetch_update(Relaxed, Relaxed, due).is_ok() {
        let sent = try_send(member, Message::Reclaim { slot: member.slot() }, MSG_DONTWAIT);
        // Any other failure is a full socket, which is full of such messages.
        if sent == Err(Errno::EPIPE) {
            gone();
        }
    }
}

/// Asks the supervisor to have the process with a slot start its server.
pub fn ask_for_server(member: &Member, slot: u32) {
    let _ = try_send(member, Message::Serve { slot }, MSG_DONTWAIT);
}

/// Asks the supervisor to start the compressor. Without it each process compresses by itself.
pub fn offload(member: &Member) {
    let _ = try_send(member, Message::Compress { slot: member.slot() }, MSG_DONTWAIT);
}

fn set_tracer(process: u64) {
    // SAFETY: who may trace the process is all that changes.
    let _ = unsafe { sys::call(nr::__NR_prctl, [u64::from(PR_SET_PTRACER), process, 0, 0, 0]) };
}

fn send(member: &Member, message: Message) {
    loop {
        match try_send(member, message, 0) {
            Err(Errno::EINTR) => {}
            Err(_) => gone(),
            Ok(_) => return,
        }
    }
}

fn try_send(member: &Member, message: Message, flags: u32) -> sys::Result {
    let bytes = message.to_bytes();
    let flags = u64::from(MSG_NOSIGNAL | flags);
    let args = [files::socket(member), bytes.as_ptr() as u64, bytes.len() as u64, flags, 0, 0];
    // SAFETY: the buffer is ours and lives for the call.
    unsafe { sys::call(nr::__NR_sendto, args) }
}

/// Whether the other end of the socket is closed.
fn is_gone(member: &Member) -> bool {
    /// `POLLHUP`.
    const HANG_UP: u16 = 0x10;
    let mut poll = [files::socket(member), 0];
    let args = [(&raw mut poll) as u64, 1, 0];
    // SAFETY: one pollfd is 8 bytes: the descriptor, what is asked, and what is answered.
    let _ = unsafe { sys::call(nr::__NR_poll, args) };
    (poll[0] >> 48) as u16 & HANG_UP != 0
}

fn gone() -> ! {
    if let Some(control) = process::control() {
        // The program may take the end of a child for its own affair, and end as if all were well.
        control.tree.store(tree::UNKEPT, Release);
    }
    process::stop(format_args!(
        "the supervisor (pagefault-super) was killed; without it no program can be started, and no \
         memory asked of others"
    ))
}
