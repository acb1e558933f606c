//! What programs ask about the machine and themselves.

use super::{Arguments, Result};
use crate::errno::Errno;
use crate::process;
use crate::{clock, cpu, kernel, random, smp, user};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use linux_raw_sys::general as nr;
use pagefault::machine::{Machine, PAGE_SIZE};

pub(super) fn call(number: u32, arguments: Arguments) -> Option<Result> {
    let Arguments { a, b, c, .. } = arguments;
    Some(match number {
        nr::__NR_uname => uname(a),
        nr::__NR_umask => {
            Ok(process::current().umask.swap(a as u32 & 0o777, Ordering::Relaxed).into())
        }
        // All tasks take turns alike. A priority is told as 20 less its niceness.
        nr::__NR_getpriority => Ok(20),
        nr::__NR_setpriority => Ok(0),
        nr::__NR_sched_getscheduler | nr::__NR_sched_get_priority_max => Ok(0),
        nr::__NR_sched_get_priority_min => Ok(0),
        nr::__NR_sched_getparam => user::write(b, &[0; 4]).map(|()| 0).map_err(Errno::from),
        // These would be told to nobody, and programs ask for them at every start.
        nr::__NR_rseq => Err(Errno::ENOSYS),
        nr::__NR_sync | nr::__NR_syncfs => Ok(0),
        // There is no terminal to hang up.
        nr::__NR_vhangup => Ok(0),
        nr::__NR_getrandom => getrandom(a, b as usize),
        nr::__NR_sched_getaffinity => affinity(b, c),
        nr::__NR_sched_setaffinity => Ok(0),
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

fn affinity(bytes: u64, to: u64) -> Result {
    if bytes < 8 {
        return Err(Errno::EINVAL);
    }
    write_words(to, &[(1 << smp::count()) - 1])?;
    Ok(8)
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

fn getcpu(to: u64, node: u64) -> Result {
    for (at, number) in [(to, cpu::number()), (node, 0)] {
        if at != 0 {
            user::write(at, &number.to_le_bytes())?;
        }
    }
    Ok(0)
}
