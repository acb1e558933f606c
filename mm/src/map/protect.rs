//! mprotect (spec C12).

use crate::edit::Exclusive;
use crate::error::ProtectError;
use crate::machine::{Cursor, Entry, Fate, Machine, PAGE_SIZE, Protection, VirtAddr};
use crate::map::mmap::is_data;
use crate::map::pages_up;
use crate::mm::Mm;
use crate::tlb::{After, Gather};
use crate::vma::{Vma, VmaFlags};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::{ControlFlow, Range};
use core::sync::atomic::Ordering;

/// Where a change of protection begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begin {
    /// At the address that is given.
    Address,
    /// Where the stack begins that the range reaches into.
    Stack,
}

/// What a change of rights does to the promise that there is memory for all pages of a region.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Promise {
    Stays,
    Begins,
    Ends,
}

impl Promise {
    fn of<M: Machine>(vma: &Vma<M>, wanted: VmaFlags) -> Self {
        let needs_none =
            VmaFlags::ACCOUNT | VmaFlags::WRITE | VmaFlags::SHARED | VmaFlags::NORESERVE;
        if wanted.contains(VmaFlags::WRITE) {
            return if vma.has(needs_none) { Self::Stays } else { Self::Begins };
        }
        // Memory that was never stored to loses its promise once it is read-only.
        let is_untouched = vma.file.is_none() && vma.written_family().is_none();
        if vma.has(VmaFlags::ACCOUNT) && is_untouched { Self::Ends } else { Self::Stays }
    }
}

impl<M: Machine> Mm<M> {
    /// Changes what accesses a range allows (`mprotect(2)`). Regions before the first failure stay changed.
    ///
    /// `address` is page-aligned; `length` is rounded up to whole pages, and one of 0 changes nothing. Takes the
    /// exclusive right to the address space, and may wait for memory.
    ///
    /// Private memory that is locked and becomes writable is copied at once, so that no later store
    /// has to wait; a page that cannot be copied now is copied by its first store.
    pub fn mprotect(
        self: &Arc<Self>,
        address: VirtAddr,
        length: u64,
        protection: Protection,
    ) -> Result<(), ProtectError> {
        self.protect_from(Begin::Address, address, length, protection)
    }

    /// As [`mprotect`](Self::mprotect), but from the beginning of the stack that the range reaches into, wherever
    /// that is by now (`PROT_GROWSDOWN`).
    ///
    /// [`ProtectError::NotAStack`]: the first region that ends above `address` does not grow down.
    pub fn mprotect_stack(
        self: &Arc<Self>,
        address: VirtAddr,
        length: u64,
        protection: Protection,
    ) -> Result<(), ProtectError> {
        self.protect_from(Begin::Stack, address, length, protection)
    }

    fn protect_from(
        self: &Arc<Self>,
        begin: Begin,
        address: VirtAddr,
        length: u64,
        protection: Protection,
    ) -> Result<(), ProtectError> {
        if !address.is_page_aligned() {
            return Err(ProtectError::Unaligned);
        }
        if length == 0 {
            return Ok(());
        }
        let length = pages_up(length).ok_or(ProtectError::Wraps)?;
        let end = address.checked_add(length).ok_or(ProtectError::Wraps)?;
        let mut to_copy = Vec::new();
        let exclusive = self.exclusive();
        let result = exclusive
            .beginning(begin, address..end)
            .and_then(|start| exclusive.protect_all(start..end, protection, &mut to_copy));
        drop(exclusive);
        to_copy.into_iter().for_each(|range| self.populate(range));
        result
    }
}

impl<M: Machine> Exclusive<'_, M> {
    /// Where a change of a range begins.
    fn beginning(&self, begin: Begin, range: Range<VirtAddr>) -> Result<VirtAddr, ProtectError> {
        match begin {
            Begin::Address => Ok(range.start),
            Begin::Stack => {
                let stack = self.mm().find(range.start).filter(|vma| vma.start < range.end);
                let stack = stack.ok_or(ProtectError::Unmapped)?;
                let grows = stack.has(VmaFlags::GROWSDOWN);
                if grows { Ok(stack.start) } else { Err(ProtectError::NotAStack) }
            }
        }
    }

    /// Goes through the regions, and notes which parts are to be copied at once.
    fn protect_all(
        &self,
        range: Range<VirtAddr>,
        protection: Protection,
        to_copy: &mut Vec<Range<VirtAddr>>,
    ) -> Result<(), ProtectError> {
        let mut at = range.start;
        while at < range.end {
            let vma = self.mm().containing(at).ok_or(ProtectError::Unmapped)?;
            let part = at..range.end.min(vma.end);
            at = part.end;
            self.protect(&vma, part.clone(), protection)?;
            let kept = VmaFlags::WRITE | VmaFlags::SHARED | VmaFlags::LOCKS;
            if protection.contains(Protection::WRITE) && vma.flags & kept == VmaFlags::LOCKED {
                to_copy.push(part);
            }
        }
        Ok(())
    }

    fn protect(
        &self,
        vma: &Arc<Vma<M>>,
        range: Range<VirtAddr>,
        protection: Protection,
    ) -> Result<(), ProtectError> {
        let wanted = VmaFlags::access(protection);
        let allowed = VmaFlags::from_bits_truncate((vma.flags.bits() >> 4) & 7);
        if !allowed.contains(wanted) {
            return Err(ProtectError::NotAllowed);
        }
        if vma.has(VmaFlags::SEALED) {
            return Err(ProtectError::Sealed);
        }
        let mut flags = vma.flags.difference(VmaFlags::ACCESS) | wanted;
        if flags == vma.flags {
            return Ok(());
        }
        let manager = &self.mm().manager;
        if is_data(flags) && !is_data(vma.flags) {
            self.check_data(&range)?;
        }
        let pages = (range.end - range.start) / PAGE_SIZE;
        let promise = Promise::of(vma, wanted);
        match promise {
            Promise::Begins => {
                manager.charge(pages).map_err(|_| ProtectError::CommitLimit)?;
                flags.insert(VmaFlags::ACCOUNT);
            }
            Promise::Ends => flags.remove(VmaFlags::ACCOUNT),
            Promise::Stays => {}
        }
        let changed = self.reflag(vma, range.clone(), flags);
        let is_over = if changed.is_ok() { Promise::Ends } else { Promise::Begins };
        if promise == is_over {
            manager.uncharge(pages);
        }
        let now = changed.map_err(|_| ProtectError::TooManyRegions)?;
        self.mm().rewrite(&now, range);
        Ok(())
    }

    /// Whether the limit on data allows a range to become writable.
    fn check_data(&self, range: &Range<VirtAddr>) -> Result<(), ProtectError> {
        let data = self.data_bytes(&(range.start..range.start)) + (range.end - range.start);
        let limit = self.mm().limits.data.load(Ordering::Relaxed);
        if data > limit { Err(ProtectError::DataLimit) } else { Ok(()) }
    }
}

impl<M: Machine> Mm<M> {
    /// Gives every present entry in a range the new protection of its region.
    ///
    /// A writable entry stays writable if its region still allows stores: its page is the region's
    /// own, or its first store was already noticed.
    fn rewrite(&self, vma: &Vma<M>, range: Range<VirtAddr>) {
        let mut gather = Gather::new(self);
        gather.each_entry(range, |gather, cursor, address, entry| {
            if let Entry::Present { frame, protection: before, .. } = entry {
                let kept = vma.written_protection() & before & Protection::WRITE;
                let protection = vma.page_protection().read_only() | kept;
                if self.gives_back_to_pin(vma, &entry) {
                    let (protection, accessed, dirty) = (vma.written_protection(), true, true);
                    let entry = Entry::Present { frame, protection, accessed, dirty };
                    cursor.replace(address, entry);
                    gather.add(address, frame, Fate::Narrowed, After::Keep);
                } else if protection != before {
                    cursor.protect(address, protection);
                    gather.add(address, frame, Fate::Narrowed, After::Keep);
                }
            }
            ControlFlow::Continue(())
        });
        gather.settle();
    }

    /// Whether an entry regains the right to store at once: a device or a system call may be about
    /// to store to its page, without a fault that would restore the right. A pinned page has one
    /// owner (spec J6).
    fn gives_back_to_pin(&self, vma: &Vma<M>, entry: &Entry) -> bool {
        let Entry::Present { frame, .. } = entry else { return false };
        let may = vma.has(VmaFlags::WRITE) && !vma.has(VmaFlags::SHARED);
        may && !entry.is_writable()
            && vma.written_family().is_some()
            && self.manager.is_pinned(*frame)
            && self.manager.page(*frame).is_anon()
    }
}
