//! `execve(2)`: the supervisor places the runtime in the new program, as in the first one.

use super::{Call, Outcome, each_area, robust, tracees};
use crate::entry::{self, NOT_STARTED, RESTART};
use crate::files::{self, OnExec};
use crate::memory::Pins;
use crate::signal::virtual_mask;
use crate::sys::{self, Errno, Result};
use crate::thread::Thread;
use crate::{address_limit, file_size, memory, process, signal, supervisor, user};
use core::ops::ControlFlow;
use linux_raw_sys::general as nr;
use pagefault_control::Control;
use pagefault_linux::store::descriptor;
use pagefault_machine::Access;

/// `AT_EMPTY_PATH`.
const EMPTY_PATH: u64 = 0x1000;
/// `AT_SYMLINK_NOFOLLOW`.
const NO_FOLLOW: u64 = 0x100;
/// `AT_EACCESS`: by the effective user and group, as an exec.
const EFFECTIVE: u64 = 0x200;
/// `AT_FDCWD`.
const HERE: u64 = -100_i64 as u64;

impl Call<'_> {
    pub(super) fn exec(&mut self) -> Outcome {
        let Some(control) = process::control() else { return self.pass() };
        let _alone = self.thread.member().begin_exec();
        let rights = match self.image_rights() {
            Ok(rights) => rights,
            Err(errno) => return Err(errno).into(),
        };
        let Some(closed) = Closed::new(self.thread) else { return Outcome::Raw(NOT_STARTED) };
        let noted = memory::note(self.thread, self.number, self.args);
        let mut pins = Pins::new();
        if noted.is_none() {
            each_area(self.number, &self.args, &mut |area| {
                pins.add(area.start, area.len, Access::Read);
                ControlFlow::Continue(())
            });
        }
        let words = match pins.are_whole() {
            true => None,
            false => match self.copy_words() {
                Err(Errno::E2BIG) => return Err(Errno::E2BIG).into(),
                // The host reports what cannot be read.
                copied => copied.ok(),
            },
        };
        let kept = robust::keep();
        let raw = self.execute_with(rights, control);
        drop((words, pins, kept, noted, closed));
        Outcome::Raw(raw)
    }

    /// Executes a program, which is managed unless something forbids it.
    fn execute_with(&mut self, rights: Rights, control: &Control) -> i64 {
        match rights {
            _ if self.thread.member().is_to_be_traced() => {
                process::say(format_args!(
                    "a program that another one traces from its start runs unmanaged"
                ));
                self.execute_traced()
            }
            Rights::Same if !self.thread.seccomp.is_off() => {
                process::say(format_args!(
                    "a program that is executed under a seccomp filter runs unmanaged"
                ));
                self.execute_unmanaged()
            }
            Rights::Same => {
                match supervisor::ask(control, self.thread.member(), self.inherited_mask()) {
                    supervisor::Answer::Seized => {
                        let raw = self.execute(signal::ALL);
                        supervisor::cancel(self.thread.member());
                        raw
                    }
                    supervisor::Answer::Refused(why) => {
                        process::say(format_args!(
                            "a program cannot be traced at its start (error {}), so it runs unmanaged",
                            why.0
                        ));
                        self.execute_unmanaged()
                    }
                }
            }
            Rights::More => {
                process::say(format_args!(
                    "a program that gains privileges when it is executed runs unmanaged"
                ));
                self.execute_unmanaged()
            }
        }
    }

    /// The mask that the new program inherits: the one that this one sees.
    fn inherited_mask(&self) -> u64 {
        virtual_mask(self.thread, self.context.mask).0
    }

    /// Executes a program that has nothing of ours.
    fn execute_unmanaged(&mut self) -> i64 {
        // An exec that fails after this cannot raise a hard limit again without the right.
        if let Err(Errno(errno)) = self.may_execute() {
            return -i64::from(errno);
        }
        let sizes = file_size::settle();
        address_limit::settle();
        let kept = || files::shared().into_iter().filter(|number| *number != u32::MAX);
        kept().for_each(|descriptor| files::set_on_exec(descriptor, OnExec::Close));
        // From then on its memory is the host's, and does not count.
        let slot = process::control().and_then(|it| it.slots.get(self.thread.member().slot()));
        slot.inspect(|slot| slot.begin_unmanaged());
        let charge = memory::discharge();
        // The host's filters judge the calls of ours that follow, too.
        let raw = match self.thread.seccomp.get().install() {
            // Nobody changes its mask afterwards.
            Ok(()) => self.execute(self.inherited_mask()),
            Err(Errno(errno)) => -i64::from(errno),
        };
        memory::charge_again(charge);
        slot.inspect(|slot| slot.end_unmanaged());
        kept().for_each(|descriptor| files::set_on_exec(descriptor, OnExec::Keep));
        address_limit::unsettle();
        file_size::unsettle(sizes);
        raw
    }

    /// Executes a program that its parent traces, which the supervisor then cannot.
    fn execute_traced(&mut self) -> i64 {
        // Once it is a tracee the exec must not fail: its waiting parent would not continue it.
        if let Err(Errno(errno)) = self.may_execute() {
            return -i64::from(errno);
        }
        let request = u64::from(linux_raw_sys::ptrace::PTRACE_TRACEME);
        // SAFETY: only who traces the process changes.
        match unsafe { sys::call(nr::__NR_ptrace, [request, 0, 0, 0]) } {
            Ok(_) => self.execute_unmanaged(),
            Err(Errno(errno)) => -i64::from(errno),
        }
    }

    /// Whether the file may be executed.
    fn may_execute(&self) -> Result<()> {
        /// `X_OK`.
        const EXECUTE: u64 = 1;
        let (directory, path, flags) = self.image();
        let flags = flags & (EMPTY_PATH | NO_FOLLOW) | EFFECTIVE;
        let args = [directory, path, EXECUTE, flags, 0, 0];
        // SAFETY: the path is the program's and pinned.
        unsafe { sys::call(nr::__NR_faccessat2, args) }.map(drop)
    }

    /// Makes the call with a mask; returns if it fails.
    fn execute(&mut self, mask: u64) -> i64 {
        // The new program inherits the ignored signals that this one sees.
        self.thread.member().signals().settle_for_exec();
        // The server would live on in the memory that the process leaves.
        let paused = (memory::serve::pause_for_exec(), tracees::rest());
        sys::exchange_mask(mask);
        // SAFETY: the program asks for it; what it names is pinned.
        let raw = unsafe { entry::call(self.number, &self.args, self.thread) };
        sys::exchange_mask(signal::ALL);
        drop(paused);
        signal::install();
        if raw == RESTART { NOT_STARTED } else { raw }
    }

    /// The file to execute: a directory, a path relative to it, and flags.
    fn image(&self) -> (u64, u64, u64) {
        match self.number {
            nr::__NR_execve => (HERE, self.args[0], 0),
            _ => (self.args[0], self.args[1], self.args[4]),
        }
    }

    /// Whether executing the file gives the program more privileges, or what is wrong with the
    /// file.
    fn image_rights(&self) -> Result<Rights> {
        let (directory, path, flags) = self.image();
        let mut open = u64::from(nr::O_PATH | nr::O_CLOEXEC);
        if flags & NO_FOLLOW != 0 {
            open |= u64::from(nr::O_NOFOLLOW);
        }
        let args = [directory, path, open, 0, 0, 0];
        let noted = memory::note(self.thread, nr::__NR_openat, args);
        let mut pins = Pins::new();
        if noted.is_none() {
            pins.add(path, 4096, Access::Read);
        }
        if flags & EMPTY_PATH != 0 && user::read::<u8>(path) == Ok(0) {
            return Ok(rights_of(directory as u32));
        }
        // SAFETY: the kernel reads the program's path, and answers with a descriptor of ours.
        let open = || unsafe { sys::call(nr::__NR_openat, args) };
        // A path may take its time: no other thread waits for it, unless the limit is in the way.
        let file = match open() {
            Err(Errno::EMFILE) => descriptor::with_room(open),
            opened => opened,
        };
        let file = match file {
            Ok(file) => file as u32,
            // Without a descriptor nothing can be checked here; the supervisor still checks at the exec
            // stop.
            Err(Errno::EMFILE | Errno::ENFILE | Errno::EFAULT) => return Ok(Rights::Same),
            Err(errno) => return Err(errno),
        };
        let rights = rights_of(file);
        // SAFETY: just opened, and nobody else's.
        let _ = unsafe { sys::call(nr::__NR_close, [file.into()]) };
        Ok(rights)
    }
}

/// Blocks the program's signals during an exec, as the kernel runs no handler during one. Otherwise
/// signals that come faster than an exec is prepared would let it never begin.
struct Closed<'a> {
    thread: &'a Thread,
    before: u64,
}

impl<'a> Closed<'a> {
    /// `None` if a signal waits for delivery already.
    fn new(thread: &'a Thread) -> Option<Self> {
        let before = signal::shut_out(thread)?;
        Some(Self { thread, before })
    }
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        // While a signal waits for delivery, no other may come.
        if !self.thread.has_pending() {
            sys::exchange_mask(self.before);
        }
    }
}

/// What a program may do that another could not.
enum Rights {
    Same,
    More,
}

fn rights_of(file: u32) -> Rights {
    if process::no_new_rights() || files::is_on_nosuid(file) {
        return Rights::Same;
    }
    let mode = files::mode(file);
    let set_group = nr::S_ISGID | nr::S_IXGRP;
    let gains = mode & nr::S_IFMT == nr::S_IFREG
        && (mode & nr::S_ISUID != 0 || mode & set_group == set_group);
    if gains || files::has_capabilities(file) { Rights::More } else { Rights::Same }
}
