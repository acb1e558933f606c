//! The numbers that stand for open files: their closing, copies and flags.

use super::{Result, record, seals};
use crate::errno::Errno;
use crate::fs::{self, OnExec, Open, What, file, locks};
use crate::{process, user};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use linux_raw_sys::general as nr;

const FIONREAD: u32 = 0x541b;
const FIONBIO: u32 = 0x5421;
const FIONCLEX: u32 = 0x5450;
const FIOCLEX: u32 = 0x5451;

pub(super) fn add(open: Arc<Open>, lowest: u32, on_exec: OnExec) -> Result {
    Ok(process::current().files.lock().add(open, lowest, on_exec)?.into())
}

/// Closes a number. A process's locks on a file end with the first of its numbers that is closed.
pub(super) fn close(fd: u32) -> Result {
    let closed = process::current().files.lock().close(fd)?;
    give_locks_back(&closed);
    Ok(0)
}

fn give_locks_back(closed: &Open) {
    if let What::Node(node, _) = &closed.what
        && node.is_regular()
    {
        let owner = locks::Owner::Process(process::current().id);
        locks::unlock(node.inode, owner, &(0..u64::MAX));
    }
}

/// First make the numbers the caller's own, which they are here.
const CLOSE_RANGE_UNSHARE: u32 = 2;
/// Let exec close them instead.
const CLOSE_RANGE_CLOEXEC: u32 = 4;

pub(super) fn close_range(first: u32, last: u32, flags: u32) -> Result {
    if first > last || flags & !(CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC) != 0 {
        return Err(Errno::EINVAL);
    }
    let files = &process::current().files;
    let numbers: Vec<u32> = {
        let files = files.lock();
        files.numbers().map(|n| n as u32).filter(|n| (first..=last).contains(n)).collect()
    };
    for number in numbers {
        if flags & CLOSE_RANGE_CLOEXEC != 0 {
            files.lock().set_on_exec(number, OnExec::Close);
        } else {
            let closed = files.lock().close(number);
            // Another thread may have been faster.
            if let Ok(closed) = closed {
                give_locks_back(&closed);
            }
        }
    }
    Ok(0)
}

pub(super) fn dup(fd: u32, to: u32, on_exec: OnExec) -> Result {
    let open = file(fd)?;
    if fd != to {
        let before = process::current().files.lock().replace(to, open, on_exec)?;
        if let Some(before) = before {
            give_locks_back(&before);
        }
    }
    Ok(to.into())
}

pub(super) fn fcntl(fd: u32, command: u32, argument: u64) -> Result {
    let open = file(fd)?;
    let files = &process::current().files;
    match command {
        nr::F_DUPFD | nr::F_DUPFD_CLOEXEC if argument >= fs::most_open() as u64 => {
            Err(Errno::EINVAL)
        }
        nr::F_DUPFD => add(open, argument as u32, OnExec::Keep),
        nr::F_DUPFD_CLOEXEC => add(open, argument as u32, OnExec::Close),
        nr::F_GETFD => Ok(files.lock().closes_on_exec(fd).into()),
        nr::F_SETFD => {
            files.lock().set_on_exec(fd, OnExec::closes(argument as u32 & nr::FD_CLOEXEC != 0));
            Ok(0)
        }
        // Linux lets a pipe grow; here every pipe has its first size.
        nr::F_SETPIPE_SZ | nr::F_GETPIPE_SZ => match &open.what {
            What::Read(_) | What::Write(_)
                if command == nr::F_GETPIPE_SZ || argument <= fs::PIPE_CAPACITY as u64 =>
            {
                Ok(fs::PIPE_CAPACITY as u64)
            }
            What::Read(_) | What::Write(_) => Err(Errno::EPERM),
            _ => Err(Errno::EBADF),
        },
        nr::F_GETLK | nr::F_OFD_GETLK => record::find(&open, command, argument),
        nr::F_SETLK | nr::F_SETLKW | nr::F_OFD_SETLK | nr::F_OFD_SETLKW => {
            record::set(&open, command, argument)
        }
        nr::F_ADD_SEALS | nr::F_GET_SEALS => seals(&open, command, argument),
        nr::F_GETFL => Ok(open.flags.load(Ordering::Relaxed).into()),
        nr::F_SETFL => {
            let kept = open.flags.load(Ordering::Relaxed) & 3;
            open.flags.store(kept | argument as u32 & !3, Ordering::Relaxed);
            Ok(0)
        }
        _ => Err(Errno::EINVAL),
    }
}

/// Gives two open files numbers and tells the program which; neither has one if that fails.
pub(in crate::syscall) fn add_two(both: [Arc<Open>; 2], on_exec: OnExec, to: u64) -> Result {
    let [first, second] = both;
    let files = &process::current().files;
    let first = files.lock().add(first, 0, on_exec)?;
    let second = files.lock().add(second, 0, on_exec);
    let told = second.and_then(|second| {
        let both = u64::from(first) | u64::from(second) << 32;
        user::write(to, &both.to_le_bytes())?;
        Ok(0)
    });
    if told.is_err() {
        for number in [Some(first), second.ok()].into_iter().flatten() {
            let closed = files.lock().close(number);
            drop(closed);
        }
    }
    told
}

/// The console says that it is no terminal, so that programs treat it as the pipe that it is on the
/// host's side.
pub(super) fn ioctl(fd: u32, request: u32, argument: u64) -> Result {
    let open = file(fd)?;
    match request {
        FIONREAD => {
            let bytes = match &open.what {
                What::Read(end) => end.bytes(),
                What::Socket(socket) => socket.bytes(),
                What::Node(node, _) if node.is_regular() => {
                    node.len().saturating_sub(open.offset.load(Ordering::Relaxed)) as usize
                }
                _ => return Err(Errno::ENOTTY),
            };
            user::write(argument, &(bytes as u32).to_le_bytes())?;
            Ok(0)
        }
        FIONBIO => {
            let wanted = user::read(argument).map(u32::from_le_bytes)?;
            let others = open.flags.load(Ordering::Relaxed) & !nr::O_NONBLOCK;
            let own = if wanted != 0 { nr::O_NONBLOCK } else { 0 };
            open.flags.store(others | own, Ordering::Relaxed);
            Ok(0)
        }
        FIOCLEX | FIONCLEX => {
            process::current().files.lock().set_on_exec(fd, OnExec::closes(request == FIOCLEX));
            Ok(0)
        }
        _ => Err(Errno::ENOTTY),
    }
}
