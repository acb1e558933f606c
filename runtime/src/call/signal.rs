//! Calls about signals.

use super::{Call, Outcome};
use crate::entry::{self, NOT_STARTED};
use crate::frame::AltStack;
use crate::signal::action::Action;
use crate::signal::{
    Set, is_on_stack, raise_held, return_from_handler, set_stack, set_virtual_mask, shut_out,
    virtual_mask,
};
use crate::sys::{Errno, Result};
use crate::user;
use linux_raw_sys::general as nr;

impl Call<'_> {
    pub(super) fn signal(&mut self) -> Outcome {
        match self.number {
            // A signal that has come is not blocked yet, and its handler runs before the call.
            nr::__NR_rt_sigreturn if shut_out(self.thread).is_none() => Outcome::Raw(NOT_STARTED),
            nr::__NR_rt_sigprocmask if self.args[1] != 0 && shut_out(self.thread).is_none() => {
                Outcome::Raw(NOT_STARTED)
            }
            nr::__NR_rt_sigreturn => {
                return_from_handler(self.thread, self.context);
                Outcome::Resumed
            }
            nr::__NR_rt_sigaction => self.action().into(),
            nr::__NR_rt_sigprocmask => self.mask().into(),
            nr::__NR_rt_sigsuspend => self.suspend(),
            nr::__NR_rt_sigpending => self.pending(),
            nr::__NR_rt_sigtimedwait => self.wait_for_signal(),
            nr::__NR_signalfd | nr::__NR_signalfd4 => self.descriptor_of_signals(),
            _ => self.alternate_stack().into(),
        }
    }

    /// `rt_sigaction(2)`.
    fn action(&mut self) -> Result {
        let [signal, new, old, size, ..] = self.args;
        if size != 8 {
            return Err(Errno::EINVAL);
        }
        let new = if new == 0 { None } else { Some(user::read::<Action>(new)?) };
        let member = self.thread.member();
        let was = member.exchange_action(signal as i32, new)?;
        if old != 0 {
            user::write(old, &was)?;
        }
        Ok(0)
    }

    /// `rt_sigprocmask(2)`: changes the mask that the return from this call restores.
    fn mask(&mut self) -> Result {
        let [how, new, old, size, ..] = self.args;
        if size != 8 {
            return Err(Errno::EINVAL);
        }
        let was = virtual_mask(self.thread, self.context.mask);
        if new != 0 {
            let Set(set) = user::read(new)?;
            let mask = match how as u32 {
                nr::SIG_BLOCK => was.0 | set,
                nr::SIG_UNBLOCK => was.0 & !set,
                nr::SIG_SETMASK => set,
                _ => return Err(Errno::EINVAL),
            };
            self.context.mask = set_virtual_mask(self.thread, Set(mask));
        }
        if old != 0 {
            user::write(old, &was)?;
        }
        Ok(0)
    }

    /// `rt_sigsuspend(2)`.
    fn suspend(&mut self) -> Outcome {
        let [set, size, ..] = self.args;
        if size != 8 {
            return Err(Errno::EINVAL).into();
        }
        let mask = match user::read::<Set>(set) {
            Ok(mask) => mask.blockable(),
            Err(errno) => return Err(errno).into(),
        };
        let kernel = mask.for_kernel();
        self.thread.waiting_mask.set(Some(mask));
        if raise_held(self.thread) {
            return Err(Errno::EINTR).into();
        }
        let args = [(&raw const kernel) as u64, 8, 0, 0, 0, 0];
        // SAFETY: the mask lives for the call.
        Outcome::Raw(unsafe { entry::call(self.number, &args, self.thread) })
    }

    /// `rt_sigpending(2)`: the host does not know of the signals that it cannot block.
    fn pending(&mut self) -> Outcome {
        let raw = self.make_pinned(self.args);
        let held = self.thread.held().set();
        let at = self.args[0];
        if raw == 0
            && held != Set::EMPTY
            && let Ok(set) = user::read::<Set>(at)
            && let Err(errno) = user::write(at, &set.union(held))
        {
            return Err(errno).into();
        }
        Outcome::Raw(raw)
    }

    /// `rt_sigtimedwait(2)`.
    fn wait_for_signal(&mut self) -> Outcome {
        let [at, info_at, _, size, ..] = self.args;
        let needed = user::read::<Set>(at).map_or(Set::EMPTY, |set| Set(set.0 & Set::NEEDED.0));
        if size != 8 || needed == Set::EMPTY {
            return self.pass();
        }
        let host = user::read(at).map_or(Set::EMPTY, Set::without_requests);
        let mut args = self.args;
        args[0] = (&raw const host) as u64;
        let held = || self.thread.held().take(needed);
        let info = match held() {
            Some(info) => info,
            None => {
                let raw = self.make_pinned(args);
                // A signal that came meanwhile has interrupted the wait.
                match held() {
                    Some(info) => info,
                    None => return Outcome::Raw(raw),
                }
            }
        };
        if info_at != 0
            && let Err(errno) = user::write(info_at, &info)
        {
            return Err(errno).into();
        }
        Outcome::Raw(info.signal.into())
    }

    /// `signalfd(2)`. The host would give a reclaim request to the reader.
    fn descriptor_of_signals(&mut self) -> Outcome {
        let [_, at, size, ..] = self.args;
        let host = match user::read(at) {
            Ok(set) if size == 8 => Set::without_requests(set),
            // The host reports the error.
            _ => return self.pass(),
        };
        let mut args = self.args;
        args[1] = (&raw const host) as u64;
        Outcome::Raw(self.make_pinned(args))
    }

    /// Calls that wait with a mask of their own.
    pub(super) fn wait_with_mask(&mut self) -> Outcome {
        let packed = self.number == nr::__NR_pselect6;
        let (at, size) = match self.number {
            nr::__NR_ppoll => (self.args[3], self.args[4]),
            nr::__NR_pselect6 if self.args[5] == 0 => (0, 8),
            nr::__NR_pselect6 => match user::read::<[u64; 2]>(self.args[5]) {
                Ok([at, size]) => (at, size),
                Err(errno) => return Err(errno).into(),
            },
            _ => (self.args[4], self.args[5]),
        };
        if at == 0 {
            return self.pass();
        }
        if size != 8 {
            return Err(Errno::EINVAL).into();
        }
        let mask = match user::read::<Set>(at) {
            Ok(mask) => mask.blockable(),
            Err(errno) => return Err(errno).into(),
        };
        let kernel = mask.for_kernel();
        let kernel_at = (&raw const kernel) as u64;
        let pack = [kernel_at, 8];
        let mut args = self.args;
        match self.number {
            nr::__NR_ppoll => args[3] = kernel_at,
            _ if packed => args[5] = (&raw const pack) as u64,
            _ => args[4] = kernel_at,
        }
        self.thread.waiting_mask.set(Some(mask));
        if raise_held(self.thread) {
            return Err(Errno::EINTR).into();
        }
        Outcome::Raw(self.make_pinned(args))
    }

    /// `sigaltstack(2)`.
    fn alternate_stack(&mut self) -> Result {
        let [new, old, ..] = self.args;
        let was = self.thread.alt_stack.get();
        let sp = self.context.registers.rsp;
        let is_on = is_on_stack(&was, sp);
        if new != 0 {
            let stack = user::read::<AltStack>(new)?;
            set_stack(self.thread, stack, sp)?;
        }
        if old != 0 {
            let flag = if is_on { nr::SS_ONSTACK } else { 0 };
            user::write(old, &AltStack { flags: was.flags | flag, ..was })?;
        }
        Ok(0)
    }
}
