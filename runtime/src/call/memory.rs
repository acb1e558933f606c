//! Calls that change memory.

use super::{Call, Outcome};
use crate::memory::{self, MapCall, PAGE, Pins};
use crate::sys::{self, Errno, Result};
use crate::{keys, user, vdso};
use alloc::vec::Vec;
use linux_raw_sys::general as nr;
use pagefault_machine::Access;

/// The most elements that `process_madvise` takes.
const MOST_RANGES: u64 = 1024;

impl Call<'_> {
    pub(super) fn memory(&mut self) -> Outcome {
        let [a, b, c, d, e, f] = self.args;
        vdso::note(self.number, &self.args);
        match self.number {
            nr::__NR_mmap => {
                let (prot, flags) = (c as u32, d as u32);
                let call = MapCall { address: a, len: b, prot, flags, fd: e, offset: f };
                map(&call).into()
            }
            nr::__NR_munmap => {
                self.unmaps_restartable_sequences(a, b);
                memory::unmap(a, b).into()
            }
            nr::__NR_mremap => memory::remap(self.args).into(),
            nr::__NR_mprotect | nr::__NR_pkey_mprotect => {
                memory::protect(self.number, self.args).into()
            }
            nr::__NR_madvise => memory::advise(a, b, c as u32).into(),
            nr::__NR_brk => Outcome::Raw(memory::grow_break(a).unwrap_or(0) as i64),
            nr::__NR_mlock => memory::lock(a, b, 0).into(),
            nr::__NR_mlock2 => memory::lock(a, b, c as u32).into(),
            nr::__NR_munlock => memory::unlock(a, b).into(),
            nr::__NR_mlockall => memory::lock_all(a as u32).into(),
            nr::__NR_munlockall => memory::unlock_all().into(),
            nr::__NR_mseal => memory::seal(self.args).into(),
            nr::__NR_shmat => memory::attach(a, b, c).into(),
            nr::__NR_process_madvise => self.advise_process(),
            nr::__NR_mincore => self.resident(),
            _ => self.pass(),
        }
    }

    /// `mincore(2)`: a page that is resident on the host is resident here; the answer has a byte
    /// for each page.
    fn resident(&mut self) -> Outcome {
        let [_, len, answer, ..] = self.args;
        let noted = memory::note(self.thread, self.number, self.args);
        let mut pins = Pins::new();
        if noted.is_none() {
            pins.add(answer, len.div_ceil(PAGE), Access::Write);
        }
        // SAFETY: the program asks for it, of its own memory.
        Outcome::Raw(unsafe { sys::raw_call(self.number, self.args) })
    }

    /// `pkey_alloc(2)`.
    pub(super) fn allocate_key(&mut self) -> i64 {
        let make = || {
            // SAFETY: no memory is named.
            unsafe { sys::raw_call(self.number, self.args) }
        };
        keys::allocate(self.thread, self.context.registers.fpstate, make)
    }

    /// `process_madvise(2)`: advice that drops pages, brings them in or is noted can only be about this process, and is then
    /// as `madvise`'s.
    fn advise_process(&mut self) -> Outcome {
        let [descriptor, ranges, count, advice, ..] = self.args;
        let own = [
            nr::MADV_DONTNEED,
            nr::MADV_DONTNEED_LOCKED,
            nr::MADV_FREE,
            nr::MADV_GUARD_INSTALL,
            nr::MADV_GUARD_REMOVE,
            nr::MADV_DONTFORK,
            nr::MADV_DOFORK,
            nr::MADV_WIPEONFORK,
            nr::MADV_KEEPONFORK,
            nr::MADV_POPULATE_READ,
            nr::MADV_POPULATE_WRITE,
        ];
        if !own.contains(&(advice as u32)) || count > MOST_RANGES {
            return self.pass();
        }
        // The host's answer to an empty list shows whether it would accept the advice.
        let mut probe = self.args;
        probe[2] = 0;
        // SAFETY: no range is named.
        let checked = sys::result(unsafe { sys::raw_call(self.number, probe) });
        if checked.is_err() || descriptor > i32::MAX as u64 {
            return self.pass();
        }
        let ranges = ranges_at(ranges, count);
        ranges.and_then(|ranges| advise_each(&ranges, advice as u32)).into()
    }
}

/// The program's ranges: start and length. The kernel reads all of them before it acts.
fn ranges_at(array: u64, count: u64) -> Result<Vec<[u64; 2]>> {
    let range = |index: u64| match user::read::<[u64; 2]>(array.wrapping_add(16 * index))? {
        [_, len] if len > i64::MAX as u64 => Err(Errno::EINVAL),
        range => Ok(range),
    };
    (0..count).map(range).collect()
}

/// Advises on each range, and returns the bytes that were advised before one was refused.
fn advise_each(ranges: &[[u64; 2]], advice: u32) -> Result {
    let mut done = 0;
    for &[start, len] in ranges {
        match memory::advise(start, len, advice) {
            Ok(_) => done += len,
            Err(errno) if done == 0 => return Err(errno),
            Err(_) => break,
        }
    }
    Ok(done)
}

/// `mmap(2)`, and what its flags ask for once there is a mapping.
fn map(call: &MapCall) -> Result {
    let asked = call.flags & nr::MAP_LOCKED != 0;
    if asked && call.is_manageable() {
        memory::admit_lock(call.len)?;
    }
    let start = memory::map(call)?;
    if let Err(errno) = memory::lock_new(call, start) {
        memory::unmap(start, call.len)?;
        return Err(errno);
    }
    if call.flags & nr::MAP_POPULATE != 0 && call.is_manageable() {
        let write = call.prot & nr::PROT_WRITE != 0;
        let advice = if write { nr::MADV_POPULATE_WRITE } else { nr::MADV_POPULATE_READ };
        // Failing to bring pages in is no failure of mmap.
        let _ = memory::advise(start, call.len, advice);
    }
    Ok(start)
}
