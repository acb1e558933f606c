//! Locks on parts of files: `fcntl` and `flock`.

use super::super::Result;
use crate::errno::Errno;
use crate::fs::locks::{self, Kind, Lock, Owner};
use crate::fs::{Open, Reading, What, file};
use crate::{process, user};
use alloc::sync::Arc;
use core::ops::Range;
use core::sync::atomic::Ordering;
use linux_raw_sys::general as nr;

/// What a `struct flock` asks for.
struct Asked {
    /// `None` gives locks back.
    kind: Option<Kind>,
    range: Range<u64>,
}

fn inode(open: &Open) -> core::result::Result<u64, Errno> {
    match &open.what {
        What::Node(node, _) => Ok(node.inode),
        _ => Err(Errno::EINVAL),
    }
}

fn owner(open: &Arc<Open>, command: u32) -> Owner {
    if matches!(command, nr::F_OFD_GETLK | nr::F_OFD_SETLK | nr::F_OFD_SETLKW) {
        open.has_locks.store(true, Ordering::Relaxed);
        return Owner::Open(Arc::as_ptr(open).addr());
    }
    Owner::Process(process::current().id)
}

fn read(open: &Open, at: u64) -> core::result::Result<Asked, Errno> {
    let [a, b, c, d] = user::read::<4>(at)?;
    let kind = match u32::from(u16::from_le_bytes([a, b])) {
        nr::F_RDLCK => Some(Kind::Shared),
        nr::F_WRLCK => Some(Kind::Exclusive),
        nr::F_UNLCK => None,
        _ => return Err(Errno::EINVAL),
    };
    let from = match u32::from(u16::from_le_bytes([c, d])) {
        nr::SEEK_SET => 0,
        nr::SEEK_CUR => open.offset.load(Ordering::Relaxed),
        nr::SEEK_END => match &open.what {
            What::Node(node, _) => node.len(),
            _ => 0,
        },
        _ => return Err(Errno::EINVAL),
    };
    let (start, length) = (user::read_u64(at + 8)? as i64, user::read_u64(at + 16)? as i64);
    let start = from.checked_add_signed(start).ok_or(Errno::EINVAL)?;
    let range = match length {
        0 => start..u64::MAX,
        1.. => start..start.checked_add_signed(length).ok_or(Errno::EINVAL)?,
        // The bytes before.
        _ => start.checked_add_signed(length).ok_or(Errno::EINVAL)?..start,
    };
    Ok(Asked { kind, range })
}

/// Tells which lock stands against another.
pub(super) fn find(open: &Arc<Open>, command: u32, at: u64) -> Result {
    let Asked { kind, range } = read(open, at)?;
    let kind = kind.ok_or(Errno::EINVAL)?;
    let found = locks::conflict(inode(open)?, &Lock { owner: owner(open, command), kind, range });
    let Some(found) = found else {
        user::write(at, &(nr::F_UNLCK as u16).to_le_bytes())?;
        return Ok(0);
    };
    let kind = if found.kind == Kind::Shared { nr::F_RDLCK } else { nr::F_WRLCK };
    let length = match found.range.end {
        u64::MAX => 0,
        end => end - found.range.start,
    };
    let id = if let Owner::Process(id) = found.owner { id } else { u32::MAX };
    user::write(at, &(kind | nr::SEEK_SET << 16).to_le_bytes())?;
    user::write(at + 8, &found.range.start.to_le_bytes())?;
    user::write(at + 16, &length.to_le_bytes())?;
    user::write(at + 24, &id.to_le_bytes())?;
    Ok(0)
}

/// Puts a lock on a part of a file, or gives it back.
pub(super) fn set(open: &Arc<Open>, command: u32, at: u64) -> Result {
    let (inode, owner) = (inode(open)?, owner(open, command));
    let Asked { kind, range } = read(open, at)?;
    let Some(kind) = kind else {
        locks::unlock(inode, owner, &range);
        return Ok(0);
    };
    let may = if kind == Kind::Shared { open.is_readable() } else { open.is_writable() };
    if !may {
        return Err(Errno::EBADF);
    }
    let waits = matches!(command, nr::F_SETLKW | nr::F_OFD_SETLKW);
    let patience = if waits { Reading::Blocking } else { Reading::NonBlocking };
    locks::lock(inode, &Lock { owner, kind, range }, patience).map(|()| 0)
}

/// Puts a lock on a whole file, or gives it back.
pub(super) fn flock(fd: u32, operation: u32) -> Result {
    let open = file(fd)?;
    let (inode, owner) = (inode(&open)?, Owner::Whole(Arc::as_ptr(&open).addr()));
    let range = 0..u64::MAX;
    let kind = match operation & !nr::LOCK_NB {
        nr::LOCK_SH => Kind::Shared,
        nr::LOCK_EX => Kind::Exclusive,
        nr::LOCK_UN => {
            locks::unlock(inode, owner, &range);
            return Ok(0);
        }
        _ => return Err(Errno::EINVAL),
    };
    open.has_locks.store(true, Ordering::Relaxed);
    let is_hasty = operation & nr::LOCK_NB != 0;
    let patience = if is_hasty { Reading::NonBlocking } else { Reading::Blocking };
    locks::lock(inode, &Lock { owner, kind, range }, patience).map(|()| 0)
}
