//! Reading and writing with several buffers.

use super::super::{Arguments, Result};
use super::{amount, position};
use crate::errno::Errno;
use crate::fs::file;
use crate::user;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use linux_raw_sys::general as nr;

/// The most buffers of one call.
pub const MOST: u64 = 1024;

/// A buffer of a program's: where it is, and how long.
#[derive(Clone, Copy, Debug)]
pub struct Buffer {
    /// The address.
    pub at: u64,
    /// The length in bytes.
    pub bytes: u64,
}

/// Reads a list of buffers, all of which must have a length that there can be.
pub fn buffers(list: u64, count: u64) -> core::result::Result<Vec<Buffer>, Errno> {
    if count > MOST {
        return Err(Errno::EINVAL);
    }
    let mut buffers = Vec::with_capacity(count as usize);
    for i in 0..count {
        let at = user::read_u64(list.wrapping_add(i * 16))?;
        let bytes = user::read_u64(list.wrapping_add(i * 16 + 8))?;
        if i64::try_from(bytes).is_err() {
            return Err(Errno::EINVAL);
        }
        buffers.push(Buffer { at, bytes });
    }
    Ok(buffers)
}

/// Moves bytes to or from one buffer after the other, up to one that is not moved whole.
fn each(list: u64, count: u64, move_one: impl Fn(Buffer, u64) -> Result) -> Result {
    let buffers = buffers(list, count)?;
    // Before anything is moved.
    let is_address = |buffer: &Buffer| user::access_ok(buffer.at, buffer.bytes as usize);
    if !buffers.iter().all(is_address) {
        return Err(Errno::EFAULT);
    }
    let mut sum = 0;
    for buffer in buffers.into_iter().filter(|buffer| buffer.bytes > 0) {
        match move_one(buffer, sum) {
            Err(error) if sum == 0 => return Err(error),
            Err(_) => break,
            Ok(n) => {
                sum += n;
                // What there was did not fill this one: the next would wait for more.
                if n < buffer.bytes {
                    break;
                }
            }
        }
    }
    Ok(sum)
}

pub(super) fn read(fd: u32, list: u64, count: u64, at: Option<u64>) -> Result {
    amount(&*file(fd)?, 0, at)?;
    let at = |done| at.map(|at: u64| at.saturating_add(done));
    each(list, count, |buffer, done| super::read(fd, buffer.at, buffer.bytes, at(done)))
}

pub(super) fn write(fd: u32, list: u64, count: u64, at: Option<u64>) -> Result {
    amount(&*file(fd)?, 0, at)?;
    let at = |done| at.map(|at: u64| at.saturating_add(done));
    each(list, count, |buffer, done| super::write(fd, buffer.at, buffer.bytes, at(done)))
}

/// Flags of `preadv2` and `pwritev2` that are kept without doing anything: what is written to memory
/// is there.
const KEPT: u32 = nr::RWF_HIPRI | nr::RWF_DSYNC | nr::RWF_SYNC;

/// The offset of a call that can also use the file's own.
fn own_or(at: u64) -> core::result::Result<Option<u64>, Errno> {
    if at == u64::MAX { Ok(None) } else { position(at).map(Some) }
}

pub(super) fn read_with(arguments: Arguments) -> Result {
    let Arguments { a: fd, b: list, c: count, d: at, f: flags, .. } = arguments;
    let at = own_or(at)?;
    file(fd as u32)?;
    if flags as u32 & !KEPT != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    read(fd as u32, list, count, at)
}

pub(super) fn write_with(arguments: Arguments) -> Result {
    let Arguments { a: fd, b: list, c: count, d: at, f: flags, .. } = arguments;
    let (at, flags) = (own_or(at)?, flags as u32);
    let open = file(fd as u32)?;
    if flags & !(KEPT | nr::RWF_APPEND) != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    if flags & nr::RWF_APPEND == 0 {
        return write(fd as u32, list, count, at);
    }
    // At the end, wherever that is; the file's own offset moves only where it is the one to be used.
    let before = open.offset.load(Ordering::Relaxed);
    let end = match &open.what {
        crate::fs::What::Node(node, _) => node.len(),
        _ => return write(fd as u32, list, count, at),
    };
    let written = write(fd as u32, list, count, Some(end))?;
    let offset = if at.is_none() { end + written } else { before };
    open.offset.store(offset, Ordering::Relaxed);
    Ok(written)
}
