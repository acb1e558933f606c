//! Processes, threads and futexes.

mod clone3;

use super::time::read_time;
use super::{Arguments, Result};
use crate::clock::{self, Clock};
use crate::entry::TrapFrame;
use crate::errno::Errno;
use crate::exec::{self, Program};
use crate::futex::{Scope, Word};
use crate::process::{self, Children, Death, Hang, Keep, Process, Reason, Thread};
use crate::scheduler::{self, Patience};
use crate::{cpu, futex, signal, task, user};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use linux_raw_sys::{general as nr, prctl};

pub(super) fn call(number: u32, arguments: Arguments) -> Option<Result> {
    let Arguments { a, b, c, d, e, f } = arguments;
    Some(match number {
        nr::__NR_exit => process::exit_thread(Death { reason: Reason::Exit(a as u8) }),
        nr::__NR_exit_group => process::exit_group(Death { reason: Reason::Exit(a as u8) }),
        nr::__NR_wait4 => wait4(a as i32, b, c as u32, d),
        nr::__NR_waitid => waitid(a as u32, b as u32, c, d as u32, e),
        nr::__NR_getpid => Ok(process::current().id.into()),
        nr::__NR_gettid => Ok(cpu::task_id().into()),
        nr::__NR_getppid => Ok(process::current().parent_id().into()),
        nr::__NR_getpgrp => Ok(process::current().group.load(Ordering::Relaxed).into()),
        nr::__NR_getpgid => other(a as u32).map(|of| of.group.load(Ordering::Relaxed).into()),
        nr::__NR_getsid => other(a as u32).map(|of| of.session.load(Ordering::Relaxed).into()),
        nr::__NR_setsid => {
            let process = process::current();
            process.group.store(process.id, Ordering::Relaxed);
            process.session.store(process.id, Ordering::Relaxed);
            Ok(process.id.into())
        }
        nr::__NR_setpgid => set_group(a as u32, b as u32),
        nr::__NR_prctl if a as u32 == prctl::PR_SET_MM => memory_map(b, c, d),
        nr::__NR_prctl => prctl(a as u32, b),
        nr::__NR_set_tid_address => {
            process::thread().clear_tid.store(a, Ordering::Relaxed);
            Ok(cpu::task_id().into())
        }
        nr::__NR_set_robust_list => {
            process::thread().robust_list.store(a, Ordering::Relaxed);
            Ok(0)
        }
        nr::__NR_arch_prctl => arch_prctl(a as u32, b),
        nr::__NR_futex => futex_call(a, b as u32, c as u32, d, e, f as u32),
        nr::__NR_sched_yield => {
            scheduler::yield_now();
            Ok(0)
        }
        _ => return None,
    })
}

/// A process by number; 0 is the running one.
fn other(id: u32) -> core::result::Result<Arc<Process>, Errno> {
    if id == 0 { Ok(process::current().clone()) } else { process::find(id).ok_or(Errno::ESRCH) }
}

/// Puts the running process or one of its children into a process group.
fn set_group(id: u32, group: u32) -> Result {
    if group > i32::MAX as u32 {
        return Err(Errno::EINVAL);
    }
    let (of, own) = (other(id)?, process::current().id);
    if of.id != own && of.parent_id() != own {
        return Err(Errno::ESRCH);
    }
    of.group.store(if group == 0 { of.id } else { group }, Ordering::Relaxed);
    Ok(0)
}

/// What a process says about itself, or gives up.
fn prctl(what: u32, argument: u64) -> Result {
    let (process, thread) = (process::current(), process::thread());
    let is_leader = cpu::task_id() == process.id;
    match what {
        prctl::PR_SET_NAME => {
            let mut name = [0; 16];
            // The name may end just before memory does.
            let left = user::copy_from(argument, &mut name);
            if left > 0 && !name[..16 - left].contains(&0) {
                return Err(Errno::EFAULT);
            }
            let name = name[..15].split(|byte| *byte == 0).next().unwrap_or_default();
            let name = String::from_utf8_lossy(name).into_owned();
            if is_leader {
                *process.comm.lock() = name;
            } else {
                *thread.name.lock() = Some(name);
            }
            Ok(0)
        }
        prctl::PR_GET_NAME => {
            let name = thread.name.lock().clone().unwrap_or_else(|| process.comm.lock().clone());
            let mut bytes = [0; 16];
            let n = name.len().min(15);
            bytes[..n].copy_from_slice(&name.as_bytes()[..n]);
            user::write(argument, &bytes)?;
            Ok(0)
        }
        prctl::PR_SET_PDEATHSIG if argument <= 64 => {
            process.death_signal.store(argument as u32, Ordering::Relaxed);
            Ok(0)
        }
        prctl::PR_GET_PDEATHSIG => {
            let number = process.death_signal.load(Ordering::Relaxed);
            user::write(argument, &number.to_le_bytes())?;
            Ok(0)
        }
        // Every program is the superuser's, and nothing asks what it may: a right that is given up
        // is not missed, and all are there.
        prctl::PR_GET_DUMPABLE | prctl::PR_CAPBSET_READ if argument < 64 => Ok(1),
        prctl::PR_SET_DUMPABLE
        | prctl::PR_CAPBSET_DROP
        | prctl::PR_SET_KEEPCAPS
        | prctl::PR_SET_NO_NEW_PRIVS
        | prctl::PR_SET_TIMERSLACK => Ok(0),
        prctl::PR_GET_KEEPCAPS | prctl::PR_GET_NO_NEW_PRIVS => Ok(0),
        prctl::PR_GET_TIMERSLACK => Ok(50_000),
        _ => Err(Errno::EINVAL),
    }
}

/// `PR_SET_MM_MAP`, of which the heap's place is all that is kept here: the words `start_brk` and `brk`.
fn memory_map(what: u64, address: u64, size: u64) -> Result {
    const BREAK: u64 = 4 * 8;
    const WHOLE: u64 = 104;
    if what != u64::from(prctl::PR_SET_MM_MAP) || size != WHOLE {
        return Err(Errno::EINVAL);
    }
    let start = user::read_u64(address.wrapping_add(BREAK))?;
    let now = user::read_u64(address.wrapping_add(BREAK + 8))?;
    if start != now || !user::access_ok(start, 0) {
        return Err(Errno::EINVAL);
    }
    process::space().begin_heap(pagefault::machine::VirtAddr(start), 0);
    Ok(0)
}

fn arch_prctl(code: u32, address: u64) -> Result {
    const ARCH_SET_FS: u32 = 0x1002;
    const ARCH_GET_FS: u32 = 0x1003;
    let pointer = &process::thread().pointer;
    match code {
        ARCH_SET_FS if !user::access_ok(address, 0) => Err(Errno::EPERM),
        ARCH_SET_FS => {
            pointer.store(address, Ordering::Relaxed);
            cpu::set_thread_pointer(address);
            Ok(0)
        }
        ARCH_GET_FS => {
            user::write(address, &pointer.load(Ordering::Relaxed).to_le_bytes())?;
            Ok(0)
        }
        _ => Err(Errno::EINVAL),
    }
}

/// What a clone is asked for, from either form of the call.
#[derive(Clone, Copy, Debug, Default)]
struct Clone {
    flags: u64,
    stack: u64,
    parent_tid: u64,
    child_tid: u64,
    pointer: u64,
}

fn read_clone(number: u32, arguments: Arguments) -> core::result::Result<Clone, Errno> {
    let Arguments { a, b, c, d, e, .. } = arguments;
    Ok(match number {
        nr::__NR_fork => Clone::default(),
        nr::__NR_vfork => {
            Clone { flags: u64::from(nr::CLONE_VM | nr::CLONE_VFORK), ..Clone::default() }
        }
        nr::__NR_clone if a & clone3::ABSENT & !clone3::CSIGNAL != 0 => return Err(Errno::EINVAL),
        nr::__NR_clone => Clone { flags: a, stack: b, parent_tid: c, child_tid: d, pointer: e },
        _ => {
            let words = clone3::read(a, b)?;
            Clone {
                flags: words[0],
                stack: words[5].wrapping_add(words[6]),
                parent_tid: words[3],
                child_tid: words[2],
                pointer: words[7],
            }
        }
    })
}

/// The most bytes of the kernel's heap that a region of a new process takes.
const REGION: usize = 1024;

/// fork, vfork, and threads.
pub(super) fn clone(frame: &TrapFrame, number: u32, arguments: Arguments) -> Result {
    let clone = read_clone(number, arguments)?;
    clone.check()?;
    let parent = process::current();
    // Each region of a copy is in several lists.
    process::find_room(REGION * process::space().usage().regions)?;
    let id = task::next_id();
    let space = match clone.has(nr::CLONE_VM) {
        true => process::space().clone(),
        false => Arc::new(process::space().fork()?),
    };
    // Whose child it becomes: the caller's own parent's, if it asks for that.
    let heir = if clone.has(nr::CLONE_PARENT) { parent.parent() } else { Some(parent.clone()) };
    let process = match clone.has(nr::CLONE_THREAD) {
        true => parent.clone(),
        false => child(parent, heir.as_ref(), id, &space),
    };
    if clone.flags & clone3::CLONE_CLEAR_SIGHAND != 0 {
        process.actions.lock().reset();
    }
    let gone = Arc::new(AtomicU32::new(0));
    let new = new_thread(&clone, &process, &gone);
    clone.tell_number(id, &space);
    if let Err(error) = process::start_thread(id, &clone.first_frame(frame), space, new) {
        if !clone.has(nr::CLONE_THREAD) {
            process::forget(&process);
        }
        return Err(error);
    }
    if clone.has(nr::CLONE_VFORK) {
        while gone.load(Ordering::Acquire) == 0 && !parent.ends_this_thread() {
            scheduler::wait_until(&gone, 0, u64::MAX, Patience::Death);
        }
    }
    Ok(id.into())
}

impl Clone {
    const fn has(&self, flag: u32) -> bool {
        self.flags & flag as u64 != 0
    }

    /// Refuses what cannot be.
    fn check(&self) -> core::result::Result<(), Errno> {
        // Threads share what signals do, and who shares that shares memory.
        if self.has(nr::CLONE_THREAD) && !self.has(nr::CLONE_SIGHAND)
            || self.has(nr::CLONE_SIGHAND) && !self.has(nr::CLONE_VM)
        {
            return Err(Errno::EINVAL);
        }
        if process::are_too_many() {
            return Err(Errno::EAGAIN);
        }
        if self.has(nr::CLONE_SETTLS) && !user::access_ok(self.pointer, 0) {
            return Err(Errno::EPERM);
        }
        Ok(())
    }

    /// Where the new thread begins: after the call, which returns 0 there.
    fn first_frame(&self, caller: &TrapFrame) -> TrapFrame {
        let mut frame = caller.clone();
        frame.rax = 0;
        if self.stack != 0 {
            frame.rsp = self.stack;
        }
        frame
    }

    /// Stores the new thread's number where the caller wants it.
    fn tell_number(&self, id: u32, space: &pagefault::AddressSpace<crate::machine::Pc>) {
        if self.has(nr::CLONE_PARENT_SETTID) {
            // The child runs whether its parent gets to know the number there or not.
            let _ = user::write(self.parent_tid, &id.to_le_bytes());
        }
        if self.has(nr::CLONE_CHILD_SETTID) {
            // In the child's memory, which may be a copy.
            space.copy_to_user(pagefault::machine::VirtAddr(self.child_tid), &id.to_le_bytes());
        }
    }
}

/// The thread of a process that the current one makes; `gone` changes when it no longer uses its maker's memory.
fn new_thread(clone: &Clone, process: &Arc<Process>, gone: &Arc<AtomicU32>) -> Thread {
    let maker = process::thread();
    let pointer = match clone.has(nr::CLONE_SETTLS) {
        true => clone.pointer,
        false => maker.pointer.load(Ordering::Relaxed),
    };
    let mut new = Thread::new(process.clone(), pointer, maker.mask.load(Ordering::Relaxed));
    if !clone.has(nr::CLONE_VM) || clone.has(nr::CLONE_VFORK) {
        *new.alternate_stack.get_mut() = *maker.alternate_stack.lock();
    }
    if clone.has(nr::CLONE_VFORK) {
        *new.waited_for.get_mut() = Some(gone.clone());
    }
    if clone.has(nr::CLONE_CHILD_CLEARTID) {
        new.clear_tid.store(clone.child_tid, Ordering::Relaxed);
    }
    new.policy.store(maker.policy.load(Ordering::Relaxed), Ordering::Relaxed);
    new
}

/// A process with a copy of what its parent has.
fn child(
    parent: &Arc<Process>,
    heir: Option<&Arc<Process>>,
    id: u32,
    space: &Arc<pagefault::AddressSpace<crate::machine::Pc>>,
) -> Arc<Process> {
    let files = parent.files.lock().clone();
    let process = Process::new(id, heir, files);
    *process.space.lock() = Some(space.clone());
    *process.identity.lock() = parent.identity.lock().clone();
    *process.limits.lock() = parent.limits.lock().clone();
    *process.actions.lock() = parent.actions.lock().clone();
    *process.name.lock() = parent.name.lock().clone();
    *process.comm.lock() = parent.comm.lock().clone();
    *process.command_line.lock() = parent.command_line.lock().clone();
    process.stack.store(parent.stack.load(Ordering::Relaxed), Ordering::Relaxed);
    process
}

/// Replaces the program of the running process.
pub(super) fn execve(frame: &mut TrapFrame, arguments: Arguments) -> Result {
    let Arguments { a, b, c, .. } = arguments;
    let path = String::from_utf8(user::read_path(a)?).map_err(|_| Errno::ENOENT)?;
    if path.is_empty() {
        return Err(Errno::ENOENT);
    }
    let path = crate::fs::absolute(&process::current().files.lock().directory, &path);
    let mut room = exec::ARGUMENT_LIMIT;
    let (arguments, environment) = (strings(b, &mut room)?, strings(c, &mut room)?);
    let arguments = exec::Arguments { arguments, environment };
    let program = Program::open(&path, arguments)?;
    let space = Program::space()?;
    let process = process::current();
    if !process.end_other_threads() {
        // Another thread was faster, or the process is killed: this one ends on its way out.
        return Err(Errno::EINTR);
    }
    process.apply_limits(&space);
    let old = scheduler::current().replace_space(Some(space.clone()));
    let old = (old, process.space.lock().replace(space.clone()));
    process::release(process::thread());
    drop(old);
    process.barriers.store(0, Ordering::Relaxed);
    process.timers.lock().clear();
    let closed = process.files.lock().take_closing();
    drop(closed);
    process.actions.lock().reset();
    *process::thread().alternate_stack.lock() = Default::default();
    process::thread().clear_tid.store(0, Ordering::Relaxed);
    process::thread().pointer.store(0, Ordering::Relaxed);
    cpu::set_thread_pointer(0);
    program.introduce(process);
    process::thread().robust_list.store(0, Ordering::Relaxed);
    // The old program is gone: from here on an error can only end the process.
    let Ok(registers) = program.load(&space) else {
        process::exit_group(Death { reason: Reason::Signal(signal::SIGKILL) })
    };
    if process.is_traced() {
        signal::send(process, signal::SIGTRAP);
    }
    process.stack.store(registers.rsp, Ordering::Relaxed);
    *frame = registers;
    Ok(0)
}

/// Reads a list of texts, which may take so much room.
fn strings(list: u64, room: &mut usize) -> core::result::Result<Vec<Vec<u8>>, Errno> {
    let mut strings = Vec::new();
    if list == 0 {
        return Ok(strings);
    }
    loop {
        let at = user::read_u64(list.wrapping_add(8 * strings.len() as u64))?;
        if at == 0 {
            return Ok(strings);
        }
        // The arguments are there several times for a moment.
        let used = exec::ARGUMENT_LIMIT - *room;
        process::find_room(3 * (used + exec::LONGEST_ARGUMENT))?;
        let longest = exec::LONGEST_ARGUMENT.min(*room);
        let text = user::read_string(at, longest, Errno::E2BIG)?;
        // With its end and the pointer to it.
        *room = room.checked_sub(text.len() + 9).ok_or(Errno::E2BIG)?;
        strings.push(text);
    }
}

/// The options that say which children are meant, for both forms of waiting.
const KINDS: u32 = nr::__WNOTHREAD | nr::__WCLONE | nr::__WALL;

fn wait4(pid: i32, status: u64, options: u32, usage: u64) -> Result {
    if options & !(nr::WNOHANG | nr::WUNTRACED | nr::WCONTINUED | KINDS) != 0 {
        return Err(Errno::EINVAL);
    }
    if pid == i32::MIN {
        return Err(Errno::ESRCH);
    }
    let which = match pid {
        -1 => Children::Any,
        0 => Children::Group(process::current().group.load(Ordering::Relaxed)),
        pid if pid > 0 => Children::One(pid as u32),
        pid => Children::Group(pid.unsigned_abs()),
    };
    let hang = if options & nr::WNOHANG != 0 { Hang::Never } else { Hang::Wait };
    let Some(ended) = process::wait(which, hang, Keep::No)? else { return Ok(0) };
    if status != 0 {
        user::write(status, &ended.death.status().to_le_bytes())?;
    }
    if usage != 0 {
        super::time::write_usage(usage, &ended.usage, ended.time)?;
    }
    Ok(ended.id.into())
}

fn waitid(kind: u32, id: u32, to: u64, options: u32, usage: u64) -> Result {
    // Children do not stop, and so do not continue either.
    let events = nr::WEXITED | nr::WSTOPPED | nr::WCONTINUED;
    if options & events == 0 || options & !(events | nr::WNOHANG | nr::WNOWAIT | KINDS) != 0 {
        return Err(Errno::EINVAL);
    }
    let which = match kind {
        nr::P_ALL => Children::Any,
        nr::P_PID => Children::One(id),
        nr::P_PGID if id == 0 => Children::Group(process::current().group.load(Ordering::Relaxed)),
        nr::P_PGID => Children::Group(id),
        _ => return Err(Errno::EINVAL),
    };
    let hang = if options & nr::WNOHANG != 0 { Hang::Never } else { Hang::Wait };
    let keep = if options & nr::WNOWAIT != 0 { Keep::Yes } else { Keep::No };
    let ended = process::wait(which, hang, keep)?;
    let mut info = [0; 16];
    if let Some(ended) = &ended {
        info[..4].copy_from_slice(&ended.death.info(ended.id).words());
        if usage != 0 {
            super::time::write_usage(usage, &ended.usage, ended.time)?;
        }
    }
    if to != 0 {
        let bytes: Vec<u8> = info.iter().flat_map(|word: &u64| word.to_le_bytes()).collect();
        user::write(to, &bytes)?;
    }
    Ok(0)
}

fn futex_call(
    address: u64,
    operation: u32,
    value: u32,
    timeout: u64,
    second: u64,
    bits: u32,
) -> Result {
    let command = operation & !(nr::FUTEX_PRIVATE_FLAG | nr::FUTEX_CLOCK_REALTIME);
    let is_since_1970 = operation & nr::FUTEX_CLOCK_REALTIME != 0;
    let clock = if is_since_1970 { Clock::Since1970 } else { Clock::SinceStart };
    let is_private = operation & nr::FUTEX_PRIVATE_FLAG != 0;
    let scope = if is_private { Scope::Private } else { Scope::Shared };
    if !address.is_multiple_of(4) {
        return Err(Errno::EINVAL);
    }
    let word = Word::at(address, scope);
    match command {
        nr::FUTEX_WAIT | nr::FUTEX_WAIT_BITSET => {
            let relative = command == nr::FUTEX_WAIT;
            let deadline = match timeout {
                0 => u64::MAX,
                at if relative => clock::nanoseconds().saturating_add(read_time(at)?),
                at => clock.here(read_time(at)?),
            };
            let bits = if relative { u32::MAX } else { bits };
            futex::wait(address, word, value, deadline, bits).map(|()| 0)
        }
        nr::FUTEX_WAKE => Ok(futex::wake(word, value, u32::MAX).into()),
        nr::FUTEX_WAKE_BITSET => Ok(futex::wake(word, value, bits).into()),
        nr::FUTEX_REQUEUE | nr::FUTEX_CMP_REQUEUE => {
            let expected = (command == nr::FUTEX_CMP_REQUEUE).then_some(bits);
            if let Some(expected) = expected
                && user::read(address).map(u32::from_le_bytes)? != expected
            {
                return Err(Errno::EAGAIN);
            }
            let to = Word::at(second, scope);
            let (woken, moved) = futex::requeue(word, value, u32::MAX, to, timeout as u32);
            Ok((if expected.is_some() { woken + moved } else { woken }).into())
        }
        nr::FUTEX_WAKE_OP => {
            let both = futex::operate(second, bits)?;
            let first = futex::wake(word, value, u32::MAX);
            let to = Word::at(second, scope);
            let then = if both { futex::wake(to, timeout as u32, u32::MAX) } else { 0 };
            Ok((first + then).into())
        }
        _ => Err(Errno::ENOSYS),
    }
}
