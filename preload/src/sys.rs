//! System calls, past libc: its functions of these names are ours.

use core::ffi::c_int;
use syscalls::{Sysno, syscall};

/// An error number of the host.
pub type Errno = syscalls::Errno;

/// Arguments of `mmap`, as the program gave them.
#[derive(Clone, Copy, Debug)]
pub struct Mmap {
    /// The address asked for.
    pub address: usize,
    /// The length in bytes.
    pub len: usize,
    /// `PROT_` bits.
    pub prot: c_int,
    /// `MAP_` bits.
    pub flags: c_int,
    /// The file, or −1.
    pub fd: c_int,
    /// The offset in the file.
    pub offset: i64,
}

impl Mmap {
    /// Private memory to read and write, at an address of the host's choice, that takes none before
    /// it is used.
    pub const fn private(len: usize) -> Self {
        Self {
            address: 0,
            len,
            prot: libc::PROT_READ | libc::PROT_WRITE,
            flags: libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            fd: -1,
            offset: 0,
        }
    }

    /// The same with flags more.
    pub const fn with(self, flags: c_int) -> Self {
        Self { flags: self.flags | flags, ..self }
    }
}

/// `mmap(2)`.
///
/// # Safety
/// With `MAP_FIXED`, nobody may rely on what is mapped at the address.
pub unsafe fn mmap(m: &Mmap) -> Result<usize, Errno> {
    // SAFETY: passed on to the caller.
    unsafe { syscall!(Sysno::mmap, m.address, m.len, m.prot, m.flags, m.fd, m.offset) }
}

/// `munmap(2)`.
///
/// # Safety
/// Nobody may use the range afterwards.
pub unsafe fn munmap(address: usize, len: usize) -> Result<(), Errno> {
    // SAFETY: passed on to the caller.
    unsafe { syscall!(Sysno::munmap, address, len) }.map(drop)
}

/// `mprotect(2)`.
///
/// # Safety
/// Nobody may rely on an access that `prot` forbids.
pub unsafe fn mprotect(address: usize, len: usize, prot: c_int) -> Result<(), Errno> {
    // SAFETY: passed on to the caller.
    unsafe { syscall!(Sysno::mprotect, address, len, prot) }.map(drop)
}

/// `madvise(2)`.
///
/// # Safety
/// Some advice destroys what is in the range.
pub unsafe fn madvise(address: usize, len: usize, advice: c_int) -> Result<(), Errno> {
    // SAFETY: passed on to the caller.
    unsafe { syscall!(Sysno::madvise, address, len, advice) }.map(drop)
}

/// `mremap(2)`.
///
/// # Safety
/// Nobody may use the old range afterwards, nor rely on what is mapped at a fixed new one.
pub unsafe fn mremap(
    old: usize,
    old_len: usize,
    new_len: usize,
    flags: c_int,
    new: usize,
) -> Result<usize, Errno> {
    // SAFETY: passed on to the caller.
    unsafe { syscall!(Sysno::mremap, old, old_len, new_len, flags, new) }
}

/// A call with up to six arguments that has no wrapper here.
///
/// # Safety
/// That of the call.
pub unsafe fn call(number: Sysno, args: [usize; 6]) -> Result<usize, Errno> {
    let [a, b, c, d, e, f] = args;
    // SAFETY: passed on to the caller.
    unsafe { syscall!(number, a, b, c, d, e, f) }
}

/// Exchanges the calling thread's set of blocked signals; bit n − 1 is signal n.
///
/// libc's own function would leave its internal signals open, whose handlers are libc's and wait
/// for nothing of ours, but run on the interrupted thread; ours must not be interrupted at all.
pub fn exchange_signal_mask(new: u64) -> u64 {
    let mut old = 0_u64;
    // SAFETY: both sets are 8 bytes, which is the size given, and live for the call.
    let _ = unsafe {
        let (new, old) = (&raw const new, &raw mut old);
        syscall!(Sysno::rt_sigprocmask, libc::SIG_SETMASK, new, old, size_of::<u64>())
    };
    old
}

/// Writes a message to standard error, as far as it goes.
pub fn complain(message: &str) {
    let mut rest = message.as_bytes();
    while !rest.is_empty() {
        // SAFETY: the buffer is readable for its length.
        match unsafe { syscall!(Sysno::write, libc::STDERR_FILENO, rest.as_ptr(), rest.len()) } {
            Ok(written) if written > 0 => rest = &rest[written.min(rest.len())..],
            Err(Errno::EINTR) => {}
            _ => return,
        }
    }
}

/// Ends the process at once, without running anything of the program's.
pub fn exit(status: c_int) -> ! {
    loop {
        // SAFETY: the call does not return.
        let _ = unsafe { syscall!(Sysno::exit_group, status) };
    }
}
