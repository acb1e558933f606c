//! A script as types: one [`Op`] for each line, with symbolic names.

use bitflags::bitflags;

/// The bytes of a page, which the suffix `p` means; but see [`Arch::page`].
pub const PAGE: u64 = pagefault::machine::PAGE_SIZE;

/// A parsed script; every name is bound where it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// The sizes of the machines.
    pub sizes: Sizes,
    /// The operations in order.
    pub lines: Vec<Line>,
}

impl Script {
    /// The files and devices of the script in the order in which they are made.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().filter_map(|line| match &line.op {
            Op::File { name, .. } | Op::Device { name, .. } => Some(name.as_str()),
            _ => None,
        })
    }

    /// The pages of all its devices.
    pub fn device_pages(&self) -> u64 {
        let page = self.sizes.arch.page();
        let pages = self.lines.iter().map(|line| match &line.op {
            Op::Device { length, .. } => length.div_ceil(page),
            _ => 0,
        });
        pages.fold(0, u64::saturating_add)
    }

    /// Whether it needs a simulated computer, for another processor, for the kernel's own accesses,
    /// or for devices.
    pub fn needs_simulation(&self) -> bool {
        let is_kernels = |line: &Line| {
            matches!(
                line.op,
                Op::KernelMap(..)
                    | Op::KernelRead(..)
                    | Op::KernelWrite(..)
                    | Op::SwapOn(..)
                    | Op::SwapOff(..)
                    | Op::Device { .. }
                    | Op::Prefetch { .. }
            )
        };
        self.sizes.arch != Arch::X86_64 || self.lines.iter().any(is_kernels)
    }

    /// Whether a line makes a device fail, which only a managed machine can do.
    pub fn injects_failures(&self) -> bool {
        self.lines.iter().any(|line| matches!(line.op, Op::Fail { .. }))
    }
}

/// The sizes of a managed machine; the host ignores them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Page frames of memory.
    pub frames: u64,
    /// Slots of the swap device, a page each.
    pub swap: u64,
    /// Processors.
    pub cpus: u64,
    /// The kind of processor.
    pub arch: Arch,
    /// The most pages of a file that are read ahead; `None` for the machine's default.
    pub read_ahead: Option<u32>,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { frames: 4096, swap: 16384, cpus: 1, arch: Arch::X86_64, read_ahead: None }
    }
}

/// A kind of processor. Only the simulated computer has others than the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arch {
    /// Four levels of tables.
    #[default]
    X86_64,
    /// Two levels, 32 bits.
    Ia32,
    /// IA-32 with physical-address extension: three levels.
    Pae,
    /// Alpha AXP: three levels, pages of 8 KiB.
    Alpha,
}

impl Arch {
    /// Every processor of the language.
    pub const ALL: [Self; 4] = [Self::X86_64, Self::Ia32, Self::Pae, Self::Alpha];

    /// Its name in the language.
    pub const fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86-64",
            Self::Ia32 => "ia32",
            Self::Pae => "pae",
            Self::Alpha => "alpha",
        }
    }

    /// The bytes of a page.
    pub const fn page(self) -> u64 {
        match self {
            Self::Alpha => 8192,
            _ => 4096,
        }
    }

    /// The processor with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|arch| arch.name() == name)
    }
}

/// One operation, and its process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The line's number in its file, from 1.
    pub number: usize,
    /// The name of the process.
    pub process: String,
    /// The operation.
    pub op: Op,
}

/// An address relative to a bound name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The name, bound by `mmap` or `mremap … as`.
    pub name: String,
    /// Bytes above the name's address.
    pub offset: u64,
}

/// An address and a number of bytes from there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first byte.
    pub address: Address,
    /// The length in bytes, as given: not rounded, possibly absurd.
    pub length: u64,
}

bitflags! {
    /// The protection of a mapping; empty is `-`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Protection: u8 {
        /// Loads.
        const READ = 1;
        /// Stores.
        const WRITE = 2;
        /// Instruction fetches.
        const EXEC = 4;
    }
}

bitflags! {
    /// The optional words of `mmap`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct MapFlags: u8 {
        /// `noreplace`: fail with EEXIST rather than replace a mapping.
        const NOREPLACE = 1;
        /// `growsdown`: the mapping grows to an access below it, as a stack does.
        const GROWSDOWN = 2;
        /// `noreserve`: it reserves no memory.
        const NORESERVE = 4;
        /// `populate`: its pages are faulted in at once.
        const POPULATE = 8;
    }
}

/// The start of `mprotect`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// At the address.
    Address,
    /// `growsdown`: at the start of the stack that the range reaches into.
    Stack,
}

/// When `mlock` brings pages in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Locking {
    /// At once.
    AtOnce,
    /// `onfault`: when they are touched.
    OnFault,
}

bitflags! {
    /// The words of `mlockall`, with the values of Linux's flags.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct LockAll: u32 {
        /// `current`: everything that is mapped.
        const CURRENT = 1;
        /// `future`: everything that will be.
        const FUTURE = 2;
        /// `onfault`: pages come in when they are touched.
        const ON_FAULT = 4;
    }
}

/// Whether other mappings see stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Stores copy the page first.
    Private,
    /// Stores go to the mapped object.
    Shared,
}

/// The content of a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Zeros at first.
    Anonymous,
    /// A file from a byte offset on.
    File {
        /// The file's name in the script.
        name: String,
        /// Offset into the file in bytes, as given.
        offset: u64,
    },
}

/// The arguments of `mmap`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mmap {
    /// The name that is bound to the mapping's address, even if the call fails.
    pub name: String,
    /// Length in bytes, as given.
    pub length: u64,
    /// Its protection.
    pub protection: Protection,
    /// Private or shared.
    pub sharing: Sharing,
    /// Anonymous or a file.
    pub content: Content,
    /// A fixed address; without it the runner chooses.
    pub at: Option<Address>,
    /// The other words.
    pub flags: MapFlags,
}

/// The arguments of `mremap`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mremap {
    /// Where the old range starts.
    pub address: Address,
    /// Its length in bytes.
    pub old: u64,
    /// The new length in bytes.
    pub new: u64,
    /// Whether the word `maymove` or `dontunmap` is there.
    pub moving: Moving,
    /// A fixed target.
    pub at: Option<Address>,
    /// The name that is bound to the result (to the old address if the call fails).
    pub bind: Option<String>,
}

/// Whether `mremap` may change the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moving {
    /// It must stay.
    Stay,
    /// `maymove`.
    May,
    /// `dontunmap`: its pages must, and the mapping stays.
    Leaving,
}

/// The flag of `msync`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncFlag {
    /// Write and wait.
    Sync,
    /// Start writing.
    Async,
    /// Invalidate cached copies.
    Invalidate,
}

/// The advice of `madvise`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "Linux's own words")]
pub enum Advice {
    Normal,
    Random,
    Sequential,
    WillNeed,
    DontNeed,
    Free,
    Remove,
    DontFork,
    DoFork,
    Cold,
    PageOut,
    PopulateRead,
    PopulateWrite,
    DontNeedLocked,
    WipeOnFork,
    KeepOnFork,
    DontDump,
    DoDump,
    GuardInstall,
    GuardRemove,
}

impl Advice {
    /// Every advice of the language.
    pub const ALL: [Self; 20] = [
        Self::Normal,
        Self::Random,
        Self::Sequential,
        Self::WillNeed,
        Self::DontNeed,
        Self::Free,
        Self::Remove,
        Self::DontFork,
        Self::DoFork,
        Self::Cold,
        Self::PageOut,
        Self::PopulateRead,
        Self::PopulateWrite,
        Self::DontNeedLocked,
        Self::WipeOnFork,
        Self::KeepOnFork,
        Self::DontDump,
        Self::DoDump,
        Self::GuardInstall,
        Self::GuardRemove,
    ];
}

/// What `fail` makes fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failing {
    /// An allocation of a frame.
    Frame,
    /// A read from a file or the swap device.
    Read,
    /// A write to a file or the swap device.
    Write,
}

/// The arguments of `swapon`: the area's header and its store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwapOn {
    /// The area's pages, with the header's.
    pub pages: u32,
    /// The bad pages.
    pub bad: Vec<u32>,
    /// Whether the area is a file rather than a disk.
    pub on_file: bool,
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// `mmap`
    Mmap(Mmap),
    /// `brk`, of the heap with this name, to a length in bytes
    Brk(String, u64),
    /// `munmap`
    Munmap(Range),
    /// `mprotect`
    Mprotect(Range, Protection, Begin),
    /// `msync`
    Msync(Range, SyncFlag),
    /// `mlock`
    Mlock(Range, Locking),
    /// `munlock`
    Munlock(Range),
    /// `mlockall`
    MlockAll(LockAll),
    /// `munlockall`
    MunlockAll,
    /// `mseal`
    Mseal(Range),
    /// `mremap`
    Mremap(Mremap),
    /// `madvise`
    Madvise(Range, Advice),
    /// `remap_file_pages`, with the page index in the file
    RemapFilePages(Range, u64),
    /// `mincore`
    Mincore(Range),
    /// `file`: a new file
    File {
        /// Its name.
        name: String,
        /// Its length in bytes.
        length: u64,
        /// The seed of its bytes; without one, zeros.
        seed: Option<u64>,
    },
    /// `device`: memory of a new device, which is mapped like a file
    Device {
        /// Its name.
        name: String,
        /// Its length in bytes.
        length: u64,
        /// The seed of its bytes; without one, zeros.
        seed: Option<u64>,
    },
    /// `truncate`, to a length in bytes
    Truncate(String, u64),
    /// `pwrite`, at an offset in bytes
    Pwrite(String, u64, Vec<u8>),
    /// `pread`, an offset and a length in bytes
    Pread(String, u64, u64),
    /// `fsync`
    Fsync(String),
    /// `write`: stores in ascending order
    Write(Address, Vec<u8>),
    /// `fill`: stores of one byte in ascending order
    Fill(Range, u8),
    /// `read`: loads in ascending order
    Read(Range),
    /// `exec`: an instruction fetch
    Exec(Address),
    /// `to_user`: the kernel stores for the process
    ToUser(Address, Vec<u8>),
    /// `from_user`: the kernel loads for the process
    FromUser(Range),
    /// `poke`: a debugger stores into the process, even into read-only regions
    Poke(Address, Vec<u8>),
    /// `peek`: a debugger loads from the process, whatever its regions allow
    Peek(Range),
    /// `kernel_map`: the kernel maps memory for itself, in the reference table only
    KernelMap(String, u64),
    /// `kernel_read`: a load by the kernel without a fixup
    KernelRead(Range),
    /// `kernel_write`: a store by the kernel, likewise
    KernelWrite(Address, Vec<u8>),
    /// `cpu`: this processor makes the accesses from here on
    Cpu(u64),
    /// `prefetch`, by the instruction at the first address, of the second
    Prefetch {
        /// The address of the instruction.
        code: Address,
        /// The address that it prefetches.
        address: Address,
    },
    /// `fork`, with the child's name
    Fork(String),
    /// `exit`
    Exit,
    /// `reclaim`, with the most pages to evict
    Reclaim(u64),
    /// `maps`, of the range that the name was bound to
    Maps(String),
    /// `check`
    Check,
    /// `swapon`: a swap area with a header
    SwapOn(SwapOn),
    /// `swapoff`, with the area's number in the order of adding; 0 is the machine's own
    SwapOff(u64),
    /// `fail`: the nth such operation from here on fails
    Fail {
        /// Which operation.
        what: Failing,
        /// 1 is the next one.
        nth: u64,
    },
}

impl Op {
    /// The range of a program's memory that it is about, if it is about one.
    pub const fn user_range(&self) -> Option<&Range> {
        match self {
            Self::Munmap(range)
            | Self::Mprotect(range, ..)
            | Self::Msync(range, _)
            | Self::Mlock(range, _)
            | Self::Munlock(range)
            | Self::Mseal(range)
            | Self::Madvise(range, _)
            | Self::RemapFilePages(range, _)
            | Self::Mincore(range)
            | Self::Fill(range, _)
            | Self::Read(range)
            | Self::FromUser(range)
            | Self::Peek(range) => Some(range),
            _ => None,
        }
    }
}
