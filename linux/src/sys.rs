//! System calls that no crate makes for us without libc.

use core::arch::asm;
use core::ops::Range;
use rustix::fd::{AsRawFd, BorrowedFd};
use rustix::io::Errno;

const READV: usize = 19;
const MREMAP: usize = 25;
const MINCORE: usize = 27;
const CLOCK_GETTIME: usize = 228;
const VMSPLICE: usize = 278;
const PROCESS_MADVISE: usize = 440;

const CLOCK_MONOTONIC: usize = 1;
const MADV_DONTNEED: usize = 4;
/// `SPLICE_F_NONBLOCK`
const NO_WAIT: usize = 2;
/// `MREMAP_MAYMOVE` and `MREMAP_DONTUNMAP`.
const MOVE_CONTENT: usize = 1 | 4;

/// A buffer's address and length (`struct iovec`).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Vector {
    base: u64,
    len: u64,
}

impl Vector {
    /// No bytes.
    pub const EMPTY: Self = Self { base: 0, len: 0 };
}

impl From<&Range<u64>> for Vector {
    fn from(range: &Range<u64>) -> Self {
        Self { base: range.start, len: range.end - range.start }
    }
}

/// The monotonic clock in nanoseconds.
///
/// This is a real call, not the vDSO's function. If the host's clock source needs a system call,
/// the vDSO makes it from its own code, which is not allowed under syscall user dispatch.
pub fn monotonic_clock() -> u64 {
    let mut time = [0_u64; 2];
    // SAFETY: the call fills the two words; with this clock it cannot fail.
    let _ =
        unsafe { syscall(CLOCK_GETTIME, [CLOCK_MONOTONIC, time.as_mut_ptr() as usize, 0, 0, 0]) };
    time[0] * 1_000_000_000 + time[1]
}

/// Drops the pages of `ranges` in the process that `process` names; returns how many bytes, counted
/// from the first range on.
///
/// # Safety
/// The ranges are memory of that process whose content is given up.
pub unsafe fn drop_ranges(process: BorrowedFd<'_>, ranges: &[Vector]) -> Result<usize, Errno> {
    let process = process.as_raw_fd() as usize;
    let ranges = [ranges.as_ptr() as usize, ranges.len()];
    // SAFETY: the vectors live through the call; the caller vouches for the ranges.
    unsafe { syscall(PROCESS_MADVISE, [process, ranges[0], ranges[1], MADV_DONTNEED, 0]) }
}

/// Puts references to the pages of `ranges` into a pipe, as far as it has room; returns how many bytes,
/// counted from the first range on.
///
/// The bytes behind the references are read when the pipe is, so no Rust reference to them may exist here.
pub fn reference(pipe: BorrowedFd<'_>, ranges: &[Vector]) -> Result<usize, Errno> {
    let pipe = pipe.as_raw_fd() as usize;
    let ranges = [ranges.as_ptr() as usize, ranges.len()];
    // SAFETY: the vectors live through the call, which changes no memory.
    unsafe { syscall(VMSPLICE, [pipe, ranges[0], ranges[1], NO_WAIT, 0]) }
}

/// Reads from a descriptor into buffers.
///
/// # Safety
/// The buffers are the caller's to fill.
pub unsafe fn read(from: BorrowedFd<'_>, buffers: &[Vector]) -> Result<usize, Errno> {
    let from = from.as_raw_fd() as usize;
    let buffers = [buffers.as_ptr() as usize, buffers.len()];
    // SAFETY: the vectors live through the call; the caller vouches for the buffers.
    unsafe { syscall(READV, [from, buffers[0], buffers[1], 0, 0]) }
}

/// Tells for each page of a range whether it is resident, in the lowest bit of its byte.
pub fn resident(range: &Range<u64>, pages: &mut [u8]) -> Result<(), Errno> {
    debug_assert!(pages.len() as u64 >= (range.end - range.start).div_ceil(4096));
    let (start, len) = (range.start as usize, (range.end - range.start) as usize);
    // SAFETY: the call fills a byte for each page of the range, for which there is room.
    unsafe { syscall(MINCORE, [start, len, pages.as_mut_ptr() as usize, 0, 0]) }.map(drop)
}

/// Moves the content of a range elsewhere, where the host chooses, and leaves the mapping empty.
///
/// The fifth argument is a hint that the host checks, which rustix does not pass.
///
/// # Safety
/// The range is within one private anonymous mapping whose content may go.
pub unsafe fn move_content(range: &Range<u64>) -> Result<u64, Errno> {
    let (start, len) = (range.start as usize, (range.end - range.start) as usize);
    // SAFETY: the caller gives the content; the host puts it where nothing is.
    unsafe { syscall(MREMAP, [start, len, len, MOVE_CONTENT, 0]) }.map(|start| start as u64)
}

/// Makes a system call.
///
/// # Safety
/// As the call demands.
unsafe fn syscall(number: usize, args: [usize; 5]) -> Result<usize, Errno> {
    let result: isize;
    // SAFETY: the caller vouches for the call; the kernel changes rax, rcx and r11 alone, and what
    // the arguments point to.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") args[0],
            in("rsi") args[1],
            in("rdx") args[2],
            in("r10") args[3],
            in("r8") args[4],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    if result < 0 { Err(Errno::from_raw_os_error(-result as i32)) } else { Ok(result as usize) }
}
