//! Paths: what they lead to, and making, moving and removing them.

use super::{Arguments, Result};
use crate::errno::Errno;
use crate::fs::{self, Create, Existing, Follow, KIND, Kind, Node, Removed, What, file};
use crate::machine::Pc;
use crate::{clock, kernel, process, user};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use linux_raw_sys::general as nr;
use pagefault::machine::{Machine, PAGE_SIZE};

/// The number that stands for the working directory.
pub(super) const AT_FDCWD: u32 = nr::AT_FDCWD as u32;

const TMPFS: u64 = 0x0102_1994;
const PROC: u64 = 0x9fa0;

pub(super) fn call(number: u32, arguments: Arguments) -> Option<Result> {
    let Arguments { a, b, c, d, e, .. } = arguments;
    let fd = a as u32;
    Some(match number {
        nr::__NR_stat => path(AT_FDCWD, a, Follow::Yes).and_then(|node| stat(&node, b)),
        nr::__NR_lstat => path(AT_FDCWD, a, Follow::No).and_then(|node| stat(&node, b)),
        nr::__NR_fstat => named_by(fd).write_stat(b),
        nr::__NR_newfstatat => named(fd, b, d as u32).and_then(|named| named.write_stat(c)),
        nr::__NR_statx => named(fd, b, c as u32).and_then(|named| named.write_statx(e)),
        nr::__NR_statfs => find(AT_FDCWD, a, Follow::Yes).and_then(|(path, _)| statfs(&path, b)),
        nr::__NR_fstatfs => file(fd).and_then(|open| match &open.what {
            What::Node(_, path) => statfs(path, b),
            _ => statfs("/", b),
        }),
        nr::__NR_access => access(AT_FDCWD, a, b as u32),
        nr::__NR_faccessat | nr::__NR_faccessat2 => access(fd, b, c as u32),
        nr::__NR_readlink => readlink(AT_FDCWD, a, b, c),
        nr::__NR_readlinkat => readlink(fd, b, c, d),
        nr::__NR_unlink => remove(AT_FDCWD, a, Removed::Other),
        nr::__NR_rmdir => remove(AT_FDCWD, a, Removed::Directory),
        nr::__NR_unlinkat if c as u32 & !nr::AT_REMOVEDIR != 0 => Err(Errno::EINVAL),
        nr::__NR_unlinkat if c as u32 & nr::AT_REMOVEDIR != 0 => remove(fd, b, Removed::Directory),
        nr::__NR_unlinkat => remove(fd, b, Removed::Other),
        nr::__NR_mkdir => make(AT_FDCWD, a, b as u32, Create::Directory),
        nr::__NR_mkdirat => make(fd, b, c as u32, Create::Directory),
        nr::__NR_mknod => mknod(AT_FDCWD, a, b as u32),
        nr::__NR_mknodat => mknod(fd, b, c as u32),
        nr::__NR_symlink => symlink(a, AT_FDCWD, b),
        nr::__NR_symlinkat => symlink(a, b as u32, c),
        nr::__NR_link => link((AT_FDCWD, a), (AT_FDCWD, b), 0),
        nr::__NR_linkat => link((fd, b), (c as u32, d), e as u32),
        nr::__NR_rename => rename((AT_FDCWD, a), (AT_FDCWD, b), 0),
        nr::__NR_renameat => rename((fd, b), (c as u32, d), 0),
        nr::__NR_renameat2 => rename((fd, b), (c as u32, d), e as u32),
        nr::__NR_truncate => path(AT_FDCWD, a, Follow::Yes).and_then(|node| {
            let length = super::file::position(b)?;
            node.set_len(length)?;
            Ok(0)
        }),
        nr::__NR_chmod => named(AT_FDCWD, a, 0).and_then(|named| named.chmod(b as u32)),
        nr::__NR_fchmod => named_by(fd).chmod(b as u32),
        nr::__NR_fchmodat => named(fd, b, 0).and_then(|named| named.chmod(c as u32)),
        nr::__NR_chown => named(AT_FDCWD, a, 0).and_then(|named| named.chown(b, c)),
        nr::__NR_lchown => {
            let named = named(AT_FDCWD, a, nr::AT_SYMLINK_NOFOLLOW);
            named.and_then(|named| named.chown(b, c))
        }
        nr::__NR_fchown => named_by(fd).chown(b, c),
        nr::__NR_fchownat => named(fd, b, e as u32).and_then(|named| named.chown(c, d)),
        nr::__NR_utimensat => utimensat(fd, b, c, d as u32),
        nr::__NR_getcwd => getcwd(a, b as usize),
        nr::__NR_chdir => absolute(AT_FDCWD, a).and_then(chdir),
        nr::__NR_fchdir => match &file(fd) {
            Ok(open) => match &open.what {
                What::Node(_, path) => chdir(path.clone()),
                _ => Err(Errno::ENOTDIR),
            },
            Err(error) => Err(*error),
        },
        // No file has further attributes.
        nr::__NR_getxattr | nr::__NR_lgetxattr | nr::__NR_fgetxattr => Err(Errno::ENODATA),
        nr::__NR_listxattr | nr::__NR_llistxattr | nr::__NR_flistxattr => Ok(0),
        nr::__NR_setxattr | nr::__NR_lsetxattr | nr::__NR_fsetxattr => Err(Errno::EOPNOTSUPP),
        nr::__NR_removexattr | nr::__NR_lremovexattr | nr::__NR_fremovexattr => Err(Errno::ENODATA),
        _ => return None,
    })
}

/// An absolute path from what a call was given.
pub(super) fn absolute(directory: u32, path: u64) -> core::result::Result<String, Errno> {
    let path = String::from_utf8(user::read_path(path)?).map_err(|_| Errno::ENOENT)?;
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

fn find(
    directory: u32,
    path: u64,
    follow: Follow,
) -> core::result::Result<(String, Arc<Node>), Errno> {
    let path = absolute(directory, path)?;
    let node = fs::find(&path, follow)?;
    Ok((path, node))
}

fn path(directory: u32, path: u64, follow: Follow) -> core::result::Result<Arc<Node>, Errno> {
    Ok(find(directory, path, follow)?.1)
}

/// What a call is about: something with a path, or an open file without one.
enum Named {
    Node(Arc<Node>),
    Nameless(u32),
    Nothing(Errno),
}

/// What an open file is.
fn named_by(fd: u32) -> Named {
    const ANONYMOUS: u32 = 0o600;
    match file(fd) {
        Err(error) => Named::Nothing(error),
        Ok(open) => match &open.what {
            What::Node(node, _) => Named::Node(node.clone()),
            What::Read(_) | What::Write(_) => Named::Nameless(0o010_600),
            What::Socket(_) => Named::Nameless(0o140_777),
            What::Counter(_) | What::Timer(_) | What::Epoll(_) => Named::Nameless(ANONYMOUS),
        },
    }
}

/// What a path leads to, or with `AT_EMPTY_PATH` an open file.
fn named(directory: u32, at: u64, flags: u32) -> core::result::Result<Named, Errno> {
    if flags & nr::AT_EMPTY_PATH != 0 && (at == 0 || user::read::<1>(at)? == [0]) {
        return Ok(named_by(directory));
    }
    let follow = if flags & nr::AT_SYMLINK_NOFOLLOW != 0 { Follow::No } else { Follow::Yes };
    path(directory, at, follow).map(Named::Node)
}

/// What `stat` tells.
#[derive(Clone, Copy, Debug, Default)]
struct Stat {
    inode: u64,
    mode: u32,
    links: u32,
    owner: u64,
    length: u64,
    modified: u64,
}

impl Stat {
    fn of(node: &Node) -> Self {
        Self {
            inode: node.inode,
            mode: node.mode(),
            links: node.links.load(Ordering::Relaxed),
            owner: node.owner.load(Ordering::Relaxed),
            length: node.len(),
            modified: node.modified.load(Ordering::Relaxed),
        }
    }

    const fn device(&self) -> u64 {
        if self.mode & KIND == 0o020_000 { 5 << 8 | 1 } else { 0 }
    }

    /// Writes `struct stat`.
    fn write(&self, to: u64) -> Result {
        let mut words = [0u64; 18];
        words[0] = 1;
        words[1] = self.inode;
        words[2] = self.links.into();
        words[3] = u64::from(self.mode) | self.owner << 32;
        words[4] = self.owner >> 32;
        words[5] = self.device();
        words[6] = self.length;
        words[7] = 4096;
        words[8] = self.length.div_ceil(512);
        for pair in words[9..15].chunks_exact_mut(2) {
            pair.copy_from_slice(&[self.modified / NANOSECONDS, self.modified % NANOSECONDS]);
        }
        write_words(to, &words)
    }

    /// Writes `struct statx`.
    fn write_statx(&self, to: u64) -> Result {
        const BASIC: u64 = 0x7ff;
        let mut words = [0u64; 32];
        words[0] = BASIC | 4096 << 32;
        words[2] = u64::from(self.links) | self.owner << 32;
        words[3] = self.owner >> 32 | u64::from(self.mode) << 32;
        words[4] = self.inode;
        words[5] = self.length;
        words[6] = self.length.div_ceil(512);
        // Accessed, made, changed and modified.
        for pair in words[8..16].chunks_exact_mut(2) {
            pair.copy_from_slice(&[self.modified / NANOSECONDS, self.modified % NANOSECONDS]);
        }
        words[16] = (self.device() >> 8) | (self.device() & 0xff) << 32;
        words[17] = 1 << 32;
        write_words(to, &words)
    }
}

const NANOSECONDS: u64 = 1_000_000_000;

fn write_words(to: u64, words: &[u64]) -> Result {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    user::write(to, &bytes)?;
    Ok(0)
}

impl Named {
    fn stat(&self) -> core::result::Result<Stat, Errno> {
        match self {
            Self::Node(node) => Ok(Stat::of(node)),
            Self::Nameless(mode) => Ok(Stat { inode: 1, mode: *mode, links: 1, ..Stat::default() }),
            Self::Nothing(error) => Err(*error),
        }
    }

    fn node(&self) -> core::result::Result<Option<&Arc<Node>>, Errno> {
        match self {
            Self::Node(node) => Ok(Some(node)),
            Self::Nameless(_) => Ok(None),
            Self::Nothing(error) => Err(*error),
        }
    }

    fn write_stat(&self, to: u64) -> Result {
        self.stat()?.write(to)
    }

    fn write_statx(&self, to: u64) -> Result {
        self.stat()?.write_statx(to)
    }

    fn chmod(&self, mode: u32) -> Result {
        if let Some(node) = self.node()? {
            node.set_permissions(mode);
        }
        Ok(0)
    }

    /// Gives it another user and group; `u32::MAX` leaves one as it is.
    fn chown(&self, user: u64, group: u64) -> Result {
        if let Some(node) = self.node()? {
            let (user, group) = (user as u32, group as u32);
            let old = node.owner.load(Ordering::Relaxed);
            let user = if user == u32::MAX { old as u32 } else { user };
            let group = if group == u32::MAX { (old >> 32) as u32 } else { group };
            node.owner.store(u64::from(user) | u64::from(group) << 32, Ordering::Relaxed);
        }
        Ok(0)
    }
}

fn stat(node: &Node, to: u64) -> Result {
    Stat::of(node).write(to)
}

/// Writes `struct statfs`: memory is the room that files have.
fn statfs(path: &str, to: u64) -> Result {
    let machine: &Pc = kernel().manager.machine();
    let is_proc = path.starts_with("/proc") || path.starts_with("/sys");
    let (total, free) = match is_proc {
        true => (0, 0),
        false => (machine.frames(), machine.free_frames()),
    };
    let kind = if is_proc { PROC } else { TMPFS };
    let (total, free) = (u64::from(total), u64::from(free));
    let words = [kind, PAGE_SIZE, total, free, free, total, free, 0, 255, PAGE_SIZE, 0x20];
    let mut whole = [0; 15];
    whole[..words.len()].copy_from_slice(&words);
    write_words(to, &whole)
}

/// The superuser may do everything, except execute a file without any execute bit.
fn access(directory: u32, at: u64, wanted: u32) -> Result {
    const EXECUTE: u32 = 1;
    let node = path(directory, at, Follow::Yes)?;
    let is_file = matches!(node.kind, Kind::Regular(_));
    if wanted & EXECUTE != 0 && is_file && node.mode() & 0o111 == 0 {
        return Err(Errno::EACCES);
    }
    Ok(0)
}

fn readlink(directory: u32, from: u64, to: u64, bytes: u64) -> Result {
    let node = path(directory, from, Follow::No)?;
    let name;
    let target = match &node.kind {
        Kind::Link(target) => target.as_bytes(),
        Kind::Opened(open) => {
            let kind = match &open.what {
                What::Socket(_) => "socket",
                What::Counter(_) => "anon_inode:[eventfd]",
                What::Timer(_) => "anon_inode:[timerfd]",
                What::Epoll(_) => "anon_inode:[eventpoll]",
                _ => "pipe",
            };
            let is_whole = kind.ends_with(']');
            name = if is_whole { kind.into() } else { alloc::format!("{kind}:[{}]", node.inode) };
            name.as_bytes()
        }
        _ => return Err(Errno::EINVAL),
    };
    if bytes as i32 <= 0 {
        return Err(Errno::EINVAL);
    }
    let n = target.len().min(bytes as u32 as usize);
    user::write(to, &target[..n])?;
    Ok(n as u64)
}

fn remove(directory: u32, path: u64, what: Removed) -> Result {
    fs::remove(&absolute(directory, path)?, what).map(|()| 0)
}

fn make(directory: u32, path: u64, mode: u32, what: Create<'_>) -> Result {
    let mask = process::current().umask.load(Ordering::Relaxed);
    fs::create(&absolute(directory, path)?, mode & !mask, what).map(|_| 0)
}

fn mknod(directory: u32, path: u64, mode: u32) -> Result {
    let what = match mode & KIND {
        0 | 0o100_000 => Create::Regular,
        0o010_000 => Create::Fifo,
        _ => return Err(Errno::EPERM),
    };
    make(directory, path, mode, what)
}

fn symlink(target: u64, directory: u32, path: u64) -> Result {
    let target = String::from_utf8(user::read_path(target)?).map_err(|_| Errno::EINVAL)?;
    if target.is_empty() {
        return Err(Errno::ENOENT);
    }
    let path = absolute(directory, path)?;
    fs::create(&path, 0o777, Create::Link(&target)).map(|_| 0)
}

fn link(from: (u32, u64), to: (u32, u64), flags: u32) -> Result {
    let follow = if flags & nr::AT_SYMLINK_FOLLOW != 0 { Follow::Yes } else { Follow::No };
    fs::link(&absolute(from.0, from.1)?, &absolute(to.0, to.1)?, follow).map(|()| 0)
}

fn rename(from: (u32, u64), to: (u32, u64), flags: u32) -> Result {
    let (from, to) = (absolute(from.0, from.1)?, absolute(to.0, to.1)?);
    let mut existing = Existing::Replaced;
    match flags {
        0 => {}
        nr::RENAME_NOREPLACE => existing = Existing::Stays,
        _ => return Err(Errno::EINVAL),
    }
    fs::rename(&from, &to, existing).map(|()| 0)
}

/// Sets when a file was last written; when it was last read is not kept.
fn utimensat(directory: u32, at: u64, times: u64, flags: u32) -> Result {
    const NOW: u64 = 0x3fff_ffff;
    const OMIT: u64 = 0x3fff_fffe;
    let named = if at == 0 { named_by(directory) } else { named(directory, at, flags)? };
    let Some(node) = named.node()? else { return Ok(0) };
    let (seconds, nanoseconds) = match times {
        0 => (0, NOW),
        times => (user::read_u64(times + 16)?, user::read_u64(times + 24)?),
    };
    let modified = match nanoseconds {
        OMIT => return Ok(0),
        NOW => clock::since_1970(),
        n if n < NANOSECONDS => seconds.saturating_mul(NANOSECONDS).saturating_add(n),
        _ => return Err(Errno::EINVAL),
    };
    node.modified.store(modified, Ordering::Relaxed);
    Ok(0)
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

fn chdir(to: String) -> Result {
    match fs::find(&to, Follow::Yes)?.kind {
        Kind::Directory => {
            process::current().files.lock().directory = to;
            Ok(0)
        }
        _ => Err(Errno::ENOTDIR),
    }
}
