//! What a machine does for a script: numbers in, an [`Outcome`] out.
//!
//! A machine sees no names and chooses no addresses: the runner binds names and places mappings, in
//! the same way on every machine.

use crate::ast::{
    Advice, Arch, Begin, Failing, LockAll, Locking, MapFlags, Protection, Script, Sharing, Sizes,
    SwapOn, SyncFlag,
};
use crate::layout::Window;
use crate::outcome::Outcome;
use std::fmt::{self, Display, Formatter};

/// A computer that a script can run on.
pub trait Machine {
    /// Where scripts live on this machine.
    fn window(&self) -> Window {
        Window::of(Arch::X86_64)
    }

    /// Does `call` in `process` and returns its answer.
    ///
    /// The process exists: the first one from the start, others from the [`Call::Fork`] that named
    /// them, until [`Call::Exit`] or [`Outcome::Killed`].
    fn perform(&mut self, process: Process, call: &Call<'_>) -> Outcome;

    /// Does something that belongs to no process.
    fn act(&mut self, action: &Action<'_>) -> Outcome;

    /// Runs a whole script and returns an answer for each line, if the machine is a computer of its
    /// own that takes no single calls.
    fn whole(&mut self, _script: &Script) -> Option<Result<Vec<String>, StartError>> {
        None
    }

    /// The costs of the run so far: names and counts.
    fn stats(&mut self) -> Vec<(&'static str, u64)>;
}

/// The parameters of a machine.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Frames, slots and processors.
    pub sizes: Sizes,
    /// How many files the script makes, numbered from 0 in the order of their `file` lines.
    pub files: usize,
    /// How many pages the script's devices have.
    pub device_pages: u64,
    /// The seed of a simulated machine's schedule.
    pub seed: u64,
}

/// A process, numbered by the runner: 0 exists at the start, and numbers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Process(pub u32);

impl Process {
    /// The process that exists at the start.
    pub const FIRST: Self = Self(0);
}

/// A file, numbered by the order of the script's `file` lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct File(pub u32);

/// A call of a process. Addresses and lengths are in bytes, and may be invalid in every way for
/// which Linux has an errno.
#[derive(Clone, Debug)]
pub enum Call<'a> {
    /// `mmap` at a fixed address. [`Outcome::Ok`] means the mapping is exactly there.
    Mmap(Mmap),
    /// The process's heap begins at an address, and is empty.
    BeginHeap {
        /// The address.
        address: u64,
    },
    /// `brk`: [`Outcome::Break`]
    Brk {
        /// The new end of the heap.
        address: u64,
    },
    /// `munmap`
    Munmap {
        /// The address.
        address: u64,
        /// The length in bytes.
        length: u64,
    },
    /// `mprotect`
    Mprotect {
        /// The address.
        address: u64,
        /// The length in bytes.
        length: u64,
        /// The new protection.
        protection: Protection,
        /// Where the change begins.
        begin: Begin,
    },
    /// `msync`
    Msync {
        /// The address.
        address: u64,
        /// The length in bytes.
        length: u64,
        /// The flag.
        sync: SyncFlag,
    },
    /// `mlock`
    Mlock {
        /// The address.
        address: u64,
        /// The length in bytes.
        length: u64,
        /// When the pages come in.
        locking: Locking,
    },
    /// `mlockall`
    MlockAll {
        /// What is locked.
        what: LockAll,
    },
    /// `munlockall`
    MunlockAll,
    /// `mseal` with flags 0
    Mseal {
        /// The address.
        address: u64,
        /// The length in bytes.
        length: u64,
    },
    /// `munlock`
    Munlock {
        /// The address.
        address: u64,
        /// The length in bytes.
        length: u64,
    },
    /// `mremap`. [`Outcome::Ok`] means the result is at the target, or where it was.
    Mremap {
        /// The address.
        address: u64,
        /// Its length in bytes.
        old: u64,
        /// The new length in bytes.
        new: u64,
        /// The target.
        target: Target,
    },
    /// `madvise`
    Madvise {
        /// The address.
        address: u64,
        /// The length in bytes.
        length: u64,
        /// The advice.
        advice: Advice,
    },
    /// `remap_file_pages` with protection and flags 0
    RemapFilePages {
        /// The address.
        address: u64,
        /// The length in bytes.
        length: u64,
        /// The page index in the file.
        page: u64,
    },
    /// `mincore`: only whether it succeeds
    Mincore {
        /// The address.
        address: u64,
        /// The length in bytes.
        length: u64,
    },
    /// Stores from user mode, byte by byte upwards: those before a fault have happened.
    Store {
        /// The first byte.
        address: u64,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// Stores of one byte, likewise.
    Fill {
        /// The first byte.
        address: u64,
        /// The number of bytes.
        length: u64,
        /// The byte.
        byte: u8,
    },
    /// Loads from user mode, byte by byte upwards: [`Outcome::Bytes`].
    Load {
        /// The first byte.
        address: u64,
        /// The number of bytes.
        length: u64,
    },
    /// A store of a `ret` (0xc3) if one is permitted, then an instruction fetch, whose fault is
    /// the outcome; that of the store is not.
    Execute {
        /// The instruction.
        address: u64,
    },
    /// read(2) of a pipe that holds `bytes`: [`Outcome::Stored`] or EFAULT; see [`pipe_count`].
    ToUser {
        /// The first byte.
        address: u64,
        /// The bytes that the kernel stores.
        bytes: &'a [u8],
    },
    /// write(2) to a pipe that never fills: [`Outcome::Loaded`] or EFAULT; see [`pipe_count`].
    FromUser {
        /// The first byte.
        address: u64,
        /// The number of bytes.
        length: u64,
    },
    /// pwrite(2) to `/proc/self/mem`: [`Outcome::Stored`] or EIO.
    Poke {
        /// The first byte.
        address: u64,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// pread(2) of `/proc/self/mem`: [`Outcome::Loaded`] or EIO.
    Peek {
        /// The first byte.
        address: u64,
        /// The number of bytes.
        length: u64,
    },
    /// The kernel maps its own frames at an address, in the reference table only.
    KernelMap {
        /// The address.
        address: u64,
        /// The length in bytes.
        length: u64,
    },
    /// The kernel loads without a fixup while it serves the process.
    KernelLoad {
        /// The first byte.
        address: u64,
        /// The number of bytes.
        length: u64,
    },
    /// The kernel stores, likewise.
    KernelStore {
        /// The first byte.
        address: u64,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// A prefetch of an address, by an instruction that lies at another.
    Prefetch {
        /// The instruction.
        code: u64,
        /// The address that it prefetches.
        address: u64,
    },
    /// The process runs on this processor from now on. A machine that chooses processors by itself
    /// answers [`Outcome::Ok`] and ignores it.
    Cpu {
        /// The processor.
        number: u64,
    },
    /// `fork`
    Fork {
        /// The child's number from now on.
        child: Process,
    },
    /// `exit`: the process is gone and its memory released when this returns.
    Exit,
    /// The mappings of the process cut to `start..end`, neighbours merged as Linux merges them:
    /// [`Outcome::Maps`].
    Maps {
        /// The first byte.
        start: u64,
        /// The byte after the last one.
        end: u64,
    },
}

/// The arguments of `mmap`.
#[derive(Clone, Copy, Debug)]
pub struct Mmap {
    /// The address.
    pub address: u64,
    /// The length in bytes.
    pub length: u64,
    /// The protection.
    pub protection: Protection,
    /// Private or shared.
    pub sharing: Sharing,
    /// The file and the byte offset in it; `None` is anonymous.
    pub file: Option<(File, u64)>,
    /// [`MapFlags::NOREPLACE`] is MAP_FIXED_NOREPLACE, without it the call is MAP_FIXED.
    pub flags: MapFlags,
}

/// The bytes that a read or write of a pipe reports when an access to user memory at
/// `copied` bytes from the start failed (or none did, and `copied` is the whole length).
///
/// A pipe moves chunks of 4,096 bytes counted from the start of the buffer, and a chunk that is
/// not copied whole does not count, though its first bytes may have been stored. `None` is EFAULT.
pub fn pipe_count(copied: u64, length: u64) -> Option<u64> {
    let counted = if copied == length { length } else { copied - copied % crate::ast::PAGE };
    (counted > 0 || length == 0).then_some(counted)
}

/// Where `mremap` puts its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Where it is: no flags.
    Stay,
    /// MREMAP_MAYMOVE | MREMAP_FIXED, to this address.
    Fixed(u64),
    /// MREMAP_FIXED alone, which is EINVAL.
    FixedButStay(u64),
    /// MREMAP_MAYMOVE | MREMAP_DONTUNMAP, with a free address as the hint.
    Leaving(u64),
    /// MREMAP_MAYMOVE | MREMAP_DONTUNMAP | MREMAP_FIXED, to this address.
    LeavingFixed(u64),
}

/// A call that belongs to no process.
#[derive(Clone, Debug)]
pub enum Action<'a> {
    /// Gives the file its first content, see [`content`].
    CreateFile {
        /// The file.
        file: File,
        /// Its length in bytes.
        length: u64,
        /// Without it the file is all zeros.
        seed: Option<u64>,
    },
    /// Makes a device with this initial content. It is mapped like a file, and numbered among the files.
    CreateDevice {
        /// The file.
        file: File,
        /// Its length in bytes.
        length: u64,
        /// Without it the memory is all zeros.
        seed: Option<u64>,
    },
    /// `ftruncate`
    Truncate {
        /// The file.
        file: File,
        /// Its new length in bytes.
        length: u64,
    },
    /// `pwrite`
    Pwrite {
        /// The file.
        file: File,
        /// The offset in bytes.
        offset: u64,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// `pread`, in calls for [`READ_AT_ONCE`] bytes: [`Outcome::Bytes`], fewer at the end of the file.
    Pread {
        /// The file.
        file: File,
        /// The offset in bytes.
        offset: u64,
        /// The number of bytes.
        length: u64,
    },
    /// `fsync`
    Fsync {
        /// The file.
        file: File,
    },
    /// Evicts pages of any process.
    Reclaim {
        /// The most pages to evict.
        pages: u64,
    },
    /// Walks every invariant: [`Outcome::Ok`] or [`Outcome::Broken`].
    Check,
    /// Adds a swap area with this header (`swapon`).
    SwapOn {
        /// The header.
        area: &'a SwapOn,
    },
    /// Removes a swap area, after bringing its pages back (`swapoff`).
    SwapOff {
        /// Its number in the order of adding; 0 is the machine's own.
        area: u64,
    },
    /// Makes a future operation fail.
    Fail {
        /// The operation.
        what: Failing,
        /// 1 is the next one.
        nth: u64,
    },
}

/// The most bytes of a file that are moved at once; `pread` of more makes several calls.
pub const READ_AT_ONCE: u64 = 1 << 16;

/// Byte `index` of a file that was made with `seed`.
pub fn content(index: u64, seed: u64) -> u8 {
    let pages = (index >> 12).wrapping_mul(7);
    index.wrapping_mul(31).wrapping_add(pages).wrapping_add(seed) as u8
}

/// The machines of a build.
#[derive(Default)]
pub struct Catalogue {
    entries: Vec<Entry>,
}

impl Catalogue {
    /// A catalogue with the host's kernel, if this build supports it.
    pub fn new() -> Self {
        #[allow(unused_mut, reason = "a build without the host's machines adds none")]
        let mut catalogue = Self::default();
        #[cfg(all(feature = "hosts", target_os = "linux", target_arch = "x86_64"))]
        catalogue.add(Entry {
            name: "kernel",
            // Our own kernel can be made to fail; another host's cannot.
            simulates: Simulates::Nothing,
            failures: match crate::kernel::failures_are_taken() {
                true => Failures::Injected,
                false => Failures::Refused,
            },
            start: Box::new(|setup| Ok(Box::new(crate::kernel::Kernel::start(setup)?))),
        });
        catalogue
    }

    /// Adds a machine. Of two with one name, the later one is found.
    pub fn add(&mut self, entry: Entry) -> &mut Self {
        self.entries.push(entry);
        self
    }

    /// The machine called `name`.
    pub fn find(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().rfind(|entry| entry.name == name)
    }

    /// The names, in the order in which they were added.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.entries.iter().map(|entry| entry.name)
    }
}

/// One machine of a build.
pub struct Entry {
    /// Its name for `--on` and `--diff`.
    pub name: &'static str,
    /// Whether it can run `fail` lines.
    pub failures: Failures,
    /// Whether it can run lines that need a simulated computer.
    pub simulates: Simulates,
    /// Starts it with the first process.
    pub start: Box<Start>,
}

/// How a machine is started.
pub type Start = dyn Fn(&Setup) -> Result<Box<dyn Machine>, StartError>;

/// Whether a machine can make its devices fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failures {
    /// It can.
    Injected,
    /// It cannot, and a script with a `fail` line is not run on it.
    Refused,
}

/// Whether a machine simulates all kinds of processors, and the kernel's own accesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Simulates {
    /// It does.
    Processors,
    /// It does not. Scripts with [`Script::needs_simulation`] are not run on it.
    Nothing,
}

/// Why a machine did not start.
#[derive(Debug)]
pub enum StartError {
    /// The window of the scripts is occupied.
    WindowTaken,
    /// The machine cannot have these sizes.
    Sizes,
    /// The processor's pages are larger than this build's.
    PageSize,
    /// The PC did not boot, or not to the script's end.
    #[cfg(feature = "hosts")]
    Pc(Box<pagefault_pc::BootError>),
    /// The runner cannot be placed in the PC.
    #[cfg(feature = "hosts")]
    Guest(Box<pagefault_pc::host::BringError>),
    /// The PC answered only this many lines of the script.
    Short(usize),
    /// The system refused a resource.
    System(std::io::Error),
    /// The host lacks something that the machine needs; the text has the remedy.
    #[cfg(all(feature = "hosts", target_os = "linux", target_arch = "x86_64"))]
    Machine(Box<pagefault_linux::BuildError>),
}

impl Display for StartError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::WindowTaken => f.write_str("the window 0x1000000000-0x2000000000 is not empty"),
            Self::PageSize => f.write_str("Alpha's pages have 8 KiB, and scripts run with pages of 4; `pagefault explain` has both"),
            Self::Sizes => f.write_str("no machine of these sizes"),
            #[cfg(feature = "hosts")]
            Self::Pc(error) => error.fmt(f),
            #[cfg(feature = "hosts")]
            Self::Guest(error) => error.fmt(f),
            Self::Short(lines) => write!(f, "the PC answered {lines} lines only"),
            Self::System(error) => error.fmt(f),
            #[cfg(all(feature = "hosts", target_os = "linux", target_arch = "x86_64"))]
            Self::Machine(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::System(error) => Some(error),
            #[cfg(all(feature = "hosts", target_os = "linux", target_arch = "x86_64"))]
            Self::Machine(error) => Some(error),
            #[cfg(feature = "hosts")]
            Self::Pc(error) => Some(&**error),
            #[cfg(feature = "hosts")]
            Self::Guest(error) => Some(&**error),
            Self::WindowTaken | Self::Sizes | Self::PageSize | Self::Short(_) => None,
        }
    }
}

impl From<std::io::Error> for StartError {
    fn from(error: std::io::Error) -> Self {
        Self::System(error)
    }
}
