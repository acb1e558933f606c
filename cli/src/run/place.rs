//! Places a runtime in a program that was executed and has not run yet.
//!
//! The program's own memory is not touched, but for the unused end of its vDSO. There it begins, with code
//! that maps the runtime ([`loader`](super::loader)); it is not stopped again.

use super::loader::{self, Layout};
use super::trace::{Resume, Stop, Tracee};
use libc::user_regs_struct;
use pagefault_control::{Boot, Control};
use std::fs::File;
use std::io::{self, Read};
use std::time::{Duration, Instant};

const PAGE: u64 = 4096;
/// `cs` of a 64-bit program.
const LONG_MODE: u64 = 0x33;
/// The size of a program header in a 64-bit file; those of x32 programs are smaller.
const PROGRAM_HEADER: u64 = 56;
/// The vDSO is not longer.
const VDSO: usize = 4 * PAGE as usize;
/// The auxiliary vector is not longer.
const AUXILIARY: usize = 1024;

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
    /// The signals that it blocks.
    pub mask: u64,
    /// Its descriptor of the control memory.
    pub control_fd: i32,
    /// Its socket to the supervisor.
    pub socket_fd: i32,
    /// Its descriptor of the runtime's file.
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
    /// There is no place for the code that maps the runtime.
    #[error("the kernel maps no vDSO into programs, or one without room for {} bytes", loader::stub().len())]
    Vdso,
    /// The host does not let us read or change it.
    #[error("cannot inspect it: {0}")]
    Look(io::Error),
    /// No slot is free besides the one that its old memory keeps.
    #[error("the tree has no room for it: {0}")]
    Slot(rustix::io::Errno),
    /// It has ended.
    #[error("it has ended")]
    Ended,
}

impl From<io::Error> for PlaceError {
    /// Why the host does not let us read or change a stopped program: it may have been killed meanwhile.
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ESRCH) => Self::Ended,
            _ => Self::Look(error),
        }
    }
}

/// Places runtimes.
pub struct Placer {
    layout: Layout,
    /// The length of the control memory that each process may map at once.
    control_len: u64,
    /// The stub's offset in the vDSO, which is the same in all programs.
    stub: Option<u64>,
}

impl Placer {
    /// Places the runtime that has a layout, in the programs of a tree.
    pub fn new(layout: Layout, control: &Control) -> Self {
        let control_len = match control.room_bytes() {
            0 => (size_of::<Control>() as u64).next_multiple_of(PAGE),
            _ => control.plan().pool().start,
        };
        Self { layout, control_len, stub: None }
    }

    /// Prepares a program that is stopped at its exec. On success it can be resumed.
    pub fn place(&mut self, program: Tracee, process: Process) -> Result<(), PlaceError> {
        let entry = look(program)?;
        let stub = entry.vdso + self.stub(program, entry.vdso)?;
        // The loader puts the block where the runtime expects it, and removes both.
        let message = message(program);
        let block = self.boot(&entry, process).to_bytes();
        let given = [&block[..], message.as_bytes()].concat();
        let at = (entry.registers.rsp - given.len() as u64) & !15;
        match program.write(at, &given) {
            Err(error) if error.raw_os_error() == Some(libc::EFAULT) => {
                grow_stack(program, &entry, stub, at)?;
                program.write(at, &given)?;
            }
            written => written?,
        }
        program.poke(stub, loader::stub())?;
        // Its signals wait until the runtime can take them.
        program.set_mask(u64::MAX)?;
        let map = libc::PROT_READ | libc::PROT_EXEC;
        program.set_registers(&user_regs_struct {
            rip: stub,
            rsp: at,
            // mmap(2), at this place if it is free.
            rdi: self.layout.base,
            rsi: self.layout.len,
            rdx: map as u64,
            r10: libc::MAP_PRIVATE as u64,
            r8: process.code_fd as u64,
            r9: 0,
            rbx: self.layout.loader,
            rbp: at,
            r12: at + block.len() as u64,
            r13: message.len() as u64,
            // The kernel must restart no system call.
            orig_rax: u64::MAX,
            ..entry.registers
        })?;
        Ok(())
    }

    /// The boot block; the loader adds the image's address where it is needed.
    fn boot(&self, entry: &Entry, process: Process) -> Boot {
        Boot {
            magic: Control::LAYOUT,
            control: 0,
            control_len: self.control_len,
            control_fd: process.control_fd,
            socket_fd: process.socket_fd,
            code_fd: process.code_fd,
            slot: process.slot,
            flags: if process.first { Boot::FIRST } else { 0 }
                | if entry.has_gs_base { Boot::GS_BASE } else { 0 },
            mask: process.mask,
            program_ip: entry.registers.rip,
            program_sp: entry.registers.rsp,
            ..self.layout.boot
        }
    }

    /// The stub's offset in the vDSO.
    fn stub(&mut self, program: Tracee, vdso: u64) -> Result<u64, PlaceError> {
        if self.stub.is_none() {
            let mut code = vec![0; VDSO];
            let read = if vdso == 0 { 0 } else { program.read(vdso, &mut code)? };
            self.stub = unused(&code[..read], loader::stub().len());
        }
        self.stub.ok_or(PlaceError::Vdso)
    }
}

/// An offset in a vDSO from which `len` bytes mean nothing: in the zeros at the end of its last page, or the
/// null entry of its table of sections.
fn unused(code: &[u8], len: usize) -> Option<u64> {
    /// The size of an entry, and of the tail of zeros that could belong to what is before them.
    const SECTION: usize = 64;
    let field = |at: usize| Some(u64::from_le_bytes(*code.get(at..)?.first_chunk()?));
    let number = |at: usize| Some(u16::from_le_bytes(*code.get(at..)?.first_chunk()?));
    // e_shoff, e_shentsize, e_shnum.
    let sections = usize::try_from(field(40)?).ok()?;
    let table = usize::from(number(58)?) * usize::from(number(60)?);
    let end = sections.checked_add(table)?.checked_next_multiple_of(PAGE as usize)?;
    // It is written in words.
    let len = len.next_multiple_of(8);
    let start = end.checked_sub(len)?;
    let is_zero = |start: usize, end: usize| {
        code.get(start..end).is_some_and(|bytes| bytes.iter().all(|byte| *byte == 0))
    };
    if is_zero(start.saturating_sub(SECTION), end) {
        return Some(start as u64);
    }
    (sections != 0 && len <= SECTION && is_zero(sections, sections + SECTION))
        .then_some(sections as u64)
}

/// Has a new program store below its stack pointer, at an address of which the kernel has not made stack yet: the
/// pointers to many arguments leave no room there. Only the program's own accesses make its stack grow.
fn grow_stack(program: Tracee, entry: &Entry, code: u64, to: u64) -> io::Result<()> {
    /// How long that may take.
    const PATIENCE: Duration = Duration::from_secs(10);
    // push rax; syscall: no signal need stop the program.
    program.poke(code, &[0x50, 0x0f, 0x05])?;
    program.set_registers(&user_regs_struct {
        rip: code,
        rsp: to + 8,
        rax: u64::MAX,
        orig_rax: u64::MAX,
        ..entry.registers
    })?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        program.resume(Resume::ToCall, 0)?;
        match program.wait_until(deadline)? {
            // The call is not made: the program goes on elsewhere.
            Some(Stop::Call) if program.registers()?.rsp == to => return Ok(()),
            // The end of its execve.
            Some(Stop::Call) => {}
            Some(Stop::Ended) => return Err(io::Error::from_raw_os_error(libc::ESRCH)),
            _ => return Err(io::Error::from_raw_os_error(libc::EFAULT)),
        }
    }
}

/// What a program prints that has no memory for its runtime.
fn message(program: Tracee) -> String {
    format!(
        "pagefault: stopped process {}: no memory for the runtime, or the host does not let its file be \
         executed; is `ulimit -v` set?\n",
        program.0
    )
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
    let registers = program.registers()?;
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
    let mut vector = [0; AUXILIARY];
    let file = File::open(format!("/proc/{}/auxv", program.0));
    let read = file.and_then(|mut file| file.read(&mut vector));
    let len = read.map_err(|error| match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => PlaceError::Unreadable,
        _ => error.into(),
    })?;
    let mut found = Auxiliary::default();
    let (words, _) = vector[..len].as_chunks::<8>();
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A vDSO with `tail` zeros after its last byte, and a null entry at its table of sections if `null`.
    fn vdso(tail: usize, null: u8) -> Vec<u8> {
        let mut code = vec![1; 2 * PAGE as usize];
        let len = code.len();
        let sections = len - tail - 3 * 64;
        code[40..48].copy_from_slice(&(sections as u64).to_le_bytes());
        code[58..60].copy_from_slice(&64_u16.to_le_bytes());
        code[60..62].copy_from_slice(&3_u16.to_le_bytes());
        code[sections..sections + 64].fill(null);
        code[len - tail..].fill(0);
        code
    }

    #[test]
    fn the_stub_is_where_nothing_is() {
        let len = loader::stub().len();
        assert!(len <= 64, "it fits an entry of the table of sections");
        assert_eq!(unused(&vdso(1000, 0), len), Some(8192 - len.next_multiple_of(8) as u64));
        // A shorter tail could belong to what is before it.
        assert_eq!(unused(&vdso(64, 0), len), Some(8192 - 64 - 192));
        assert_eq!(unused(&vdso(64, 1), len), None);
        for length in [0, 40, 62, 5000] {
            assert_eq!(unused(&vdso(1000, 0)[..length], len), None, "{length}");
        }
    }
}
