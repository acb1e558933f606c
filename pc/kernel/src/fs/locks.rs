//! Locks that programs put on parts of files (`fcntl`, `flock`). They keep nobody from reading or
//! writing: they are between those who ask for them.

use super::Reading;
use super::ready::Changes;
use crate::errno::Errno;
use crate::lock::Mutex;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::Range;

/// Whose a lock is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A process's, whichever of its open files it was asked through.
    Process(u32),
    /// An open file's, whoever has it; the number is unique among those that are open.
    Open(usize),
    /// The same, of `flock`, which knows nothing of the others.
    Whole(usize),
}

impl Owner {
    /// Whether this owner's locks and the other's are about each other.
    const fn meets(self, other: Self) -> bool {
        matches!(self, Self::Whole(_)) == matches!(other, Self::Whole(_))
    }
}

/// Whether others may have a lock on the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Those of the same kind.
    Shared,
    /// No owner.
    Exclusive,
}

/// A lock on a part of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// Whose it is.
    pub owner: Owner,
    /// Whether others may have one too.
    pub kind: Kind,
    /// The bytes; the end of an endless lock is `u64::MAX`.
    pub range: Range<u64>,
}

impl Lock {
    fn excludes(&self, other: &Self) -> bool {
        self.owner != other.owner
            && self.owner.meets(other.owner)
            && (self.kind == Kind::Exclusive || other.kind == Kind::Exclusive)
            && self.range.start < other.range.end
            && other.range.start < self.range.end
    }
}

/// The most locks on a file.
const MOST: usize = 4096;

/// The locks of each file, by the file's number.
static LOCKS: Mutex<BTreeMap<u64, Vec<Lock>>> = Mutex::new(BTreeMap::new());
/// Locks that were given back.
static CHANGES: Changes = Changes::new();

/// The first lock that stands against another.
pub fn conflict(inode: u64, wanted: &Lock) -> Option<Lock> {
    LOCKS.lock().get(&inode)?.iter().find(|lock| lock.excludes(wanted)).cloned()
}

/// Puts a lock on a file, in the place of what its owner has there; waits for others, or not.
pub fn lock(inode: u64, wanted: &Lock, patience: Reading) -> Result<(), Errno> {
    loop {
        let seen = CHANGES.now();
        {
            let mut locks = LOCKS.lock();
            let locks = locks.entry(inode).or_default();
            if locks.len() >= MOST {
                return Err(Errno::ENOLCK);
            }
            if !locks.iter().any(|lock| lock.excludes(wanted)) {
                cut(locks, wanted.owner, &wanted.range);
                locks.push(wanted.clone());
                break;
            }
        }
        CHANGES.wait(seen, patience)?;
    }
    // An exclusive lock may have become a shared one.
    CHANGES.tell();
    Ok(())
}

/// Gives back what an owner has on a part of a file.
pub fn unlock(inode: u64, owner: Owner, range: &Range<u64>) {
    {
        let mut all = LOCKS.lock();
        let Some(locks) = all.get_mut(&inode) else { return };
        cut(locks, owner, range);
        if locks.is_empty() {
            all.remove(&inode);
        }
    }
    CHANGES.tell();
}

/// Gives back everything that an owner has on any file.
pub fn unlock_all(owner: Owner) {
    LOCKS.lock().retain(|_, locks| {
        locks.retain(|lock| lock.owner != owner);
        !locks.is_empty()
    });
    CHANGES.tell();
}

/// Takes a range out of an owner's locks; what is left on both sides stays locked.
fn cut(locks: &mut Vec<Lock>, owner: Owner, range: &Range<u64>) {
    let mut kept = Vec::new();
    locks.retain(|lock| {
        let is_met =
            lock.owner == owner && lock.range.start < range.end && range.start < lock.range.end;
        if is_met {
            for part in [lock.range.start..range.start, range.end..lock.range.end] {
                if part.start < part.end {
                    kept.push(Lock { range: part, ..lock.clone() });
                }
            }
        }
        !is_met
    });
    locks.append(&mut kept);
}
