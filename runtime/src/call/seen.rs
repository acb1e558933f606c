//! The registers of a tracee that shares its tracer's memory: those of the program.
//!
//! A leak checker stops the threads of its process from a process that shares their memory, and looks for
//! pointers in their registers and above their stack pointers. A thread that waits in a call stands on the
//! runtime's stack; its tracer sees it where it made the call.

use super::{Call, Outcome};
use crate::frame::Registers;
use crate::thread::Thread;
use crate::{site, user};
use linux_raw_sys::ptrace;

/// `NT_PRSTATUS`: the general registers.
const GENERAL: u64 = 1;

/// `struct user_regs_struct`, up to the stack pointer.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct Seen {
    r15: u64,
    r14: u64,
    r13: u64,
    r12: u64,
    rbp: u64,
    rbx: u64,
    r11: u64,
    r10: u64,
    r9: u64,
    r8: u64,
    rax: u64,
    rcx: u64,
    rdx: u64,
    rsi: u64,
    rdi: u64,
    orig_rax: u64,
    rip: u64,
    cs: u64,
    eflags: u64,
    rsp: u64,
    ss: u64,
    fs_base: u64,
    gs_base: u64,
    /// The segments, which nobody here looks at.
    rest: [u64; 4],
}

impl Call<'_> {
    /// Reads a tracee's registers.
    pub(super) fn read_registers(&mut self) -> Outcome {
        let [request, tracee, kind, at, ..] = self.args;
        let raw = self.make_pinned(self.args);
        let at = match request as u32 {
            ptrace::PTRACE_GETREGS => Some(at),
            _ if kind == GENERAL => {
                let area = user::read::<[u64; 2]>(at).ok();
                area.filter(|[_, len]| *len >= size_of::<Seen>() as u64).map(|[start, _]| start)
            }
            _ => None,
        };
        if raw == 0
            && let Some(at) = at
            && let Ok(seen) = user::read::<Seen>(at)
            && let Some(shown) = seen.shown(tracee as u32)
        {
            // It could be written a moment ago.
            let _ = user::write(at, &shown);
        }
        Outcome::Raw(raw)
    }
}

impl Seen {
    /// The stack pointer.
    pub(super) fn stack(&self) -> u64 {
        self.rsp
    }

    /// The number of the call that it makes.
    pub(super) fn call(&self) -> u32 {
        self.orig_rax as u32
    }

    /// Where `gs` leads: to the thread's block, unless the program uses it.
    pub(super) fn thread(&self) -> u64 {
        self.gs_base
    }

    /// What a stopped thread of this memory shows; `None` if it runs the program, or is another one's.
    fn shown(&self, tracee: u32) -> Option<Self> {
        let thread = Thread::all().into_iter().find(|thread| thread.number() == tracee)?;
        if !thread.has_stack_at(self.rsp) {
            return None;
        }
        let program = site::of_program(thread, &self.registers())?;
        Some(Self {
            r15: program.r15,
            r14: program.r14,
            r13: program.r13,
            r12: program.r12,
            rbp: program.rbp,
            rbx: program.rbx,
            // As after any call.
            r11: program.eflags,
            rcx: program.rip,
            r10: program.r10,
            r9: program.r9,
            r8: program.r8,
            rdx: program.rdx,
            rsi: program.rsi,
            rdi: program.rdi,
            rip: program.rip,
            eflags: program.eflags,
            rsp: program.rsp,
            ..*self
        })
    }

    /// Those that a function preserves.
    fn registers(&self) -> Registers {
        Registers {
            r15: self.r15,
            r14: self.r14,
            r13: self.r13,
            r12: self.r12,
            rbp: self.rbp,
            rbx: self.rbx,
            ..Registers::default()
        }
    }
}
