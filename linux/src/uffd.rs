//! The userfaultfd system call and its ioctls.
//!
//! They are made here and not through a crate, so that every partial result and every `EAGAIN` of
//! every ioctl is handled.

use crate::host::Process;
use crate::store::descriptor::{self, Kept};
use core::ffi::c_void;
use core::ops::Range;
use rustix::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use rustix::io::Errno;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, Updater, ioctl, opcode};
use rustix::mm::UserfaultfdFlags;

bitflags::bitflags! {
    /// The features of a userfaultfd (`UFFD_FEATURE_…`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct UffdFeatures: u64 {
        /// Write-protection faults are reported.
        const WRITE_PROTECT = 1 << 0;
        /// Faults raise `SIGBUS` in the faulting thread instead of queueing a message.
        const SIGBUS = 1 << 7;
        /// Messages name the faulting thread.
        const THREAD_ID = 1 << 8;
        /// Messages carry the address to the byte.
        const EXACT_ADDRESS = 1 << 11;
        /// `UFFDIO_POISON` makes a page unreadable.
        const POISON = 1 << 14;
        /// `UFFDIO_MOVE` moves pages without copying.
        const MOVE = 1 << 16;
        /// Bits that this version does not know.
        const _ = !0;
    }
}

const GROUP: u8 = 0xAA;
const API: u64 = 0xAA;
const MODE_MISSING: u64 = 1;
const MODE_WP: u64 = 2;
const COPY_MODE_WP: u64 = 2;
const WRITEPROTECT_MODE_WP: u64 = 1;
/// `UFFD_USER_MODE_ONLY`.
const USER_MODE_ONLY: u32 = 1;

#[repr(C)]
struct ApiArgs {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct RangeArgs {
    start: u64,
    len: u64,
}

impl From<&Range<u64>> for RangeArgs {
    fn from(range: &Range<u64>) -> Self {
        Self { start: range.start, len: range.end - range.start }
    }
}

#[repr(C)]
struct RegisterArgs {
    range: RangeArgs,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct CopyArgs {
    dst: u64,
    src: u64,
    len: u64,
    mode: u64,
    copied: i64,
}

#[repr(C)]
struct MoveArgs {
    dst: u64,
    src: u64,
    len: u64,
    mode: u64,
    moved: i64,
}

#[repr(C)]
struct WriteProtectArgs {
    range: RangeArgs,
    mode: u64,
}

#[repr(C)]
struct PoisonArgs {
    range: RangeArgs,
    mode: u64,
    updated: i64,
}

const UFFDIO_API: Opcode = opcode::read_write::<ApiArgs>(GROUP, 0x3F);
const UFFDIO_REGISTER: Opcode = opcode::read_write::<RegisterArgs>(GROUP, 0x00);
const UFFDIO_UNREGISTER: Opcode = opcode::read::<RangeArgs>(GROUP, 0x01);
const UFFDIO_WAKE: Opcode = opcode::read::<RangeArgs>(GROUP, 0x02);
const UFFDIO_COPY: Opcode = opcode::read_write::<CopyArgs>(GROUP, 0x03);
const UFFDIO_MOVE: Opcode = opcode::read_write::<MoveArgs>(GROUP, 0x05);
const UFFDIO_WRITEPROTECT: Opcode = opcode::read_write::<WriteProtectArgs>(GROUP, 0x06);
const UFFDIO_POISON: Opcode = opcode::read_write::<PoisonArgs>(GROUP, 0x08);

/// The source of a descriptor, and the faults that it sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Only faults of user-mode code; any user may open such a descriptor.
    UserOnly,
    /// Faults of the kernel on a program's behalf too, through the system call.
    All,
    /// The same through `/dev/userfaultfd`, whose file permissions then decide.
    AllByDevice,
}

/// A userfaultfd. Outside of this crate it only tells what the kernel offers: its other methods could take
/// memory away from under a reference.
pub struct Userfault {
    fd: Kept,
    /// The process whose memory the descriptor manages, wherever it is inherited.
    process: Process,
}

/// Whether a page becomes writable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapped {
    /// Stores go through.
    Writable,
    /// The first store faults.
    WriteProtected,
}

fn open_descriptor(scope: Scope) -> Result<OwnedFd, Errno> {
    let flags = UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK;
    match scope {
        // SAFETY: a new descriptor on which nothing is registered has no effect.
        Scope::All => unsafe { rustix::mm::userfaultfd(flags) },
        Scope::UserOnly => {
            let flags = flags | UserfaultfdFlags::from_bits_retain(USER_MODE_ONLY);
            // SAFETY: as above.
            unsafe { rustix::mm::userfaultfd(flags) }
        }
        Scope::AllByDevice => from_device(open_device()?),
    }
}

impl Userfault {
    /// Opens a descriptor of the given scope; the API handshake is still to do.
    pub fn open(scope: Scope) -> Result<Self, Errno> {
        Self::keep(descriptor::with_room(|| open_descriptor(scope))?)
    }

    fn keep(fd: OwnedFd) -> Result<Self, Errno> {
        // Out of the way of programs that choose low numbers themselves.
        Ok(Self { fd: descriptor::keep(fd), process: Process::new().map_err(|error| error.errno)? })
    }

    /// The kernel's features. Afterwards the descriptor is unusable.
    pub fn offered(self) -> Result<UffdFeatures, Errno> {
        self.enable(UffdFeatures::empty())
    }

    /// Whether the descriptor manages this process, and not its parent.
    pub(crate) fn is_ours(&self) -> bool {
        self.process.is_this()
    }

    /// In a forked child, continues with another descriptor.
    ///
    /// # Safety
    /// No other thread uses the descriptor meanwhile.
    pub(crate) unsafe fn continue_with(&self, descriptor: Self) -> Result<(), Errno> {
        self.fd.replace(&descriptor)?;
        self.process.succeed();
        Ok(())
    }

    /// Does the handshake, enabling `features`. Returns all that the kernel has.
    pub(crate) fn enable(&self, features: UffdFeatures) -> Result<UffdFeatures, Errno> {
        let mut args = ApiArgs { api: API, features: features.bits(), ioctls: 0 };
        self.call::<UFFDIO_API, _>(&mut args)?;
        Ok(UffdFeatures::from_bits_retain(args.features))
    }

    /// Makes the kernel report missing pages of `range`, and stores to its protected pages.
    pub(crate) fn register(&self, range: Range<u64>) -> Result<(), Errno> {
        let mode = MODE_MISSING | MODE_WP;
        let mut args = RegisterArgs { range: (&range).into(), mode, ioctls: 0 };
        self.call::<UFFDIO_REGISTER, _>(&mut args)
    }

    /// Lets pages be moved into `range`, whose missing pages stay the kernel's to fill.
    pub(crate) fn register_for_moves(&self, range: Range<u64>) -> Result<(), Errno> {
        let mut args = RegisterArgs { range: (&range).into(), mode: MODE_WP, ioctls: 0 };
        self.call::<UFFDIO_REGISTER, _>(&mut args)
    }

    /// Leaves faults of `range` to the kernel again.
    pub(crate) fn unregister(&self, range: Range<u64>) -> Result<(), Errno> {
        self.call::<UFFDIO_UNREGISTER, _>(&mut RangeArgs::from(&range))
    }

    /// Wakes the threads that wait for a fault in `range`.
    pub(crate) fn wake(&self, range: Range<u64>) -> Result<(), Errno> {
        self.call::<UFFDIO_WAKE, _>(&mut RangeArgs::from(&range))
    }

    /// Maps a copy of the page at `source` at the empty page `to`, and wakes its waiters.
    ///
    /// `EEXIST`: a page exists there. `ENOENT`: nothing is registered there.
    ///
    /// # Safety
    /// `source` must be readable memory of a page; `to` a page of memory this manager manages.
    pub(crate) unsafe fn copy(
        &self,
        to: u64,
        source: *const u8,
        mapped: Mapped,
    ) -> Result<(), Errno> {
        let mode = if mapped == Mapped::WriteProtected { COPY_MODE_WP } else { 0 };
        let (src, len) = (source as u64, crate::host::PAGE as u64);
        loop {
            let mut args = CopyArgs { dst: to, src, len, mode, copied: 0 };
            match self.call::<UFFDIO_COPY, _>(&mut args) {
                // The address space was changing, or a fatal signal came: nothing was copied.
                Err(Errno::AGAIN | Errno::INTR) if args.copied <= 0 => {}
                // A single page is copied whole or not at all.
                Err(Errno::AGAIN) => return Ok(()),
                result => return result,
            }
        }
    }

    /// Maps copies of `pages` pages at `source` at the empty pages from `to` on, and wakes their
    /// waiters. Returns how many it mapped before the host refused one.
    ///
    /// # Safety
    /// As for [`copy`](Self::copy), for every page.
    pub(crate) unsafe fn copy_run(
        &self,
        to: u64,
        source: *const u8,
        pages: usize,
        mapped: Mapped,
    ) -> usize {
        let mode = if mapped == Mapped::WriteProtected { COPY_MODE_WP } else { 0 };
        let (src, len) = (source as u64, (pages * crate::host::PAGE) as u64);
        loop {
            let mut args = CopyArgs { dst: to, src, len, mode, copied: 0 };
            match self.call::<UFFDIO_COPY, _>(&mut args) {
                Ok(()) => return pages,
                Err(Errno::AGAIN | Errno::INTR) if args.copied <= 0 => {}
                Err(_) => return args.copied.max(0) as usize / crate::host::PAGE,
            }
        }
    }

    /// Moves `pages` pages from `from` on to the empty pages from `to` on, which become writable, and wakes their
    /// waiters. Returns how many it moved before the host refused one: a page that is shared or pinned cannot be
    /// moved, nor can one of a mapping with other rights than the target's.
    ///
    /// A store by another thread is in the page that moved, or faults at `from`.
    ///
    /// # Safety
    /// Both ranges must be memory that this manager manages, and the pages at `from` its to move.
    pub(crate) unsafe fn move_run(&self, to: u64, from: u64, pages: usize) -> usize {
        let len = (pages * crate::host::PAGE) as u64;
        loop {
            let mut args = MoveArgs { dst: to, src: from, len, mode: 0, moved: 0 };
            match self.call::<UFFDIO_MOVE, _>(&mut args) {
                Ok(()) => return pages,
                Err(Errno::INTR) if args.moved <= 0 => {}
                Err(_) => return args.moved.max(0) as usize / crate::host::PAGE,
            }
        }
    }

    /// Takes away or restores the right to store to the pages mapped in `range`; restoring it wakes
    /// the waiters.
    pub(crate) fn write_protect(&self, range: Range<u64>, mapped: Mapped) -> Result<(), Errno> {
        let mode = if mapped == Mapped::WriteProtected { WRITEPROTECT_MODE_WP } else { 0 };
        loop {
            let mut args = WriteProtectArgs { range: (&range).into(), mode };
            match self.call::<UFFDIO_WRITEPROTECT, _>(&mut args) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                result => return result,
            }
        }
    }

    /// Makes any access to the empty page at `page` fail, the kernel's own with `EFAULT`.
    pub(crate) fn poison(&self, page: u64) -> Result<(), Errno> {
        let range = page..page + crate::host::PAGE as u64;
        loop {
            let mut args = PoisonArgs { range: (&range).into(), mode: 0, updated: 0 };
            match self.call::<UFFDIO_POISON, _>(&mut args) {
                Err(Errno::AGAIN | Errno::INTR) if args.updated <= 0 => {}
                result => return result,
            }
        }
    }

    fn call<const OPCODE: Opcode, T>(&self, args: &mut T) -> Result<(), Errno> {
        if !self.process.is_this() {
            // In a forked child the descriptor would change its parent's memory.
            return Err(Errno::SRCH);
        }
        // SAFETY: each opcode above is made from the structure that the kernel expects with it, and
        // the ranges given to the methods are the caller's to change.
        unsafe { ioctl(&self.fd, Updater::<OPCODE, T>::new(args)) }
    }
}

/// `/dev/userfaultfd`, kept open: its holder needs no privilege for a descriptor that sees all
/// faults.
pub struct Device(Kept);

impl Device {
    /// Opens it, if it exists and its permissions allow.
    pub fn open() -> Option<Self> {
        open_device().ok().map(descriptor::keep).map(Self)
    }

    /// A descriptor that sees all faults.
    pub fn descriptor(&self) -> Result<Userfault, Errno> {
        descriptor::with_room(|| from_device(&self.0)).and_then(Userfault::keep)
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn open_device() -> Result<OwnedFd, Errno> {
    use rustix::fs::{Mode, OFlags};
    rustix::fs::open(c"/dev/userfaultfd", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
}

fn from_device(device: impl AsFd) -> Result<OwnedFd, Errno> {
    let flags = UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK;
    // SAFETY: the device knows this one ioctl, which takes the flags by value.
    unsafe { ioctl(device, NewDescriptor(flags.bits())) }
}

impl AsFd for Userfault {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// `USERFAULTFD_IOC_NEW`: the flags by value, a descriptor as the result.
struct NewDescriptor(u32);

// SAFETY: the device's only ioctl; it reads no memory and returns a new descriptor.
unsafe impl Ioctl for NewDescriptor {
    type Output = OwnedFd;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        opcode::none(GROUP, 0x00)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        core::ptr::without_provenance_mut(self.0 as usize)
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut c_void) -> Result<OwnedFd, Errno> {
        // SAFETY: the kernel returned a new descriptor that nobody else owns.
        Ok(unsafe { OwnedFd::from_raw_fd(out) })
    }
}
