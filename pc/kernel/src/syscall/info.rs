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
    let Arguments { a, b, c, d, .. } = arguments;
    Some(match number {
        nr::__NR_uname => uname(a),
        nr::__NR_getuid | nr::__NR_geteuid | nr::__NR_getgid | nr::__NR_getegid => Ok(0),
        // Every program is the superuser's, and of no further group.
        nr::__NR_getresuid | nr::__NR_getresgid => write_ids([a, b, c]),
        nr::__NR_getgroups => Ok(0),
        nr::__NR_setuid
        | nr::__NR_setgid
        | nr::__NR_setreuid
        | nr::__NR_setregid
        | nr::__NR_setresuid
        | nr::__NR_setresgid
        | nr::__NR_setgroups => Ok(0),
        nr::__NR_setfsuid | nr::__NR_setfsgid => Ok(0),
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
        nr::__NR_prlimit64 => prlimit(b as u32, c, d),
        nr::__NR_getrlimit => prlimit(a as u32, 0, b),
        nr::__NR_setrlimit => prlimit(a as u32, b, 0),
        nr::__NR_sched_getaffinity => affinity(b, c),
        nr::__NR_sched_setaffinity => Ok(0),
        nr::__NR_sysinfo => sysinfo(a),
        nr::__NR_getcpu => getcpu(a, b),
        nr::__NR_capget => capabilities(a, b),
        // Nothing asks whether a program may: a right that is given up is not missed.
        nr::__NR_capset => user::read::<8>(a).map(|_| 0).map_err(Errno::from),
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

fn write_ids(addresses: [u64; 3]) -> Result {
    for at in addresses {
        user::write(at, &[0; 4])?;
    }
    Ok(0)
}

fn getrandom(to: u64, bytes: usize) -> Result {
    let mut buffer = [0; 256];
    let n = bytes.min(buffer.len());
    random::fill(&mut buffer[..n]);
    user::write(to, &buffer[..n])?;
    Ok(n as u64)
}

fn prlimit(resource: u32, new: u64, old: u64) -> Result {
    let limits = process::space().limits();
    let limit = match resource {
        nr::RLIMIT_STACK => Some(&limits.stack),
        nr::RLIMIT_AS => Some(&limits.address_space),
        nr::RLIMIT_MEMLOCK => Some(&limits.locked),
        _ => None,
    };
    if old != 0 {
        let now = match (limit, resource) {
            (Some(limit), _) => limit.load(Ordering::Relaxed),
            (None, nr::RLIMIT_NOFILE) => 1024,
            (None, _) => u64::MAX,
        };
        write_words(old, &[now, u64::MAX])?;
    }
    if new != 0
        && let Some(limit) = limit
    {
        limit.store(user::read_u64(new)?, Ordering::Relaxed);
    }
    Ok(0)
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

/// Every program is the superuser's and may do everything (`capget`).
fn capabilities(header: u64, to: u64) -> Result {
    const VERSION: u32 = 0x2008_0522;
    let [a, b, c, d, ..] = user::read::<8>(header)?;
    if u32::from_le_bytes([a, b, c, d]) != VERSION {
        user::write(header, &VERSION.to_le_bytes())?;
        return Err(Errno::EINVAL);
    }
    let target = user::read::<4>(header + 4).map(u32::from_le_bytes)?;
    if target != 0 && process::find(target).is_none() {
        return Err(Errno::ESRCH);
    }
    if to != 0 {
        // Effective, permitted and inheritable, 32 bits of each, and then the upper ones.
        let words = [u32::MAX, u32::MAX, 0, 0x1ff, 0x1ff, 0];
        let bytes: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
        user::write(to, &bytes)?;
    }
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
