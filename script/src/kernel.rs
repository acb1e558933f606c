//! The oracle: real system calls and real loads and stores in real forked processes.
//!
//! Our memory manager has no part in it, and nothing is interpreted: a call of the script is the
//! system call of that name, made by the process itself; an access is one instruction. The runner's
//! process only passes orders and reads the answers.
//!
//! Files are memfds. They are tmpfs files without a name: `remap_file_pages`, hole punching
//! (MADV_REMOVE), fsync, truncation and execution all work on them on every host, whatever file
//! system the temporary directory is on, and they leave nothing behind. All are opened before the
//! first process is forked, so that every process maps the same open file: Linux merges
//! neighbouring mappings only of the same open file.

mod child;
mod debug;
mod file;
mod heap;
mod maps;
mod shared;
mod touch;

use crate::ast::{Advice, Begin, Failing, Locking, MapFlags, Protection, Sharing, SyncFlag};
use crate::machine::{Action, Call, Machine, Mmap, Process, Setup, StartError, Target};
use crate::outcome::{Bytes, Errno, Fault, Mapping, Outcome};
use file::Files;
use shared::{Hands, Order, Reply, SLOTS, Shared};
use std::collections::HashMap;
use std::path::Path;

/// The host's own kernel as a machine.
///
/// Its processes are children of the thread that started it. They are killed when that thread ends,
/// when the process ends in any way, and when this value is dropped.
pub struct Kernel {
    shared: Shared,
    files: Files,
    children: HashMap<Process, Child>,
    /// Faults of the processes that have ended.
    past: Faults,
}

/// A living process.
#[derive(Clone, Copy)]
struct Child {
    pid: libc::pid_t,
    slot: usize,
}

/// Fault counts of a process, as the host counts them.
#[derive(Clone, Copy, Default)]
struct Faults {
    minor: u64,
    major: u64,
}

impl Kernel {
    /// Makes the files and forks the first process.
    pub fn start(setup: &Setup) -> Result<Self, StartError> {
        if !maps::window_is_free()? {
            return Err(StartError::WindowTaken);
        }
        let mut kernel = Self {
            shared: Shared::new()?,
            files: Files::new(setup.files)?,
            children: HashMap::new(),
            past: Faults::default(),
        };
        let pid = child::first(&kernel.shared, 0)?;
        kernel.children.insert(Process::FIRST, Child { pid, slot: 0 });
        Ok(kernel)
    }

    /// Makes the process execute `order`. A process that dies meanwhile was killed.
    fn ask(&mut self, process: Process, order: Order) -> Result<Reply, Outcome> {
        let Some(&child) = self.children.get(&process) else {
            return Err(Outcome::Errno(Errno::ESRCH));
        };
        self.shared.slot(child.slot).hand(Hands::Child, order);
        loop {
            if let Some(reply) = self.shared.slot(child.slot).reply() {
                return Ok(reply);
            }
            if let Some(faults) = reap(child.pid, libc::WNOHANG) {
                self.forget(process, faults);
                return Err(Outcome::Killed);
            }
        }
    }

    fn forget(&mut self, process: Process, faults: Faults) {
        self.children.remove(&process);
        self.past.minor += faults.minor;
        self.past.major += faults.major;
    }

    /// A plain system call of the process.
    fn system(&mut self, process: Process, number: libc::c_long, arguments: [u64; 6]) -> Outcome {
        let order = Order::System { number, arguments };
        self.ask(process, order).map_or_else(|gone| gone, outcome)
    }

    /// An order with bytes in the slot.
    fn with_bytes(&mut self, process: Process, bytes: &[u8], order: Order) -> Outcome {
        let Some(child) = self.children.get(&process) else {
            return Outcome::Errno(Errno::ESRCH);
        };
        self.shared.slot(child.slot).put(bytes);
        self.ask(process, order).map_or_else(|gone| gone, outcome)
    }

    /// An order whose answer has bytes; the slot has the first ones.
    fn for_bytes(&mut self, process: Process, order: Order, done: fn(Bytes) -> Outcome) -> Outcome {
        match self.ask(process, order) {
            Ok(Reply::Bytes { length, crc }) => {
                let slot = self.children.get(&process).map_or(0, |child| child.slot);
                let shown = length.min(Bytes::SHOWN as u64) as usize;
                let head = self.shared.slot(slot).get(shown);
                done(Bytes::summed(length, crc, &head))
            }
            Ok(reply) => outcome(reply),
            Err(gone) => gone,
        }
    }

    /// Fetches an instruction. Foreign code is never run. If the mapping permits execution, the
    /// fetch would succeed, because the page has just been read. If not, the fetch is made, and
    /// faults before anything runs.
    fn execute(&mut self, process: Process, address: u64) -> Outcome {
        let reply = match self.ask(process, Order::Execute { address }) {
            Ok(Reply::ForeignCode) => {
                let pid = self.children.get(&process).map_or(0, |child| child.pid);
                let mappings = maps::of_range(pid, address, address + 1);
                let executable = |mapping: &Mapping| mapping.protection.contains(Protection::EXEC);
                if mappings.iter().any(executable) {
                    return Outcome::Ok;
                }
                self.ask(process, Order::Fetch { address })
            }
            reply => reply,
        };
        reply.map_or_else(|gone| gone, outcome)
    }

    fn fork(&mut self, process: Process, child: Process) -> Outcome {
        let free = (0..SLOTS).find(|slot| self.children.values().all(|c| c.slot != *slot));
        let Some(slot) = free else {
            return Outcome::Errno(Errno::EAGAIN);
        };
        self.shared.slot(slot).clear();
        match self.ask(process, Order::Fork { slot }) {
            Ok(Reply::Done(pid)) => {
                let pid = pid as libc::pid_t;
                self.children.insert(child, Child { pid, slot });
                Outcome::Ok
            }
            Ok(reply) => outcome(reply),
            Err(gone) => gone,
        }
    }

    fn exit(&mut self, process: Process) -> Outcome {
        let Some(&child) = self.children.get(&process) else {
            return Outcome::Errno(Errno::ESRCH);
        };
        self.shared.slot(child.slot).hand(Hands::Child, Order::Exit);
        let faults = reap(child.pid, 0).unwrap_or_default();
        self.forget(process, faults);
        Outcome::Ok
    }

    fn mmap(&mut self, process: Process, mmap: Mmap) -> Outcome {
        let Mmap { address, length, protection, sharing, file, flags } = mmap;
        let mut bits = match sharing {
            Sharing::Private => libc::MAP_PRIVATE,
            Sharing::Shared => libc::MAP_SHARED,
        };
        bits |= if flags.contains(MapFlags::NOREPLACE) {
            libc::MAP_FIXED_NOREPLACE
        } else {
            libc::MAP_FIXED
        };
        for (flag, bit) in [
            (MapFlags::GROWSDOWN, libc::MAP_GROWSDOWN),
            (MapFlags::NORESERVE, libc::MAP_NORESERVE),
            (MapFlags::POPULATE, libc::MAP_POPULATE),
        ] {
            if flags.contains(flag) {
                bits |= bit;
            }
        }
        let (fd, offset) = match file {
            Some((file, offset)) => (self.files.fd(file), offset),
            None => {
                bits |= libc::MAP_ANONYMOUS;
                (-1, 0)
            }
        };
        let protection = protection_bits(protection) as u64;
        let arguments = [address, length, protection, bits as u64, fd as u64, offset];
        self.system(process, libc::SYS_mmap, arguments)
    }

    /// Asks the host to page out every page of every process; refusals (locked pages) are ignored.
    fn reclaim(&mut self) -> Outcome {
        let living: Vec<(Process, Child)> = self.children.iter().map(|(p, c)| (*p, *c)).collect();
        for (process, child) in living {
            for mapping in maps::of_window(child.pid) {
                let (start, length) = (mapping.start, mapping.end - mapping.start);
                let advice = libc::MADV_PAGEOUT as u64;
                self.system(process, libc::SYS_madvise, [start, length, advice, 0, 0, 0]);
            }
        }
        Outcome::Ok
    }
}

/// The system call that an operation is, if it is a single one whose answer says everything.
fn system_call(call: &Call<'_>) -> Option<(i64, [u64; 6])> {
    let three = |number, arguments: [u64; 3]| {
        let [first, second, third] = arguments;
        Some((number, [first, second, third, 0, 0, 0]))
    };
    match *call {
        Call::Munmap { address, length } => three(libc::SYS_munmap, [address, length, 0]),
        Call::Mprotect { address, length, protection, begin } => {
            let bits = protection_bits(protection) | begin_bits(begin);
            three(libc::SYS_mprotect, [address, length, bits as u64])
        }
        Call::Msync { address, length, sync } => {
            let flag = match sync {
                SyncFlag::Sync => libc::MS_SYNC,
                SyncFlag::Async => libc::MS_ASYNC,
                SyncFlag::Invalidate => libc::MS_INVALIDATE,
            };
            three(libc::SYS_msync, [address, length, flag as u64])
        }
        Call::Mlock { address, length, locking: Locking::AtOnce } => {
            three(libc::SYS_mlock, [address, length, 0])
        }
        Call::Mlock { address, length, locking: Locking::OnFault } => {
            three(libc::SYS_mlock2, [address, length, MLOCK_ONFAULT as u64])
        }
        Call::MlockAll { what } => three(libc::SYS_mlockall, [what.bits().into(), 0, 0]),
        Call::MunlockAll => three(libc::SYS_munlockall, [0; 3]),
        Call::Mseal { address, length } => three(libc::SYS_mseal, [address, length, 0]),
        Call::Munlock { address, length } => three(libc::SYS_munlock, [address, length, 0]),
        Call::Mremap { address, old, new, target } => {
            let leaving = libc::MREMAP_MAYMOVE | libc::MREMAP_DONTUNMAP;
            let (flags, target) = match target {
                Target::Stay => (0, 0),
                Target::Fixed(at) => (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED, at),
                Target::FixedButStay(at) => (libc::MREMAP_FIXED, at),
                Target::Leaving(at) => (leaving, at),
                Target::LeavingFixed(at) => (leaving | libc::MREMAP_FIXED, at),
            };
            Some((libc::SYS_mremap, [address, old, new, flags as u64, target, 0]))
        }
        Call::Madvise { address, length, advice } => {
            three(libc::SYS_madvise, [address, length, advice_number(advice) as u64])
        }
        Call::RemapFilePages { address, length, page } => {
            Some((libc::SYS_remap_file_pages, [address, length, 0, page, 0, 0]))
        }
        _ => None,
    }
}

impl Machine for Kernel {
    fn perform(&mut self, process: Process, call: &Call<'_>) -> Outcome {
        match *call {
            Call::Mmap(mmap) => self.mmap(process, mmap),
            Call::BeginHeap { address } => {
                self.ask(process, Order::BeginHeap { address }).map_or_else(|gone| gone, outcome)
            }
            Call::Brk { address } => match self.ask(process, Order::Brk { address }) {
                Ok(Reply::Done(end)) => Outcome::Break(end as u64),
                Ok(other) => outcome(other),
                Err(gone) => gone,
            },
            Call::Mincore { address, length } => self
                .ask(process, Order::Mincore { address, length })
                .map_or_else(|gone| gone, outcome),
            Call::Store { address, bytes } => {
                let length = bytes.len();
                self.with_bytes(process, bytes, Order::Store { address, length })
            }
            Call::Fill { address, length, byte } => {
                let order = Order::Fill { address, length, byte };
                self.ask(process, order).map_or_else(|gone| gone, outcome)
            }
            Call::Load { address, length } => {
                self.for_bytes(process, Order::Load { address, length }, Outcome::Bytes)
            }
            Call::Execute { address } => self.execute(process, address),
            Call::ToUser { address, bytes } => {
                let length = bytes.len();
                self.with_bytes(process, bytes, Order::ToUser { address, length })
            }
            Call::Poke { address, bytes } => {
                let length = bytes.len();
                self.with_bytes(process, bytes, Order::Poke { address, length })
            }
            Call::Peek { address, length } => {
                self.for_bytes(process, Order::Peek { address, length }, Outcome::Loaded)
            }
            Call::FromUser { address, length } => {
                self.for_bytes(process, Order::FromUser { address, length }, Outcome::Loaded)
            }
            Call::Fork { child } => self.fork(process, child),
            Call::Exit => self.exit(process),
            // The host's scheduler chooses.
            Call::Cpu { .. } => Outcome::Ok,
            Call::Maps { start, end } => match self.children.get(&process) {
                Some(child) => Outcome::Maps(maps::of_range(child.pid, start, end)),
                None => Outcome::Errno(Errno::ESRCH),
            },
            _ => match system_call(call) {
                Some((number, arguments)) => self.system(process, number, arguments),
                // The kernel's own memory, and errata.
                None => Outcome::Errno(Errno::ENOSYS),
            },
        }
    }

    fn act(&mut self, action: &Action<'_>) -> Outcome {
        match *action {
            Action::CreateFile { file, length, seed } => {
                Outcome::of(self.files.create(file, length, seed))
            }
            Action::Truncate { file, length } => Outcome::of(self.files.truncate(file, length)),
            Action::Pwrite { file, offset, bytes } => {
                Outcome::of(self.files.write(file, offset, bytes))
            }
            Action::Pread { file, offset, length } => match self.files.read(file, offset, length) {
                Ok(bytes) => Outcome::Bytes(bytes),
                Err(errno) => Outcome::Errno(errno),
            },
            Action::Fsync { file } => Outcome::of(self.files.sync(file)),
            Action::Reclaim { .. } => self.reclaim(),
            Action::Check => check(),
            Action::SwapOn { .. } | Action::SwapOff { .. } | Action::CreateDevice { .. } => {
                Outcome::Errno(Errno::ENOSYS)
            }
            Action::Fail { what, nth } => fail(what, nth),
        }
    }

    fn stats(&mut self) -> Vec<(&'static str, u64)> {
        let mut sum = self.past;
        for child in self.children.values() {
            let faults = maps::faults(child.pid);
            sum.minor += faults.minor;
            sum.major += faults.major;
        }
        vec![("minor_faults", sum.minor), ("major_faults", sum.major)]
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        for child in self.children.values() {
            // SAFETY: kill takes no memory; the pid is a child of ours that was not waited for.
            unsafe { libc::kill(child.pid, libc::SIGKILL) };
            reap(child.pid, 0);
        }
    }
}

/// The file by which our own kernel checks its invariants; other hosts do not have it.
const CHECK: &str = "/proc/pagefault/check";

fn check() -> Outcome {
    match std::fs::read_to_string(CHECK) {
        Ok(text) if text.trim_end() != "ok" => Outcome::Broken(text.trim_end().to_owned()),
        _ => Outcome::Ok,
    }
}

/// The file that tells our own kernel what must fail; other hosts do not have it.
const FAIL: &str = "/proc/pagefault/fail";

/// Whether this host can be made to fail.
pub(crate) fn failures_are_taken() -> bool {
    Path::new(FAIL).exists()
}

fn fail(what: Failing, nth: u64) -> Outcome {
    let what = match what {
        Failing::Frame => "frame",
        Failing::Read => "read",
        Failing::Write => "write",
    };
    match std::fs::write(FAIL, format!("{what} {nth}")) {
        Ok(()) => Outcome::Ok,
        // The catalogue keeps scripts with such a line from other hosts.
        Err(_) => Outcome::Errno(Errno::EOPNOTSUPP),
    }
}

/// Waits for a child. Returns its costs, if it has ended.
fn reap(pid: libc::pid_t, options: libc::c_int) -> Option<Faults> {
    let mut status = 0;
    // SAFETY: rusage is plain numbers, for which zeros are a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to live variables of the right types.
        let found = unsafe { libc::wait4(pid, &raw mut status, options, &raw mut usage) };
        let interrupted =
            || std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted;
        if found == pid {
            return Some(Faults { minor: usage.ru_minflt as u64, major: usage.ru_majflt as u64 });
        }
        if found == 0 || !interrupted() {
            return None;
        }
    }
}

/// The outcome of a reply.
fn outcome(reply: Reply) -> Outcome {
    match reply {
        Reply::Done(_) | Reply::ForeignCode => Outcome::Ok,
        Reply::Count(count) => Outcome::Stored(count),
        Reply::Bytes { length, crc } => Outcome::Bytes(Bytes::summed(length, crc, &[])),
        Reply::Failed(errno) => Outcome::Errno(Errno(errno)),
        Reply::Fault { signal, code, address } => {
            Outcome::Fault { fault: fault(signal, code), address }
        }
    }
}

/// The fault that a signal reports. A general protection fault has no address; it is an access to
/// an address that no mapping can have.
fn fault(signal: i32, code: i32) -> Fault {
    /// `si_code` of a signal that the kernel sends without a page fault.
    const SI_KERNEL: i32 = 0x80;
    const SEGV_MAPERR: i32 = 1;
    const SEGV_ACCERR: i32 = 2;
    match (signal, code) {
        (libc::SIGSEGV, SEGV_MAPERR | SI_KERNEL) => Fault::Unmapped,
        (libc::SIGSEGV, SEGV_ACCERR) => Fault::Refused,
        (libc::SIGBUS, libc::BUS_ADRERR) => Fault::Beyond,
        (signal, code) => Fault::Other { signal, code },
    }
}

fn protection_bits(protection: Protection) -> i32 {
    [
        (Protection::READ, libc::PROT_READ),
        (Protection::WRITE, libc::PROT_WRITE),
        (Protection::EXEC, libc::PROT_EXEC),
    ]
    .into_iter()
    .filter(|(flag, _)| protection.contains(*flag))
    .fold(libc::PROT_NONE, |bits, (_, bit)| bits | bit)
}

fn begin_bits(begin: Begin) -> i32 {
    match begin {
        Begin::Address => 0,
        Begin::Stack => libc::PROT_GROWSDOWN,
    }
}

// Not in the libc crate.
const MLOCK_ONFAULT: i32 = 1;
const MADV_DONTNEED_LOCKED: i32 = 24;
const MADV_GUARD_INSTALL: i32 = 102;
const MADV_GUARD_REMOVE: i32 = 103;

fn advice_number(advice: Advice) -> i32 {
    match advice {
        Advice::Normal => libc::MADV_NORMAL,
        Advice::Random => libc::MADV_RANDOM,
        Advice::Sequential => libc::MADV_SEQUENTIAL,
        Advice::WillNeed => libc::MADV_WILLNEED,
        Advice::DontNeed => libc::MADV_DONTNEED,
        Advice::Free => libc::MADV_FREE,
        Advice::Remove => libc::MADV_REMOVE,
        Advice::DontFork => libc::MADV_DONTFORK,
        Advice::DoFork => libc::MADV_DOFORK,
        Advice::Cold => libc::MADV_COLD,
        Advice::PageOut => libc::MADV_PAGEOUT,
        Advice::PopulateRead => libc::MADV_POPULATE_READ,
        Advice::PopulateWrite => libc::MADV_POPULATE_WRITE,
        Advice::DontNeedLocked => MADV_DONTNEED_LOCKED,
        Advice::WipeOnFork => libc::MADV_WIPEONFORK,
        Advice::KeepOnFork => libc::MADV_KEEPONFORK,
        Advice::DontDump => libc::MADV_DONTDUMP,
        Advice::DoDump => libc::MADV_DODUMP,
        Advice::GuardInstall => MADV_GUARD_INSTALL,
        Advice::GuardRemove => MADV_GUARD_REMOVE,
    }
}

#[cfg(test)]
mod tests;
