//! The host's system calls, made from the one code range that may make them.

use core::arch::asm;
use core::sync::atomic::AtomicU32;
use linux_raw_sys::general as nr;
use pagefault_linux::apart;

/// An error number of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

macro_rules! errnos {
    ($($name:ident)*) => {
        impl Errno {
            $(#[allow(missing_docs)] pub const $name: Self = Self(linux_raw_sys::errno::$name as i32);)*
        }
    };
}

errnos! {
    EPERM ENOENT ESRCH EINTR EIO E2BIG ENOEXEC EBADF EAGAIN ENOMEM EACCES EFAULT EBUSY EEXIST EINVAL
    ENFILE EMFILE EFBIG ENOSPC EPIPE ERANGE ENOSYS EOPNOTSUPP
}

/// The value of a system call, or its error.
pub type Result<T = u64> = core::result::Result<T, Errno>;

/// The raw result of a system call as a value or an error.
pub fn result(raw: i64) -> Result {
    if (-4095..0).contains(&raw) { Err(Errno(-raw as i32)) } else { Ok(raw as u64) }
}

/// The raw result for this error.
pub fn raw(result: Result) -> i64 {
    match result {
        Ok(value) => value as i64,
        Err(Errno(number)) => -i64::from(number),
    }
}

/// Makes a system call and returns what the kernel leaves in `rax`.
///
/// # Safety
/// The call's own conditions.
#[inline]
pub unsafe fn raw_call(number: u32, args: [u64; 6]) -> i64 {
    let result: i64;
    // SAFETY: the kernel clobbers only rcx, r11 and the result; the caller vouches for the rest.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") u64::from(number) as i64 => result,
            in("rdi") args[0],
            in("rsi") args[1],
            in("rdx") args[2],
            in("r10") args[3],
            in("r8") args[4],
            in("r9") args[5],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// Makes a system call of up to six arguments.
///
/// # Safety
/// The call's own conditions.
pub unsafe fn call<const N: usize>(number: u32, args: [u64; N]) -> Result {
    let mut six = [0; 6];
    six[..N].copy_from_slice(&args);
    // SAFETY: passed on to the caller.
    result(unsafe { raw_call(number, six) })
}

/// Maps private memory, apart from the program's.
pub fn map_private(len: usize, prot: u32) -> Result<usize> {
    let flags = nr::MAP_PRIVATE | nr::MAP_ANONYMOUS | nr::MAP_NORESERVE;
    map_apart(len as u64, prot, flags, u64::MAX, 0)
}

/// Makes a mapping for the runtime, apart from the program's.
pub fn map_apart(len: u64, prot: u32, flags: u32, file: u64, offset: u64) -> Result<usize> {
    let map = |address: Option<u64>| {
        let fixed = address.map_or(0, |_| nr::MAP_FIXED_NOREPLACE);
        let flags = flags | fixed;
        let args = [address.unwrap_or(0), len, prot.into(), flags.into(), file, offset];
        // SAFETY: a new mapping replaces nothing.
        unsafe { call(nr::__NR_mmap, args) }
            .map_err(|Errno(errno)| rustix::io::Errno::from_raw_os_error(errno))
    };
    let start = apart::map(len, map).map_err(|errno| Errno(errno.raw_os_error()))?;
    Ok(start as usize)
}

/// Ends mappings.
///
/// # Safety
/// Nothing may use the range afterwards.
pub unsafe fn unmap(start: usize, len: usize) -> Result<()> {
    // SAFETY: passed on to the caller.
    unsafe { call(nr::__NR_munmap, [start as u64, len as u64]) }.map(drop)
}

/// Advises the host on a range of the runtime's own memory.
///
/// # Safety
/// Some advice destroys what is in the range.
pub unsafe fn advise(start: usize, len: usize, advice: u32) -> Result<()> {
    // SAFETY: passed on to the caller.
    unsafe { call(nr::__NR_madvise, [start as u64, len as u64, advice.into()]) }.map(drop)
}

/// Sleeps while a word of the tree's has a value, for so many nanoseconds at most; a signal ends it early.
pub fn wait_on(word: &AtomicU32, value: u32, most: u64) -> Result<()> {
    let limit = [most / 1_000_000_000, most % 1_000_000_000];
    let wait = u64::from(nr::FUTEX_WAIT);
    let at = core::ptr::from_ref(word) as u64;
    // SAFETY: the word and the time live for the call.
    unsafe { call(nr::__NR_futex, [at, wait, value.into(), (&raw const limit) as u64]) }.map(drop)
}

/// Wakes all that sleep on such a word.
pub fn wake_all(word: &AtomicU32) {
    let at = core::ptr::from_ref(word) as u64;
    // SAFETY: waking changes no memory.
    let _ = unsafe { call(nr::__NR_futex, [at, nr::FUTEX_WAKE.into(), i32::MAX as u64]) };
}

/// Sleeps for so many nanoseconds; a signal ends it early.
pub fn sleep(time: u64) {
    let time = [time / 1_000_000_000, time % 1_000_000_000];
    // SAFETY: the time lives for the call.
    let _ = unsafe { call(nr::__NR_nanosleep, [(&raw const time) as u64, 0]) };
}

/// The calling thread's ID.
pub fn thread_id() -> u32 {
    // SAFETY: the call takes nothing and changes nothing.
    unsafe { raw_call(nr::__NR_gettid, [0; 6]) as u32 }
}

/// The process ID in the process's own namespace.
pub fn process_id() -> u32 {
    // SAFETY: as above.
    unsafe { raw_call(nr::__NR_getpid, [0; 6]) as u32 }
}

/// Exchanges the calling thread's set of blocked signals; bit n − 1 is signal n.
pub fn exchange_mask(new: u64) -> u64 {
    let mut old = 0_u64;
    let args = [u64::from(nr::SIG_SETMASK), (&raw const new) as u64, (&raw mut old) as u64, 8];
    // SAFETY: both sets are 8 bytes and live for the call.
    let _ = unsafe { call(nr::__NR_rt_sigprocmask, args) };
    old
}

/// Writes to a descriptor, and ignores errors.
pub fn write_all(descriptor: u32, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let args = [descriptor.into(), bytes.as_ptr() as u64, bytes.len() as u64];
        // SAFETY: the buffer is readable for its length.
        match unsafe { call(nr::__NR_write, args) } {
            Ok(written) if written > 0 => bytes = &bytes[(written as usize).min(bytes.len())..],
            Err(Errno::EINTR) => {}
            _ => return,
        }
    }
}

/// Sends a signal to a process.
pub fn kill(process: u32, signal: u32) {
    // SAFETY: signals change no memory of ours.
    let _ = unsafe { call(nr::__NR_kill, [process.into(), signal.into()]) };
}

/// Ends the process at once.
pub fn exit_group(status: i32) -> ! {
    loop {
        // SAFETY: the call does not return.
        unsafe { raw_call(nr::__NR_exit_group, [status as u64, 0, 0, 0, 0, 0]) };
    }
}
