//! Calls about the process as a whole: `prctl`, limits.

use super::{Call, Outcome};
use crate::sys::{self, Errno, Result};
use crate::user;
use crate::{address_limit, file_size, files, launcher, process, site};
use linux_raw_sys::general as nr;
use linux_raw_sys::prctl;

/// `ARCH_GET_GS`.
const GET_GS: u64 = 0x1004;
/// `ARCH_SHSTK_ENABLE`.
const ENABLE_SHADOW_STACK: u64 = 0x5001;

impl Call<'_> {
    pub(super) fn process(&mut self) -> Outcome {
        let [a, b, ..] = self.args;
        match self.number {
            nr::__NR_prctl => match a as u32 {
                prctl::PR_SET_TSC if b == u64::from(prctl::PR_TSC_SIGSEGV) => {
                    process::counter_off();
                    self.pass()
                }
                prctl::PR_SET_SECCOMP => self.set_seccomp(),
                // The host has a value of ours.
                prctl::PR_GET_TID_ADDRESS => {
                    user::write(b, &self.thread.clear_at_exit.get()).map(|()| 0).into()
                }
                prctl::PR_SET_PDEATHSIG => {
                    launcher::program_sets_signal();
                    self.pass()
                }
                prctl::PR_GET_PDEATHSIG if launcher::is_signal_ours() => {
                    user::write(b, &0_u32).map(|()| 0).into()
                }
                prctl::PR_GET_SECCOMP => Outcome::Raw(self.thread.seccomp.get().number() as i64),
                // None is on.
                prctl::PR_SET_SYSCALL_USER_DISPATCH if self.args[1..5] == [0; 4] => Outcome::Raw(0),
                prctl::PR_SET_SYSCALL_USER_DISPATCH => self.refuse(Errno::EINVAL),
                _ => self.pass(),
            },
            nr::__NR_arch_prctl if a == ENABLE_SHADOW_STACK => {
                site::use_shadow_stack();
                self.pass()
            }
            // The host's value is ours until the program has set one.
            nr::__NR_arch_prctl if a == GET_GS && site::has_gs(self.thread) => {
                user::write(b, &0_u64).map(|()| 0).into()
            }
            // The kernel looks at the limit's number before it writes, and after it reads.
            nr::__NR_getrlimit if a as u32 >= nr::RLIM_NLIMITS => Err(Errno::EINVAL).into(),
            nr::__NR_getrlimit | nr::__NR_setrlimit if b == 0 => Err(Errno::EFAULT).into(),
            nr::__NR_getrlimit => self.limit(0, b).into(),
            nr::__NR_setrlimit => self.limit(b, 0).into(),
            nr::__NR_prlimit64 => self.prlimit(),
            _ => self.pass(),
        }
    }

    fn refuse(&self, errno: Errno) -> Outcome {
        process::count_refused();
        Err(errno).into()
    }

    fn prlimit(&mut self) -> Outcome {
        let [process, _, new, old, ..] = self.args;
        // The ID of any of its threads names a process.
        if process != 0 && !self.thread.is_beside(process as u32) {
            return self.pass();
        }
        self.args[0] = self.args[1];
        let result = self.limit(new, old);
        result.into()
    }

    /// Reads and changes a limit of this process. The runtime keeps some itself, since its own
    /// descriptors and mappings do not count.
    fn limit(&mut self, new: u64, old: u64) -> Result {
        let resource = self.args[0];
        let changed: Option<[u64; 2]> = if new == 0 { None } else { Some(user::read(new)?) };
        let was = match resource as u32 {
            nr::RLIMIT_NOFILE => files::exchange_limit(changed)?,
            limit @ (nr::RLIMIT_AS | nr::RLIMIT_DATA) => {
                address_limit::exchange_limit(limit, changed)?
            }
            nr::RLIMIT_FSIZE => file_size::exchange_limit(changed)?,
            _ => host_limit(resource, changed)?,
        };
        if old != 0 {
            user::write(old, &was)?;
        }
        Ok(0)
    }
}

/// Reads and changes a limit of the host's.
fn host_limit(resource: u64, new: Option<[u64; 2]>) -> Result<[u64; 2]> {
    let mut was = [0_u64; 2];
    let new = new.as_ref().map_or(0, |new| core::ptr::from_ref(new) as u64);
    // SAFETY: both structures are ours.
    unsafe { sys::call(nr::__NR_prlimit64, [0, resource, new, (&raw mut was) as u64])? };
    Ok(was)
}
