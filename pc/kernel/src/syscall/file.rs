//! Open files: reading, writing, and the numbers that stand for them.

mod descriptor;
mod record;
pub(super) mod vector;

pub(super) use descriptor::add_two;

use super::path::{AT_FDCWD, absolute};
use super::{Arguments, Result};
use crate::errno::Errno;
use crate::fs::socket::CAPACITY as SOCKET_CAPACITY;
use crate::fs::{self, Create, Device, End, Follow, Kind, OnExec, Open, What, file};
use crate::{process, scheduler, signal, user};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use descriptor::{add, close, close_range, dup, fcntl, ioctl};
use linux_raw_sys::general as nr;
use pagefault::machine::PAGE_SIZE;

/// The most bytes that one call moves through the kernel at once.
const PIECE: usize = 16384;

/// The most bytes that one call moves in all (Linux: `MAX_RW_COUNT`).
const MOST: u64 = 0x7fff_f000;

/// What a pipe moves at once: a piece that is not moved whole does not count, as in Linux.
const PIPE_PIECE: usize = 4096;

pub(super) fn call(number: u32, arguments: Arguments) -> Option<Result> {
    let Arguments { a, b, c, d, .. } = arguments;
    let fd = a as u32;
    Some(match number {
        nr::__NR_read => read(fd, b, c, None),
        nr::__NR_pread64 => span(d, c).and_then(|at| read(fd, b, c, Some(at))),
        nr::__NR_write => write(fd, b, c, None),
        nr::__NR_pwrite64 => span(d, c).and_then(|at| write(fd, b, c, Some(at))),
        nr::__NR_readv => vector::read(fd, b, c, None),
        nr::__NR_writev => vector::write(fd, b, c, None),
        nr::__NR_preadv => position(d).and_then(|at| vector::read(fd, b, c, Some(at))),
        nr::__NR_pwritev => position(d).and_then(|at| vector::write(fd, b, c, Some(at))),
        nr::__NR_preadv2 => vector::read_with(arguments),
        nr::__NR_pwritev2 => vector::write_with(arguments),
        nr::__NR_open => open(AT_FDCWD, a, b as u32, c as u32),
        nr::__NR_openat => open(fd, b, c as u32, d as u32),
        nr::__NR_creat => open(AT_FDCWD, a, nr::O_CREAT | nr::O_WRONLY | nr::O_TRUNC, b as u32),
        nr::__NR_close => close(fd),
        nr::__NR_lseek => seek(fd, b as i64, c as u32),
        nr::__NR_getdents64 => getdents(fd, b, c as usize),
        nr::__NR_ftruncate => ftruncate(fd, b),
        nr::__NR_fsync | nr::__NR_fdatasync => fsync(fd),
        nr::__NR_fadvise64 => fadvise(fd, b, c, d as u32),
        nr::__NR_sendfile => sendfile(fd, b as u32, c, d),
        nr::__NR_copy_file_range => copy_file_range(arguments),
        nr::__NR_fallocate => fallocate(fd, b as u32, c, d),
        nr::__NR_flock => record::flock(fd, b as u32),
        nr::__NR_close_range => close_range(fd, b as u32, c as u32),
        nr::__NR_dup => file(fd).and_then(|open| add(open, 0, OnExec::Keep)),
        nr::__NR_dup2 => dup(fd, b as u32, OnExec::Keep),
        nr::__NR_dup3 if fd == b as u32 || c as u32 & !nr::O_CLOEXEC != 0 => Err(Errno::EINVAL),
        nr::__NR_dup3 => dup(fd, b as u32, OnExec::of(c as u32)),
        nr::__NR_fcntl => fcntl(fd, b as u32, c),
        nr::__NR_pipe => pipe(a, 0),
        nr::__NR_pipe2 => pipe(a, b as u32),
        nr::__NR_ioctl => ioctl(fd, b as u32, c),
        nr::__NR_memfd_create => memfd_create(a, b as u32),
        _ => return None,
    })
}

/// An offset in a file: programs count in signed numbers.
pub(super) fn position(at: u64) -> Result {
    if i64::try_from(at).is_ok() { Ok(at) } else { Err(Errno::EINVAL) }
}

/// A position from which so many bytes end where a file can have its last one.
fn span(at: u64, bytes: u64) -> Result {
    position(at.saturating_add(bytes)).map(|_| at)
}

fn read(fd: u32, to: u64, bytes: u64, at: Option<u64>) -> Result {
    let open = file(fd)?;
    let bytes = amount(&open, bytes, at)?;
    let piece = piece(&open);
    let mut buffer = process::buffer((bytes as usize).min(piece))?;
    let mut done = 0;
    while done < bytes && may_go_on(done) {
        // A pipe that has given something is not waited for.
        if let What::Read(end) = &open.what
            && done > 0
            && end.bytes() == 0
        {
            break;
        }
        let want = (bytes - done).min(piece as u64) as usize;
        let n = match at {
            Some(at) => open.read_at(at.saturating_add(done), &mut buffer[..want]),
            None => open.read(&mut buffer[..want]),
        };
        let n = match n {
            Err(_) if done > 0 => break,
            n => n?,
        };
        let left = user::copy_to(to.wrapping_add(done), &buffer[..n]);
        if left > 0 {
            done += open.undo_read(&buffer[..n], left, at) as u64;
            return if done > 0 { Ok(done) } else { Err(Errno::EFAULT) };
        }
        done += n as u64;
        if n < want || !gives_more(&open) {
            break;
        }
    }
    Ok(done)
}

/// How much a call may move: memory of a negative size there is none, and what has no places has no
/// offset.
fn amount(open: &Open, bytes: u64, at: Option<u64>) -> Result {
    if at.is_some() && !matches!(open.what, What::Node(..)) {
        return Err(Errno::ESPIPE);
    }
    if i64::try_from(bytes).is_err() { Err(Errno::EFAULT) } else { Ok(bytes.min(MOST)) }
}

/// Lets others run between two pieces of a long call; whether it goes on when it has moved something.
fn may_go_on(done: u64) -> bool {
    scheduler::yield_if_expired();
    done == 0 || !signal::is_pending()
}

/// Whether a read goes on after a piece: a file is read to its end, and what has no end for as much as is asked
/// for; a terminal or a text gives what it has.
fn gives_more(open: &Open) -> bool {
    match &open.what {
        What::Read(_) => true,
        What::Node(node, _) => matches!(
            node.kind,
            Kind::Regular(_)
                | Kind::Memory(_)
                | Kind::Pagemap(_)
                | Kind::Device(Device::Zero | Device::Random)
        ),
        _ => false,
    }
}

fn write(fd: u32, from: u64, bytes: u64, at: Option<u64>) -> Result {
    let open = file(fd)?;
    let bytes = amount(&open, bytes, at)?;
    let piece = piece(&open);
    if open.swallows() {
        // The value is ignored.
        let is_address = user::access_ok(from, bytes as usize);
        return if is_address { Ok(bytes) } else { Err(Errno::EFAULT) };
    }
    let is_pipe = matches!(&open.what, What::Write(_));
    let mut buffer = process::buffer((bytes as usize).min(piece))?;
    let mut done = 0;
    while done < bytes && may_go_on(done) {
        let want = (bytes - done).min(piece as u64) as usize;
        let left = user::copy_from(from.wrapping_add(done), &mut buffer[..want]);
        if left == want || is_pipe && left > 0 {
            return if done > 0 { Ok(done) } else { Err(Errno::EFAULT) };
        }
        let piece = &buffer[..want - left];
        let n = match at {
            Some(at) => open.write_at(at.saturating_add(done), piece),
            None => open.write(piece),
        };
        let n = match n {
            Err(_) if done > 0 => break,
            n => n?,
        };
        done += n as u64;
        // Memory of a process that has ended takes nothing.
        if left > 0 || n == 0 {
            break;
        }
    }
    Ok(done)
}

fn piece(open: &Open) -> usize {
    match &open.what {
        What::Read(_) | What::Write(_) => PIPE_PIECE,
        // A message is moved whole.
        What::Socket(_) => SOCKET_CAPACITY,
        _ => PIECE,
    }
}

fn open(directory: u32, path: u64, flags: u32, mode: u32) -> Result {
    let path = absolute(directory, path)?;
    let on_exec = OnExec::of(flags);
    let node = match fs::find(&path, Follow::Yes) {
        Ok(_) if flags & nr::O_CREAT != 0 && flags & nr::O_EXCL != 0 => return Err(Errno::EEXIST),
        Err(Errno::ENOENT) if flags & nr::O_CREAT != 0 => {
            match fs::create(&path, mode & !umask(), Create::Regular) {
                // Another was faster, between the two looks.
                Err(Errno::EEXIST) if flags & nr::O_EXCL == 0 => fs::find(&path, Follow::Yes)?,
                created => created?,
            }
        }
        found => found?,
    };
    let (node, path) = match &node.kind {
        Kind::Opened(open) => match &open.what {
            // Opened again, as by its path.
            What::Node(node, path) => (node.clone(), path.clone()),
            _ => return add(open.clone(), 0, on_exec),
        },
        _ => (node, path),
    };
    if let Kind::Fifo(pipe) = &node.kind {
        let end = match flags & 3 {
            nr::O_RDONLY => End::Read,
            nr::O_WRONLY => End::Write,
            // The one file of Linux that is both ends is not there.
            _ => return Err(Errno::EINVAL),
        };
        return add(fs::open_pipe(pipe, end, flags & (nr::O_NONBLOCK | 3))?, 0, on_exec);
    }
    let is_directory = matches!(node.kind, Kind::Directory);
    if flags & nr::O_DIRECTORY != 0 && !is_directory {
        return Err(Errno::ENOTDIR);
    }
    if is_directory && flags & 3 != 0 {
        return Err(Errno::EISDIR);
    }
    if flags & nr::O_TRUNC != 0 && flags & 3 != 0 && matches!(node.kind, Kind::Regular(_)) {
        node.content_for_writing()?.truncate(0)?;
    }
    let flags = flags & !(nr::O_CLOEXEC | nr::O_CREAT | nr::O_EXCL | nr::O_TRUNC);
    add(Open::new(What::Node(node, path), flags), 0, on_exec)
}

fn umask() -> u32 {
    process::current().umask.load(Ordering::Relaxed)
}

/// The most letters of the name of a file that is made by `memfd_create`.
const MEMFD_NAME: usize = 249;

fn memfd_create(name: u64, flags: u32) -> Result {
    const KNOWN: u32 = nr::MFD_CLOEXEC | nr::MFD_ALLOW_SEALING | nr::MFD_NOEXEC_SEAL | nr::MFD_EXEC;
    // There are no huge pages (`MFD_HUGETLB`).
    let (never, once) = (flags & nr::MFD_NOEXEC_SEAL != 0, flags & nr::MFD_EXEC != 0);
    if flags & !KNOWN != 0 || never && once {
        return Err(Errno::EINVAL);
    }
    let name = user::read_string(name, MEMFD_NAME + 1, Errno::EINVAL)?;
    let path = format!("/memfd:{} (deleted)", String::from_utf8_lossy(&name));
    let node = fs::nameless();
    if never {
        node.seals.begin(nr::F_SEAL_EXEC);
    } else {
        node.set_permissions(0o777);
        if flags & nr::MFD_ALLOW_SEALING != 0 {
            node.seals.begin(0);
        }
    }
    add(
        Open::new(What::Node(node, path), nr::O_RDWR),
        0,
        OnExec::closes(flags & nr::MFD_CLOEXEC != 0),
    )
}

fn seals(open: &Open, command: u32, argument: u64) -> Result {
    let What::Node(node, _) = &open.what else { return Err(Errno::EINVAL) };
    if !node.is_regular() {
        return Err(Errno::EINVAL);
    }
    if command == nr::F_GET_SEALS {
        return Ok(node.seals.get().into());
    }
    if !open.is_writable() {
        return Err(Errno::EPERM);
    }
    node.seals.add(argument as u32, &node.content()?)?;
    Ok(0)
}

fn seek(fd: u32, by: i64, whence: u32) -> Result {
    let open = file(fd)?;
    if whence > nr::SEEK_HOLE {
        return Err(Errno::EINVAL);
    }
    let length = match &open.what {
        What::Node(node, _) if !matches!(node.kind, Kind::Device(Device::Console)) => node.len(),
        _ => return Err(Errno::ESPIPE),
    };
    let from = match whence {
        nr::SEEK_SET => 0,
        nr::SEEK_CUR => open.offset.load(Ordering::Relaxed) as i64,
        nr::SEEK_END => length as i64,
        _ => return Err(Errno::EINVAL),
    };
    let at = from.checked_add(by).filter(|at| *at >= 0).ok_or(Errno::EINVAL)?;
    open.offset.store(at as u64, Ordering::Relaxed);
    Ok(at as u64)
}

fn getdents(fd: u32, to: u64, room: usize) -> Result {
    let open = file(fd)?;
    let What::Node(node, path) = &open.what else { return Err(Errno::ENOTDIR) };
    if !matches!(node.kind, Kind::Directory) {
        return Err(Errno::ENOTDIR);
    }
    let mut bytes = Vec::new();
    let mut at = open.offset.load(Ordering::Relaxed);
    let parent = fs::find(&fs::absolute(path, ".."), Follow::Yes)?;
    let links = [(String::from("."), node.clone()), (String::from(".."), parent)];
    for (name, node) in links.into_iter().chain(fs::list(path)).skip(at as usize) {
        let length = (19 + name.len() + 1).next_multiple_of(8);
        if bytes.len() + length > room {
            if bytes.is_empty() {
                return Err(Errno::EINVAL);
            }
            break;
        }
        at += 1;
        let end = bytes.len() + length;
        bytes.extend(node.inode.to_le_bytes());
        bytes.extend(at.to_le_bytes());
        bytes.extend((length as u16).to_le_bytes());
        bytes.push((node.mode() >> 12) as u8);
        bytes.extend(name.as_bytes());
        bytes.resize(end, 0);
    }
    user::write(to, &bytes)?;
    open.offset.store(at, Ordering::Relaxed);
    Ok(bytes.len() as u64)
}

fn ftruncate(fd: u32, length: u64) -> Result {
    let (open, length) = (file(fd)?, position(length)?);
    match &open.what {
        What::Node(node, _) if node.is_regular() && open.is_writable() => {
            node.set_len(length)?;
            Ok(0)
        }
        _ => Err(Errno::EINVAL),
    }
}

fn fsync(fd: u32) -> Result {
    match &file(fd)?.what {
        What::Node(node, _) => match node.kind {
            Kind::Regular(_) => node.content()?.sync()?,
            Kind::Directory => {}
            _ => return Err(Errno::EINVAL),
        },
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

/// Takes the advice that pages are not needed any more; what else there is changes nothing here.
fn fadvise(fd: u32, from: u64, bytes: u64, advice: u32) -> Result {
    let open = file(fd)?;
    let What::Node(node, _) = &open.what else { return Err(Errno::ESPIPE) };
    if advice > nr::POSIX_FADV_NOREUSE {
        return Err(Errno::EINVAL);
    }
    if advice == nr::POSIX_FADV_DONTNEED && matches!(node.kind, Kind::Regular(_)) {
        let end = if bytes == 0 { u64::MAX } else { from.saturating_add(bytes) };
        // Whole pages only, as on Linux.
        node.content()?.discard_clean(from.div_ceil(PAGE_SIZE)..end / PAGE_SIZE);
    }
    Ok(0)
}

/// Makes a file as long as asked for. Its room is memory that is taken when it is written.
fn fallocate(fd: u32, mode: u32, offset: u64, bytes: u64) -> Result {
    let open = file(fd)?;
    let What::Node(node, _) = &open.what else { return Err(Errno::ESPIPE) };
    if !open.is_writable() {
        return Err(Errno::EBADF);
    }
    let end = position(offset)?.checked_add(position(bytes)?).filter(|_| bytes > 0);
    let end = end.ok_or(Errno::EINVAL)?;
    if !node.is_regular() {
        return Err(Errno::ENODEV);
    }
    match mode {
        0 if end > node.len() => node.set_len(end)?,
        0 | nr::FALLOC_FL_KEEP_SIZE => {}
        _ => return Err(Errno::EOPNOTSUPP),
    }
    Ok(0)
}

/// Copies from one open file to another, piece by piece through the kernel. An offset that is given
/// is moved instead of the file's own.
fn copy_between(from: (u32, u64), to: (u32, u64), bytes: u64) -> Result {
    let (source, target) = (file(from.0)?, file(to.0)?);
    let read_offset = |at: u64| -> core::result::Result<Option<u64>, Errno> {
        if at == 0 { Ok(None) } else { position(user::read_u64(at)?).map(Some) }
    };
    let bytes = position(bytes)?.min(MOST);
    let (start, begin) = (read_offset(from.1)?, read_offset(to.1)?);
    let mut buffer = process::buffer(PIECE.min(bytes as usize))?;
    let mut done = 0;
    while done < bytes && may_go_on(done) {
        let want = buffer.len().min((bytes - done) as usize);
        let n = match start {
            Some(start) => source.read_at(start.saturating_add(done), &mut buffer[..want]),
            None => source.read(&mut buffer[..want]),
        };
        let n = match n {
            Err(_) if done > 0 => break,
            n => n?,
        };
        if n == 0 {
            break;
        }
        let written = match begin {
            Some(begin) => target.write_at(begin.saturating_add(done), &buffer[..n]),
            None => target.write(&buffer[..n]),
        };
        let taken = written.unwrap_or(0);
        done += taken as u64;
        if taken < n {
            source.undo_read(&buffer[..n], n - taken, start);
            if done == 0 {
                written?;
            }
            break;
        }
    }
    for (at, offset) in [(from.1, start), (to.1, begin)] {
        if let Some(offset) = offset {
            user::write(at, &offset.saturating_add(done).to_le_bytes())?;
        }
    }
    Ok(done)
}

fn sendfile(to: u32, from: u32, offset: u64, bytes: u64) -> Result {
    if !matches!(&file(from)?.what, What::Node(node, _) if node.is_regular()) {
        return Err(Errno::EINVAL);
    }
    copy_between((from, offset), (to, 0), bytes)
}

fn copy_file_range(arguments: Arguments) -> Result {
    let Arguments { a, b, c, d, e, f } = arguments;
    if f != 0 {
        return Err(Errno::EINVAL);
    }
    for number in [a, c] {
        match &file(number as u32)?.what {
            What::Node(node, _) if node.is_regular() => {}
            _ => return Err(Errno::EINVAL),
        }
    }
    copy_between((a as u32, b), (c as u32, d), e)
}

fn pipe(to: u64, flags: u32) -> Result {
    if flags & !(nr::O_CLOEXEC | nr::O_NONBLOCK | nr::O_DIRECT) != 0 {
        return Err(Errno::EINVAL);
    }
    let (read, write) = fs::pipe(flags & nr::O_NONBLOCK);
    add_two([read, write], OnExec::of(flags), to)
}
