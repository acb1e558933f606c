//! The program's own filters of system calls (`seccomp(2)`).
//!
//! A filter installed on the host would judge the runtime's calls too, and forbid calls that the
//! program never makes. So the runtime runs the program's filters itself, at each of the program's
//! calls. A program that is executed under filters gets them from the host, and runs unmanaged.

pub mod bpf;

use crate::lock::Mutex;
use crate::sys::{self, Errno, Result};
use alloc::sync::Arc;
use bpf::{Data, Program};
use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering::{Acquire, Release};
use linux_raw_sys::general as nr;
use linux_raw_sys::ptrace as raw;

/// The most instructions of all filters of a thread, with four for each filter.
const MOST_IN_ALL: usize = 1 << 15;
const PENALTY: usize = 4;

/// `AUDIT_ARCH_X86_64`.
pub const ARCHITECTURE: u32 = 0xc000_003e;

/// The mode of a thread, which judges its calls.
#[derive(Clone, Default)]
pub enum Mode {
    /// Nothing.
    #[default]
    Off,
    /// `SECCOMP_MODE_STRICT`: only four calls are left.
    Strict,
    /// The newest filter; each names the one before.
    Filter(Arc<Filter>),
}

/// A filter and the ones before it.
pub struct Filter {
    program: Program,
    flags: u32,
    before: Option<Arc<Filter>>,
    /// What counts against [`MOST_IN_ALL`].
    len: usize,
}

/// The mode of a thread, which another one may change (`SECCOMP_FILTER_FLAG_TSYNC`).
#[derive(Default)]
pub struct State {
    mode: Mutex<Mode>,
    /// Whether there is one, readable without the lock.
    is_on: AtomicBool,
}

/// What becomes of a call.
pub enum Verdict {
    /// It is made.
    Allow,
    /// It fails.
    Fail(Errno),
    /// The thread gets `SIGSYS`, with this as its `si_errno`.
    Trap(i32),
    /// The thread ends.
    KillThread,
    /// The process ends.
    KillProcess,
    /// The process ends by `SIGKILL`.
    Kill,
}

impl State {
    /// The mode.
    pub fn get(&self) -> Mode {
        self.mode.lock().clone()
    }

    /// Changes the mode.
    pub fn set(&self, mode: Mode) {
        let mut own = self.mode.lock();
        self.is_on.store(!matches!(mode, Mode::Off), Release);
        *own = mode;
    }

    /// Whether nothing judges the thread's calls.
    pub fn is_off(&self) -> bool {
        !self.is_on.load(Acquire)
    }

    /// What becomes of a call.
    pub fn judge(&self, data: &Data) -> Verdict {
        if self.is_off() {
            return Verdict::Allow;
        }
        match self.get() {
            Mode::Off => Verdict::Allow,
            Mode::Strict => match data.number {
                nr::__NR_read | nr::__NR_write | nr::__NR_exit | nr::__NR_rt_sigreturn => {
                    Verdict::Allow
                }
                _ => Verdict::Kill,
            },
            Mode::Filter(filter) => verdict(filter.run(data)),
        }
    }
}

impl Mode {
    /// The number of the mode, as the kernel tells it.
    pub fn number(&self) -> u64 {
        u64::from(match self {
            Mode::Off => raw::SECCOMP_MODE_DISABLED,
            Mode::Strict => raw::SECCOMP_MODE_STRICT,
            Mode::Filter(_) => raw::SECCOMP_MODE_FILTER,
        })
    }

    /// How many filters it has.
    pub fn filters(&self) -> usize {
        if let Mode::Filter(filter) = self { filter.chain().count() } else { 0 }
    }

    /// The mode with one filter more.
    pub fn with(&self, program: Program, flags: u32) -> Result<Self> {
        let before = match self {
            Mode::Off => None,
            Mode::Strict => return Err(Errno::EINVAL),
            Mode::Filter(filter) => Some(filter.clone()),
        };
        let others = before.as_ref().map_or(0, |before| before.len + PENALTY);
        let len = program.len() + others;
        if len > MOST_IN_ALL {
            return Err(Errno::ENOMEM);
        }
        Ok(Mode::Filter(Arc::new(Filter { program, flags, before, len })))
    }

    /// Whether this is an ancestor of another mode: it has the same filters, or fewer.
    pub fn is_before(&self, other: &Mode) -> bool {
        let Mode::Filter(mine) = self else { return matches!(self, Mode::Off) };
        let Mode::Filter(filter) = other else { return false };
        filter.chain().any(|filter| core::ptr::eq(filter, Arc::as_ptr(mine)))
    }

    /// Has the host judge the calls of this thread from now on.
    pub fn install(&self) -> Result<()> {
        let Mode::Filter(filter) = self else { return Ok(()) };
        let mut filters: alloc::vec::Vec<_> = filter.chain().collect();
        filters.reverse();
        filters.into_iter().try_for_each(Filter::install)
    }
}

impl Filter {
    fn chain(&self) -> impl Iterator<Item = &Filter> {
        core::iter::successors(Some(self), |filter| filter.before.as_deref())
    }

    /// The result of all filters: the strictest, and of equals the newest.
    fn run(&self, data: &Data) -> u32 {
        let action = |value: u32| (value & raw::SECCOMP_RET_ACTION_FULL) as i32;
        let mut result = raw::SECCOMP_RET_ALLOW;
        for filter in self.chain() {
            let value = filter.program.run(data);
            if action(value) < action(result) {
                result = value;
            }
        }
        result
    }

    fn install(&self) -> Result<()> {
        let code = self.program.code();
        // A struct sock_fprog.
        let given = [code.len() as u64, code.as_ptr() as u64];
        let flags = self.flags & raw::SECCOMP_FILTER_FLAG_LOG;
        let args = [raw::SECCOMP_SET_MODE_FILTER.into(), flags.into(), (&raw const given) as u64];
        // SAFETY: the program lives for the call, and was the caller's wish.
        unsafe { sys::call(nr::__NR_seccomp, args) }.map(drop)
    }
}

impl Drop for Filter {
    /// Drops the filters before this one in a loop: the stack has no room for thousands of nested drops.
    fn drop(&mut self) {
        let mut before = self.before.take();
        while let Some(mut filter) = before.and_then(Arc::into_inner) {
            before = filter.before.take();
        }
    }
}

/// Whether a filter's value leaves the call to a tracer.
pub fn is_for_tracer(value: u32) -> bool {
    value & raw::SECCOMP_RET_ACTION_FULL == raw::SECCOMP_RET_TRACE
}

/// What a filter's value means.
fn verdict(value: u32) -> Verdict {
    let data = value & raw::SECCOMP_RET_DATA;
    match value & raw::SECCOMP_RET_ACTION_FULL {
        raw::SECCOMP_RET_ALLOW | raw::SECCOMP_RET_LOG => Verdict::Allow,
        raw::SECCOMP_RET_ERRNO => Verdict::Fail(Errno(data.min(4095) as i32)),
        raw::SECCOMP_RET_TRAP => Verdict::Trap(data as i32),
        // There is no listener, and the tracer is not asked (`Call::add_filter`).
        raw::SECCOMP_RET_TRACE | raw::SECCOMP_RET_USER_NOTIF => Verdict::Fail(Errno::ENOSYS),
        raw::SECCOMP_RET_KILL_THREAD => Verdict::KillThread,
        _ => Verdict::KillProcess,
    }
}
