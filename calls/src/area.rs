//! Areas of a program's memory, and how they are read.

/// The first address that no program can map with four levels of page tables.
pub const USER_END: u64 = 0x7fff_ffff_f000;

/// What the kernel does to an area.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// The kernel reads it.
    Read,
    /// The kernel writes it.
    Write,
    /// The kernel reads it and writes it, or may do either.
    ///
    /// Where it cannot be written it must still be readable: a timeout that cannot be written back,
    /// or attributes that the kernel need not answer into, are no error.
    ReadWrite,
}

impl Access {
    /// Whether the kernel may write.
    pub const fn writes(self) -> bool {
        !matches!(self, Access::Read)
    }
}

/// How much of an area the kernel touches, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A structure or an array: the call fails with `EFAULT` if any byte of it is missing, unless the
    /// call ends before the kernel looks.
    Record,
    /// Bytes of which the kernel may touch fewer, from the start on: a transfer, a buffer for an
    /// answer of unknown length.
    Data,
    /// A piece of a string, in one page.
    Text,
    /// A word that other threads change at the same time: a futex. It may be looked at again while
    /// the call waits.
    Word,
    /// The kernel keeps the address and touches it after the call has returned, without a call.
    Later,
    /// Something that looks like an address, where the call or the structure is not known.
    Guess,
}

/// Bytes of the program's memory that a call names. Never empty, never past [`USER_END`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Area {
    /// The address of the first byte.
    pub start: u64,
    /// The number of bytes.
    pub len: u64,
    /// What the kernel does to it.
    pub access: Access,
    /// How much of it the kernel touches, and when.
    pub kind: Kind,
}

impl Area {
    /// The address after the last byte.
    pub const fn end(&self) -> u64 {
        self.start + self.len
    }
}

/// Reads the memory of the program that makes the call.
pub trait Reader {
    /// Copies the bytes from `address` on into `into`. `None` if any of them cannot be read; `into`
    /// then holds anything.
    fn read(&mut self, address: u64, into: &mut [u8]) -> Option<()>;
}

impl dyn Reader + '_ {
    /// The `N` bytes at `address + offset`.
    pub(crate) fn bytes<const N: usize>(&mut self, address: u64, offset: u64) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        let start = address.checked_add(offset)?;
        if start.checked_add(N as u64)? > USER_END {
            return None;
        }
        self.read(start, &mut bytes)?;
        Some(bytes)
    }

    pub(crate) fn u16(&mut self, address: u64, offset: u64) -> Option<u64> {
        Some(u16::from_ne_bytes(self.bytes(address, offset)?).into())
    }

    pub(crate) fn u32(&mut self, address: u64, offset: u64) -> Option<u64> {
        Some(u32::from_ne_bytes(self.bytes(address, offset)?).into())
    }

    /// A signed length; negative is zero, for the kernel refuses it before it looks further.
    pub(crate) fn int(&mut self, address: u64, offset: u64) -> Option<u64> {
        Some(i32::from_ne_bytes(self.bytes(address, offset)?).max(0) as u64)
    }

    pub(crate) fn u64(&mut self, address: u64, offset: u64) -> Option<u64> {
        Some(u64::from_ne_bytes(self.bytes(address, offset)?))
    }
}
