//! Processes, threads, signals and futexes.

use super::{Arguments, Result};
use crate::entry::TrapFrame;
use crate::errno::Errno;
use crate::exec::{self, Program};
use crate::futex::{Scope, Word};
use crate::process::{self, Children, Death, Hang, Process, Reason, Thread};
use crate::scheduler::{self, Patience};
use crate::signal::{self, Action};
use crate::{clock, cpu, futex, task, timer, user};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use linux_raw_sys::general as nr;

pub(super) fn call(number: u32, arguments: Arguments) -> Option<Result> {
    let Arguments { a, b, c, d, e, f } = arguments;
    let process = process::current();
    let thread = process::thread();
    Some(match number {
        nr::__NR_exit => process::exit_thread(Death { reason: Reason::Exit(a as u8) }),
        nr::__NR_exit_group => process::exit_group(Death { reason: Reason::Exit(a as u8) }),
        nr::__NR_wait4 => wait4(a as i32, b, c as u32, d),
        nr::__NR_getpid => Ok(process.id.into()),
        nr::__NR_gettid => Ok(cpu::task_id().into()),
        nr::__NR_getppid => Ok(process.parent_id().into()),
        nr::__NR_getpgrp | nr::__NR_getpgid | nr::__NR_getsid | nr::__NR_setsid => {
            Ok(process.id.into())
        }
        nr::__NR_setpgid => Ok(0),
        nr::__NR_set_tid_address => {
            thread.clear_tid.store(a, Ordering::Relaxed);
            Ok(cpu::task_id().into())
        }
        nr::__NR_set_robust_list => {
            thread.robust_list.store(a, Ordering::Relaxed);
            Ok(0)
        }
        nr::__NR_alarm => {
            let (left, _) = timer::set(process, a.saturating_mul(1_000_000_000), 0);
            Ok(left.div_ceil(1_000_000_000))
        }
        nr::__NR_arch_prctl => arch_prctl(a as u32, b),
        nr::__NR_futex => futex_call(a, b as u32, c as u32, d, e, f as u32),
        nr::__NR_sched_yield => {
            scheduler::yield_now();
            Ok(0)
        }
        nr::__NR_nanosleep => sleep(a, None),
        nr::__NR_clock_nanosleep => sleep(c, Some(b)),
        nr::__NR_pause => pause(),
        nr::__NR_kill => kill(a as i32, b as u32),
        nr::__NR_tkill => signal::send_to_thread(a as u32, b as u32).map(|()| 0),
        nr::__NR_tgkill => signal::send_to_thread(b as u32, c as u32).map(|()| 0),
        nr::__NR_rt_sigaction => sigaction(a as u32, b, c),
        nr::__NR_rt_sigprocmask => sigprocmask(a as u32, b, c),
        nr::__NR_rt_sigsuspend => sigsuspend(a),
        nr::__NR_sigaltstack => sigaltstack(a, b),
        _ => return None,
    })
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
        nr::__NR_clone => Clone { flags: a, stack: b, parent_tid: c, child_tid: d, pointer: e },
        _ => {
            let word = |i: u64| user::read_u64(a + 8 * i);
            let (stack, bytes) = (word(5)?, word(6)?);
            let (child_tid, parent_tid) = (word(2)?, word(3)?);
            Clone {
                flags: word(0)?,
                stack: stack + bytes,
                parent_tid,
                child_tid,
                pointer: word(7)?,
            }
        }
    })
}

/// fork, vfork, and threads.
pub(super) fn clone(frame: &TrapFrame, number: u32, arguments: Arguments) -> Result {
    let clone = read_clone(number, arguments)?;
    let has = |flag: u32| clone.flags & u64::from(flag) != 0;
    if has(nr::CLONE_SETTLS) && !user::access_ok(clone.pointer, 0) {
        return Err(Errno::EPERM);
    }
    let parent = process::current();
    let thread = process::thread();
    let id = task::next_id();
    let space = if has(nr::CLONE_VM) {
        process::space().clone()
    } else {
        Arc::new(process::space().fork()?)
    };
    // Whose child it becomes: the caller's own parent's, if it asks for that.
    let heir = if has(nr::CLONE_PARENT) { parent.parent() } else { Some(parent.clone()) };
    let process = match has(nr::CLONE_THREAD) {
        true => parent.clone(),
        false => child(parent, heir.as_ref(), id, &space),
    };
    let pointer =
        if has(nr::CLONE_SETTLS) { clone.pointer } else { thread.pointer.load(Ordering::Relaxed) };
    let new = Thread::new(process.clone(), pointer, thread.mask.load(Ordering::Relaxed));
    if has(nr::CLONE_CHILD_CLEARTID) {
        new.clear_tid.store(clone.child_tid, Ordering::Relaxed);
    }
    let mut frame = frame.clone();
    frame.rax = 0;
    if clone.stack != 0 {
        frame.rsp = clone.stack;
    }
    let written = match has(nr::CLONE_PARENT_SETTID) {
        true => user::write(clone.parent_tid, &id.to_le_bytes()),
        false => Ok(()),
    };
    if has(nr::CLONE_CHILD_SETTID) {
        // In the child's memory, which may be a copy.
        space.copy_to_user(pagefault::machine::VirtAddr(clone.child_tid), &id.to_le_bytes());
    }
    let started =
        written.map_err(Errno::from).and_then(|()| process::start_thread(id, &frame, space, new));
    if let Err(error) = started {
        if !has(nr::CLONE_THREAD) {
            process::forget(&process);
        }
        return Err(error);
    }
    if has(nr::CLONE_VFORK) {
        while process.released.load(Ordering::Acquire) == 0 {
            scheduler::wait(&process.released, 0);
        }
    }
    Ok(id.into())
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
    *process.program_break.lock() = *parent.program_break.lock();
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
    let path = String::from_utf8(user::read_string(a, 4096)?).map_err(|_| Errno::ENOENT)?;
    let path = crate::fs::absolute(&process::current().files.lock().directory, &path);
    let arguments = exec::Arguments { arguments: strings(b)?, environment: strings(c)? };
    let program = Program::open(&path, arguments)?;
    let space = Program::space()?;
    let process = process::current();
    if !process.end_other_threads() {
        // Another thread was faster, or the process is killed: this one ends on its way out.
        return Err(Errno::EINTR);
    }
    let old = scheduler::current().replace_space(Some(space.clone()));
    let old = (old, process.space.lock().replace(space.clone()));
    process::release(process);
    drop(old);
    drop(process.files.lock().take(true));
    process.actions.lock().reset();
    *process::thread().alternate_stack.lock() = (0, 0);
    process::thread().clear_tid.store(0, Ordering::Relaxed);
    process::thread().pointer.store(0, Ordering::Relaxed);
    cpu::set_thread_pointer(0);
    program.introduce(process);
    process::thread().robust_list.store(0, Ordering::Relaxed);
    // The old program is gone: from here on an error can only end the process.
    let Ok((registers, program_break)) = program.load(&space) else {
        process::exit_group(Death { reason: Reason::Signal(signal::SIGKILL) })
    };
    *process.program_break.lock() = program_break;
    process.stack.store(registers.rsp, Ordering::Relaxed);
    *frame = registers;
    Ok(0)
}

fn strings(list: u64) -> core::result::Result<Vec<Vec<u8>>, Errno> {
    let mut strings = Vec::new();
    if list == 0 {
        return Ok(strings);
    }
    loop {
        let at = user::read_u64(list + 8 * strings.len() as u64)?;
        if at == 0 {
            return Ok(strings);
        }
        strings.push(user::read_string(at, 1 << 17)?);
    }
}

fn wait4(pid: i32, status: u64, options: u32, usage: u64) -> Result {
    let which = match pid {
        -1 => Children::Any,
        0 => Children::Group(process::current().group.load(Ordering::Relaxed)),
        pid if pid > 0 => Children::One(pid as u32),
        pid => Children::Group(pid.unsigned_abs()),
    };
    let hang = if options & nr::WNOHANG != 0 { Hang::Never } else { Hang::Wait };
    let Some((id, death, used)) = process::wait(which, hang)? else { return Ok(0) };
    if status != 0 {
        user::write(status, &death.status().to_le_bytes())?;
    }
    if usage != 0 {
        super::info::write_usage(usage, &used)?;
    }
    Ok(id.into())
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
                at => read_time(at)?,
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

/// Reads a `struct timespec` as nanoseconds.
fn read_time(at: u64) -> core::result::Result<u64, Errno> {
    let (seconds, nanoseconds) = (user::read_u64(at)?, user::read_u64(at + 8)?);
    if seconds > i64::MAX as u64 || nanoseconds >= 1_000_000_000 {
        return Err(Errno::EINVAL);
    }
    Ok(seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds))
}

fn sleep(request: u64, flags: Option<u64>) -> Result {
    let time = read_time(request)?;
    let is_absolute = flags.is_some_and(|flags| flags & 1 != 0);
    let deadline = if is_absolute { time } else { clock::nanoseconds().saturating_add(time) };
    let never = AtomicU32::new(0);
    while clock::nanoseconds() < deadline {
        if signal::is_pending() {
            return Err(Errno::EINTR);
        }
        scheduler::wait_until(&never, 0, deadline, Patience::Signals);
    }
    Ok(0)
}

fn pause() -> Result {
    let never = AtomicU32::new(0);
    while !signal::is_pending() {
        scheduler::wait_until(&never, 0, u64::MAX, Patience::Signals);
    }
    Err(Errno::EINTR)
}

fn kill(pid: i32, number: u32) -> Result {
    let target = if pid > 0 { process::find(pid as u32) } else { Some(process::current().clone()) };
    let target = target.ok_or(Errno::ESRCH)?;
    if number > 64 {
        return Err(Errno::EINVAL);
    }
    if number != 0 {
        signal::send(&target, number);
    }
    Ok(0)
}

fn sigaction(number: u32, new: u64, old: u64) -> Result {
    if !(1..=64).contains(&number) || matches!(number, signal::SIGKILL | signal::SIGSTOP) {
        return Err(Errno::EINVAL);
    }
    let words = |at: u64| -> core::result::Result<[u64; 4], Errno> {
        Ok([
            user::read_u64(at)?,
            user::read_u64(at + 8)?,
            user::read_u64(at + 16)?,
            user::read_u64(at + 24)?,
        ])
    };
    let action = match new {
        0 => None,
        at => {
            let [handler, flags, restorer, mask] = words(at)?;
            Some(Action { handler, flags, restorer, mask })
        }
    };
    let before = {
        let mut actions = process::current().actions.lock();
        let slot = &mut actions.0[number as usize];
        let before = *slot;
        if let Some(action) = action {
            *slot = action;
        }
        before
    };
    if old != 0 {
        for (i, word) in (0..).zip([before.handler, before.flags, before.restorer, before.mask]) {
            user::write(old + 8 * i, &word.to_le_bytes())?;
        }
    }
    Ok(0)
}

fn sigprocmask(how: u32, new: u64, old: u64) -> Result {
    let mask = &process::thread().mask;
    let before = mask.load(Ordering::Relaxed);
    if new != 0 {
        let set = user::read_u64(new)?;
        let now = match how {
            nr::SIG_BLOCK => before | set,
            nr::SIG_UNBLOCK => before & !set,
            nr::SIG_SETMASK => set,
            _ => return Err(Errno::EINVAL),
        };
        mask.store(now, Ordering::Relaxed);
    }
    if old != 0 {
        user::write(old, &before.to_le_bytes())?;
    }
    Ok(0)
}

/// Waits for a signal with another mask; the former is restored when the handler has returned.
fn sigsuspend(new: u64) -> Result {
    signal::block_meanwhile(user::read_u64(new)?);
    pause()
}

fn sigaltstack(new: u64, old: u64) -> Result {
    let stack = &process::thread().alternate_stack;
    let (address, bytes) = *stack.lock();
    if old != 0 {
        let flags: u64 = if bytes == 0 { 2 } else { 0 };
        for (i, word) in (0..).zip([address, flags, bytes]) {
            user::write(old + 8 * i, &word.to_le_bytes())?;
        }
    }
    if new != 0 {
        let (address, flags, bytes) =
            (user::read_u64(new)?, user::read_u64(new + 8)?, user::read_u64(new + 16)?);
        *stack.lock() = if flags & 2 != 0 { (0, 0) } else { (address, bytes) };
    }
    Ok(0)
}
