//! What the machine offers. The probes change nothing.

use crate::run::{spawn, trace};
use pagefault_linux::Probe;
use pagefault_linux::{Scope, UffdFeatures, Userfault};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, WaitOptions};
use std::path::PathBuf;
use std::{fs, io};

/// The host's answer to a probe.
pub type Answer = Result<(), Errno>;

/// What a machine offers.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The kernel's version, from `uname`.
    pub kernel: String,
    /// Ways to a userfaultfd.
    pub userfaultfd: Userfaultfd,
    /// Syscall user dispatch.
    pub dispatch: Answer,
    /// `PAGEMAP_SCAN`.
    pub pagemap_scan: bool,
    /// `process_madvise` with `MADV_DONTNEED` on oneself.
    pub batched_drop: bool,
    /// Tracing one of our own processes.
    pub ptrace: Answer,
    /// `kernel.yama.ptrace_scope`, if the kernel has Yama.
    pub yama: Option<u32>,
    /// Whether this process is under a seccomp filter.
    pub filtered: bool,
    /// Limits of processes.
    pub limits: Limits,
    /// Where swap files go if nothing is said.
    pub swap: Swap,
}

/// Ways to a userfaultfd.
#[derive(Clone, Copy, Debug)]
pub struct Userfaultfd {
    /// By the system call, for all faults.
    pub call: Answer,
    /// By `/dev/userfaultfd`, for all faults.
    pub device: Answer,
    /// By the system call, for faults of user-mode code alone.
    pub user_only: Answer,
    /// `vm.unprivileged_userfaultfd`.
    pub sysctl: Option<u32>,
    /// Its features, if one can be opened.
    pub features: UffdFeatures,
}

/// Limits of processes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Descriptors.
    pub descriptors: Rlimit,
    /// Address space.
    pub addresses: Rlimit,
    /// Locked memory.
    pub locked: Rlimit,
}

/// Where swap files go if nothing is said.
#[derive(Clone, Debug)]
pub struct Swap {
    /// The directory.
    pub directory: PathBuf,
    /// The free bytes there, or why they are not known.
    pub free: Result<u64, Errno>,
    /// Whether it is a file system in memory.
    pub in_memory: bool,
}

impl Facts {
    /// Probes the machine.
    pub fn gather() -> Self {
        let limit = rustix::process::getrlimit;
        Self {
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            userfaultfd: userfaultfd(),
            dispatch: dispatch(),
            pagemap_scan: pagemap_scan(),
            batched_drop: Probe::new().is_ok_and(|probe| probe.batched_drop),
            ptrace: ptrace(),
            yama: number("/proc/sys/kernel/yama/ptrace_scope"),
            filtered: is_filtered(),
            limits: Limits {
                descriptors: limit(Resource::Nofile),
                addresses: limit(Resource::As),
                locked: limit(Resource::Memlock),
            },
            swap: swap(),
        }
    }
}

/// Reads a number from a file.
fn number(path: &str) -> Option<u32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn userfaultfd() -> Userfaultfd {
    let scopes = [Scope::All, Scope::AllByDevice, Scope::UserOnly];
    let [call, device, user_only] = scopes.map(|scope| Userfault::open(scope).map(drop));
    let any = scopes.into_iter().find_map(|scope| Userfault::open(scope).ok());
    let features = any.and_then(|descriptor| descriptor.offered().ok());
    let sysctl = number("/proc/sys/vm/unprivileged_userfaultfd");
    let features = features.unwrap_or(UffdFeatures::empty());
    Userfaultfd { call, device, user_only, sysctl, features }
}

/// Switches dispatch off; it is off already.
fn dispatch() -> Answer {
    const PR_SET_SYSCALL_USER_DISPATCH: libc::c_int = 59;
    const OFF: libc::c_ulong = 0;
    let zero: libc::c_ulong = 0;
    // SAFETY: numbers alone.
    let answer = unsafe { libc::prctl(PR_SET_SYSCALL_USER_DISPATCH, OFF, zero, zero, zero) };
    if answer == 0 { Ok(()) } else { Err(last_errno()) }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// The argument of `PAGEMAP_SCAN`.
#[repr(C)]
#[derive(Default)]
struct ScanArgs {
    size: u64,
    /// flags, start, end, walk_end, vec, vec_len, max_pages, and the four category masks.
    rest: [u64; 11],
}

/// Scans nothing.
fn pagemap_scan() -> bool {
    const PAGEMAP_SCAN: libc::c_ulong = 0xc060_6610;
    let Ok(file) = fs::File::open("/proc/self/pagemap") else { return false };
    let mut args = ScanArgs { size: size_of::<ScanArgs>() as u64, ..ScanArgs::default() };
    // SAFETY: the structure has the size that the request encodes, and outlives the call.
    let answer =
        unsafe { libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(&file), PAGEMAP_SCAN, &raw mut args) };
    // A kernel that has the call may still reject an empty scan.
    answer == 0 || last_errno() != Errno::NOTTY
}

/// Traces a child that waits, as the supervisor traces programs.
fn ptrace() -> Answer {
    let (wait, go) = rustix::pipe::pipe()?;
    let child = spawn::fork(move || {
        // As `run` does, because Yama demands it.
        let _ = rustix::process::set_ptracer(rustix::process::PTracer::Any);
        let _ = rustix::io::read(&wait, &mut [0; 1]);
        0
    })?;
    let tracee = trace::Tracee(child.as_raw_nonzero().get());
    // The fork has our memory at the same addresses.
    static WORD: u8 = 1;
    let traced =
        tracee.seize().and_then(|()| tracee.read((&raw const WORD) as u64, &mut [0; 1]).map(drop));
    drop(go);
    let _ = rustix::process::kill_process(child, rustix::process::Signal::KILL);
    let _ = rustix::process::waitpid(Some(child), WaitOptions::empty());
    traced.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::PERM))
}

/// Whether this process is under a seccomp filter.
pub fn is_filtered() -> bool {
    fs::read_to_string("/proc/self/status")
        .is_ok_and(|status| status.lines().any(|line| line.replace('\t', "") == "Seccomp:2"))
}

fn swap() -> Swap {
    const TMPFS: u64 = 0x0102_1994;
    let directory = crate::run::swap_directory();
    let free = rustix::fs::statvfs(&directory).map(|found| found.f_bavail * found.f_frsize);
    let in_memory = rustix::fs::statfs(&directory).is_ok_and(|found| found.f_type as u64 == TMPFS);
    Swap { directory, free, in_memory }
}
