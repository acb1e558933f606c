//! Limits the growth of a swap file: it leaves a part of the file system to others, and stays below
//! the length that the process may write; exceeding that would raise a signal.

use super::extents::PAGES;
use super::name::FileName;
use super::open::{OpenError, slots_of};
use core::ffi::CStr;
use core::fmt;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicU8, AtomicU32};
use pagefault_machine::{IoError, PAGE_SIZE};
use rustix::fd::BorrowedFd;
use rustix::fs::FileType;
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

/// One part in this many of a file system is left to others: 5 %.
const LEFT_TO_OTHERS: u64 = 20;

/// The maximum of a file without a size, which bounds the tables.
const MOST_BYTES: u64 = 1 << 40;

/// The growth limit of one file.
pub(super) struct Growth {
    place: FileName,
    manners: Manners,
    /// The number of the shortage at the last refusal; 0 if room was found since.
    shortage: AtomicU8,
    /// How often a page was refused since it was last looked for room.
    refused: AtomicU32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Manners {
    /// Grows until the file system has only the part that is left to others.
    Considerate,
    /// Grows to its given size, if the host has that much.
    Given,
}

/// The room of a file system, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Space {
    pub total: u64,
    pub free: u64,
}

impl Space {
    /// The bytes that may be taken without touching the part left to others.
    const fn to_take(self) -> u64 {
        self.free.saturating_sub(self.total / LEFT_TO_OTHERS)
    }
}

/// Why a swap file has no room for a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// The file, or the directory that it was made in.
    pub place: FileName,
    /// What is short.
    pub kind: ShortageKind,
}

/// For how many pages that find no room one looks for it again.
const UNSEEN: u32 = 64;

/// What is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShortageKind {
    /// The file system has less than 5 % left.
    FileSystem,
    /// The process may not make longer files (`RLIMIT_FSIZE`).
    FileSizeLimit,
    /// The host says that the disk, or a quota, is full.
    Disk,
}

impl ShortageKind {
    const fn number(self) -> u8 {
        match self {
            Self::FileSystem => 1,
            Self::FileSizeLimit => 2,
            Self::Disk => 3,
        }
    }

    const fn of(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::FileSystem),
            2 => Some(Self::FileSizeLimit),
            3 => Some(Self::Disk),
            _ => None,
        }
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = &self.place;
        match self.kind {
            ShortageKind::FileSystem => write!(
                f,
                "swap file {place}: its file system has less than 5 % left; free some space, or \
                 name another place"
            ),
            ShortageKind::FileSizeLimit => write!(
                f,
                "swap file {place}: it is as long as the process may make a file (ulimit -f); \
                 raise that limit"
            ),
            ShortageKind::Disk => write!(
                f,
                "swap file {place}: the disk or a quota is full; free some space, or name another \
                 place"
            ),
        }
    }
}

impl Growth {
    /// The slots and the growth of a file of at most `bytes`.
    pub fn of(
        file: BorrowedFd<'_>,
        place: &CStr,
        bytes: Option<u64>,
    ) -> Result<(u32, Self), OpenError> {
        let limit = file_size_limit();
        if bytes.is_some_and(|bytes| bytes > limit) || limit < 2 * PAGE_SIZE {
            return Err(OpenError::FileSizeLimit { path: place.into(), limit });
        }
        let (bytes, manners) = match bytes {
            Some(bytes) => (bytes, Manners::Given),
            None => {
                let space = space_of(file)
                    .map_err(|errno| OpenError::Host { path: place.into(), errno })?;
                // Room that is taken now may be free when it is needed.
                let most = Space { free: space.total, ..space }.to_take();
                if most < 2 * PAGE_SIZE {
                    return Err(OpenError::Host { path: place.into(), errno: Errno::NOSPC });
                }
                // No process evicts more than it can address, and the tables need addresses too.
                let limits =
                    [Resource::As, Resource::Data].map(|resource| getrlimit(resource).current);
                let addresses = limits.into_iter().flatten().min().unwrap_or(u64::MAX);
                let most = most.min(limit).min(MOST_BYTES).min(addresses);
                (most, Manners::Considerate)
            }
        };
        Ok((slots_of(bytes)?, Self::new(place, manners)))
    }

    /// The growth of a file or device of this size in bytes; without a size, as far as the file system has room.
    pub fn up_to(place: &CStr, bytes: Option<u64>) -> Self {
        Self::new(place, if bytes.is_some() { Manners::Given } else { Manners::Considerate })
    }

    fn new(place: &CStr, manners: Manners) -> Self {
        Self {
            place: place.into(),
            manners,
            shortage: AtomicU8::new(0),
            refused: AtomicU32::new(0),
        }
    }

    /// The file, or the directory that it was made in.
    pub fn place(&self) -> &FileName {
        &self.place
    }

    /// How many pages of a file the process may write. A device has no file size limit.
    pub fn limit(file: BorrowedFd<'_>) -> u32 {
        let pages = u32::try_from(file_size_limit() / PAGE_SIZE).unwrap_or(u32::MAX);
        let is_device = || {
            let kind = rustix::fs::fstat(file).map(|stat| FileType::from_raw_mode(stat.st_mode));
            kind == Ok(FileType::BlockDevice)
        };
        if pages == u32::MAX || is_device() { u32::MAX } else { pages }
    }

    /// Whether the file may take room for one more extent from the file system.
    pub fn may_grow(&self, look: impl FnOnce() -> Result<Space, Errno>) -> bool {
        const EXTENT: u64 = PAGES as u64 * PAGE_SIZE;
        self.manners != Manners::Considerate || look().is_ok_and(|space| space.to_take() >= EXTENT)
    }

    /// Notes that room was found.
    pub fn found(&self) {
        self.shortage.store(0, Relaxed);
    }

    /// Notes that a page was freed: there may be room now.
    pub fn freed(&self) {
        self.refused.store(0, Relaxed);
    }

    /// Whether to refuse a page without a look: the last look found no room, and no page was freed since. Somebody else
    /// may have made room, so only most are refused.
    pub fn is_known_short(&self) -> bool {
        self.shortage.load(Relaxed) != 0
            && !self.refused.fetch_add(1, Relaxed).is_multiple_of(UNSEEN)
    }

    /// Notes why none was found.
    pub fn refuse(&self, kind: Option<ShortageKind>) {
        self.shortage.store(kind.map_or(0, ShortageKind::number), Relaxed);
    }

    /// Notes the host's error on a write.
    pub fn note(&self, error: IoError) {
        if error == IoError::Full {
            self.refuse(Some(ShortageKind::Disk));
        }
    }

    /// The shortage at the last refusal, if no page was taken since.
    pub fn shortage(&self) -> Option<Shortage> {
        let kind = ShortageKind::of(self.shortage.load(Relaxed))?;
        Some(Shortage { place: self.place.clone(), kind })
    }

    /// The shortage when every slot is in use, if the file system set their number.
    pub fn at_its_end(&self) -> Option<Shortage> {
        let kind = ShortageKind::FileSystem;
        (self.manners == Manners::Considerate).then(|| Shortage { place: self.place.clone(), kind })
    }
}

/// The longest file that the process may make. A write beyond raises `SIGXFSZ`.
fn file_size_limit() -> u64 {
    getrlimit(Resource::Fsize).current.unwrap_or(u64::MAX)
}

/// The room of a file's file system for this user.
pub(super) fn space_of(file: BorrowedFd<'_>) -> Result<Space, Errno> {
    let system = rustix::fs::fstatvfs(file)?;
    let bytes = |blocks: u64| blocks.saturating_mul(system.f_frsize);
    Ok(Space { total: bytes(system.f_blocks), free: bytes(system.f_bavail) })
}

#[cfg(test)]
mod tests;
