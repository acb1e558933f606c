//! ptrace, as far as memory goes: peek, poke, and going on.

use super::{Arguments, Result};
use crate::errno::Errno;
use crate::process::trace::{self, Traced};
use crate::process::{self, Process};
use crate::{signal, user};
use alloc::sync::Arc;
use linux_raw_sys::general as nr;
use linux_raw_sys::ptrace as request;
use pagefault::machine::VirtAddr;

pub(super) fn call(number: u32, arguments: Arguments) -> Option<Result> {
    (number == nr::__NR_ptrace).then(|| ptrace(arguments))
}

fn ptrace(arguments: Arguments) -> Result {
    let Arguments { a: what, b: pid, c: address, d: data, .. } = arguments;
    let pid = pid as u32;
    match what as u32 {
        request::PTRACE_TRACEME => trace::trace_me()?,
        request::PTRACE_ATTACH => {
            trace::attach(&process::find(pid).ok_or(Errno::ESRCH)?)?;
        }
        request::PTRACE_KILL => {
            let stopped = trace::stopped(pid)?;
            signal::send(&stopped, signal::SIGKILL);
        }
        request::PTRACE_PEEKTEXT | request::PTRACE_PEEKDATA => {
            peek(&trace::stopped(pid)?, address, data)?;
        }
        request::PTRACE_POKETEXT | request::PTRACE_POKEDATA => {
            poke(&trace::stopped(pid)?, address, data)?;
        }
        request::PTRACE_CONT | request::PTRACE_DETACH => {
            let stopped = trace::stopped(pid)?;
            if data > 64 {
                return Err(Errno::EIO);
            }
            let ends = what as u32 == request::PTRACE_DETACH;
            trace::go_on(&stopped, data as u32, if ends { Traced::NoMore } else { Traced::Still });
        }
        // None of them is about memory.
        request::PTRACE_SETOPTIONS => {
            trace::stopped(pid)?;
            if data != 0 {
                return Err(Errno::EINVAL);
            }
        }
        _ => {
            trace::stopped(pid)?;
            return Err(Errno::EIO);
        }
    }
    Ok(0)
}

fn peek(process: &Arc<Process>, address: u64, to: u64) -> core::result::Result<(), Errno> {
    let space = process.space.lock().clone().ok_or(Errno::ESRCH)?;
    let mut word = [0; 8];
    if space.read_forced(VirtAddr(address), &mut word).0 < word.len() {
        return Err(Errno::EIO);
    }
    Ok(user::write(to, &word)?)
}

fn poke(process: &Arc<Process>, address: u64, word: u64) -> core::result::Result<(), Errno> {
    let space = process.space.lock().clone().ok_or(Errno::ESRCH)?;
    let (written, _) = space.write_forced(VirtAddr(address), &word.to_le_bytes());
    if written == size_of_val(&word) { Ok(()) } else { Err(Errno::EIO) }
}
