//! Makes and removes mappings, and changes their rights.

use super::manager::{done, refused};
use super::{
    GATE, Manager, PAGE, addresses, answer_unmapped, beyond_end, current, fork, guard, is_range,
    passive,
};
use super::{obeyed_below, page_up, pages};
use crate::address_limit::{Growth, admit};
use crate::process;
use crate::sys::{self, Errno, Result};
use alloc::vec::Vec;
use core::ops::Range;
use linux_raw_sys::general as nr;
use pagefault::{MapOptions, MapRequest, Placement, Sharing, Source};
use pagefault_machine::{Protection, VirtAddr};

/// The arguments of `mmap`, as the program gave them.
#[derive(Clone, Copy, Debug)]
pub struct MapCall {
    /// The address asked for.
    pub address: u64,
    /// The length in bytes.
    pub len: u64,
    /// `PROT_` bits.
    pub prot: u32,
    /// `MAP_` bits.
    pub flags: u32,
    /// The file, or −1.
    pub fd: u64,
    /// The offset in the file.
    pub offset: u64,
}

/// Memory of kinds that stays with the host: stacks that grow by themselves, and pages of other
/// sizes than 4 KiB.
const HOST_FLAGS: u32 = nr::MAP_GROWSDOWN | nr::MAP_HUGETLB;

/// The bits of `flags` for private or shared.
const TYPE: u32 = 0xf;

impl MapCall {
    /// Whether the memory manager manages it.
    pub fn is_manageable(&self) -> bool {
        self.flags & TYPE == nr::MAP_PRIVATE
            && self.flags & nr::MAP_ANONYMOUS != 0
            && self.flags & HOST_FLAGS == 0
            && !self.is_at_null()
    }

    /// Whether it begins at address 0, which means no address to the memory manager.
    fn is_at_null(&self) -> bool {
        self.address < PAGE && self.flags & (nr::MAP_FIXED | nr::MAP_FIXED_NOREPLACE) != 0
    }

    /// Its growth of the program's address space.
    fn growth(&self) -> Growth {
        let bytes = page_up(self.len).unwrap_or(0);
        let is_data = self.flags & TYPE == nr::MAP_PRIVATE
            && self.prot & nr::PROT_WRITE != 0
            && self.flags & nr::MAP_GROWSDOWN == 0;
        let replaces = self.replaces().then_some((self.address, bytes));
        Growth { bytes, data: if is_data { bytes } else { 0 }, replaces }
    }

    fn replaces(&self) -> bool {
        self.flags & nr::MAP_FIXED != 0 && self.flags & nr::MAP_FIXED_NOREPLACE == 0
    }

    /// Makes the mapping on the host.
    fn on_host(&self, flags: u32, prot: u32) -> Result {
        let args = [self.address, self.len, prot.into(), flags.into(), self.fd, self.offset];
        // SAFETY: the program asks for it, and the runtime's own mappings are kept from it.
        unsafe { sys::call(nr::__NR_mmap, args) }
    }
}

/// `mmap(2)`, without bringing pages in or locking them.
pub fn map(call: &MapCall) -> Result {
    let Some(manager) = current() else { return call.on_host(call.flags, call.prot) };
    let replaces = call.replaces() && is_range(call.address, call.len);
    if replaces && process::overlaps_runtime(call.address, call.len) {
        return Err(Errno::ENOMEM);
    }
    let _gate = GATE.write();
    admit(call.growth())?;
    if !call.is_manageable() {
        let start = call.on_host(call.flags, call.prot)?;
        if call.replaces() {
            manager.replaced(start, call.len);
        }
        return Ok(start);
    }
    let flags = call.flags & !(nr::MAP_POPULATE | nr::MAP_LOCKED);
    let start = call.on_host(flags, readable(call.prot))?;
    if call.replaces() {
        manager.replaced(start, call.len);
    }
    let Some(range) = pages(start, call.len) else { return Ok(start) };
    if let Err(errno) = manager.adopt(&range, call.prot) {
        // SAFETY: the mapping was made above and nobody knows of it.
        let _ = unsafe { sys::unmap(range.start as usize, (range.end - range.start) as usize) };
        return Err(errno);
    }
    Ok(start)
}

/// The host could make execute-only memory unreadable, even for eviction.
const fn readable(prot: u32) -> u32 {
    if prot == nr::PROT_EXEC { prot | nr::PROT_READ } else { prot }
}

/// `munmap(2)`.
pub fn unmap(start: u64, len: u64) -> Result {
    if process::overlaps_runtime(start, len) {
        return Err(Errno::EINVAL);
    }
    let host = || {
        // SAFETY: the program asks for it, and the runtime's own mappings are kept from it.
        unsafe { sys::call(nr::__NR_munmap, [start, len]) }
    };
    let Some(manager) = current() else { return host() };
    let _gate = GATE.write();
    let result = host()?;
    manager.replaced(start, len);
    Ok(result)
}

/// `shmat(2)`, which may replace mappings (`SHM_REMAP`).
pub fn attach(segment: u64, address: u64, flags: u64) -> Result {
    /// `SHM_REMAP`.
    const REPLACES: u64 = 0o40000;
    let host = || {
        // SAFETY: the program asks for it, and the runtime's own mappings are kept from it.
        unsafe { sys::call(nr::__NR_shmat, [segment, address, flags]) }
    };
    if flags & REPLACES == 0 {
        return host();
    }
    let len = segment_len(segment)?;
    if process::overlaps_runtime(address & !(PAGE - 1), len) {
        return Err(Errno::EINVAL);
    }
    let Some(manager) = current() else { return host() };
    let _gate = GATE.write();
    let start = host()?;
    manager.replaced(start, len);
    Ok(start)
}

/// The bytes of a shared segment's mapping.
fn segment_len(segment: u64) -> Result {
    /// `IPC_STAT`.
    const STAT: u64 = 2;
    let mut stat = [0_u64; 14];
    // SAFETY: the structure is 112 bytes; the size follows 48 bytes of rights.
    unsafe { sys::call(nr::__NR_shmctl, [segment, STAT, (&raw mut stat) as u64]) }?;
    page_up(stat[6]).ok_or(Errno::EINVAL)
}

/// `brk(2)`, without locking: the new end, and the pages that are new.
pub fn grow_break(wanted: u64) -> Result<(u64, Range<u64>)> {
    let host = |to: u64| {
        // SAFETY: the program asks for it; the host refuses what overlaps other mappings.
        unsafe { sys::call(nr::__NR_brk, [to]) }
    };
    let Some(manager) = current() else { return Ok((host(wanted)?, 0..0)) };
    let _gate = GATE.write();
    let old = host(0)?;
    let first = old.next_multiple_of(PAGE);
    let bytes = page_up(wanted).map_or(0, |end| end.saturating_sub(first));
    if bytes > 0 && admit(Growth { bytes, data: bytes, replaces: None }).is_err() {
        return Ok((old, 0..0));
    }
    let new = host(wanted)?;
    let (old_end, new_end) = (old.next_multiple_of(PAGE), new.next_multiple_of(PAGE));
    if new_end > old_end {
        if manager.adopt(&(old_end..new_end), nr::PROT_READ | nr::PROT_WRITE).is_err() {
            return Ok((host(old)?, 0..0));
        }
    } else if new_end < old_end {
        manager.replaced(new_end, old_end - new_end);
    }
    Ok((new, old_end..new_end))
}

/// `mprotect(2)` and `pkey_mprotect(2)`: the call's number and arguments.
pub fn protect(number: u32, args: [u64; 6]) -> Result {
    let [start, len, prot, key, ..] = args;
    let host = |len: u64, prot: u64| {
        // SAFETY: the program asks for it, and the runtime's own mappings are kept from it.
        unsafe { sys::call(number, [start, len, prot, key]) }
    };
    if is_range(start, len) && process::overlaps_runtime(start, len) {
        return answer_unmapped(number, [prot, key]);
    }
    if let Some(len) = beyond_end(start, len) {
        return protect(number, [start, len, prot, key, 0, 0]).and(Err(Errno::ENOMEM));
    }
    let (Some(manager), Some(range)) = (current(), pages(start, len)) else {
        return host(len, prot);
    };
    let _gate = GATE.write();
    let parts = manager.parts(&range);
    if parts.is_empty() {
        return host(len, prot);
    }
    if prot as u32 & nr::PROT_WRITE != 0 {
        let is_new = |part: &&(Range<u64>, Protection)| !part.1.contains(Protection::WRITE);
        let data = parts.iter().filter(is_new).map(|(part, _)| part.end - part.start).sum();
        admit(Growth { data, ..Growth::default() })?;
    }
    if prot as u32 & (nr::PROT_READ | nr::PROT_WRITE | nr::PROT_EXEC) == 0 {
        // Eviction reads unreadable pages from where they are parked.
        for (part, _) in &parts {
            // SAFETY: the range is registered, and the gate keeps its pages from coming back before
            // the regions forbid it.
            unsafe { manager.mm().space().vacate(addresses(part)) };
        }
    }
    if passive::is_passive() {
        manager.follow_protection(&parts, prot as u32);
    }
    let host_prot = u64::from(readable(prot as u32 & 0xf)) | prot & !0xf;
    let result = host(len, host_prot);
    // After an error the host has changed what lies before the gap, or before the mapping that refused: as far
    // as a shorter call succeeds.
    let changed = match result {
        Ok(_) => range.end,
        Err(_) => obeyed_below(&range, |end| host(end - start, host_prot).is_ok()),
    };
    for (part, _) in parts.iter().filter(|(part, _)| part.start < changed) {
        manager.protect(&(part.start..part.end.min(changed)), prot as u32)?;
    }
    result
}

impl Manager {
    /// Takes a range, which the host has just mapped, under management.
    pub(super) fn adopt(&self, range: &Range<u64>, prot: u32) -> Result<()> {
        let request = MapRequest {
            length: range.end - range.start,
            protection: protection(prot),
            sharing: Sharing::Private,
            placement: Placement::Fixed(VirtAddr(range.start)),
            source: Source::Anonymous,
            options: MapOptions::NORESERVE,
        };
        self.mm().mmap(&request).map_err(refused)?;
        if passive::is_passive() {
            if prot & nr::PROT_WRITE != 0 {
                self.cover(core::slice::from_ref(range), range);
            }
            return Ok(());
        }
        // SAFETY: the host has just mapped the range for the program, and every call that changes
        // its mapping comes through here.
        let registered = unsafe { self.mm().space().register_as_is(addresses(range)) };
        registered.map_err(|errno| {
            self.replaced(range.start, range.end - range.start);
            Errno(errno.raw_os_error())
        })
    }

    /// Prepares a passive process for a change of rights in parts of its regions.
    fn follow_protection(&self, parts: &[(Range<u64>, Protection)], prot: u32) {
        if prot & nr::PROT_WRITE == 0 {
            parts.iter().for_each(|(part, _)| self.keep_freed(part));
        } else {
            let parts: Vec<_> = parts.iter().map(|(part, _)| part.clone()).collect();
            self.cover(&parts, &(0..0));
        }
    }

    /// Gives up all regions in a range, whose pages the host has taken away.
    pub(super) fn replaced(&self, start: u64, len: u64) {
        let Some(range) = pages(start, len) else { return };
        if self.mm().first_mapped(addresses(&range)).is_none() {
            return;
        }
        fork::forget(&range);
        self.replaced_unnoted(&range);
    }

    /// The same for a range of which nothing else is noted.
    pub(super) fn replaced_unnoted(&self, range: &Range<u64>) {
        guard::forget(range);
        // SAFETY: the host has taken the pages away.
        unsafe { self.mm().space().forget(addresses(range)) };
        if let Err(errno) = done(self.mm().munmap(VirtAddr(range.start), range.end - range.start)) {
            process::stop(format_args!("no memory to note what is unmapped: error {}", errno.0));
        }
        self.uncover(range);
    }

    fn protect(&self, range: &Range<u64>, prot: u32) -> Result<()> {
        let rest = guard::protect(range, protection(prot));
        rest.iter().try_for_each(|part| self.set_protection(part, protection(prot)))
    }
}

/// The meaning of `PROT_` bits. On x86-64 writable or executable memory is readable.
pub(super) fn protection(prot: u32) -> Protection {
    let mut protection = Protection::empty();
    let any = nr::PROT_READ | nr::PROT_WRITE | nr::PROT_EXEC;
    protection.set(Protection::READ, prot & any != 0);
    protection.set(Protection::WRITE, prot & nr::PROT_WRITE != 0);
    protection.set(Protection::EXECUTE, prot & nr::PROT_EXEC != 0);
    protection
}
