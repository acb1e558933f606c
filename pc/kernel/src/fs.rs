//! Files, as few as real programs need: a tree in memory, filled from the loader's archive.
//!
//! A file's content is in the page cache. Files of the archive are read from it page by page as
//! they are needed; files that programs make, or write to, are shared memory objects, whose pages
//! go to swap, but for those below `/disk`, where the machine has a disk for them.

mod open;
mod pipe;
mod volume;

pub use open::{Files, Open, Reading, What, file};
pub use pipe::{CAPACITY as PIPE_CAPACITY, pipe};

use crate::disk::Disk;
use crate::errno::Errno;
use crate::kernel;
use crate::machine::Pc;
use crate::process::Process;
use crate::procfs::{self, Made};
use crate::sleep::SleepMutex;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Bound;
use core::sync::atomic::{AtomicU64, Ordering};
use pagefault::File;
use pagefault::machine::store::PageBytes;
use pagefault::machine::{Backing, IoError, PAGE_SIZE};
use volume::Stored;

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const DEVICE: u32 = 0o020_000;
const FIFO: u32 = 0o010_000;
const KIND: u32 = 0o170_000;

/// The most symbolic links on the way to a file.
const LINKS: usize = 16;

/// Something with a path.
pub struct Node {
    /// Its number.
    pub inode: u64,
    /// Its kind and permissions.
    pub mode: u32,
    /// What it is.
    pub kind: Kind,
    /// Held by who writes at the end (`O_APPEND`).
    end: SleepMutex<()>,
}

/// What a path may lead to.
pub enum Kind {
    /// Other paths go on below it.
    Directory,
    /// Bytes.
    Regular(SleepMutex<Content>),
    /// Another path.
    Link(String),
    /// The console, or one of the devices without content.
    Device(Device),
    /// A text that was made when it was looked up.
    Text(Vec<u8>),
    /// A word for each page of a process (`/proc/PID/pagemap`).
    Pagemap(Arc<Process>),
    /// An open file that has no path of its own.
    Opened(Arc<Open>),
}

/// A device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// The programs' terminal.
    Console,
    /// Swallows everything, holds nothing.
    Null,
    /// Swallows everything, holds zeros.
    Zero,
    /// Random bytes.
    Random,
    /// Takes orders of what shall fail.
    Failures,
}

/// Where a regular file's bytes are.
#[derive(Clone)]
pub enum Content {
    /// In the archive; not used yet.
    Archived(&'static [u8]),
    /// In the page cache, read from the archive.
    Cached(File<Pc>, &'static [u8]),
    /// In the page cache, and in swap or on the file disk.
    Own(File<Pc>),
}

/// A file of the archive, for the page cache.
struct Archived(&'static [u8]);

impl Backing for Archived {
    fn read(&self, index: u64, page: &mut PageBytes) -> Result<(), IoError> {
        let start = (index * PAGE_SIZE) as usize;
        let bytes = self.0.get(start..).ok_or(IoError::Device)?;
        let n = bytes.len().min(page.len());
        page[..n].copy_from_slice(&bytes[..n]);
        Ok(())
    }

    fn write(&self, _index: u64, _page: &[u8]) -> Result<(), IoError> {
        Err(IoError::Unsupported)
    }

    fn len(&self) -> u64 {
        self.0.len() as u64
    }
}

impl Content {
    /// The content for reading.
    pub fn cached(&mut self) -> File<Pc> {
        match self {
            Self::Cached(file, _) | Self::Own(file) => file.clone(),
            Self::Archived(bytes) => {
                let file = File::open(&kernel().manager, Arc::new(Archived(bytes)));
                *self = Self::Cached(file.clone(), bytes);
                file
            }
        }
    }

    /// The number of the object in the page cache, if there is one yet.
    fn object(&self) -> Option<u64> {
        match self {
            Self::Archived(_) => None,
            Self::Cached(file, _) | Self::Own(file) => Some(file.id()),
        }
    }

    fn len(&self) -> u64 {
        match self {
            Self::Archived(bytes) => bytes.len() as u64,
            Self::Cached(file, _) | Self::Own(file) => file.len(),
        }
    }
}

impl Node {
    /// The length in bytes.
    pub fn len(&self) -> u64 {
        match &self.kind {
            Kind::Regular(content) => content.lock().len(),
            Kind::Link(target) => target.len() as u64,
            Kind::Directory => 4096,
            // What is made when it is looked at shows no length, as on Linux.
            Kind::Device(_) | Kind::Text(_) | Kind::Pagemap(_) | Kind::Opened(_) => 0,
        }
    }

    /// The content of a regular file for reading.
    pub fn content(&self) -> Result<File<Pc>, Errno> {
        match &self.kind {
            Kind::Regular(content) => Ok(content.lock().cached()),
            Kind::Directory => Err(Errno::EISDIR),
            _ => Err(Errno::EINVAL),
        }
    }

    /// The content of a regular file for writing, which makes a copy of what is in the archive.
    pub fn content_for_writing(&self) -> Result<File<Pc>, Errno> {
        let Kind::Regular(content) = &self.kind else { return Err(Errno::EISDIR) };
        // Held while the copy is made: a second writer must not make another.
        let mut content = content.lock();
        let archived = match &*content {
            Content::Own(file) => return Ok(file.clone()),
            Content::Archived(bytes) | Content::Cached(_, bytes) => *bytes,
        };
        let copy = File::shared(&kernel().manager, 0);
        copy.write_all_at(0, archived)?;
        *content = Content::Own(copy.clone());
        Ok(copy)
    }
}

/// All paths, absolute and without `.` and `..`.
static TREE: SleepMutex<BTreeMap<String, Arc<Node>>> = SleepMutex::new(BTreeMap::new());
static INODES: AtomicU64 = AtomicU64::new(1);

fn node(mode: u32, kind: Kind) -> Arc<Node> {
    let inode = INODES.fetch_add(1, Ordering::Relaxed);
    Arc::new(Node { inode, mode, kind, end: SleepMutex::new(()) })
}

/// Fills the tree from an archive in the cpio format, and adds the devices and the file disk.
pub fn start(archive: &'static [u8], disk: Option<Disk>) {
    let mut tree = TREE.lock();
    let mut add = |path: String, mode, kind| _ = tree.insert(path, node(mode, kind));
    for path in ["/", "/dev", "/dev/shm", "/proc", "/sys", "/tmp"] {
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
        Made::Pagemap(process) => (REGULAR | 0o400, Kind::Pagemap(process)),
        Made::Link(target) => (LINK | 0o777, Kind::Link(target)),
        Made::Directory(_) => (DIRECTORY | 0o555, Kind::Directory),
        Made::Opened(open) => (FIFO | 0o600, Kind::Opened(open)),
    };
    Some(node(mode, kind))
}

/// The number and path of each object in the page cache that has a path.
pub fn objects() -> BTreeMap<u64, (u64, String)> {
    let nodes = TREE.lock();
    let object = |node: &Node| match &node.kind {
        Kind::Regular(content) => content.lock().object(),
        _ => None,
    };
    nodes
        .iter()
        .filter_map(|(path, node)| Some((object(node)?, (node.inode, path.clone()))))
        .collect()
}

/// Makes an empty regular file, a directory or a link.
pub fn create(path: &str, mode: u32, what: Create<'_>) -> Result<Arc<Node>, Errno> {
    let path = resolve(path, Follow::Yes)?;
    let parent = path.rsplit_once('/').map_or("/", |(parent, _)| parent);
    let parent = if parent.is_empty() { "/" } else { parent };
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
}

/// Takes a path away; what it named lives on while it is open.
pub fn remove(path: &str) -> Result<(), Errno> {
    let path = resolve(path, Follow::No)?;
    let has_children = !list(&path).is_empty();
    let removed = {
        let mut tree = TREE.lock();
        match tree.get(&path).map(|node| &node.kind) {
            None => return Err(Errno::ENOENT),
            Some(Kind::Directory) if has_children => return Err(Errno::ENOTEMPTY),
            Some(_) => tree.remove(&path),
        }
    };
    drop(removed);
    Ok(())
}

/// Gives something another path.
pub fn rename(from: &str, to: &str) -> Result<(), Errno> {
    let (from, to) = (resolve(from, Follow::No)?, resolve(to, Follow::No)?);
    let replaced = {
        let mut tree = TREE.lock();
        let node = tree.remove(&from).ok_or(Errno::ENOENT)?;
        let mut below = from.clone();
        below.push('/');
        let moved: Vec<String> = tree
            .range::<str, _>((Bound::Included(below.as_str()), Bound::Unbounded))
            .map(|(path, _)| path.clone())
            .take_while(|path| path.starts_with(&below))
            .collect();
        for path in moved {
            if let Some(node) = tree.remove(&path) {
                let mut new = to.clone();
                new.push_str(&path[from.len()..]);
                tree.insert(new, node);
            }
        }
        tree.insert(to, node)
    };
    drop(replaced);
    Ok(())
}

/// The names directly below a directory, with what they name.
pub fn list(path: &str) -> Vec<(String, Arc<Node>)> {
    let Ok(path) = resolve(path, Follow::Yes) else { return Vec::new() };
    if procfs::is_below(&path)
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
