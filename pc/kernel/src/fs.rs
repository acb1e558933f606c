//! Files, as few as real programs need: a tree in memory, filled from the loader's archive.
//!
//! A file's content is in the page cache. Files of the archive are read from it page by page as
//! they are needed; files that programs make, or write to, are shared memory objects, whose pages
//! go to swap, but for those below `/disk`, where the machine has a disk for them.

pub mod epoll;
pub mod event;
pub mod locks;
mod node;
mod open;
mod pipe;
pub mod ready;
pub mod seals;
pub mod socket;
mod volume;

pub use node::{Device, KIND, Kind, Node};
pub use open::{Files, OnExec, Open, Reading, What, file, most_open};
pub use pipe::{CAPACITY as PIPE_CAPACITY, End, open as open_pipe, pipe};

use crate::disk::Disk;
use crate::errno::Errno;
use crate::procfs::{self, Made};
use crate::sleep::SleepMutex;
use crate::{kernel, shm, swap};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Bound;
use core::sync::atomic::Ordering;
use node::{BLOCK, Content, DEVICE, DIRECTORY, FIFO, LINK, REGULAR, node};
use pagefault::File;
use volume::Stored;

/// The most symbolic links on the way to a file.
const LINKS: usize = 16;

/// All paths, absolute and without `.` and `..`.
static TREE: SleepMutex<BTreeMap<String, Arc<Node>>> = SleepMutex::new(BTreeMap::new());

/// Fills the tree from an archive in the cpio format, and adds the devices and the file disk.
pub fn start(archive: &'static [u8], disk: Option<Disk>) {
    let mut tree = TREE.lock();
    let mut add = |path: String, mode, kind| _ = tree.insert(path, node(mode, kind));
    for path in ["/", "/dev", "/dev/shm", "/proc", "/run", "/sys", "/tmp", "/var", "/var/tmp"] {
        add(path.to_string(), DIRECTORY | 0o755, Kind::Directory);
    }
    if let Some(disk) = disk {
        volume::start(disk);
        add(volume::DIRECTORY.to_string(), DIRECTORY | 0o755, Kind::Directory);
    }
    for entry in cpio_reader::iter_files(archive) {
        let path = absolute("/", entry.name());
        let mode = entry.mode().bits();
        let kind = match mode & KIND {
            DIRECTORY => Kind::Directory,
            REGULAR => Kind::Regular(SleepMutex::new(Content::Archived(entry.file()))),
            LINK => Kind::Link(String::from_utf8_lossy(entry.file()).into_owned()),
            _ => continue,
        };
        add(path, mode, kind);
    }
    let devices = [
        ("/dev/console", Device::Console),
        ("/dev/tty", Device::Console),
        ("/dev/null", Device::Null),
        ("/dev/zero", Device::Zero),
        ("/dev/urandom", Device::Random),
        ("/dev/random", Device::Random),
        ("/proc/pagefault/fail", Device::Failures),
    ];
    let links = [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
    ];
    for (path, target) in links {
        add(path.to_string(), LINK | 0o777, Kind::Link(target.to_string()));
    }
    for (path, device) in devices {
        add(path.to_string(), DEVICE | 0o666, Kind::Device(device));
    }
}

/// Adds the devices that may be swap areas.
pub fn add_swap_devices() {
    for path in swap::paths() {
        TREE.lock().insert(path, node(BLOCK | 0o660, Kind::Device(Device::Swap)));
    }
}

/// A path made absolute: from `directory` if it is relative, with `.` and `..` taken out.
pub fn absolute(directory: &str, path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let before = if path.starts_with('/') { "" } else { directory };
    for part in before.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => _ = parts.pop(),
            part => parts.push(part),
        }
    }
    let mut whole = String::from("/");
    whole.push_str(&parts.join("/"));
    whole
}

/// Whether a symbolic link at the end of a path is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// It is.
    Yes,
    /// It is what is meant.
    No,
}

/// Takes the symbolic links out of an absolute path.
fn resolve(path: &str, follow: Follow) -> Result<String, Errno> {
    let mut path = path.to_string();
    for _ in 0..LINKS {
        let mut next = None;
        let ends = path.match_indices('/').skip(1).map(|(at, _)| at).chain([path.len()]);
        for end in ends {
            let whole = end == path.len();
            if whole && follow == Follow::No {
                continue;
            }
            let found = look(&path[..end]);
            if let Some(Kind::Link(target)) = found.as_ref().map(|node| &node.kind) {
                let directory = path[..end].rsplit_once('/').map_or("/", |(before, _)| before);
                let mut replaced = absolute(directory, target);
                replaced.push_str(&path[end..]);
                next = Some(absolute("/", &replaced));
                break;
            }
        }
        match next {
            Some(next) => path = next,
            None => return Ok(path),
        }
    }
    Err(Errno::ELOOP)
}

/// Finds what an absolute path names.
pub fn find(path: &str, follow: Follow) -> Result<Arc<Node>, Errno> {
    look(&resolve(path, follow)?).ok_or(Errno::ENOENT)
}

/// What is at a path without links on the way.
fn look(path: &str) -> Option<Arc<Node>> {
    let found = TREE.lock().get(path).cloned();
    if found.is_some() || !procfs::is_below(path) {
        return found;
    }
    let (mode, kind) = match procfs::look(path)? {
        Made::Text(text) => (REGULAR | 0o444, Kind::Text(text)),
        Made::TooLong => (REGULAR | 0o444, Kind::TooLong),
        Made::Pagemap(process) => (REGULAR | 0o400, Kind::Pagemap(process)),
        Made::Memory(process) => (REGULAR | 0o600, Kind::Memory(process)),
        Made::Link(target) => (LINK | 0o777, Kind::Link(target)),
        Made::Directory(_) => (DIRECTORY | 0o555, Kind::Directory),
        Made::Opened(open) => (FIFO | 0o600, Kind::Opened(open)),
    };
    Some(node(mode, kind))
}

/// The number and path of each object in the page cache that has a path.
pub fn objects() -> BTreeMap<u64, (u64, String)> {
    let segments = shm::all().into_iter().map(|(number, segment)| {
        (segment.file.id(), (number.into(), format!("/SYSV{:08x} (deleted)", segment.name)))
    });
    let segments: Vec<_> = segments.collect();
    let nodes = TREE.lock();
    let object = |node: &Node| match &node.kind {
        Kind::Regular(content) => content.lock().object(),
        _ => None,
    };
    nodes
        .iter()
        .filter_map(|(path, node)| Some((object(node)?, (node.inode, path.clone()))))
        .chain(segments)
        .collect()
}

/// Makes an empty regular file, a directory or a link.
pub fn create(path: &str, mode: u32, what: Create<'_>) -> Result<Arc<Node>, Errno> {
    let path = resolve(path, Follow::Yes)?;
    let parent = directory_of(&path);
    let (kind, bits) = match what {
        Create::Directory => (Kind::Directory, DIRECTORY),
        Create::Link(target) => (Kind::Link(target.to_string()), LINK),
        Create::Regular => {
            let manager = &kernel().manager;
            let file = match path.strip_prefix(volume::DIRECTORY) {
                Some(below) if below.starts_with('/') => File::open(manager, Stored::new()),
                _ => File::shared(manager, 0),
            };
            (Kind::Regular(SleepMutex::new(Content::Own(file))), REGULAR)
        }
        Create::Fifo => (Kind::Fifo(Arc::default()), FIFO),
    };
    let mut tree = TREE.lock();
    match tree.get(parent).map(|node| &node.kind) {
        Some(Kind::Directory) => {}
        Some(_) => return Err(Errno::ENOTDIR),
        None => return Err(Errno::ENOENT),
    }
    if tree.contains_key(&path) {
        return Err(Errno::EEXIST);
    }
    may_change(&path)?;
    let node = node(bits | mode & 0o7777, kind);
    tree.insert(path, node.clone());
    Ok(node)
}

/// What [`create`] makes.
#[derive(Clone, Copy, Debug)]
pub enum Create<'a> {
    /// A directory.
    Directory,
    /// A regular file.
    Regular,
    /// A symbolic link to a path.
    Link(&'a str),
    /// A pipe.
    Fifo,
}

/// Gives a file a further path.
pub fn link(from: &str, to: &str, follow: Follow) -> Result<(), Errno> {
    let node = find(from, follow)?;
    let to = resolve(to, Follow::No)?;
    if matches!(node.kind, Kind::Directory) {
        return Err(Errno::EPERM);
    }
    if procfs::is_below(&resolve(from, follow)?) {
        return Err(Errno::EXDEV);
    }
    let mut tree = TREE.lock();
    if tree.contains_key(&to) {
        return Err(Errno::EEXIST);
    }
    may_change(&to)?;
    if !matches!(tree.get(directory_of(&to)).map(|node| &node.kind), Some(Kind::Directory)) {
        return Err(Errno::ENOENT);
    }
    node.links.fetch_add(1, Ordering::Relaxed);
    tree.insert(to, node);
    Ok(())
}

/// The directory that an absolute path is in.
fn directory_of(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some((before, _)) if !before.is_empty() => before,
        _ => "/",
    }
}

/// Whether what is at a path may come, go or change its name: not what is made when someone looks,
/// and not what other things are mounted on in Linux.
fn may_change(path: &str) -> Result<(), Errno> {
    if procfs::is_below(path) {
        return Err(Errno::ENOENT);
    }
    let is_fixed = matches!(path, "/" | "/proc" | "/sys" | "/dev") || path == volume::DIRECTORY;
    if is_fixed { Err(Errno::EBUSY) } else { Ok(()) }
}

/// All paths below a directory.
fn below<'a>(
    tree: &'a BTreeMap<String, Arc<Node>>,
    directory: &str,
) -> impl Iterator<Item = &'a String> {
    let mut start = directory.to_string();
    start.push('/');
    let from = tree.range::<str, _>((Bound::Included(start.as_str()), Bound::Unbounded));
    from.map(|(path, _)| path).take_while(move |path| path.starts_with(&start))
}

/// What to remove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed {
    /// A directory that is empty.
    Directory,
    /// Anything else.
    Other,
}

/// Takes a path away; what it named lives on while it is open.
pub fn remove(path: &str, what: Removed) -> Result<(), Errno> {
    let path = resolve(path, Follow::No)?;
    let removed = {
        let mut tree = TREE.lock();
        let is_directory = match tree.get(&path).map(|node| &node.kind) {
            None => return Err(Errno::ENOENT),
            Some(Kind::Directory) => true,
            Some(_) => false,
        };
        match (is_directory, what) {
            (true, Removed::Other) => return Err(Errno::EISDIR),
            (false, Removed::Directory) => return Err(Errno::ENOTDIR),
            _ => {}
        }
        may_change(&path)?;
        if below(&tree, &path).next().is_some() {
            return Err(Errno::ENOTEMPTY);
        }
        tree.remove(&path)
    };
    if let Some(node) = &removed {
        node.links.fetch_sub(1, Ordering::Relaxed);
    }
    drop(removed);
    Ok(())
}

/// What becomes of what has the new path already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It goes.
    Replaced,
    /// It stays, and nothing else may have its path.
    Stays,
}

/// Gives something another path.
pub fn rename(from: &str, to: &str, existing: Existing) -> Result<(), Errno> {
    let (from, to) = (resolve(from, Follow::No)?, resolve(to, Follow::No)?);
    may_change(&from)?;
    may_change(&to)?;
    let replaced = {
        let mut tree = TREE.lock();
        if !matches!(tree.get(directory_of(&to)).map(|node| &node.kind), Some(Kind::Directory)) {
            return Err(Errno::ENOENT);
        }
        let node = tree.get(&from).ok_or(Errno::ENOENT)?;
        let is_directory = matches!(node.kind, Kind::Directory);
        if is_directory && to.strip_prefix(&from).is_some_and(|rest| rest.starts_with('/')) {
            return Err(Errno::EINVAL);
        }
        if let Some(other) = tree.get(&to) {
            if existing == Existing::Stays {
                return Err(Errno::EEXIST);
            }
            if Arc::ptr_eq(node, other) {
                return Ok(());
            }
            match (is_directory, matches!(other.kind, Kind::Directory)) {
                (false, true) => return Err(Errno::EISDIR),
                (true, false) => return Err(Errno::ENOTDIR),
                (true, true) if below(&tree, &to).next().is_some() => {
                    return Err(Errno::ENOTEMPTY);
                }
                _ => {}
            }
        }
        let node = tree.remove(&from).ok_or(Errno::ENOENT)?;
        let moved: Vec<String> = below(&tree, &from).cloned().collect();
        for path in moved {
            if let Some(node) = tree.remove(&path) {
                let mut new = to.clone();
                new.push_str(&path[from.len()..]);
                tree.insert(new, node);
            }
        }
        tree.insert(to, node)
    };
    if let Some(node) = &replaced {
        node.links.fetch_sub(1, Ordering::Relaxed);
    }
    drop(replaced);
    Ok(())
}

/// The names directly below a directory, with what they name.
pub fn list(path: &str) -> Vec<(String, Arc<Node>)> {
    let Ok(path) = resolve(path, Follow::Yes) else { return Vec::new() };
    if (procfs::is_below(&path) || path == procfs::ROOT)
        && let Some(Made::Directory(names)) = procfs::look(&path)
    {
        let child = |name: String| Some((name.clone(), look(&absolute(&path, &name))?));
        return names.into_iter().filter_map(child).collect();
    }
    let mut below = path.to_string();
    if !below.ends_with('/') {
        below.push('/');
    }
    TREE.lock()
        .range::<str, _>((Bound::Excluded(below.as_str()), Bound::Unbounded))
        .take_while(|(path, _)| path.starts_with(&below))
        .filter(|(path, _)| !path[below.len()..].contains('/'))
        .map(|(path, node)| (path[below.len()..].to_string(), node.clone()))
        .collect()
}

/// Makes a regular file without a path.
pub fn nameless() -> Arc<Node> {
    let file = File::shared(&kernel().manager, 0);
    node(REGULAR | 0o600, Kind::Regular(SleepMutex::new(Content::Own(file))))
}
