//! Threads and processes: clone in all its forms, and their ends.
//!
//! The kernel's dispatch of system calls ends with clone, so a new thread enables it before its
//! first instruction. A child that shares the memory begins on a block of its own. Any other child
//! continues where its parent was, in a copy.

use super::{Call, Outcome, robust};
use crate::entry;
use crate::frame::{AltStack, Frame, Info};
use crate::member::{Child, Kind, Member, Wanted};
use crate::sys::{self, Errno, Result};
use crate::thread::{self, Owner, Thread};
use crate::{address_limit, lock, memory, process, site, supervisor, user};
use core::ptr::NonNull;
use linux_raw_sys::general as nr;
use pagefault_control::Birth;

/// `struct clone_args`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

impl CloneArgs {
    /// Whether `clone3` takes the stack: the kernel sees another one, on the thread's block.
    fn has_valid_stack(&self) -> bool {
        let end = self.stack.checked_add(self.stack_size);
        (self.stack == 0) == (self.stack_size == 0) && end.is_some_and(|end| end <= user::END)
    }

    /// Has the host read the process IDs from `own`, since the program's page may be absent. Where the runtime
    /// cannot read them, the host cannot either, and says so.
    fn take_numbers(&mut self, own: &mut Numbers) {
        let Some(len) = self.set_tid_size.checked_mul(4) else { return };
        let own = own.get_mut(..len as usize);
        if let Some(own) = own.filter(|own| self.set_tid != 0 && !own.is_empty())
            && user::read_bytes(self.set_tid, own).is_ok()
        {
            self.set_tid = own.as_ptr() as u64;
        }
    }
}

/// The lengths of `struct clone_args` that the kernel takes.
const SHORTEST_ARGS: u64 = 64;
const LONGEST_ARGS: u64 = 4096;
/// The process IDs that `clone3` takes: at most 32, one for each nested PID namespace.
type Numbers = [u8; 32 * 4];

const VM: u64 = nr::CLONE_VM as u64;
const VFORK: u64 = nr::CLONE_VFORK as u64;
const FILES: u64 = nr::CLONE_FILES as u64;
const SIGHAND: u64 = nr::CLONE_SIGHAND as u64;
/// `CLONE_CLEAR_SIGHAND`, of `clone3` alone.
const CLEAR_SIGHAND: u64 = 1 << 32;
const CHILD_SETTID: u64 = nr::CLONE_CHILD_SETTID as u64;
const CHILD_CLEARTID: u64 = nr::CLONE_CHILD_CLEARTID as u64;
const PARENT_SETTID: u64 = nr::CLONE_PARENT_SETTID as u64;
const PIDFD: u64 = nr::CLONE_PIDFD as u64;
const THREAD: u64 = nr::CLONE_THREAD as u64;

/// The bytes of a thread's number.
const WORD: u64 = 4;

/// What a new thread is given by its parent.
#[repr(C)]
struct Given {
    begin: entry::Begin,
    thread: NonNull<Thread>,
    /// The block of the thread that made it.
    parent: usize,
    /// Its initial context.
    frame: *const Frame,
    /// Whether its parent's handlers are cleared.
    clears_handlers: bool,
    /// Whether it tells the supervisor of itself.
    tells: bool,
}

impl Call<'_> {
    pub(super) fn thread(&mut self) -> Outcome {
        match self.number {
            nr::__NR_exit => self.exit(),
            nr::__NR_exit_group => {
                robust::end(self.thread);
                let _kept = robust::keep();
                process::exit(self.args)
            }
            nr::__NR_set_tid_address => {
                self.thread.clear_at_exit.set(self.args[0]);
                if self.thread.host_clears.get() {
                    memory::keep_resident(self.thread, self.args[0], WORD);
                    // SAFETY: the program asks for it, of its own memory.
                    return Outcome::Raw(unsafe { sys::raw_call(self.number, self.args) });
                }
                Outcome::Raw(sys::thread_id().into())
            }
            nr::__NR_rseq => self.restartable_sequences().into(),
            nr::__NR_set_robust_list => Outcome::Raw(robust::register(self.thread, self.args)),
            _ => {
                let result = self.requested().and_then(|(args, len)| self.clone(args, len));
                result.into()
            }
        }
    }

    /// The request in the newest form, and the length that the program used.
    fn requested(&self) -> Result<(CloneArgs, u64)> {
        let [a, b, c, d, e, _] = self.args;
        let signal = u64::from(nr::SIGCHLD);
        let args = match self.number {
            nr::__NR_fork => CloneArgs { exit_signal: signal, ..CloneArgs::default() },
            nr::__NR_vfork => {
                CloneArgs { flags: VM | VFORK, exit_signal: signal, ..CloneArgs::default() }
            }
            nr::__NR_clone => {
                let flags = u64::from(a as u32) & !0xff;
                CloneArgs {
                    flags,
                    exit_signal: a & 0xff,
                    stack: b,
                    // The same word has two meanings.
                    pidfd: c,
                    parent_tid: c,
                    child_tid: d,
                    tls: e,
                    ..CloneArgs::default()
                }
            }
            _ => return read_args(a, b),
        };
        Ok((args, 0))
    }

    fn clone(&mut self, mut args: CloneArgs, len: u64) -> Result {
        let mut numbers: Numbers = [0; _];
        args.take_numbers(&mut numbers);
        if self.number == nr::__NR_clone3 && !args.has_valid_stack() {
            return Err(Errno::EINVAL);
        }
        if args.flags & CLEAR_SIGHAND != 0 && args.flags & SIGHAND != 0 {
            return Err(Errno::EINVAL);
        }
        if args.flags & VM == 0 {
            return self.fork(args, len);
        }
        // The kernel would refuse it too late.
        if args.flags & THREAD != 0 && args.flags & SIGHAND == 0 {
            return Err(Errno::EINVAL);
        }
        if args.flags & THREAD != 0 {
            return self.start(&args, len, self.thread.member());
        }
        let kind = if args.flags & VFORK != 0 { Kind::Waited } else { Kind::Apart };
        let birth = if kind == Kind::Waited && may_be_numbered(self.number, args.flags) {
            Birth::Numbered
        } else {
            Birth::Told
        };
        let shares_actions = args.flags & SIGHAND != 0;
        let member = self.thread.member().child(&Wanted { kind, shares_actions, birth })?;
        // SAFETY: made just now, and freed at the end of this call at the earliest.
        let result = self.start(&args, len, unsafe { member.as_ref() });
        let number = result.unwrap_or(0) as u32;
        if number == 0 || kind == Kind::Waited {
            // The child is gone, or has a memory of its own by now.
            // SAFETY: no thread is of it any more.
            unsafe { Member::end(member, Child::Gone { number }) };
        }
        result
    }

    /// Starts a thread, or a process that shares the memory.
    fn start(&mut self, args: &CloneArgs, len: u64, member: &Member) -> Result {
        let thread = self.new_thread(args, member)?;
        let sp = match (self.number, args.stack) {
            (_, 0) => self.context.registers.rsp,
            (nr::__NR_clone3, stack) => stack + args.stack_size,
            (_, stack) => stack,
        };
        let frame = self.child_frame(thread, sp);
        let given = Given {
            begin: begin_thread,
            thread: NonNull::from(thread),
            parent: self.thread.block(),
            frame,
            clears_handlers: args.flags & CLEAR_SIGHAND != 0,
            tells: args.flags & THREAD == 0 && member.is_told_of(),
        };
        // Everything above belongs to the frame; the child begins below it.
        let top = (frame as u64 - 512) & !15;
        let mut host = host_args(args, thread, member);
        let words = [
            (args.flags & PARENT_SETTID != 0).then_some(args.parent_tid),
            (args.flags & CHILD_SETTID != 0).then_some(args.child_tid),
            (args.flags & PIDFD != 0).then_some(args.pidfd),
        ];
        let noted = memory::note(self.thread, self.number, self.args);
        let _pins = noted.is_none().then(|| memory::pin_words(&words));
        // No signal before the child has a mask of its own.
        let mask = sys::exchange_mask(crate::signal::ALL);
        // SAFETY: the stack is the new block's, and the birth lives until the child has taken it:
        // it is copied to the child's own stack below.
        let raw = unsafe {
            let at = (top as *mut Given).sub(1);
            at.write(given);
            host.stack_size = (at as u64 & !15) - host.stack;
            self.make_clone(&host, len, at as u64)
        };
        sys::exchange_mask(mask);
        if raw < 0 || args.flags & VFORK != 0 {
            // Without a child, or one that runs elsewhere by now.
            memory::end_thread(thread);
            thread.owner.set(Owner::Itself);
            thread.abandon();
            thread.retire();
        }
        sys::result(raw)
    }

    /// Makes what the runtime knows of the new thread.
    fn new_thread(&self, args: &CloneArgs, member: &Member) -> Result<&'static Thread> {
        if args.flags & FILES == 0 {
            memory::before_other_descriptors();
        }
        if args.flags & THREAD != 0 {
            memory::prepare_for_threads();
        }
        let thread = Thread::new(NonNull::from(member))?;
        thread.virtual_mask.set(self.thread.virtual_mask.get());
        self.thread.pass_filters_to(thread);
        if args.flags & VFORK != 0 {
            thread.alt_stack.set(self.thread.alt_stack.get());
            thread.owner.set(Owner::Waiter);
        } else if member.kind() == Kind::Apart {
            thread::leave_to_next(thread);
        }
        if args.flags & CHILD_CLEARTID != 0 {
            thread.clear_at_exit.set(args.child_tid);
            if args.flags & THREAD == 0 {
                // Others may wait for the word whatever ends the process.
                thread.host_clears.set(true);
                memory::keep_resident(thread, args.child_tid, WORD);
            }
        }
        Ok(thread)
    }

    /// The child's context: this one with another stack, and 0 as the call's result.
    fn child_frame(&self, thread: &Thread, sp: u64) -> *const Frame {
        let state = self.context.registers.fpstate;
        // SAFETY: the kernel wrote the state on this thread's stack; the block is the child's.
        unsafe {
            let len = crate::frame::fpstate_len(state);
            let copy = (thread.stack_end() - len) & !63;
            core::ptr::copy_nonoverlapping(state as *const u8, copy as *mut u8, len);
            let frame = (((copy - size_of::<Frame>()) & !15) - 8) as *mut Frame;
            let mut context = *self.context;
            context.stack = AltStack { flags: 0, ..thread.own_stack() };
            context.registers.fpstate = copy as u64;
            context.registers.rax = 0;
            context.registers.rsp = sp;
            frame.write(Frame { restorer: 0, context, info: Info::new(0, 0) });
            frame
        }
    }

    /// Makes the call itself for a child on its own stack.
    unsafe fn make_clone(&self, host: &CloneArgs, len: u64, given: u64) -> i64 {
        if self.number == nr::__NR_clone3 {
            let args = [core::ptr::from_ref(host) as u64, len, 0, 0, 0, 0];
            // SAFETY: passed on to the caller.
            return unsafe { entry::clone(nr::__NR_clone3, &args, given) };
        }
        let word = if host.flags & PIDFD != 0 { host.pidfd } else { host.parent_tid };
        let args = [
            host.flags | host.exit_signal,
            host.stack + host.stack_size,
            word,
            host.child_tid,
            host.tls,
            0,
        ];
        // SAFETY: passed on to the caller.
        unsafe { entry::clone(nr::__NR_clone, &args, given) }
    }

    /// Makes the call itself for a child that continues here, on a copy of this stack.
    unsafe fn make_copy(&self, host: &CloneArgs, len: u64) -> i64 {
        if self.number == nr::__NR_clone3 {
            let six = [core::ptr::from_ref(host) as u64, len, 0, 0, 0, 0];
            // SAFETY: passed on to the caller.
            return unsafe { sys::raw_call(nr::__NR_clone3, six) };
        }
        let word = if host.flags & PIDFD != 0 { host.pidfd } else { host.parent_tid };
        let six = [host.flags | host.exit_signal, 0, word, host.child_tid, host.tls, 0];
        // SAFETY: passed on to the caller.
        unsafe { sys::raw_call(nr::__NR_clone, six) }
    }

    /// Makes a child with a copy of the memory.
    fn fork(&mut self, args: CloneArgs, len: u64) -> Result {
        let member = self.thread.member().child(&Wanted::FORK)?;
        let mut kernel = args;
        // The child continues here, and gets the program's stack on the way out.
        (kernel.stack, kernel.stack_size) = (0, 0);
        kernel.flags &= !(CHILD_CLEARTID | CLEAR_SIGHAND);
        let words = [
            (args.flags & PARENT_SETTID != 0).then_some(args.parent_tid),
            (args.flags & CHILD_SETTID != 0).then_some(args.child_tid),
            (args.flags & PIDFD != 0).then_some(args.pidfd),
        ];
        let noted = memory::note(self.thread, self.number, self.args);
        let pins = noted.is_none().then(|| memory::pin_words(&words));
        let mask = sys::exchange_mask(crate::signal::ALL);
        if args.flags & FILES != 0 {
            pagefault_linux::store::descriptor::share();
        }
        // SAFETY: made by `forked`, and freed at the end of this call at the earliest.
        let slot = unsafe { member.as_ref() }.slot();
        let _rewriting = site::hold();
        let fork = match memory::before_fork(slot) {
            Ok(fork) => fork,
            Err(errno) => {
                sys::exchange_mask(mask);
                process::forked(member, -1);
                return Err(errno);
            }
        };
        lock::hold_for_fork();
        // SAFETY: the child is a copy, with a stack like this one.
        let raw = unsafe { self.make_copy(&kernel, len) };
        lock::let_go_after_fork();
        if raw != 0 {
            let made = if raw > 0 { memory::Made::Yes } else { memory::Made::No };
            memory::after_fork_in_parent(fork, made);
            sys::exchange_mask(mask);
            drop((pins, noted));
            process::forked(member, raw);
            return sys::result(raw);
        }
        self.begin_process(&args, member);
        address_limit::forget();
        memory::after_fork_in_child(fork);
        thread::leave_others(self.thread);
        drop((pins, noted));
        memory::serve::begin();
        sys::exchange_mask(mask);
        Ok(0)
    }

    /// The first steps of a child with a copy of the memory.
    fn begin_process(&mut self, args: &CloneArgs, member: NonNull<Member>) {
        self.thread.set_member(member);
        self.thread.owner.set(Owner::Itself);
        self.thread.host_clears.set(false);
        self.thread.held().clear();
        self.thread.settle();
        process::enable_dispatch();
        let clear = if args.flags & CHILD_CLEARTID != 0 { args.child_tid } else { 0 };
        self.thread.clear_at_exit.set(clear);
        robust::begin_process(self.thread);
        if args.flags & CLEAR_SIGHAND != 0 {
            self.thread.member().clear_handlers();
        }
        if args.stack != 0 {
            let top = args.stack + args.stack_size;
            self.context.registers.rsp = top;
        }
        if process::control().is_some() {
            supervisor::born(self.thread.member());
        }
    }

    /// `rseq(2)`: the host itself writes the area whenever it moves the thread, and kills a thread
    /// whose area it cannot write.
    fn restartable_sequences(&mut self) -> Result {
        /// `RSEQ_FLAG_UNREGISTER`.
        const UNREGISTER: u64 = 1;
        let [area, len, flags, signature, ..] = self.args;
        let registers = flags & UNREGISTER == 0;
        // The host refuses a second area, and other flags.
        if flags == 0 && self.thread.restartable.get()[0] == 0 {
            // It writes its own fields, which are far fewer, however long the area is.
            memory::keep_resident(self.thread, area, len.min(memory::PAGE));
        }
        // SAFETY: the program asks for it, of its own memory.
        let answer = unsafe { sys::call(self.number, self.args) }?;
        let area = if registers { [area, len, signature] } else { [0; 3] };
        self.thread.restartable.set(area);
        Ok(answer)
    }

    /// Lets a thread unmap its own stack before it ends, with the area of restartable sequences: the host
    /// writes it at each signal, and so at each call that traps.
    pub(super) fn unmaps_restartable_sequences(&self, start: u64, len: u64) {
        let [area, ..] = self.thread.restartable.get();
        if area.wrapping_sub(start) < len {
            self.end_restartable_sequences();
        }
    }

    /// Makes the host forget the area of restartable sequences, whose pages may now leave.
    fn end_restartable_sequences(&self) {
        let [area, len, signature] = self.thread.restartable.take();
        if area != 0 {
            // SAFETY: the host writes the area for the last time.
            let _ = unsafe { sys::call(nr::__NR_rseq, [area, len, 1, signature]) };
        }
    }

    /// `exit(2)`: the end of one thread.
    pub(super) fn exit(&mut self) -> Outcome {
        let status = self.args[0] as u32;
        sys::exchange_mask(crate::signal::ALL);
        self.end_restartable_sequences();
        // A thread that joins this one finds them marked.
        robust::end(self.thread);
        robust::forget(self.thread);
        if self.thread.host_clears.get() {
            self.thread.clear_number_at_exit();
        }
        memory::end_thread(self.thread);
        let word = self.thread.clear_at_exit.get();
        if word != 0 && user::write(word, &0_u32).is_ok() {
            let wake = u64::from(nr::FUTEX_WAKE);
            // SAFETY: waking changes no memory.
            let _ = unsafe { sys::call(nr::__NR_futex, [word, wake, 1]) };
        }
        if !self.thread.is_one_of_many() {
            memory::serve::end_with_process();
        }
        if self.thread.owner.get() == Owner::Itself {
            self.thread.retire();
        }
        entry::exit_thread(status)
    }
}

/// Whether the host can write a child's number where we like: the program has no such wish, and the host no
/// other use for the argument.
fn may_be_numbered(call: u32, flags: u64) -> bool {
    let is_taken = flags & PARENT_SETTID != 0 || call == nr::__NR_clone && flags & PIDFD != 0;
    !is_taken && process::are_numbers_the_supervisor_s()
}

/// What the host is asked for: a thread on its own stack, below what is still to be placed there.
fn host_args(args: &CloneArgs, thread: &Thread, member: &Member) -> CloneArgs {
    let mut host = *args;
    host.flags &= !CLEAR_SIGHAND;
    if !thread.host_clears.get() {
        // The host's own word of this kind tells when the block is free.
        host.flags &= !CHILD_CLEARTID;
    }
    if let Some(number) = member.number_of_waited() {
        host.flags |= PARENT_SETTID;
        host.parent_tid = number.as_ptr() as u64;
    }
    host.stack = thread.own_stack().start;
    host
}

/// Reads the arguments of `clone3`.
fn read_args(at: u64, len: u64) -> Result<(CloneArgs, u64)> {
    if len > LONGEST_ARGS {
        return Err(Errno::E2BIG);
    }
    if len < SHORTEST_ARGS {
        return Err(Errno::EINVAL);
    }
    let mut args = CloneArgs::default();
    let known = size_of::<CloneArgs>();
    // SAFETY: the structure is of integers alone.
    let bytes = unsafe {
        core::slice::from_raw_parts_mut((&raw mut args).cast::<u8>(), known.min(len as usize))
    };
    user::read_bytes(at, bytes)?;
    for offset in known as u64..len {
        if user::read::<u8>(at + offset)? != 0 {
            return Err(Errno::E2BIG);
        }
    }
    Ok((args, len.min(known as u64)))
}

/// The first step of a thread that shares the memory, on its own block; every signal is blocked.
extern "C" fn begin_thread(birth: *const u8) -> ! {
    // SAFETY: the parent left it on this thread's stack.
    let Given { thread, parent, frame, clears_handlers, tells, .. } =
        unsafe { birth.cast::<Given>().read() };
    // SAFETY: the block is this thread's.
    let thread = unsafe { thread.as_ref() };
    thread.settle();
    site::begin_thread(thread, parent as u64);
    if clears_handlers {
        // The runtime's own stay.
        thread.member().clear_handlers();
    }
    if tells {
        supervisor::born(thread.member());
    }
    process::enable_dispatch();
    // SAFETY: the parent made the frame on this thread's stack.
    unsafe { entry::resume(frame) }
}
