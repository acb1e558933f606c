//! The stack of its own that a thread's handlers may have (`sigaltstack`).

use crate::errno::Errno;
use crate::{process, user};
use linux_raw_sys::general as nr;

/// The smallest that there may be.
const LEAST: u64 = nr::MINSIGSTKSZ as u64;

/// `stack_t`, as a program reads and writes it.
const WORDS: usize = 3;

/// A stack for handlers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AltStack {
    /// The lowest address.
    pub address: u64,
    /// The size; 0 for no stack.
    pub bytes: u64,
    /// Whether it is off while a handler runs on it (`SS_AUTODISARM`), as a flag.
    disarms: u32,
}

impl AltStack {
    /// Whether a stack pointer is on it. While it is off, none is.
    pub const fn holds(&self, pointer: u64) -> bool {
        self.disarms == 0 && pointer > self.address && pointer - self.address <= self.bytes
    }

    /// The program's view of it at this stack pointer.
    pub const fn words(&self, pointer: u64) -> [u64; WORDS] {
        let state = if self.bytes == 0 {
            nr::SS_DISABLE
        } else if self.holds(pointer) {
            nr::SS_ONSTACK
        } else {
            0
        };
        [self.address, (state | self.disarms) as u64, self.bytes]
    }

    /// What a program asks for, with a stack pointer on the present one or not.
    fn change(self, [address, flags, bytes]: [u64; WORDS], pointer: u64) -> Result<Self, Errno> {
        if self.holds(pointer) {
            return Err(Errno::EPERM);
        }
        let flags = flags as u32;
        let disarms = flags & nr::SS_AUTODISARM;
        match flags & !nr::SS_AUTODISARM {
            nr::SS_DISABLE => Ok(Self { disarms, ..Self::default() }),
            0 | nr::SS_ONSTACK if bytes < LEAST => Err(Errno::ENOMEM),
            0 | nr::SS_ONSTACK => Ok(Self { address, bytes, disarms }),
            _ => Err(Errno::EINVAL),
        }
    }

    /// What is left of it when a handler has been entered on it.
    pub fn entered(self) -> Self {
        if self.disarms == 0 { self } else { Self::default() }
    }
}

/// Answers the call; `pointer` is the program's stack pointer.
pub fn set(pointer: u64, new: u64, old: u64) -> Result<u64, Errno> {
    let stack = &process::thread().alternate_stack;
    let wanted = if new == 0 { None } else { Some(read(new)?) };
    let before = *stack.lock();
    if let Some(wanted) = wanted {
        *stack.lock() = before.change(wanted, pointer)?;
    }
    if old != 0 {
        for (i, word) in (0..).zip(before.words(pointer)) {
            user::write(old.wrapping_add(8 * i), &word.to_le_bytes())?;
        }
    }
    Ok(0)
}

/// Takes up again what a handler's frame says, where that is possible.
pub fn restore(pointer: u64, words: [u64; WORDS]) {
    let mut stack = process::thread().alternate_stack.lock();
    if let Ok(restored) = stack.change(words, pointer) {
        *stack = restored;
    }
}

fn read(at: u64) -> Result<[u64; WORDS], Errno> {
    let word = |i: u64| user::read_u64(at.wrapping_add(8 * i));
    // The flags are a word of 32 bits, with nothing after it that counts.
    Ok([word(0)?, word(1)? & 0xffff_ffff, word(2)?])
}
