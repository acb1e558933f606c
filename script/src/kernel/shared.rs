//! The memory that the runner and its processes share: a slot for each process, with an order and
//! its reply.

use std::cell::UnsafeCell;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// How many processes can live at once.
pub(super) const SLOTS: usize = crate::parse::MOST_PROCESSES;

/// Bytes that an order or a reply can carry; no string of a script is longer.
pub(super) const CARRIED: usize = crate::words::LONGEST_STRING;

/// A process's scratch memory, for data of no interest: a part of `mincore`'s vector, the content of a
/// pipe, the signal stack. It is small, because `mlockall` fills it in every process.
const SCRATCH: usize = CARRIED + SIGNAL_STACK;

/// The signal stack at the end of the scratch memory.
pub(super) const SIGNAL_STACK: usize = 64 << 10;

/// An order to a process. Addresses are the process's own.
#[derive(Clone, Copy)]
pub(super) enum Order {
    System {
        number: libc::c_long,
        arguments: [u64; 6],
    },
    Mincore {
        address: u64,
        length: u64,
    },
    /// Of the slot's bytes.
    Store {
        address: u64,
        length: usize,
    },
    Fill {
        address: u64,
        length: u64,
        byte: u8,
    },
    Load {
        address: u64,
        length: u64,
    },
    /// An address where a `ret` is or can be stored.
    Execute {
        address: u64,
    },
    /// An address where a `ret` is, or where execution is not permitted.
    Fetch {
        address: u64,
    },
    /// Of the slot's bytes.
    ToUser {
        address: u64,
        length: usize,
    },
    FromUser {
        address: u64,
        length: u64,
    },
    /// Begins an empty heap at an address.
    BeginHeap {
        address: u64,
    },
    /// Moves the end of the heap.
    Brk {
        address: u64,
    },
    /// Of the slot's bytes, as a debugger.
    Poke {
        address: u64,
        length: usize,
    },
    Peek {
        address: u64,
        length: u64,
    },
    /// The child serves this slot.
    Fork {
        slot: usize,
    },
    Exit,
}

/// The reply to an order.
#[derive(Clone, Copy)]
pub(super) enum Reply {
    /// A system call's result.
    Done(i64),
    /// Its errno.
    Failed(i32),
    /// Bytes moved by `ToUser`.
    Count(u64),
    /// Bytes loaded; their head is in the slot.
    Bytes { length: u64, crc: u32 },
    /// `Execute` found another instruction on a read-only page.
    ForeignCode,
    /// A signal.
    Fault { signal: i32, code: i32, address: u64 },
}

/// The side that owns a slot.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Hands {
    /// The runner: there is a reply, or nothing yet.
    Runner = 0,
    /// The process: there is an order.
    Child = 1,
}

/// One process's mailbox. Only the side whose turn it is touches the cells.
#[repr(C, align(4096))]
pub(super) struct Slot {
    turn: AtomicU32,
    order: UnsafeCell<Order>,
    reply: UnsafeCell<Reply>,
    bytes: UnsafeCell<[u8; CARRIED]>,
}

impl Slot {
    /// Makes the slot new for a process that is about to start.
    pub(super) fn clear(&self) {
        self.turn.store(Hands::Runner as u32, Ordering::Release);
    }

    /// Gives the process an order.
    pub(super) fn hand(&self, to: Hands, order: Order) {
        // SAFETY: it is the runner's turn, so the process does not look at the cell.
        unsafe { *self.order.get() = order };
        self.pass(to);
    }

    /// Waits a while for the reply.
    pub(super) fn reply(&self) -> Option<Reply> {
        self.wait(Hands::Runner, Some(20_000_000))
            // SAFETY: the turn came back, so the process has written the cell and is done with it.
            .then(|| unsafe { *self.reply.get() })
    }

    /// Waits for an order; the process's side.
    pub(super) fn order(&self) -> Order {
        while !self.wait(Hands::Child, None) {}
        // SAFETY: it is the process's turn, so the runner has written the cell and is done with it.
        unsafe { *self.order.get() }
    }

    /// Answers an order; the process's side.
    pub(super) fn answer(&self, reply: Reply) {
        // SAFETY: it is the process's turn until `pass`.
        unsafe { *self.reply.get() = reply };
        self.pass(Hands::Runner);
    }

    /// Stores the bytes of the next order, at most [`CARRIED`].
    pub(super) fn put(&self, bytes: &[u8]) {
        let length = bytes.len().min(CARRIED);
        // SAFETY: it is the runner's turn, and the cell has room for `length` bytes.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.bytes(), length) };
    }

    /// The first `length` bytes of the last reply.
    pub(super) fn get(&self, length: usize) -> Vec<u8> {
        let length = length.min(CARRIED);
        // SAFETY: it is the runner's turn, so nobody writes the bytes while they are copied.
        unsafe { std::slice::from_raw_parts(self.bytes(), length) }.to_vec()
    }

    /// The address of the bytes.
    pub(super) fn bytes(&self) -> *mut u8 {
        self.bytes.get().cast()
    }

    fn pass(&self, to: Hands) {
        self.turn.store(to as u32, Ordering::Release);
        // SAFETY: the word is in memory that outlives the call.
        unsafe { libc::syscall(libc::SYS_futex, &raw const self.turn, libc::FUTEX_WAKE, 1) };
    }

    /// Waits for the turn of `whose`. Returns whether it came; without a limit in nanoseconds it
    /// may also return early.
    fn wait(&self, whose: Hands, limit: Option<i64>) -> bool {
        let there = || self.turn.load(Ordering::Acquire) == whose as u32;
        for _ in 0..200 {
            if there() {
                return true;
            }
            std::hint::spin_loop();
        }
        let other = 1 - whose as u32;
        let limit = limit.map(|nanoseconds| libc::timespec { tv_sec: 0, tv_nsec: nanoseconds });
        let limit: *const libc::timespec = limit.as_ref().map_or(std::ptr::null(), |limit| limit);
        let word = &raw const self.turn;
        // SAFETY: the word and the limit outlive the call. It returns at once if it is our turn.
        unsafe { libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAIT, other, limit) };
        there()
    }
}

/// Every slot, the scratch memory, and the pipe of `to_user` and `from_user`.
pub(super) struct Shared {
    slots: NonNull<Slot>,
    scratch: NonNull<u8>,
    pipe: [libc::c_int; 2],
}

impl Shared {
    /// Maps all of it. The kernel never chooses an address in the scripts' window.
    pub(super) fn new() -> io::Result<Self> {
        let slots = map(SLOTS * size_of::<Slot>(), libc::MAP_SHARED)?.cast::<Slot>();
        let scratch = match map(SCRATCH, libc::MAP_PRIVATE) {
            Ok(scratch) => scratch,
            Err(error) => {
                unmap(slots.cast(), SLOTS * size_of::<Slot>());
                return Err(error);
            }
        };
        let mut shared = Self { slots, scratch, pipe: [-1; 2] };
        let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
        // SAFETY: the array has room for the two descriptors.
        if unsafe { libc::pipe2(shared.pipe.as_mut_ptr(), flags) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let room = CARRIED as libc::c_int;
        // SAFETY: fcntl on our own descriptor with an integer argument.
        let size = unsafe { libc::fcntl(shared.pipe[1], libc::F_SETPIPE_SZ, room) };
        if size < room {
            return Err(io::Error::last_os_error());
        }
        Ok(shared)
    }

    /// The slot `index`, which is below [`SLOTS`].
    pub(super) fn slot(&self, index: usize) -> &Slot {
        assert!(index < SLOTS, "slots are chosen among {SLOTS}");
        // SAFETY: the mapping holds SLOTS slots and lives as long as self; zeros are a valid turn,
        // and the other cells are written before they are read.
        unsafe { self.slots.add(index).as_ref() }
    }

    /// The process's scratch memory, [`CARRIED`] bytes.
    pub(super) fn scratch(&self) -> *mut u8 {
        self.scratch.as_ptr()
    }

    /// The lowest byte of the signal stack, of [`SIGNAL_STACK`] bytes.
    pub(super) fn signal_stack(&self) -> *mut u8 {
        self.scratch.as_ptr().wrapping_add(SCRATCH - SIGNAL_STACK)
    }

    /// The pipe's ends: to read from, to write to.
    pub(super) fn pipe(&self) -> [libc::c_int; 2] {
        self.pipe
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        for fd in self.pipe.into_iter().filter(|fd| *fd >= 0) {
            // SAFETY: the descriptor is ours and is not used after.
            unsafe { libc::close(fd) };
        }
        unmap(self.slots.cast(), SLOTS * size_of::<Slot>());
        unmap(self.scratch, SCRATCH);
    }
}

/// Fresh memory that costs nothing until it is touched.
fn map(length: usize, sharing: libc::c_int) -> io::Result<NonNull<u8>> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = sharing | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping where the kernel likes touches nothing that exists.
    let memory = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, -1, 0) };
    if memory == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(memory.cast()).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))
}

fn unmap(memory: NonNull<u8>, length: usize) {
    // SAFETY: the range is a mapping of `map` that nobody refers to any more.
    unsafe { libc::munmap(memory.as_ptr().cast(), length) };
}
