//! Memory policies, of the one node that there is: what is asked for is checked and told again, and
//! every page is where it is.

use super::super::{Arguments, Result};
use super::mm;
use crate::errno::Errno;
use crate::{process, scheduler, user};
use core::sync::atomic::Ordering;
use linux_raw_sys::mempolicy as nr;
use pagefault::machine::{PAGE_SIZE, VirtAddr};

/// The flags of a mode.
const MODE_FLAGS: u32 =
    nr::MPOL_F_STATIC_NODES | nr::MPOL_F_RELATIVE_NODES | nr::MPOL_F_NUMA_BALANCING;
/// The most bits of a set of nodes.
const MOST_BITS: u64 = PAGE_SIZE * 8;

const DEFAULT: u32 = nr::MPOL_DEFAULT as u32;
const PREFERRED: u32 = nr::MPOL_PREFERRED as u32;
const LOCAL: u32 = nr::MPOL_LOCAL as u32;
const LAST: u32 = nr::MPOL_WEIGHTED_INTERLEAVE as u32;

/// Reads a set of nodes; whether it has node 0. One that there is not, beyond the word that holds it,
/// is refused.
fn has_node(at: u64, bits: u64) -> core::result::Result<bool, Errno> {
    // As on Linux, the number is one more than that of the bits.
    let bits = bits.saturating_sub(1);
    if at == 0 || bits == 0 {
        return Ok(false);
    }
    if bits > MOST_BITS {
        return Err(Errno::EINVAL);
    }
    let mut first = false;
    for word in 0..bits.div_ceil(64) {
        let within = (bits - 64 * word).min(64);
        let mask = if within == 64 { u64::MAX } else { (1 << within) - 1 };
        let set = user::read_u64(at.wrapping_add(8 * word))? & mask;
        if word == 0 {
            first = set & 1 != 0;
        } else if set != 0 {
            return Err(Errno::EINVAL);
        }
    }
    Ok(first)
}

/// Checks a mode with its nodes; returns the mode and whether node 0 is kept with it.
fn checked(mode: u32, at: u64, bits: u64) -> core::result::Result<(u32, bool), Errno> {
    let (flags, mode) = (mode & MODE_FLAGS, mode & !MODE_FLAGS);
    let both = nr::MPOL_F_STATIC_NODES | nr::MPOL_F_RELATIVE_NODES;
    if mode > LAST || flags & both == both {
        return Err(Errno::EINVAL);
    }
    let has_node = has_node(at, bits)?;
    match mode {
        DEFAULT | LOCAL if has_node || flags != 0 => Err(Errno::EINVAL),
        DEFAULT | LOCAL => Ok((mode, false)),
        // The nearest node is preferred where none is named.
        PREFERRED if !has_node && flags != 0 => Err(Errno::EINVAL),
        PREFERRED if !has_node => Ok((LOCAL, false)),
        _ if !has_node => Err(Errno::EINVAL),
        _ => Ok((mode | flags, true)),
    }
}

pub(super) fn set(mode: u32, at: u64, bits: u64) -> Result {
    let (mode, has_node) = checked(mode, at, bits)?;
    let word = mode << 1 | u32::from(has_node);
    process::thread().policy.store(word, Ordering::Relaxed);
    Ok(0)
}

pub(super) fn get(arguments: Arguments) -> Result {
    let Arguments { a: to, b: nodes, c: bits, d: address, e: flags, .. } = arguments;
    let flags = flags as u32;
    let (node, by_address, allowed) = (nr::MPOL_F_NODE, nr::MPOL_F_ADDR, nr::MPOL_F_MEMS_ALLOWED);
    if flags & !(node | by_address | allowed) != 0 || nodes != 0 && bits == 0 {
        return Err(Errno::EINVAL);
    }
    let word = process::thread().policy.load(Ordering::Relaxed);
    let (mut mode, mut has_node) = (word >> 1, word & 1 != 0);
    if flags & allowed != 0 {
        if flags & (node | by_address) != 0 {
            return Err(Errno::EINVAL);
        }
        (mode, has_node) = (0, true);
    } else if flags & by_address != 0 {
        if mm().maps(VirtAddr(address)..VirtAddr(address.saturating_add(1))).is_empty() {
            return Err(Errno::EFAULT);
        }
        (mode, has_node) = (DEFAULT, false);
        if flags & node != 0 {
            // The page's, which is brought in for that.
            user::read::<1>(address)?;
        }
    } else if address != 0 {
        return Err(Errno::EINVAL);
    } else if flags & node != 0 {
        // The next node of an interleaving: the only one.
        if mode & !MODE_FLAGS != nr::MPOL_INTERLEAVE as u32 {
            return Err(Errno::EINVAL);
        }
        mode = 0;
    }
    if to != 0 {
        user::write(to, &mode.to_le_bytes())?;
    }
    if nodes != 0 {
        for word in 0..bits.min(MOST_BITS).div_ceil(64) {
            let set = u64::from(has_node && word == 0);
            user::write(nodes.wrapping_add(8 * word), &set.to_le_bytes())?;
        }
    }
    Ok(0)
}

pub(super) fn bind(arguments: Arguments) -> Result {
    let Arguments { a: address, b: length, c: mode, d: nodes, e: bits, f: flags } = arguments;
    let known = nr::MPOL_MF_STRICT | nr::MPOL_MF_MOVE | nr::MPOL_MF_MOVE_ALL;
    if flags as u32 & !known != 0 || !address.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL);
    }
    let length = length.checked_next_multiple_of(PAGE_SIZE).ok_or(Errno::EINVAL)?;
    let end = address.checked_add(length).ok_or(Errno::EINVAL)?;
    checked(mode as u32, nodes, bits)?;
    let mut covered = address;
    for region in mm().maps(VirtAddr(address)..VirtAddr(end)) {
        if region.range.start.value() > covered {
            return Err(Errno::EFAULT);
        }
        covered = region.range.end.value();
    }
    if covered < end { Err(Errno::EFAULT) } else { Ok(0) }
}

/// Tells where pages are, or moves them to where they are already.
pub(super) fn move_pages(arguments: Arguments) -> Result {
    let Arguments { a: pid, b: count, c: pages, d: nodes, e: status, f: flags } = arguments;
    if flags as u32 & !(nr::MPOL_MF_MOVE | nr::MPOL_MF_MOVE_ALL) != 0 {
        return Err(Errno::EINVAL);
    }
    let process = match pid {
        0 => process::current().clone(),
        pid => process::find(pid as u32).ok_or(Errno::ESRCH)?,
    };
    let space = process.space.lock().clone().ok_or(Errno::EINVAL)?;
    for i in 0..count {
        let address = VirtAddr(user::read_u64(pages.wrapping_add(8 * i))?).page();
        if nodes != 0 {
            let node = user::read(nodes.wrapping_add(4 * i)).map(u32::from_le_bytes)?;
            if node != 0 {
                return Err(Errno::ENODEV);
            }
        }
        let end = VirtAddr(address.value().saturating_add(PAGE_SIZE));
        let mut is_there = false;
        space.pages(address..end, |page| is_there |= page.entry.frame().is_some() && page.maps > 0);
        let told = match is_there {
            true => 0,
            false if space.maps(address..end).is_empty() => Errno::EFAULT.0 as i32,
            false => Errno::ENOENT.0 as i32,
        };
        user::write(status.wrapping_add(4 * i), &(-told).to_le_bytes())?;
        scheduler::yield_if_expired();
        if process::current().ends_this_thread() {
            return Err(Errno::EINTR);
        }
    }
    Ok(0)
}
