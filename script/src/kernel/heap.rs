//! Moves the start of a process's heap into the scripts' window, by the call that restores checkpoints.

use super::child::errno;
use super::shared::Reply;

/// `struct prctl_mm_map` of the kernel's `linux/prctl.h`.
#[repr(C)]
struct Map {
    start_code: u64,
    end_code: u64,
    start_data: u64,
    end_data: u64,
    start_brk: u64,
    brk: u64,
    start_stack: u64,
    arg_start: u64,
    arg_end: u64,
    env_start: u64,
    env_end: u64,
    auxv: *const u64,
    auxv_size: u32,
    exe_fd: u32,
}

/// The lowest address that a mapping may have. The call names only this page below the heap.
const LOW: u64 = 0x1_0000;

/// Begins an empty heap. The C library notices that the break has moved, and allocates elsewhere from then
/// on.
pub(super) fn begin(address: u64) -> Reply {
    let (data, end) = (LOW, LOW + 1);
    let map = Map {
        start_code: data,
        end_code: end,
        start_data: data,
        end_data: data,
        start_brk: address,
        brk: address,
        start_stack: address,
        arg_start: data,
        arg_end: data,
        env_start: data,
        env_end: data,
        auxv: std::ptr::null(),
        auxv_size: 0,
        exe_fd: u32::MAX,
    };
    let size = size_of::<Map>();
    // SAFETY: the map lives for the call, which reads it alone.
    let done =
        unsafe { libc::prctl(libc::PR_SET_MM, libc::PR_SET_MM_MAP, &raw const map, size, 0) };
    if done == 0 { Reply::Done(0) } else { Reply::Failed(errno()) }
}
