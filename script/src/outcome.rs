//! The answers of operations, and their text.

mod errno;

use crate::ast::{Protection, Sharing};
pub use errno::Errno;
use std::fmt::{self, Display, Formatter, Write};

/// The answer to one operation. Addresses are numbers; [`Outcome::display`] prints them relative
/// to the name that the script used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It succeeded without a result.
    Ok,
    /// The call failed.
    Errno(Errno),
    /// Bytes that were loaded.
    Bytes(Bytes),
    /// The bytes that `to_user` stored.
    Stored(u64),
    /// The bytes that `from_user` loaded.
    Loaded(Bytes),
    /// The end of the heap.
    Break(u64),
    /// The access raised a signal; the process continues.
    Fault {
        /// Which.
        fault: Fault,
        /// The faulting byte.
        address: u64,
    },
    /// The mappings in a range, ascending.
    Maps(Vec<Mapping>),
    /// A broken invariant: its name and the violation.
    Broken(String),
    /// The kernel made an access from which it cannot recover, and the process is gone (spec A21).
    Oops {
        /// The kernel's message.
        oops: Oops,
        /// The faulting byte.
        address: u64,
    },
    /// Memory ran out, and the process was killed (spec A22); it is gone.
    Killed,
    /// The operation would leave the window in which scripts live; nothing was done.
    Outside,
}

impl Outcome {
    /// `Ok`, or the error of a call.
    pub fn of<T>(result: Result<T, Errno>) -> Self {
        match result {
            Ok(_) => Self::Ok,
            Err(errno) => Self::Errno(errno),
        }
    }

    /// The outcome as a script's line prints it, addresses relative to `origin`.
    pub fn display<'a>(&'a self, origin: Origin<'a>) -> impl Display + 'a {
        Printed { outcome: self, origin }
    }
}

/// The name that a line used, and the address it was bound to.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// The name.
    pub name: &'a str,
    /// Its address.
    pub address: u64,
}

/// Why an access failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `SIGSEGV MAPERR`: nothing is mapped there.
    Unmapped,
    /// `SIGSEGV ACCERR`: the mapping does not permit it.
    Refused,
    /// `SIGBUS ADRERR`: the address is past the end of the mapped object, or the object cannot be
    /// read.
    Beyond,
    /// Another signal, by its number and `si_code`; only a broken host sends one.
    Other {
        /// The signal's number.
        signal: i32,
        /// The signal's `si_code`.
        code: i32,
    },
}

impl Display for Fault {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unmapped => f.write_str("SIGSEGV MAPERR"),
            Self::Refused => f.write_str("SIGSEGV ACCERR"),
            Self::Beyond => f.write_str("SIGBUS ADRERR"),
            Self::Other { signal, code } => write!(f, "SIG{signal} {code}"),
        }
    }
}

/// The kernel's message about its own failed access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oops {
    /// It was in the first page.
    NullPointer,
    /// It was elsewhere.
    PagingRequest,
    /// There was no memory for the page.
    OutOfMemory,
}

impl Display for Oops {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NullPointer => "NULL pointer",
            Self::PagingRequest => "paging request",
            Self::OutOfMemory => "out of memory",
        })
    }
}

/// A mapping, as in /proc/PID/maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The first byte.
    pub start: u64,
    /// The byte after the last one.
    pub end: u64,
    /// Its protection.
    pub protection: Protection,
    /// `p` or `s`.
    pub sharing: Sharing,
}

/// Bytes as a line prints them: up to 32 in full, more as their number and CRC-32.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bytes {
    length: u64,
    crc: u32,
    head: Vec<u8>,
}

impl Bytes {
    /// The most bytes that are printed in full.
    pub const SHOWN: usize = 32;

    /// Bytes in full.
    pub fn new(bytes: &[u8]) -> Self {
        Self::summed(
            bytes.len() as u64,
            crc32fast::hash(bytes),
            &bytes[..bytes.len().min(Self::SHOWN)],
        )
    }

    /// Bytes known by their number, their CRC-32, and the first [`SHOWN`](Self::SHOWN) of them.
    pub fn summed(length: u64, crc: u32, head: &[u8]) -> Self {
        Self { length, crc, head: head.to_vec() }
    }
}

impl Display for Bytes {
    /// Hex digits; `LENGTH:CRC` for more than 32 bytes, and for none, which would otherwise print
    /// as nothing.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.length == 0 || self.length > Self::SHOWN as u64 {
            return write!(f, "{}:{:08x}", self.length, self.crc);
        }
        self.head.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

struct Printed<'a> {
    outcome: &'a Outcome,
    origin: Origin<'a>,
}

impl Display for Printed<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Origin { name, address: base } = self.origin;
        match self.outcome {
            Outcome::Ok => f.write_str("ok"),
            Outcome::Errno(errno) => errno.fmt(f),
            Outcome::Bytes(bytes) => bytes.fmt(f),
            Outcome::Stored(count) => count.fmt(f),
            Outcome::Break(address) => write!(f, "{name}+{:#x}", address.wrapping_sub(base)),
            Outcome::Loaded(bytes) => write!(f, "{} {bytes}", bytes.length),
            Outcome::Fault { fault, address } => {
                write!(f, "{fault} {name}+{:#x}", address.wrapping_sub(base))
            }
            Outcome::Oops { oops, address } => {
                write!(f, "oops: {oops} at {name}+{:#x}", address.wrapping_sub(base))
            }
            Outcome::Maps(mappings) if mappings.is_empty() => f.write_str("none"),
            Outcome::Maps(mappings) => {
                for (index, mapping) in mappings.iter().enumerate() {
                    f.write_str(if index == 0 { "" } else { "; " })?;
                    mapping.print(f, base)?;
                }
                Ok(())
            }
            Outcome::Broken(what) => f.write_str(what),
            Outcome::Killed => f.write_str("SIGKILL"),
            Outcome::Outside => f.write_str("outside"),
        }
    }
}

impl Mapping {
    /// `+START +END PROT p|s`, addresses relative to `base`.
    fn print(&self, f: &mut Formatter<'_>, base: u64) -> fmt::Result {
        let (start, end) = (self.start.wrapping_sub(base), self.end.wrapping_sub(base));
        write!(f, "+{start:#x} +{end:#x} ")?;
        for (bit, letter) in crate::print::PROTECTION_LETTERS {
            f.write_str(if self.protection.contains(bit) { letter } else { "-" })?;
        }
        f.write_char(' ')?;
        f.write_char(match self.sharing {
            Sharing::Private => 'p',
            Sharing::Shared => 's',
        })
    }
}

#[cfg(test)]
mod tests;
