//! A fault of the program's, or of the runtime's on its behalf.

use super::events::{self, Answered};
use super::room::Room;
use super::{GATE, Manager, convert, current, passive};
use crate::frame::{Info, Registers};
use crate::thread::Thread;
use crate::{process, quiescence};
use linux_raw_sys::general as nr;
use pagefault_linux::deliver::{self, HostFault};
use pagefault_linux::{Answer as MachineAnswer, Delivery, Signal};
use pagefault_machine::{Access, Space, VirtAddr};

/// How to resolve a fault.
pub enum Answer {
    /// The access may be tried again.
    Resume,
    /// The program gets a signal.
    Signal(Info),
}

/// The number of the processor's page fault.
const PAGE_FAULT: u64 = 14;
/// In the error code: the access was a store.
const WRITE: u64 = 1 << 1;
/// In the error code: the access was an instruction's fetch.
const FETCH: u64 = 1 << 4;

/// Answers a signal of the host's about an access.
///
/// Only `SIGBUS` can concern an absent page. The host forbids what a region forbids, and itself
/// sends `SIGSEGV`.
pub fn fault(info: &Info, registers: &Registers) -> Answer {
    let (Some(manager), true) = (current(), info.signal == nr::SIGBUS as i32) else {
        return Answer::Signal(*info);
    };
    if registers.trap != PAGE_FAULT {
        return Answer::Signal(*info);
    }
    let access = match registers.error {
        error if error & FETCH != 0 => Access::Execute,
        error if error & WRITE != 0 => Access::Write,
        _ => Access::Read,
    };
    let (address, ip, sp) = (registers.cr2, registers.rip, registers.rsp);
    if convert::is_converting() {
        return Answer::Signal(*info);
    }
    manager.mm().space().prefetch(VirtAddr(address));
    let begin = process::now();
    events::begin_fault();
    let Some(answer) = answer(manager, &HostFault { address, access, ip, sp }) else {
        // The end of a file, or memory that failed.
        events::forget_fault();
        return Answer::Signal(*info);
    };
    if let Some(control) = process::control() {
        let took = process::now() - begin;
        control.counters.fault_time.record(took);
        match answer {
            MachineAnswer::Resume(_) => {
                events::end_fault(&Answered { access, address, ip, begin, took });
            }
            _ => events::forget_fault(),
        }
    }
    match answer {
        MachineAnswer::Short => unreachable!("room was made for it"),
        MachineAnswer::Resume(_) => Answer::Resume,
        // Not ours: the end of a file in a mapping of the host's.
        MachineAnswer::Signal(Signal::NotMapped) => Answer::Signal(*info),
        // The region changed a moment ago, and the host itself will report it.
        MachineAnswer::Signal(Signal::Forbidden) => Answer::Resume,
        MachineAnswer::Signal(Signal::NoContent) => {
            process::stop(format_args!("{}", manager.swap.lost_page()))
        }
        MachineAnswer::Stop(why) => process::stop(format_args!("{}", why.trim_end())),
    }
}

/// The manager's answer; `None` in a passive process, where the host owns the pages.
fn answer(manager: &Manager, fault: &HostFault) -> Option<MachineAnswer> {
    let mut room = Room::new();
    let thread = Thread::current();
    let _back = quiescence::back(thread);
    loop {
        let gate = GATE.read();
        if passive::is_passive() {
            return None;
        }
        let section = match manager.delivery {
            Delivery::Inline => quiescence::long_section(thread),
            _ => quiescence::section(thread),
        };
        let answer = deliver::answer(manager.mm(), fault);
        drop(section);
        if answer != MachineAnswer::Short {
            return Some(answer);
        }
        drop(gate);
        room.make(manager);
    }
}
