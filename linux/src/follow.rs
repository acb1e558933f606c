//! Follows the host's changes of an identity space's mappings. The host goes first, since only it
//! knows what it refuses.
//!
//! The caller ensures that no other thread is inside the memory manager meanwhile.

use crate::frame::Location;
use crate::machine::Shared;
use crate::space::{LinuxSpace, SpaceCore};
use crate::stats::Counter;
use crate::uffd::Mapped;
use core::ops::Range;
use pagefault_machine::{Frame, PAGE_SIZE, VirtAddr};
use rustix::io::Errno;

impl LinuxSpace {
    /// Notes that the host has taken away the pages of a range, by `munmap` or a fixed `mmap`.
    /// Their content is lost, and the memory manager is about to drop the entries.
    ///
    /// # Safety
    /// The host has taken the pages away.
    pub unsafe fn forget(&self, range: Range<VirtAddr>) {
        let counters = &self.core.shared.counters;
        self.each_standing(&range, |held, _| {
            held.set_location(Location::Blank);
            counters.add(Counter::Dropped, 1);
        });
    }

    /// Notes that the host has moved the pages of a range to `to` by `mremap`. The new range is
    /// already registered, and the memory manager is about to move the entries.
    ///
    /// The host drops the write protection of moved pages; this restores it.
    ///
    /// # Safety
    /// The host has moved the pages, and no other thread is inside the memory manager.
    pub unsafe fn relocate(&self, range: Range<VirtAddr>, to: VirtAddr) -> Result<(), Errno> {
        let core = &self.core;
        let mut result = Ok(());
        let (from, to) = (range.start.value(), to.value());
        self.each_standing(&range, |held, host| {
            let Location::At(_, mapped) = held.location() else { return };
            let new = host - from + to;
            let moved = core.page_of(VirtAddr(new)).ok_or(Errno::INVAL).and_then(|page| {
                let _leaf = core.table.lock(page).map_err(|error| error.errno)?;
                core.table.set_shown(page, held.frame());
                Ok(())
            });
            held.set_location(Location::At(new, mapped));
            let protected = match mapped {
                Mapped::Writable => Ok(()),
                Mapped::WriteProtected => {
                    core.shared.descriptor.write_protect(new..new + PAGE_SIZE, mapped)
                }
            };
            result = result.and(moved).and(protected);
        });
        result
    }

    /// Calls `f` with each frame in a range, held, and its host address.
    fn each_standing(
        &self,
        range: &Range<VirtAddr>,
        mut f: impl FnMut(&crate::frame::Held<'_>, u64),
    ) {
        let core: &SpaceCore = &self.core;
        let shared: &Shared = &core.shared;
        let (Some(first), Some(last)) = (
            core.page_of(range.start),
            range.end.value().checked_sub(1).and_then(|last| core.page_of(VirtAddr(last))),
        ) else {
            return;
        };
        let hosts = core.host_of(first)..core.host_of(last) + PAGE_SIZE;
        let mut visit = |frame: Frame| {
            let inside =
                |location| matches!(location, Location::At(host, _) if hosts.contains(&host));
            if inside(shared.frames.peek(frame)) {
                let held = shared.frames.hold(frame);
                if let Location::At(host, _) = held.location()
                    && hosts.contains(&host)
                {
                    f(&held, host);
                }
            }
        };
        // Goes through the range or the frames ever used, whichever is shorter.
        if last - first >= shared.frames.used() as usize {
            return (0..shared.frames.used()).map(Frame).for_each(visit);
        }
        for page in first..=last {
            if let Some(frame) = core.table.shown(page, core.host_of(page), &shared.frames) {
                visit(frame);
            }
        }
    }
}
