//! Files, directories and pipes.

use super::{Arguments, Result};
use crate::errno::Errno;
use crate::fs::{self, Create, Device, Follow, Kind, Node, Open, What, file};
use crate::process;
use crate::user;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use linux_raw_sys::general as nr;
use pagefault::machine::PAGE_SIZE;

const AT_FDCWD: u32 = nr::AT_FDCWD as u32;
/// The most bytes that one call moves through the kernel at once.
const PIECE: usize = 16384;
/// What a pipe moves at once: a piece that is not moved whole does not count, as in Linux.
const PIPE_PIECE: usize = 4096;
const PATH_LIMIT: usize = 4096;

pub(super) fn call(number: u32, arguments: Arguments) -> Option<Result> {
    let Arguments { a, b, c, d, .. } = arguments;
    let fd = a as u32;
    Some(match number {
        nr::__NR_read => read(fd, b, c, None),
        nr::__NR_pread64 => read(fd, b, c, Some(d)),
        nr::__NR_write => write(fd, b, c, None),
        nr::__NR_pwrite64 => write(fd, b, c, Some(d)),
        nr::__NR_readv => vectored(b, c, |at, n| read(fd, at, n, None)),
        nr::__NR_writev => vectored(b, c, |at, n| write(fd, at, n, None)),
        nr::__NR_open => open(AT_FDCWD, a, b as u32, c as u32),
        nr::__NR_openat => open(fd, b, c as u32, d as u32),
        nr::__NR_creat => open(AT_FDCWD, a, nr::O_CREAT | nr::O_WRONLY | nr::O_TRUNC, b as u32),
        nr::__NR_close => process::current().files.lock().close(fd).map(|_| 0),
        nr::__NR_lseek => seek(fd, b as i64, c as u32),
        nr::__NR_stat => path(AT_FDCWD, a, Follow::Yes).and_then(|node| stat(&node, b)),
        nr::__NR_lstat => path(AT_FDCWD, a, Follow::No).and_then(|node| stat(&node, b)),
        nr::__NR_fstat => fstat(fd, b),
        nr::__NR_newfstatat => newfstatat(arguments),
        nr::__NR_access => path(AT_FDCWD, a, Follow::Yes).map(|_| 0),
        nr::__NR_faccessat | nr::__NR_faccessat2 => path(fd, b, Follow::Yes).map(|_| 0),
        nr::__NR_readlink => readlink(AT_FDCWD, a, b, c),
        nr::__NR_readlinkat => readlink(fd, b, c, d),
        nr::__NR_getdents64 => getdents(fd, b, c as usize),
        nr::__NR_unlink | nr::__NR_rmdir => remove(AT_FDCWD, a),
        nr::__NR_unlinkat => remove(fd, b),
        nr::__NR_mkdir => make(AT_FDCWD, a, b as u32, Create::Directory),
        nr::__NR_mkdirat => make(fd, b, c as u32, Create::Directory),
        nr::__NR_symlink => symlink(a, b),
        nr::__NR_rename => rename((AT_FDCWD, a), (AT_FDCWD, b)),
        nr::__NR_renameat | nr::__NR_renameat2 => rename((fd, b), (c as u32, d)),
        nr::__NR_ftruncate => ftruncate(fd, b),
        nr::__NR_fsync | nr::__NR_fdatasync => fsync(fd),
        nr::__NR_fadvise64 => fadvise(fd, b, c, d as u32),
        nr::__NR_dup => file(fd).and_then(|open| add(open, 0, false)),
        nr::__NR_dup2 => dup(fd, b as u32, false),
        nr::__NR_dup3 => dup(fd, b as u32, c as u32 & nr::O_CLOEXEC != 0),
        nr::__NR_fcntl => fcntl(fd, b as u32, c),
        nr::__NR_pipe => pipe(a, 0),
        nr::__NR_pipe2 => pipe(a, b as u32),
        nr::__NR_ioctl => ioctl(fd, b as u32, c),
        nr::__NR_poll => poll(a, b),
        nr::__NR_getcwd => getcwd(a, b as usize),
        nr::__NR_chdir => chdir(a),
        nr::__NR_memfd_create => memfd_create(b as u32),
        nr::__NR_chmod
        | nr::__NR_fchmod
        | nr::__NR_fchmodat
        | nr::__NR_utimensat
        | nr::__NR_chown
        | nr::__NR_fchown => Ok(0),
        _ => return None,
    })
}

fn add(open: Arc<Open>, lowest: u32, close_on_exec: bool) -> Result {
    Ok(process::current().files.lock().add(open, lowest, close_on_exec)?.into())
}

fn read(fd: u32, to: u64, bytes: u64, at: Option<u64>) -> Result {
    let open = file(fd)?;
    let piece = piece(&open);
    let mut buffer = alloc::vec![0; (bytes as usize).min(piece)];
    let mut done = 0;
    while done < bytes {
        // A pipe that has given something is not waited for.
        if let What::Read(end) = &open.what
            && done > 0
            && !end.has_bytes()
        {
            break;
        }
        let want = (bytes - done).min(piece as u64) as usize;
        let n = match at {
            Some(at) => open.read_at(at + done, &mut buffer[..want]),
            None => open.read(&mut buffer[..want]),
        };
        let n = match n {
            Err(_) if done > 0 => break,
            n => n?,
        };
        let left = user::copy_to(to + done, &buffer[..n]);
        if left > 0 {
            return if done > 0 { Ok(done) } else { Err(Errno::EFAULT) };
        }
        done += n as u64;
        // A file is read to its end; a pipe or a terminal gives what it has.
        let is_regular =
            matches!(&open.what, What::Node(node, _) if matches!(node.kind, Kind::Regular(_)));
        let is_pipe = matches!(&open.what, What::Read(_));
        if n < want || !(is_regular || is_pipe) {
            break;
        }
    }
    Ok(done)
}

fn write(fd: u32, from: u64, bytes: u64, at: Option<u64>) -> Result {
    let open = file(fd)?;
    let piece = piece(&open);
    let is_pipe = matches!(&open.what, What::Write(_));
    let mut buffer = alloc::vec![0; (bytes as usize).min(piece)];
    let mut done = 0;
    while done < bytes {
        let want = (bytes - done).min(piece as u64) as usize;
        let left = user::copy_from(from + done, &mut buffer[..want]);
        if left == want || is_pipe && left > 0 {
            return if done > 0 { Ok(done) } else { Err(Errno::EFAULT) };
        }
        let piece = &buffer[..want - left];
        let n = match at {
            Some(at) => open.write_at(at + done, piece),
            None => open.write(piece),
        };
        match n {
            Err(_) if done > 0 => break,
            n => done += n? as u64,
        }
        if left > 0 {
            break;
        }
    }
    Ok(done)
}

fn piece(open: &Open) -> usize {
    match &open.what {
        What::Read(_) | What::Write(_) => PIPE_PIECE,
        _ => PIECE,
    }
}

fn vectored(vectors: u64, count: u64, each: impl Fn(u64, u64) -> Result) -> Result {
    let mut sum = 0;
    for i in 0..count.min(1024) {
        let at = user::read_u64(vectors + i * 16)?;
        let bytes = user::read_u64(vectors + i * 16 + 8)?;
        if bytes == 0 {
            continue;
        }
        match each(at, bytes) {
            Err(error) if sum == 0 => return Err(error),
            Err(_) => break,
            Ok(n) => sum += n,
        }
    }
    Ok(sum)
}

/// An absolute path from what a call was given.
fn absolute(directory: u32, path: u64) -> core::result::Result<String, Errno> {
    let path =
        String::from_utf8(user::read_string(path, PATH_LIMIT)?).map_err(|_| Errno::ENOENT)?;
    if path.is_empty() {
        return Err(Errno::ENOENT);
    }
    if directory == AT_FDCWD || path.starts_with('/') {
        return Ok(fs::absolute(&process::current().files.lock().directory, &path));
    }
    match &file(directory)?.what {
        What::Node(_, base) => Ok(fs::absolute(base, &path)),
        _ => Err(Errno::ENOTDIR),
    }
}

fn path(directory: u32, path: u64, follow: Follow) -> core::result::Result<Arc<Node>, Errno> {
    fs::find(&absolute(directory, path)?, follow)
}

fn open(directory: u32, path: u64, flags: u32, mode: u32) -> Result {
    let path = absolute(directory, path)?;
    let close_on_exec = flags & nr::O_CLOEXEC != 0;
    let node = match fs::find(&path, Follow::Yes) {
        Ok(_) if flags & nr::O_CREAT != 0 && flags & nr::O_EXCL != 0 => return Err(Errno::EEXIST),
        Err(Errno::ENOENT) if flags & nr::O_CREAT != 0 => fs::create(&path, mode, Create::Regular)?,
        found => found?,
    };
    if let Kind::Opened(open) = &node.kind {
        return add(open.clone(), 0, close_on_exec);
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
    add(Open::new(What::Node(node, path), flags), 0, close_on_exec)
}

fn memfd_create(flags: u32) -> Result {
    let node = fs::nameless();
    let open = Open::new(What::Node(node, String::from("/memfd")), nr::O_RDWR);
    add(open, 0, flags & nr::MFD_CLOEXEC != 0)
}

fn seek(fd: u32, by: i64, whence: u32) -> Result {
    let open = file(fd)?;
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

/// Writes `struct stat`.
fn stat_words(inode: u64, mode: u32, length: u64, to: u64) -> Result {
    let mut words = [0u64; 18];
    words[0] = 1;
    words[1] = inode;
    words[2] = 1;
    words[3] = u64::from(mode);
    words[5] = if mode & 0o170_000 == 0o020_000 { 5 << 8 | 1 } else { 0 };
    words[6] = length;
    words[7] = 4096;
    words[8] = length.div_ceil(512);
    let bytes: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
    user::write(to, &bytes)?;
    Ok(0)
}

fn stat(node: &Node, to: u64) -> Result {
    stat_words(node.inode, node.mode, node.len(), to)
}

fn fstat(fd: u32, to: u64) -> Result {
    match &file(fd)?.what {
        What::Node(node, _) => stat(node, to),
        What::Read(_) | What::Write(_) => stat_words(1, 0o010_600, 0, to),
    }
}

fn newfstatat(arguments: Arguments) -> Result {
    let Arguments { a, b, c, d, .. } = arguments;
    let flags = d as u32;
    if flags & nr::AT_EMPTY_PATH != 0 && user::read::<1>(b)? == [0] {
        return fstat(a as u32, c);
    }
    let follow = if flags & nr::AT_SYMLINK_NOFOLLOW != 0 { Follow::No } else { Follow::Yes };
    stat(&*path(a as u32, b, follow)?, c)
}

fn readlink(directory: u32, from: u64, to: u64, bytes: u64) -> Result {
    let whole = absolute(directory, from)?;
    let node = fs::find(&whole, Follow::No)?;
    let name;
    let target = match &node.kind {
        Kind::Link(target) => target.as_bytes(),
        Kind::Opened(_) => {
            name = alloc::format!("pipe:[{}]", node.inode);
            name.as_bytes()
        }
        _ => return Err(Errno::EINVAL),
    };
    let n = target.len().min(bytes as usize);
    user::write(to, &target[..n])?;
    Ok(n as u64)
}

fn getdents(fd: u32, to: u64, room: usize) -> Result {
    let open = file(fd)?;
    let What::Node(node, path) = &open.what else { return Err(Errno::ENOTDIR) };
    if !matches!(node.kind, Kind::Directory) {
        return Err(Errno::ENOTDIR);
    }
    let mut bytes = Vec::new();
    let mut at = open.offset.load(Ordering::Relaxed);
    for (name, node) in fs::list(path).into_iter().skip(at as usize) {
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
        bytes.push((node.mode >> 12) as u8);
        bytes.extend(name.as_bytes());
        bytes.resize(end, 0);
    }
    open.offset.store(at, Ordering::Relaxed);
    user::write(to, &bytes)?;
    Ok(bytes.len() as u64)
}

fn remove(directory: u32, path: u64) -> Result {
    fs::remove(&absolute(directory, path)?).map(|()| 0)
}

fn make(directory: u32, path: u64, mode: u32, what: Create<'_>) -> Result {
    fs::create(&absolute(directory, path)?, mode, what).map(|_| 0)
}

fn symlink(target: u64, path: u64) -> Result {
    let target = String::from_utf8(user::read_string(target, PATH_LIMIT)?);
    let target = target.map_err(|_| Errno::EINVAL)?;
    make(AT_FDCWD, path, 0o777, Create::Link(&target))
}

fn rename(from: (u32, u64), to: (u32, u64)) -> Result {
    fs::rename(&absolute(from.0, from.1)?, &absolute(to.0, to.1)?).map(|()| 0)
}

fn ftruncate(fd: u32, length: u64) -> Result {
    match &file(fd)?.what {
        What::Node(node, _) => node.content_for_writing()?.truncate(length)?,
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
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

fn dup(fd: u32, to: u32, close_on_exec: bool) -> Result {
    let open = file(fd)?;
    if fd != to {
        let before = process::current().files.lock().replace(to, open, close_on_exec)?;
        drop(before);
    }
    Ok(to.into())
}

fn fcntl(fd: u32, command: u32, argument: u64) -> Result {
    let open = file(fd)?;
    let files = &process::current().files;
    match command {
        nr::F_DUPFD => add(open, argument as u32, false),
        nr::F_DUPFD_CLOEXEC => add(open, argument as u32, true),
        nr::F_GETFD => Ok(files.lock().closes_on_exec(fd).into()),
        nr::F_SETFD => {
            files.lock().set_close_on_exec(fd, argument & 1 != 0);
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
        nr::F_GETFL => Ok(open.flags.load(Ordering::Relaxed).into()),
        nr::F_SETFL => {
            let kept = open.flags.load(Ordering::Relaxed) & 3;
            open.flags.store(kept | argument as u32 & !3, Ordering::Relaxed);
            Ok(0)
        }
        _ => Err(Errno::EINVAL),
    }
}

fn pipe(to: u64, flags: u32) -> Result {
    let (read, write) = fs::pipe(flags & nr::O_NONBLOCK);
    let close_on_exec = flags & nr::O_CLOEXEC != 0;
    let (read, write) = {
        let mut files = process::current().files.lock();
        (files.add(read, 0, close_on_exec)?, files.add(write, 0, close_on_exec)?)
    };
    user::write(to, &(u64::from(read) | u64::from(write) << 32).to_le_bytes())?;
    Ok(0)
}

/// The console says that it is no terminal, so that programs treat it as the pipe that it is on the
/// host's side.
fn ioctl(fd: u32, _request: u32, _argument: u64) -> Result {
    file(fd)?;
    Err(Errno::ENOTTY)
}

/// Every file but a pipe is always ready; a pipe's wait is left to the read.
fn poll(list: u64, count: u64) -> Result {
    const POLLIN: u16 = 1;
    const POLLOUT: u16 = 4;
    const POLLNVAL: u16 = 32;
    let mut ready = 0;
    for i in 0..count.min(1024) {
        let at = list + i * 8;
        let entry = user::read_u64(at)?;
        let events = (entry >> 32) as u16;
        let result = match file(entry as u32).as_deref() {
            Err(_) => POLLNVAL,
            Ok(open) => match &open.what {
                What::Read(end) if !end.is_ready() => events & POLLOUT,
                _ => events & (POLLIN | POLLOUT),
            },
        };
        user::write(at + 6, &result.to_le_bytes())?;
        ready += u64::from(result != 0);
    }
    Ok(ready)
}

fn getcwd(to: u64, room: usize) -> Result {
    let mut path = process::current().files.lock().directory.clone().into_bytes();
    path.push(0);
    if path.len() > room {
        return Err(Errno::ERANGE);
    }
    user::write(to, &path)?;
    Ok(path.len() as u64)
}

fn chdir(to: u64) -> Result {
    let to = absolute(AT_FDCWD, to)?;
    match fs::find(&to, Follow::Yes)?.kind {
        Kind::Directory => {
            process::current().files.lock().directory = to;
            Ok(0)
        }
        _ => Err(Errno::ENOTDIR),
    }
}
