//! The limits of address space (`RLIMIT_AS`) and of private writable memory (`RLIMIT_DATA`), which
//! cover only the program's own mappings.
//!
//! The runtime's tables are reservations that are mostly never touched, but the host counts them.
//! So the host's limits stay at their maximum. The runtime keeps the program's limits itself, and
//! counts the program's mappings before it asks the host. Where the maximum is a hard limit that nobody may
//! raise, the tables count after all: the program gets no more than leaves room for those that are still to come.

use crate::files::{read, with_file};
use crate::maps::{Line, each_own_line};
use crate::memory;
use crate::process::{self, control};
use crate::sys::{self, Errno, Result};
use crate::thread::Thread;
use core::ops::Range;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicBool, AtomicU64};
use linux_raw_sys::general as nr;
use pagefault_control::Slot;

/// The host's last counts that are not the program's: all memory, and private writable memory. With
/// these, the host's sums suffice later.
static OWN: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

static UNLIMITED: AtomicBool = AtomicBool::new(false);

/// The bytes of tables that a passive process needs to become active.
const TABLES_TO_COME: u64 = 16 << 20;
/// The bytes that the tables of an active process may grow by at any time.
const TABLES_TO_GROW: u64 = 8 << 20;

/// The growth of the program's address space by a call.
#[derive(Clone, Copy, Debug, Default)]
pub struct Growth {
    /// The bytes of new mappings.
    pub bytes: u64,
    /// The bytes of memory that become private and writable.
    pub data: u64,
    /// The range whose mappings it replaces: start and length.
    pub replaces: Option<(u64, u64)>,
}

/// The words of a slot that hold a limit, by how far it is below infinity: the soft and the hard one.
fn words(slot: &Slot, resource: u32) -> &[AtomicU64; 2] {
    match resource {
        nr::RLIMIT_DATA => &slot.data_below,
        _ => &slot.addresses_below,
    }
}

fn slot() -> Option<&'static Slot> {
    control()?.slots.get(Thread::current().member().slot())
}

fn virtual_limit(slot: &Slot, resource: u32) -> [u64; 2] {
    let [soft, hard] = words(slot, resource);
    [!soft.load(Relaxed), !hard.load(Relaxed)]
}

/// Whether the host limited neither of both at the start, so that the runtime may reserve addresses freely.
pub fn is_unlimited() -> bool {
    UNLIMITED.load(Relaxed)
}

/// Looks at the host's limits, at the start.
pub fn begin() {
    let is_unlimited =
        |resource: &u32| host_limit(*resource).is_ok_and(|[soft, _]| soft == u64::MAX);
    let both = [nr::RLIMIT_AS, nr::RLIMIT_DATA].iter().all(is_unlimited);
    UNLIMITED.store(both, Relaxed);
}

/// Reads and changes one of the program's limits: the soft and the hard one.
pub fn exchange_limit(resource: u32, new: Option<[u64; 2]>) -> Result<[u64; 2]> {
    let Some(slot) = slot() else { return Err(Errno::ENOSYS) };
    let was = virtual_limit(slot, resource);
    let Some([soft, hard]) = new else { return Ok(was) };
    if soft > hard {
        return Err(Errno::EINVAL);
    }
    if hard > was[1] {
        if !process::may_raise_limits() {
            return Err(Errno::EPERM);
        }
        // If it is already infinite, nothing changes.
        let _ = set_host(resource, [u64::MAX; 2]);
    }
    for (word, limit) in words(slot, resource).iter().zip([soft, hard]) {
        word.store(!limit, Relaxed);
    }
    Ok(was)
}

/// Makes the host's limits the program's for good, before the runtime goes.
pub fn settle() {
    let Some(slot) = slot() else { return };
    for resource in [nr::RLIMIT_AS, nr::RLIMIT_DATA] {
        let _ = set_host(resource, virtual_limit(slot, resource));
    }
}

/// Takes the host's limits back after an exec that failed. A hard limit stays where only a right could
/// raise it.
pub fn unsettle() {
    let Some(slot) = slot() else { return };
    for resource in [nr::RLIMIT_AS, nr::RLIMIT_DATA] {
        let [_, hard] = virtual_limit(slot, resource);
        let _ = set_host(resource, [u64::MAX; 2]).or_else(|_| set_host(resource, [hard; 2]));
    }
}

fn set_host(resource: u32, limit: [u64; 2]) -> Result<()> {
    let args = [0, resource.into(), (&raw const limit) as u64, 0];
    // SAFETY: the structure is ours.
    unsafe { sys::call(nr::__NR_prlimit64, args) }.map(drop)
}

fn host_limit(resource: u32) -> Result<[u64; 2]> {
    let mut limit = [0_u64; 2];
    let args = [0, resource.into(), 0, (&raw mut limit) as u64];
    // SAFETY: the structure is ours.
    unsafe { sys::call(nr::__NR_prlimit64, args) }?;
    Ok(limit)
}

/// Whether the program may grow this much. The caller holds the gate exclusively.
///
/// `ENOMEM`: a limit forbids it.
pub fn admit(growth: Growth) -> Result<()> {
    let Some(slot) = slot() else { return Ok(()) };
    let limits = [virtual_limit(slot, nr::RLIMIT_AS)[0], virtual_limit(slot, nr::RLIMIT_DATA)[0]];
    if limits == [u64::MAX; 2] {
        return Ok(());
    }
    if growth.bytes > limits[0] || growth.data > limits[1] {
        // Whatever is used and replaced. An allocator that asks for far too much asks often.
        return Err(Errno::ENOMEM);
    }
    let fits = |used: [u64; 2]| {
        let sum = |used: u64, more: u64| used.saturating_add(more);
        (growth.bytes == 0 || sum(used[0], growth.bytes) <= limits[0])
            && (growth.data == 0 || sum(used[1], growth.data) <= limits[1])
    };
    // Without the host's counts, as without /proc, there is nothing to compare.
    let Some(host) = host_sums() else { return Ok(()) };
    let has_room = |replaced: [u64; 2]| leaves_room(host, growth, replaced);
    let own = [0, 1].map(|kind: usize| OWN[kind].load(Relaxed));
    if own[0] != 0
        && has_room([0; 2])
        && fits([0, 1].map(|kind| host[kind].saturating_sub(own[kind])))
    {
        return Ok(());
    }
    let Some((used, replaced)) = used(growth.replaces) else { return Ok(()) };
    for kind in 0..2 {
        OWN[kind].store(host[kind].saturating_sub(used[kind]), Relaxed);
    }
    let left = [0, 1].map(|kind| used[kind].saturating_sub(replaced[kind]));
    if fits(left) && has_room(replaced) { Ok(()) } else { Err(Errno::ENOMEM) }
}

/// Whether the host's limits leave room for the runtime's tables, which grow with the program's addresses. Without it the
/// runtime would have to stop the program at some later fault.
fn leaves_room(host: [u64; 2], growth: Growth, replaced: [u64; 2]) -> bool {
    let tables = match memory::is_passive() {
        true => TABLES_TO_COME,
        false => TABLES_TO_GROW,
    };
    let grown = [growth.bytes, growth.data];
    [nr::RLIMIT_AS, nr::RLIMIT_DATA].iter().enumerate().all(|(kind, resource)| {
        let Ok([_, hard]) = host_limit(*resource) else { return true };
        let sum = host[kind].saturating_sub(replaced[kind]).saturating_add(grown[kind]);
        grown[kind] == 0 || hard == u64::MAX || sum.saturating_add(sum / 64 + tables) <= hard
    })
}

/// Forgets the counts in a forked child, which lacks some of its parent's mappings.
pub fn forget() {
    OWN.iter().for_each(|own| own.store(0, Relaxed));
}

/// What the host counts: all addresses, and those of data and stacks.
fn host_sums() -> Option<[u64; 2]> {
    const PAGE: u64 = crate::memory::PAGE;
    let mut text = [0_u8; 128];
    let len = with_file(c"/proc/self/statm", |file| read(file, &mut text))?;
    let mut words = text[..len].split(|byte| *byte == b' ');
    let mut number = |skipped: usize| -> Option<u64> {
        core::str::from_utf8(words.nth(skipped)?).ok()?.parse().ok()
    };
    Some([number(0)? * PAGE, number(4)? * PAGE])
}

/// The program's mappings, and their part in a range; each as all memory, and as private writable
/// memory.
fn used(replaced: Option<(u64, u64)>) -> Option<([u64; 2], [u64; 2])> {
    let (start, len) = replaced.unwrap_or((0, 0));
    let range = start..start.saturating_add(len);
    let (mut all, mut within) = ([0; 2], [0; 2]);
    let add = |line: &[u8]| {
        let Some(mapping) = Mapping::of(line) else { return };
        let Range { start, end } = mapping.range;
        if process::overlaps_runtime(start, end - start) {
            return;
        }
        let common = end.min(range.end).saturating_sub(start.max(range.start));
        for (sums, bytes) in [(&mut all, end - start), (&mut within, common)] {
            sums[0] += bytes;
            sums[1] += if mapping.is_data { bytes } else { 0 };
        }
    };
    each_own_line(add)?;
    Some((all, within))
}

/// The part of a mapping that counts.
struct Mapping {
    range: Range<u64>,
    is_data: bool,
}

impl Mapping {
    fn of(line: &[u8]) -> Option<Self> {
        let Line { range, rights, .. } = Line::of(line)?;
        let is_private = rights.get(3) == Some(&b'p');
        let is_data = is_private && rights.get(1) == Some(&b'w') && !line.ends_with(b"[stack]");
        // The host's own page lies beyond all addresses, and does not count.
        (range.start < range.end && range.end <= crate::user::END + crate::memory::PAGE)
            .then_some(Self { range, is_data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_memory_that_can_be_written_is_data_but_for_the_stack() {
        let of = |line: &str| Mapping::of(line.as_bytes()).map(|m| (m.range.end, m.is_data));
        assert_eq!(of("1000-3000 rw-p 00000000 00:00 0 "), Some((0x3000, true)));
        assert_eq!(of("1000-3000 rw-p 00001000 08:01 7      /a file"), Some((0x3000, true)));
        assert_eq!(of("1000-3000 r--p 00000000 00:00 0"), Some((0x3000, false)));
        assert_eq!(of("1000-3000 rw-s 00000000 00:00 0"), Some((0x3000, false)));
        assert_eq!(
            of("7ffd1000-7ffd3000 rw-p 00000000 00:00 0   [stack]"),
            Some((0x7ffd_3000, false))
        );
        for other in [
            "",
            "garbage",
            "3000-1000 rw-p",
            "1000-zz rw-p",
            "ffffffffff600000-ffffffffff601000 --xp",
        ] {
            assert!(of(other).is_none(), "{other}");
        }
    }
}
