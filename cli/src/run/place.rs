//! Places a runtime in a program that was executed and has not run yet: its memory, image, small
//! stack and initial registers. The runtime maps the control memory itself.
//!
//! The program's own memory is not touched. System calls in the program use a `syscall` instruction
//! of its vDSO.

use super::image::{Access, Image};
use super::trace::{Resume, Stop, Tracee};
use libc::{c_long, user_regs_struct};
use pagefault_control::{Boot, Control};
use std::io;
use std::ops::Range;

const PAGE: u64 = 4096;
/// The stack on which the runtime starts, with the boot block at its top.
const STACK: u64 = 64 << 10;
/// `cs` of a 64-bit program.
const LONG_MODE: u64 = 0x33;
/// The size of a program header in a 64-bit file; those of x32 programs are smaller.
const PROGRAM_HEADER: u64 = 56;
/// `syscall`.
const SYSCALL: [u8; 2] = [0x0f, 0x05];
/// The vDSO's code is in its first pages.
const VDSO: usize = 4 * PAGE as usize;

const AT_PHENT: u64 = 4;
const AT_SECURE: u64 = 23;
const AT_HWCAP2: u64 = 26;
const AT_SYSINFO_EHDR: u64 = 33;
/// In `AT_HWCAP2`: programs may read and write the bases of `fs` and `gs`.
const FSGSBASE: u64 = 1 << 1;

/// What the process has put into its slot.
#[derive(Clone, Copy, Debug)]
pub struct Process {
    /// Its slot.
    pub slot: u32,
    /// Its descriptor of the control memory.
    pub control_fd: i32,
    /// Its socket to the supervisor.
    pub socket_fd: i32,
    /// Its descriptor of the runtime's code; −1 for none.
    pub code_fd: i32,
    /// Whether it is the program that the command runs.
    pub first: bool,
}

/// Why no runtime was placed in a program.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// It gained rights.
    #[error("it gains privileges")]
    Secure,
    /// It is of another architecture.
    #[error("it is not for x86-64")]
    Foreign,
    /// The host hides its memory, because its file may be executed but not read.
    #[error("its file is unreadable")]
    Unreadable,
    /// A system call in it failed.
    #[error("{what}: {source}")]
    Call {
        /// The purpose of the call.
        what: &'static str,
        /// The host's answer.
        source: io::Error,
    },
    /// The host does not let us read it.
    #[error("cannot inspect it: {0}")]
    Look(io::Error),
    /// No slot is free besides the one that its old memory keeps.
    #[error("the tree has no room for it: {0}")]
    Slot(rustix::io::Errno),
    /// It has ended.
    #[error("it has ended")]
    Ended,
}

impl PlaceError {
    /// Why the host does not let us read or change a stopped program: it may have been killed meanwhile.
    pub fn of(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ESRCH) => Self::Ended,
            _ => Self::Look(error),
        }
    }
}

/// Places a runtime in a program that is stopped at [`Stop::Exec`]. On success the program is ready
/// to be resumed.
pub fn place(program: Tracee, image: &mut Image, process: Process) -> Result<(), PlaceError> {
    let entry = look(program)?;
    let mut remote = Remote::begin(program, entry)?;
    let placed = fill(&mut remote, image, process);
    // Signals that arrived meanwhile are delivered when it resumes.
    let restored = remote.end();
    let registers = placed?;
    restored.and_then(|()| program.set_registers(&registers)).map_err(PlaceError::of)
}

/// Makes a program exit with a status when it resumes, after a call in it has failed.
pub fn exit(program: Tracee, status: u8) -> io::Result<()> {
    let vdso = auxiliary(program).map_err(io::Error::other)?.vdso;
    let mut registers = program.registers()?;
    registers.rip = gadget(program, vdso)?;
    registers.rax = libc::SYS_exit_group as u64;
    registers.rdi = u64::from(status);
    registers.orig_rax = u64::MAX;
    program.set_registers(&registers)
}

/// What we need to know about a new program.
#[derive(Clone, Copy)]
struct Entry {
    registers: user_regs_struct,
    vdso: u64,
    has_gs_base: bool,
}

/// Checks whether a program can be managed.
fn look(program: Tracee) -> Result<Entry, PlaceError> {
    let registers = program.registers().map_err(PlaceError::of)?;
    if registers.cs != LONG_MODE {
        return Err(PlaceError::Foreign);
    }
    let auxiliary = auxiliary(program)?;
    if auxiliary.secure {
        return Err(PlaceError::Secure);
    }
    if auxiliary.header != PROGRAM_HEADER {
        return Err(PlaceError::Foreign);
    }
    Ok(Entry { registers, vdso: auxiliary.vdso, has_gs_base: auxiliary.has_gs_base })
}

/// The entries of the auxiliary vector that we need.
#[derive(Clone, Copy, Default)]
struct Auxiliary {
    secure: bool,
    header: u64,
    vdso: u64,
    has_gs_base: bool,
}

fn auxiliary(program: Tracee) -> Result<Auxiliary, PlaceError> {
    let vector = std::fs::read(format!("/proc/{}/auxv", program.0)).map_err(|error| match error
        .raw_os_error()
    {
        Some(libc::EACCES | libc::EPERM) => PlaceError::Unreadable,
        _ => PlaceError::of(error),
    })?;
    let mut found = Auxiliary::default();
    let (words, _) = vector.as_chunks::<8>();
    let (pairs, _) = words.as_chunks::<2>();
    for [kind, value] in pairs {
        let value = u64::from_ne_bytes(*value);
        match u64::from_ne_bytes(*kind) {
            AT_SECURE => found.secure = value != 0,
            AT_PHENT => found.header = value,
            AT_HWCAP2 => found.has_gs_base = value & FSGSBASE != 0,
            AT_SYSINFO_EHDR => found.vdso = value,
            _ => {}
        }
    }
    Ok(found)
}

/// The address of a `syscall` instruction in the program's vDSO.
fn gadget(program: Tracee, vdso: u64) -> io::Result<u64> {
    let mut code = [0; VDSO];
    let read = program.read(vdso, &mut code)?;
    let at = code[..read].windows(SYSCALL.len()).position(|bytes| bytes == SYSCALL);
    let at = at.ok_or_else(|| io::Error::other("the kernel maps no vDSO into programs"))?;
    Ok(vdso + at as u64)
}

/// Maps and fills the runtime's memory. Returns the runtime's initial registers.
fn fill(
    remote: &mut Remote,
    image: &mut Image,
    process: Process,
) -> Result<user_regs_struct, PlaceError> {
    let image_len = image.len();
    let base = remote.map("memory for the runtime", image_len + STACK + Boot::SITES)?;
    remote.place_same(image, base, process.code_fd)?;

    let stack_start = base + image_len;
    let block = stack_start + STACK - size_of::<Boot>() as u64;
    let is_constant =
        |part: &&(Range<u64>, Access)| part.1 == Access::Read && part.0.start >= image.same_len();
    let constants = image.parts().iter().find(is_constant);
    let constants = constants.map_or(0..0, |(range, _)| range.clone());
    let boot = Boot {
        magic: Control::LAYOUT,
        control: 0,
        control_len: (size_of::<Control>() as u64).next_multiple_of(PAGE),
        control_fd: process.control_fd,
        socket_fd: process.socket_fd,
        code_fd: process.code_fd,
        slot: process.slot,
        flags: if process.first { Boot::FIRST } else { 0 }
            | if remote.has_gs_base { Boot::GS_BASE } else { 0 },
        spare: 0,
        image_start: base,
        image_len,
        text_start: base + image.text().start,
        text_len: image.text().end - image.text().start,
        program_ip: remote.entry.rip,
        program_sp: remote.entry.rsp,
        stack_start,
        stack_len: STACK,
        sites_start: stack_start + STACK,
        constants_start: base + constants.start,
        constants_len: constants.end - constants.start,
    };
    let boot = boot.to_bytes();
    let image_parts = image.relocated(base).map(|(offset, bytes)| (base + offset, bytes));
    remote.write(&image_parts.chain([(block, &boot[..])]).collect::<Vec<_>>())?;
    Ok(begin(&remote.entry, base + image.entry(), block))
}

/// The runtime's initial registers: a call of its entry with the boot block as argument.
fn begin(program: &user_regs_struct, entry: u64, block: u64) -> user_regs_struct {
    // A return address of zero, and the stack alignment of a function entry.
    let stack = (block & !15) - 8;
    user_regs_struct {
        rip: entry,
        rdi: block,
        rsp: stack,
        // The kernel must restart no system call.
        orig_rax: u64::MAX,
        rax: 0,
        rbx: 0,
        rcx: 0,
        rdx: 0,
        rsi: 0,
        rbp: 0,
        r8: 0,
        r9: 0,
        r10: 0,
        r11: 0,
        r12: 0,
        r13: 0,
        r14: 0,
        r15: 0,
        ..*program
    }
}

/// System calls in a stopped program.
struct Remote {
    program: Tracee,
    /// The registers that the kernel gave the program.
    entry: user_regs_struct,
    /// The address of a `syscall` instruction.
    gadget: u64,
    /// The program's own signal mask.
    mask: u64,
    /// Whether it may use the base of `gs`.
    has_gs_base: bool,
    pace: Pace,
}

/// How a program goes on to the end of a system call. Each stop costs two changes of process.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// By single steps: one stop for a call.
    Steps,
    /// From entry to exit: two.
    Calls,
}

impl Pace {
    /// A step raises `SIGTRAP`, for which the host forgets that the program ignores it.
    fn of(program: Tracee) -> Self {
        match program.ignored() {
            Some(ignored) if ignored & 1 << (libc::SIGTRAP - 1) == 0 => Self::Steps,
            _ => Self::Calls,
        }
    }
}

impl Remote {
    /// Takes a program from [`Stop::Exec`] to the end of its `execve`, with all signals blocked.
    fn begin(program: Tracee, entry: Entry) -> Result<Self, PlaceError> {
        let mask = program.mask().map_err(PlaceError::of)?;
        let gadget = gadget(program, entry.vdso).map_err(PlaceError::of)?;
        program.set_mask(u64::MAX).map_err(PlaceError::of)?;
        let (registers, has_gs_base) = (entry.registers, entry.has_gs_base);
        let pace = Pace::of(program);
        let remote = Self { program, entry: registers, gadget, mask, has_gs_base, pace };
        remote.advance()?;
        Ok(remote)
    }

    /// Gives the program its own signal mask back.
    fn end(&self) -> io::Result<()> {
        self.program.set_mask(self.mask)
    }

    /// Maps private memory for reading and writing.
    fn map(&mut self, what: &'static str, len: u64) -> Result<u64, PlaceError> {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let args = [0, len, prot as u64, flags as u64, u64::MAX, 0];
        self.call(what, libc::SYS_mmap, args)
    }

    fn call(
        &mut self,
        what: &'static str,
        number: c_long,
        args: [u64; 6],
    ) -> Result<u64, PlaceError> {
        let [rdi, rsi, rdx, r10, r8, r9] = args;
        let registers = user_regs_struct {
            rip: self.gadget,
            rax: number as u64,
            orig_rax: u64::MAX,
            rdi,
            rsi,
            rdx,
            r10,
            r8,
            r9,
            ..self.entry
        };
        self.program.set_registers(&registers).map_err(PlaceError::of)?;
        match self.pace {
            // One stop, after the instruction.
            Pace::Steps => self.advance()?,
            // At the entry of the call, and at its exit.
            Pace::Calls => {
                self.advance()?;
                self.advance()?;
            }
        }
        let answer = self.program.registers().map_err(PlaceError::of)?.rax;
        // The host's error numbers are the last page of values.
        if answer > u64::MAX - PAGE {
            let source = io::Error::from_raw_os_error(answer.wrapping_neg() as i32);
            return Err(PlaceError::Call { what, source });
        }
        Ok(answer)
    }

    /// Resumes the program until its next stop.
    fn advance(&self) -> Result<(), PlaceError> {
        let mut signal = 0;
        let how = match self.pace {
            Pace::Steps => Resume::Step,
            Pace::Calls => Resume::ToCall,
        };
        loop {
            let gone = |_| PlaceError::Ended;
            self.program.resume(how, signal).map_err(gone)?;
            signal = match self.program.wait().map_err(gone)? {
                Stop::Call => return Ok(()),
                Stop::Signal(libc::SIGTRAP) if how == Resume::Step => return Ok(()),
                Stop::Ended => return Err(PlaceError::Ended),
                // Only SIGSTOP cannot be blocked. The process stops when it resumes.
                Stop::Signal(signal) => signal,
                Stop::Group | Stop::Interrupted | Stop::Exec => 0,
            };
        }
    }

    /// Places the start of the image that is the same everywhere: maps it, or writes it if the host
    /// does not let the program execute the file.
    fn place_same(&mut self, image: &Image, base: u64, file: i32) -> Result<(), PlaceError> {
        let len = image.same_len();
        let prot = (libc::PROT_READ | libc::PROT_EXEC) as u64;
        let flags = (libc::MAP_PRIVATE | libc::MAP_FIXED) as u64;
        let args = [base, len, prot, flags, i64::from(file) as u64, 0];
        match self.call("mapping the runtime", libc::SYS_mmap, args) {
            Err(PlaceError::Call { .. }) => {
                self.write(&[(base, &image.same())])?;
                self.call("protecting the runtime", libc::SYS_mprotect, [base, len, prot, 0, 0, 0])
                    .map(drop)
            }
            mapped => mapped.map(drop),
        }
    }

    fn write(&self, pieces: &[(u64, &[u8])]) -> Result<(), PlaceError> {
        let what = "writing the runtime";
        self.program.write(pieces).map_err(|source| PlaceError::Call { what, source })
    }
}
