//! The program's filters of system calls: `seccomp(2)`, and their effect on a call.

use super::{Call, Outcome};
use crate::frame::Info;
use crate::seccomp::bpf::{self, Data, Instruction, Program};
use crate::seccomp::{self, ARCHITECTURE, Mode, Verdict};
use crate::signal::{deliver_default, deliver_fault};
use crate::sys::{self, Errno, Result};
use crate::{process, tracer, user};
use alloc::vec::Vec;
use linux_raw_sys::general as nr;
use linux_raw_sys::ptrace as raw;

/// `SYS_SECCOMP`: a filter sent the signal.
const BY_FILTER: i32 = 1;

const SYNCHRONIZE: u32 = raw::SECCOMP_FILTER_FLAG_TSYNC;
const SYNCHRONIZE_ESRCH: u32 = raw::SECCOMP_FILTER_FLAG_TSYNC_ESRCH;
/// The flags that are taken.
const KNOWN: u32 = SYNCHRONIZE
    | SYNCHRONIZE_ESRCH
    | raw::SECCOMP_FILTER_FLAG_LOG
    | raw::SECCOMP_FILTER_FLAG_SPEC_ALLOW;

impl Call<'_> {
    /// The filters' outcome for the call; `None` if they let it pass.
    pub(super) fn judge(&mut self) -> Option<Outcome> {
        let data = Data {
            number: self.number,
            architecture: ARCHITECTURE,
            ip: self.context.registers.rip,
            args: self.args,
        };
        match self.thread.seccomp.judge(&data) {
            Verdict::Allow => None,
            Verdict::Fail(errno) => Some(Outcome::Raw(-i64::from(errno.0))),
            Verdict::Trap(errno) => {
                deliver_fault(self.thread, self.context, &self.trap_info(errno));
                Some(Outcome::Resumed)
            }
            Verdict::KillThread if self.thread.is_one_of_many() => {
                self.args[0] = nr::SIGSYS.into();
                Some(self.exit())
            }
            Verdict::KillThread | Verdict::KillProcess => {
                deliver_default(&self.trap_info(0));
                Some(Outcome::Resumed)
            }
            Verdict::Kill => {
                let args = [sys::process_id().into(), nr::SIGKILL.into()];
                // SAFETY: the process ends.
                let _ = unsafe { sys::call(nr::__NR_kill, args) };
                Some(Outcome::Resumed)
            }
        }
    }

    fn trap_info(&self, errno: i32) -> Info {
        // The host knows nothing of it.
        self.thread.told.set(0);
        let mut info = Info::new(nr::SIGSYS as i32, BY_FILTER);
        info.errno = errno;
        info.fields[0] = self.context.registers.rip;
        info.fields[1] = u64::from(self.number) | u64::from(ARCHITECTURE) << 32;
        info
    }

    /// `seccomp(2)`.
    pub(super) fn seccomp(&mut self) -> Outcome {
        let [operation, flags, args, ..] = self.args;
        match operation as u32 {
            raw::SECCOMP_SET_MODE_STRICT if flags == 0 && args == 0 => self.make_strict().into(),
            raw::SECCOMP_SET_MODE_STRICT => Err(Errno::EINVAL).into(),
            raw::SECCOMP_SET_MODE_FILTER => self.add_filter(flags as u32, args).into(),
            raw::SECCOMP_GET_ACTION_AVAIL
                if user::read(args) == Ok(raw::SECCOMP_RET_USER_NOTIF) =>
            {
                Err(Errno::EOPNOTSUPP).into()
            }
            _ => self.pass(),
        }
    }

    /// `prctl(PR_SET_SECCOMP)`.
    pub(super) fn set_seccomp(&mut self) -> Outcome {
        let [_, mode, args, ..] = self.args;
        match mode as u32 {
            raw::SECCOMP_MODE_STRICT => self.make_strict().into(),
            raw::SECCOMP_MODE_FILTER => self.add_filter(0, args).into(),
            _ => Err(Errno::EINVAL).into(),
        }
    }

    fn make_strict(&self) -> Result {
        self.thread.change_filters(|old| match old {
            Mode::Filter(_) => Err(Errno::EINVAL),
            Mode::Off | Mode::Strict => Ok(Mode::Strict),
        })?;
        Ok(0)
    }

    fn add_filter(&self, flags: u32, program: u64) -> Result {
        if flags & !KNOWN != 0 {
            // A listener would have to handle calls that the runtime makes in other forms.
            process::count_refused();
            return Err(Errno::EINVAL);
        }
        let [len, at] = user::read::<[u64; 2]>(program)?;
        let len = len as u16 as usize;
        if len == 0 || len > bpf::MOST {
            return Err(Errno::EINVAL);
        }
        if !process::no_new_rights() && !process::is_administrator() {
            return Err(Errno::EACCES);
        }
        let code: Result<Vec<Instruction>> =
            (0..len).map(|index| user::read(at + 8 * index as u64)).collect();
        let program = Program::new(code?)?;
        if program.answers(seccomp::is_for_tracer) && tracer::is_traced() {
            // Tracers fall back to the stops of every call. Without one, the kernel answers such a call as ours does.
            process::count_refused();
            return Err(Errno::EINVAL);
        }
        let add = |old: Mode| old.with(program, flags);
        if flags & SYNCHRONIZE == 0 {
            self.thread.change_filters(add)?;
            return Ok(0);
        }
        match self.thread.synchronize_filters(add)? {
            None => Ok(0),
            Some(_) if flags & SYNCHRONIZE_ESRCH != 0 => Err(Errno::ESRCH),
            Some(other) => Ok(other.into()),
        }
    }
}
