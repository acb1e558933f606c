//! Snapshots: a memory's regions at an earlier moment.

use super::{Attachment, Region};
use crate::runtime::Quiet;
use pagefault::error::ForkError;
use std::fmt;
use std::sync::Arc;

/// The regions of a memory at the moment of the snapshot, independent since then.
///
/// Pages are shared with the memory until one of the two stores to them.
pub struct Snapshot {
    space: Arc<Attachment>,
    /// The memory of these regions.
    of: Arc<Attachment>,
    birth: u64,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Snapshot")
    }
}

/// Why a snapshot could not be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Bytes of the memory are [pinned](Region::pin): sharing their pages could take them away from
    /// a system call.
    #[error("bytes of the memory are pinned; drop the pins first")]
    Pinned,
    /// The address space could not be copied.
    #[error("the address space could not be copied: {0}")]
    Fork(ForkError),
    /// The host has no addresses left for a further window.
    #[error("the host has no addresses left for a snapshot, or there are too many of them")]
    Addresses,
}

impl Snapshot {
    pub(super) fn new(of: &Arc<Attachment>) -> Result<Self, SnapshotError> {
        let _quiet = Quiet::new();
        let pins = of.pins.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if *pins > 0 {
            return Err(SnapshotError::Pinned);
        }
        let machine = of.shared.runtime.machine();
        let table = machine.new_space().map_err(|_| SnapshotError::Addresses)?;
        let birth = of.birth();
        let space = of.space.fork_into(table).map_err(SnapshotError::Fork)?;
        drop(pins);
        Ok(Self { space: Attachment::new(&of.shared, space), of: of.clone(), birth })
    }

    /// The bytes that `region` had. `None` if it belongs to another memory, is younger than the
    /// snapshot, has a part that was [withheld](pagefault::Advice::DontFork) from it, or is a
    /// [shared](pagefault::Sharing::Shared) mapping of a file, whose later stores a copy would see too.
    /// A part that was to be [wiped](pagefault::Advice::WipeOnFork) is zeros.
    pub fn get(&self, region: &Region) -> Option<&[u8]> {
        let start = self.start_of(region)?;
        // SAFETY: the region was mapped when its space was copied, nobody can unmap the copy, it shares
        // no stores with the region, and only `get_mut` hands out references that store to it.
        Some(unsafe { std::slice::from_raw_parts(start, region.len()) })
    }

    /// The same bytes, mutable: the memory does not see the changes.
    pub fn get_mut(&mut self, region: &Region) -> Option<&mut [u8]> {
        let start = self.start_of(region)?;
        // SAFETY: as for `get`, and the exclusive reference to the snapshot is the only one.
        Some(unsafe { std::slice::from_raw_parts_mut(start, region.len()) })
    }

    fn start_of(&self, region: &Region) -> Option<*mut u8> {
        if !region.is_of(&self.of) || region.birth >= self.birth {
            return None;
        }
        let range = region.addresses();
        let _quiet = Quiet::new();
        let mut covered = range.start;
        for mapped in self.space.space.maps(range.clone()) {
            if mapped.range.start > covered || mapped.shared {
                return None;
            }
            covered = mapped.range.end;
        }
        let start = self.space.page_table().host_address(range.start);
        start.filter(|_| covered >= range.end)
    }
}
