//! The kernel's signal frame on a stack, in the layout of x86-64 Linux.

use crate::memory::Request;
use pagefault_control::{RECLAIM_SIGNAL, RECLAIM_VALUE, SERVE_VALUE};

/// The registers of interrupted code (the kernel's `struct sigcontext_64`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub struct Registers {
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub rdx: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rsp: u64,
    pub rip: u64,
    pub eflags: u64,
    /// cs, gs, fs, ss, each 16 bits.
    pub segments: u64,
    /// The error code of a page fault.
    pub error: u64,
    /// The number of the exception; 14 is a page fault.
    pub trap: u64,
    pub old_mask: u64,
    /// The address of a page fault.
    pub cr2: u64,
    /// The address of the floating-point state, or 0 for the initial one.
    pub fpstate: u64,
    pub reserved: [u64; 8],
}

impl Registers {
    /// The arguments of a system call.
    pub fn args(&self) -> [u64; 6] {
        [self.rdi, self.rsi, self.rdx, self.r10, self.r8, self.r9]
    }
}

/// `stack_t`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AltStack {
    /// The lowest address.
    pub start: u64,
    /// `SS_` flags.
    pub flags: u32,
    pub(crate) padding: u32,
    /// The length in bytes.
    pub len: u64,
}

/// `ucontext_t` as the kernel knows it: with one word of mask.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Context {
    /// `UC_` flags.
    pub flags: u64,
    /// Unused.
    pub link: u64,
    /// The alternate stack of the interrupted code.
    pub stack: AltStack,
    /// Its registers.
    pub registers: Registers,
    /// Its set of blocked signals.
    pub mask: u64,
}

/// The value of a request to look after tracees.
pub const WATCH_VALUE: u64 = 0x7066_7761_7463_6831;

/// `siginfo_t`: the number, an error number, a code, and what depends on them.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Info {
    /// The signal's number.
    pub signal: i32,
    /// `si_errno`.
    pub errno: i32,
    /// `si_code`.
    pub code: i32,
    padding: i32,
    /// The address of a fault, or the sender, and so on.
    pub fields: [u64; 14],
}

impl Info {
    /// A signal's information, all zero but for its number and code.
    pub const fn new(signal: i32, code: i32) -> Self {
        Self { signal, errno: 0, code, padding: 0, fields: [0; 14] }
    }

    /// `SI_QUEUE`.
    pub const QUEUED: i32 = -1;

    /// What the supervisor asks for, or a tracee, or the timer of a tracer.
    pub fn request(&self) -> Option<Request> {
        /// `SI_TIMER`.
        const TIMED: i32 = -2;
        if self.signal != RECLAIM_SIGNAL || ![Self::QUEUED, TIMED].contains(&self.code) {
            return None;
        }
        match self.fields[1] {
            RECLAIM_VALUE => Some(Request::Frames),
            SERVE_VALUE => Some(Request::Server),
            WATCH_VALUE => Some(Request::Tracees),
            _ => None,
        }
    }
}

/// The whole frame (`struct rt_sigframe`), without the floating-point state, which lies above.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Frame {
    /// The handler's return address: the action's restorer.
    pub restorer: u64,
    /// What the handler's third argument points to.
    pub context: Context,
    /// What its second argument points to.
    pub info: Info,
}

const _: () = assert!(size_of::<Registers>() == 256);
const _: () = assert!(size_of::<Context>() == 304);
const _: () = assert!(size_of::<Info>() == 128);
const _: () = assert!(size_of::<Frame>() == 440);

/// The least length of a floating-point state: FXSAVE's.
pub const FXSAVE: usize = 512;
/// The offset of its software-reserved bytes.
const SOFTWARE: usize = 464;
/// `FP_XSTATE_MAGIC1`: an extended state follows.
const MAGIC: u32 = 0x4650_5853;

/// The length of the floating-point state at an address.
///
/// # Safety
/// A state that the kernel wrote is there.
pub unsafe fn fpstate_len(fpstate: u64) -> usize {
    let words = (fpstate as usize + SOFTWARE) as *const u32;
    // SAFETY: the software-reserved bytes are within the 512 of every state.
    let (magic, len) = unsafe { (words.read_unaligned(), words.add(1).read_unaligned()) };
    if magic == MAGIC { len as usize } else { FXSAVE }
}

/// Makes a floating-point state the one that a handler starts with. It stays where it is, so that a frame
/// can be written from it again.
///
/// # Safety
/// As for [`fpstate_len`], and nobody else uses the state.
pub unsafe fn make_initial(fpstate: u64) {
    // SAFETY: the state is as long as it says.
    let bytes =
        unsafe { core::slice::from_raw_parts_mut(fpstate as *mut u8, fpstate_len(fpstate)) };
    set_initial(bytes);
}

fn set_initial(state: &mut [u8]) {
    /// Where the control word of the x87 is, that of SSE, and the bits of it that the processor has.
    const CONTROL: usize = 0;
    const SSE_CONTROL: usize = 24;
    const SSE_BITS: usize = 28;
    /// Where the first registers are, and where the header of the extended state says what it holds.
    const REGISTERS: usize = 32;
    const HELD: usize = FXSAVE;
    /// The state of the x87 and of SSE.
    const LEGACY: u8 = 3;
    /// The length of the word behind an extended state that says that it is one.
    const END: usize = 4;
    state[..SSE_BITS].fill(0);
    state[CONTROL..][..2].copy_from_slice(&0x37f_u16.to_ne_bytes());
    state[SSE_CONTROL..][..4].copy_from_slice(&0x1f80_u32.to_ne_bytes());
    state[REGISTERS..SOFTWARE].fill(0);
    let end = state.len().saturating_sub(END);
    if end > HELD {
        state[HELD..end].fill(0);
        state[HELD] = LEGACY;
    }
}

/// The length of a state by its first [`FXSAVE`] bytes, which need not be the kernel's.
pub fn fpstate_len_of(head: &[u8; FXSAVE], most: usize) -> usize {
    let word = |at: usize| u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let len = word(SOFTWARE + 4) as usize;
    if word(SOFTWARE) == MAGIC && (FXSAVE..=most).contains(&len) { len } else { FXSAVE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_initial_state_keeps_its_bounds() {
        const LEN: usize = 836;
        let mut state = [0xaa_u8; LEN];
        state[SOFTWARE..][..4].copy_from_slice(&MAGIC.to_ne_bytes());
        state[SOFTWARE + 4..][..4].copy_from_slice(&(LEN as u32).to_ne_bytes());
        let before = state;
        set_initial(&mut state);
        assert_eq!((&state[..4], &state[24..28]), (&[0x7f, 3, 0, 0][..], &[0x80, 0x1f, 0, 0][..]));
        assert_eq!(state[28..32], before[28..32], "the bits that the processor has");
        assert_eq!(state[SOFTWARE..FXSAVE], before[SOFTWARE..FXSAVE], "what the kernel says of it");
        assert_eq!(state[FXSAVE..FXSAVE + 2], [3, 0], "what it holds");
        assert_eq!(state[LEN - 4..], before[LEN - 4..], "the word behind it");
        assert!(state[32..SOFTWARE].iter().chain(&state[514..LEN - 4]).all(|byte| *byte == 0));
        let mut legacy = [0xaa_u8; FXSAVE];
        set_initial(&mut legacy);
        assert_eq!(legacy[SOFTWARE..], [0xaa; FXSAVE - SOFTWARE]);
    }
}
