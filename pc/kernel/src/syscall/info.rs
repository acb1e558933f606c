//! What programs ask about the machine and themselves.

mod barrier;

use super::{Arguments, Result};
use crate::errno::Errno;
use crate::fs::{self, Follow};
use crate::process;
use crate::process::limits::CAP_SYS_ADMIN;
use crate::task::Task;
use crate::{clock, cpu, kernel, random, scheduler, smp, swap, user};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use linux_raw_sys::general as nr;
use pagefault::machine::{Machine, PAGE_SIZE};
use pagefault::swap::area::Priority;

pub(super) fn call(number: u32, arguments: Arguments) -> Option<Result> {
    let Arguments { a, b, c, .. } = arguments;
    Some(match number {
        nr::__NR_uname => uname(a),
        nr::__NR_umask => {
            Ok(process::current().umask.swap(a as u32 & 0o777, Ordering::Relaxed).into())
        }
        // All tasks have equal turns. A priority is reported as 20 minus its niceness.
        nr::__NR_getpriority => Ok(20),
        nr::__NR_setpriority => Ok(0),
        nr::__NR_sched_getscheduler | nr::__NR_sched_get_priority_max => Ok(0),
        nr::__NR_sched_get_priority_min => Ok(0),
        nr::__NR_sched_getparam => user::write(b, &[0; 4]).map(|()| 0).map_err(Errno::from),
        // These would have no reader, and programs ask for them at every start.
        nr::__NR_rseq => Err(Errno::ENOSYS),
        nr::__NR_sync | nr::__NR_syncfs => Ok(0),
        // There is no terminal to hang up.
        nr::__NR_vhangup => Ok(0),
        nr::__NR_getrandom => getrandom(a, b as usize),
        nr::__NR_sched_getaffinity => affinity(a as u32, b, c),
        nr::__NR_sched_setaffinity => set_affinity(a as u32, b, c),
        nr::__NR_swapon => swap_on(a, b as u32),
        nr::__NR_swapoff => swap_off(a),
        nr::__NR_membarrier => barrier::membarrier(a as u32, b as u32),
        nr::__NR_sysinfo => sysinfo(a),
        nr::__NR_getcpu => getcpu(a, b),
        _ => return None,
    })
}

fn write_words(at: u64, words: &[u64]) -> Result {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    user::write(at, &bytes)?;
    Ok(0)
}

fn uname(to: u64) -> Result {
    let mut bytes = [0; 6 * 65];
    let fields = ["Linux", "pagefault", "6.1.0-pagefault", "#1", "x86_64", "(none)"];
    for (field, text) in bytes.chunks_exact_mut(65).zip(fields) {
        field[..text.len()].copy_from_slice(text.as_bytes());
    }
    user::write(to, &bytes)?;
    Ok(0)
}

fn getrandom(to: u64, bytes: usize) -> Result {
    let mut buffer = [0; 256];
    let n = bytes.min(buffer.len());
    random::fill(&mut buffer[..n]);
    user::write(to, &buffer[..n])?;
    Ok(n as u64)
}

/// A thread by its number; 0 is the running one.
fn thread(id: u32) -> core::result::Result<Arc<Task>, Errno> {
    let id = if id == 0 { cpu::task_id() } else { id };
    process::find_task(id).ok_or(Errno::ESRCH)
}

/// The CPUs that there are, as a set of bits.
fn every_cpu() -> u32 {
    (1 << smp::count()) - 1
}

fn affinity(id: u32, bytes: u64, to: u64) -> Result {
    if bytes < 8 || !bytes.is_multiple_of(8) {
        return Err(Errno::EINVAL);
    }
    let cpus = thread(id)?.cpus.load(Ordering::Relaxed) & every_cpu();
    write_words(to, &[cpus.into()])?;
    Ok(8)
}

fn set_affinity(id: u32, bytes: u64, from: u64) -> Result {
    let mut word = [0; 8];
    let n = bytes.min(8) as usize;
    if user::copy_from(from, &mut word[..n]) > 0 {
        return Err(Errno::EFAULT);
    }
    let task = thread(id)?;
    let cpus = u64::from_le_bytes(word) as u32 & every_cpu();
    if cpus == 0 {
        return Err(Errno::EINVAL);
    }
    task.cpus.store(cpus, Ordering::Relaxed);
    if task.id == cpu::task_id() {
        // Goes on on one that it may run on.
        while !task.may_run_on(cpu::number()) {
            scheduler::yield_now();
        }
    } else {
        // The CPU that runs it looks, and the next turn is somewhere else.
        scheduler::interrupt(task.id);
    }
    Ok(0)
}

fn sysinfo(to: u64) -> Result {
    let machine = kernel().manager.machine();
    let mut words = [0; 14];
    words[0] = clock::nanoseconds() / 1_000_000_000;
    words[4] = u64::from(machine.frames()) * PAGE_SIZE;
    words[5] = u64::from(machine.free_frames()) * PAGE_SIZE;
    words[10] = 1;
    words[13] = 1;
    write_words(to, &words)
}

/// The path of a device, for who may turn swap on and off.
fn device(path: u64) -> core::result::Result<String, Errno> {
    if !process::current().may(CAP_SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    let path = super::path::absolute(super::path::AT_FDCWD, path)?;
    fs::find(&path, Follow::Yes)?;
    Ok(path)
}

fn swap_on(path: u64, flags: u32) -> Result {
    /// The priority is given, in the bits below.
    const PREFER: u32 = 0x8000;
    /// Free slots are told to the device, as they are anyway.
    const DISCARD: u32 = 0x7_0000;
    if flags & !(PREFER | (PREFER - 1) | DISCARD) != 0 {
        return Err(Errno::EINVAL);
    }
    let given = Priority::Given((flags & (PREFER - 1)) as u16);
    let priority = if flags & PREFER != 0 { given } else { Priority::Descending };
    swap::on(&device(path)?, priority)?;
    Ok(0)
}

fn swap_off(path: u64) -> Result {
    swap::off(&device(path)?)?;
    Ok(0)
}

fn getcpu(to: u64, node: u64) -> Result {
    for (at, number) in [(to, cpu::number()), (node, 0)] {
        if at != 0 {
            user::write(at, &number.to_le_bytes())?;
        }
    }
    Ok(0)
}
