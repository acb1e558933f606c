//! The bare floor: each fault answered by the cheapest ioctl there is, and nothing else.
//!
//! A page that is touched is filled with the same bytes by `UFFDIO_COPY` in the `SIGBUS` handler; once
//! as many are resident as are allowed, 64 go at once, oldest first, by one `madvise` each run of
//! neighbours. Nothing is saved, looked up or counted: no manager in user space can be faster with these
//! primitives.

use super::worker::PAGE;
use rustix::mm::{Advice, MapFlags, ProtFlags};
use std::io;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::atomic::{
    AtomicBool, AtomicI32, AtomicPtr, AtomicU32, AtomicUsize, Ordering::Relaxed,
};

/// Memory that forgets.
pub struct Floor {
    start: *mut u8,
    bytes: usize,
}

/// The pages that leave together.
const BATCH: usize = 64;

/// The handler's state. A process has one floor.
static LOCK: AtomicBool = AtomicBool::new(false);
static START: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);
static DESCRIPTOR: AtomicI32 = AtomicI32::new(-1);
/// The numbers of the resident pages, oldest first from `HEAD`, around a ring.
static RING: AtomicPtr<AtomicU32> = AtomicPtr::new(std::ptr::null_mut());
static CAPACITY: AtomicUsize = AtomicUsize::new(0);
static HEAD: AtomicUsize = AtomicUsize::new(0);
static LENGTH: AtomicUsize = AtomicUsize::new(0);

#[repr(align(4096))]
struct Source([u8; PAGE]);
static SOURCE: Source = Source([1; PAGE]);

#[repr(C)]
#[derive(Default)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
#[derive(Default)]
struct Register {
    start: u64,
    bytes: u64,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct Copy {
    to: u64,
    from: u64,
    bytes: u64,
    mode: u64,
    copied: i64,
}

const UFFDIO_API: u64 = 0xC018_AA3F;
const UFFDIO_REGISTER: u64 = 0xC020_AA00;
const UFFDIO_COPY: u64 = 0xC028_AA03;
const FEATURE_SIGBUS: u64 = 1 << 7;
const MODE_MISSING: u64 = 1;
const USER_MODE_ONLY: libc::c_int = 1;

impl Floor {
    pub fn new(bytes: usize, resident: usize) -> io::Result<Self> {
        if CAPACITY.swap((resident / PAGE).max(BATCH), Relaxed) != 0 {
            return Err(io::Error::other("there is one floor in a process"));
        }
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses the place, so that nothing else is there.
        let start = unsafe {
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), bytes, access, MapFlags::PRIVATE)?
        };
        let floor = Self { start: start.cast(), bytes };
        let ring: Vec<AtomicU32> = (0..CAPACITY.load(Relaxed)).map(|_| AtomicU32::new(0)).collect();
        RING.store(Box::leak(ring.into_boxed_slice()).as_mut_ptr(), Relaxed);
        START.store(floor.start as usize, Relaxed);
        BYTES.store(bytes, Relaxed);
        floor.register()?;
        floor.handle()?;
        Ok(floor)
    }

    fn register(&self) -> io::Result<()> {
        // SAFETY: a system call without addresses.
        let opened =
            unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | USER_MODE_ONLY) };
        let descriptor = i32::try_from(check(opened)?).map_err(io::Error::other)?;
        let mut api = Api { api: 0xAA, features: FEATURE_SIGBUS, ioctls: 0 };
        // SAFETY: the structure is what this ioctl reads and writes.
        check(unsafe { libc::ioctl(descriptor, UFFDIO_API, &raw mut api) }.into())?;
        let (start, bytes) = (self.start as u64, self.bytes as u64);
        let mut register = Register { start, bytes, mode: MODE_MISSING, ioctls: 0 };
        // SAFETY: the structure is what this ioctl reads and writes; the range is ours.
        check(unsafe { libc::ioctl(descriptor, UFFDIO_REGISTER, &raw mut register) }.into())?;
        DESCRIPTOR.store(descriptor, Relaxed);
        Ok(())
    }

    fn handle(&self) -> io::Result<()> {
        // SAFETY: all zeros are a valid sigaction.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = on_fault as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
        // SAFETY: the handler makes system calls only and touches no memory that can be absent.
        let done =
            unsafe { libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()) };
        check(done.into()).map(drop)
    }

    pub fn words(&mut self) -> &mut [u64] {
        // SAFETY: mapped as long as `self` lives, which is borrowed exclusively; pages are aligned
        // for words, and any bytes are words.
        unsafe { std::slice::from_raw_parts_mut(self.start.cast(), self.bytes / 8) }
    }
}

/// A result of the kernel, or its error.
fn check(result: i64) -> io::Result<i64> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

extern "C" fn on_fault(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel gives a valid siginfo, and SIGBUS has an address.
    let address = unsafe { (*info).si_addr() } as usize;
    let offset = address.wrapping_sub(START.load(Relaxed));
    if offset >= BYTES.load(Relaxed) {
        // SAFETY: ends the process; a fault elsewhere is none of ours.
        unsafe { libc::abort() }
    }
    while LOCK.compare_exchange_weak(false, true, Acquire, Relaxed).is_err() {
        std::hint::spin_loop();
    }
    bring_in(offset / PAGE);
    LOCK.store(false, Release);
}

/// Fills a page; evicts a batch first if there is no room.
fn bring_in(page: usize) {
    let (capacity, start) = (CAPACITY.load(Relaxed), START.load(Relaxed));
    // SAFETY: `new` leaked a ring of so many numbers; all are atomic.
    let ring = unsafe { std::slice::from_raw_parts(RING.load(Relaxed), capacity) };
    if LENGTH.load(Relaxed) == capacity {
        take_out(ring, start);
    }
    let mut copy = Copy {
        to: (start + page * PAGE) as u64,
        from: SOURCE.0.as_ptr() as u64,
        bytes: PAGE as u64,
        mode: 0,
        copied: 0,
    };
    // SAFETY: the page is absent, so that nobody sees other bytes there change. Another thread may have filled it
    // meanwhile, which the ioctl tells as an error that changes nothing.
    if unsafe { libc::ioctl(DESCRIPTOR.load(Relaxed), UFFDIO_COPY, &raw mut copy) } == 0 {
        let length = LENGTH.fetch_add(1, Relaxed);
        ring[(HEAD.load(Relaxed) + length) % capacity].store(page as u32, Relaxed);
    }
}

/// Drops the oldest pages, runs of neighbours together.
fn take_out(ring: &[AtomicU32], start: usize) {
    let head = HEAD.load(Relaxed);
    let mut batch = [0_usize; BATCH];
    for (at, page) in batch.iter_mut().enumerate() {
        *page = ring[(head + at) % ring.len()].load(Relaxed) as usize;
    }
    batch.sort_unstable();
    for run in batch.chunk_by(|one, next| one + 1 == *next) {
        let at = (start + run[0] * PAGE) as *mut libc::c_void;
        // SAFETY: the floor keeps no data, and says so.
        let _ = unsafe { rustix::mm::madvise(at, run.len() * PAGE, Advice::LinuxDontNeed) };
    }
    HEAD.store((head + BATCH) % ring.len(), Relaxed);
    LENGTH.fetch_sub(BATCH, Relaxed);
}
