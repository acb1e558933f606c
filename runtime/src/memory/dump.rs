//! Core dumps: the host writes the pages in its page table, and waits for no others.
//!
//! An active process that is about to dump core first copies its managed memory into an unlinked file,
//! piece by piece and so within its limit, and maps the file in its place. The host dumps a shared
//! mapping of such a file like anonymous memory. Only the dump runs afterwards. The memory of a
//! passive process is all in the host's page table.

use super::passive::is_passive;
use super::serve::is_owner;
use super::{GATE, Manager, PAGE, addresses, current};
use crate::lock::Mutex;
use crate::sys::{self, Result};
use crate::{file_size, process, user};
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering::Relaxed;
use linux_raw_sys::general as nr;
use pagefault_control::Storage;
use pagefault_linux::store::descriptor;
use pagefault_machine::Protection;

/// The bytes that are copied at a time.
const PIECE: u64 = 64 << 10;

/// The signals whose default is a core dump.
pub const SIGNALS: [u32; 10] = [
    nr::SIGQUIT,
    nr::SIGILL,
    nr::SIGTRAP,
    nr::SIGABRT,
    nr::SIGBUS,
    nr::SIGFPE,
    nr::SIGSEGV,
    nr::SIGXCPU,
    nr::SIGXFSZ,
    nr::SIGSYS,
];

/// Whether the runtime handles a signal for its default, a core dump. No such signal from within its namespace ends
/// the first process there.
pub fn is_taken_over(signal: i32) -> bool {
    SIGNALS.contains(&(signal as u32)) && sys::process_id() != INIT
}

/// The first process of a namespace.
const INIT: u32 = 1;

/// What became of a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dump {
    /// It will have all of managed memory.
    Complete,
    /// The host dumps none, or only what is resident.
    Without,
}

/// Prepares the core, if any, that the calling process is about to dump by the default of a signal. The caller
/// holds no lock.
pub fn prepare(signal: i32) -> Dump {
    if !is_taken_over(signal) || !is_dumped() {
        return Dump::Without;
    }
    match current() {
        Some(manager) if !is_passive() => complete(manager),
        _ => Dump::Complete,
    }
}

/// Makes all of managed memory part of the core.
fn complete(manager: &Manager) -> Dump {
    /// Whether a thread has done it; other threads that end the process wait.
    static DONE: Mutex<bool> = Mutex::new(false);
    if !is_owner() {
        return Dump::Without;
    }
    let mut done = DONE.lock();
    if core::mem::replace(&mut *done, true) {
        return if SHOWN.load(Relaxed) { Dump::Complete } else { Dump::Without };
    }
    let parts = manager.parts_now(&(PAGE..user::END));
    if let Ok(file) = copy(manager, &parts) {
        let _gate = GATE.write();
        SHOWN.store(true, Relaxed);
        show(file, &parts);
        Dump::Complete
    } else {
        process::say(format_args!(
            "no room for a copy of what the core lacks, in the directory of swap"
        ));
        Dump::Without
    }
}

/// Whether the memory is no longer managed, since the process is about to end.
static SHOWN: AtomicBool = AtomicBool::new(false);

/// Keeps a thread that found its memory no longer managed until another one has ended the process.
pub fn wait_if_shown() {
    while SHOWN.load(Relaxed) && is_owner() {
        // SAFETY: it touches no memory.
        let _ = unsafe { sys::call(nr::__NR_sched_yield, []) };
    }
}

/// Whether the host dumps a core of this process.
fn is_dumped() -> bool {
    let mut limit = [0_u64; 2];
    let args = [0, nr::RLIMIT_CORE.into(), 0, limit.as_mut_ptr() as u64];
    let option = u64::from(linux_raw_sys::prctl::PR_GET_DUMPABLE);
    // SAFETY: the structure is ours.
    unsafe {
        let _ = sys::call(nr::__NR_prlimit64, args);
        limit[0] != 0 && sys::call(nr::__NR_prctl, [option, 0, 0, 0, 0]) != Ok(0)
    }
}

/// Copies the parts one after the other into a file, with holes for pages that were never used.
fn copy(manager: &Manager, parts: &[(Range<u64>, Protection)]) -> Result<u64> {
    let file = open()?;
    let mut bytes = alloc::vec![0_u8; PIECE as usize];
    let mut offset = 0;
    for (part, _) in parts {
        let mut at = part.start;
        while let Some(used) = manager.mm().space().next_used(addresses(&(at..part.end))) {
            let start = used.value();
            let piece = &mut bytes[..(part.end - start).min(PIECE) as usize];
            // Unreadable memory stays a hole.
            let len = user::read_some(start, piece) as u64;
            let place = offset + (start - part.start);
            let args = [file, piece.as_ptr() as u64, len, place];
            // Not around more than this: the server needs it to evict.
            // SAFETY: the buffer is ours.
            let write = || unsafe { sys::call(nr::__NR_pwrite64, args) };
            let written = file_size::unlimited(write)?;
            if written < len {
                return Err(sys::Errno::ENOSPC);
            }
            at = start + len.max(PAGE);
        }
        offset += part.end - part.start;
    }
    // SAFETY: a file of ours.
    file_size::unlimited(|| unsafe { sys::call(nr::__NR_ftruncate, [file, offset]) })?;
    Ok(file)
}

/// Maps the copy in place of the memory.
fn show(file: u64, parts: &[(Range<u64>, Protection)]) {
    let mut offset = 0;
    for (part, protection) in parts {
        let len = part.end - part.start;
        let mut prot = nr::PROT_NONE;
        for (bit, allowed) in [
            (nr::PROT_READ, Protection::READ),
            (nr::PROT_WRITE, Protection::WRITE),
            (nr::PROT_EXEC, Protection::EXECUTE),
        ] {
            prot |= if protection.contains(allowed) { bit } else { 0 };
        }
        let flags = nr::MAP_SHARED | nr::MAP_FIXED;
        let args = [part.start, len, prot.into(), flags.into(), file, offset];
        // SAFETY: the content is the same. What the host refuses is dumped as it stands.
        let _ = unsafe { sys::call(nr::__NR_mmap, args) };
        offset += len;
    }
}

/// An unlinked file in the first directory of swap, or in memory.
fn open() -> Result<u64> {
    /// `O_TMPFILE`.
    const UNLINKED: u32 = 0o20_000_000 | nr::O_DIRECTORY;
    let config = process::control().and_then(|control| control.config());
    let areas = config.map(|config| config.swap).unwrap_or_default();
    let mut paths: Vec<Vec<u8>> =
        areas.into_iter().filter_map(|area| directory(area.storage)).collect();
    paths.push(b"/var/tmp".into());
    for mut path in paths {
        path.push(0);
        let flags = u64::from(UNLINKED | nr::O_RDWR | nr::O_CLOEXEC);
        let args = [nr::AT_FDCWD as i64 as u64, path.as_ptr() as u64, flags, 0o600];
        // SAFETY: the path ends with a byte of zero.
        let open = || unsafe { sys::call(nr::__NR_openat, args) };
        if let Ok(file) = descriptor::with_room(open) {
            return Ok(file);
        }
    }
    // SAFETY: as above.
    descriptor::with_room(|| unsafe {
        sys::call(nr::__NR_memfd_create, [c"core".as_ptr() as u64, nr::MFD_CLOEXEC.into()])
    })
}

fn directory(storage: Storage) -> Option<Vec<u8>> {
    match storage {
        Storage::Ram => None,
        Storage::Temporary(directory) => Some(directory),
        Storage::File(mut path) => {
            let slash = path.iter().rposition(|byte| *byte == b'/')?;
            path.truncate(slash.max(1));
            Some(path)
        }
    }
}
