//! The extents of a swap file of the tree that this process holds.
//!
//! Nothing is mapped for this before the first page goes to the file: most programs never write
//! one.

use crate::shared::{self, ACCESS};
use crate::sys::Result;
use crate::{files, process};
use alloc::boxed::Box;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64};
use once_cell::race::OnceBox;
use pagefault_control::{Control, EXTENT, EXTENT_PAGES, FilePlan, Holder, Spans};
use pagefault_linux::store::extents::{self, punch};
use rustix::fd::BorrowedFd;

const _: () = assert!(EXTENT_PAGES == extents::PAGES);

/// The extents of one file.
pub struct Extents {
    control: &'static Control,
    plan: FilePlan,
    area: usize,
    /// The words of all extents.
    words: OnceBox<Spans<'static>>,
    /// The slot whose column it is, and the column; null as long as nothing was held.
    slot: AtomicU32,
    column: AtomicPtr<AtomicU64>,
    /// None that this process ever held has this number or a higher one.
    end: AtomicU32,
    /// Where the search for a free one begins.
    hint: AtomicU32,
}

/// The extents of a child that is about to be forked.
pub struct Child {
    extents: &'static Extents,
    slot: u32,
    column: *mut AtomicU64,
}

impl Extents {
    /// The extents of an area's file, of which this process holds none.
    pub fn new(control: &'static Control, area: usize) -> Self {
        Self {
            control,
            plan: control.plan().files(),
            area,
            words: OnceBox::new(),
            slot: AtomicU32::new(process::boot().slot),
            column: AtomicPtr::default(),
            end: AtomicU32::new(0),
            hint: AtomicU32::new(0),
        }
    }

    /// Makes the child with `slot` hold the extents of this process. No other operation is running.
    pub fn child(&'static self, slot: u32, file: u32) -> Result<Child> {
        let mut child = Child { extents: self, slot, column: core::ptr::null_mut() };
        if let Some(holder) = self.holder() {
            child.column = self.map_column(slot, file)?;
            // SAFETY: just mapped.
            holder.share_with(unsafe { self.bits(child.column) });
        }
        Ok(child)
    }

    /// What this process holds, if it ever held anything.
    fn holder(&self) -> Option<Holder<'_>> {
        let column = self.column.load(Acquire);
        if column.is_null() {
            return None;
        }
        // SAFETY: a column stays mapped while it is this one.
        Some(Holder::new(*self.words.get()?, unsafe { self.bits(column) }))
    }

    /// Maps what is needed to hold something.
    #[cold]
    fn prepare(&self) -> Result<()> {
        let [file, ..] = files::shared();
        if self.words.get().is_none() {
            let (range, count) = (self.plan.words(self.area), self.plan.extents(self.area));
            let start = shared::map(file, range, ACCESS)?;
            // SAFETY: the mapping has a word for each extent. It is never unmapped: where another thread was
            // faster it is merely not used.
            let words = unsafe { core::slice::from_raw_parts(start.cast(), count as usize) };
            let _ = self.words.set(Box::new(Spans::new(words)));
        }
        let column = self.map_column(self.slot.load(Relaxed), file)?;
        let null = core::ptr::null_mut();
        if self.column.compare_exchange(null, column, Release, Relaxed).is_err() {
            self.unmap(column);
        }
        Ok(())
    }

    fn map_column(&self, slot: u32, file: u32) -> Result<*mut AtomicU64> {
        Ok(shared::map(file, self.plan.column(self.area, slot), ACCESS)?.cast())
    }

    /// The bits of a column, up to the highest extent that this process has held or is about to
    /// hold.
    ///
    /// # Safety
    /// The column is mapped, and stays so for the lifetime.
    unsafe fn bits<'a>(&self, column: *mut AtomicU64) -> &'a [AtomicU64] {
        // Reading unused parts would take memory.
        let words = self.end.load(Relaxed).div_ceil(64);
        // SAFETY: a column has a bit for each extent.
        unsafe { core::slice::from_raw_parts(column, words as usize) }
    }

    fn unmap(&self, column: *mut AtomicU64) {
        let range = self.plan.column(self.area, 0);
        if !column.is_null() {
            // SAFETY: nobody uses it any more.
            unsafe { shared::unmap(column.cast(), range.end - range.start) };
        }
    }
}

impl extents::Extents for &'static Extents {
    fn file(&self) -> BorrowedFd<'_> {
        // SAFETY: every program of the tree inherits the file, and closes it at no time.
        unsafe { BorrowedFd::borrow_raw(files::swap(self.area)) }
    }

    fn take(&self) -> Option<u32> {
        if self.column.load(Acquire).is_null() {
            self.prepare().ok()?;
        }
        let column = self.column.load(Acquire);
        let words = self.plan.extents(self.area).div_ceil(64) as usize;
        // SAFETY: mapped just now or before; a column has a bit for each extent.
        let column = unsafe { core::slice::from_raw_parts(column, words) };
        // Charged first: whoever gives an extent back frees it before the charge, and so the file never seems longer than
        // it may be.
        let files = &self.control.files;
        let most = u64::from(self.plan.extents(self.area)) * EXTENT;
        if !files.charge_bytes(self.area, EXTENT, most) {
            return None;
        }
        let taken = Holder::new(*self.words.get()?, column).take(self.area, &self.hint);
        let Some(extent) = taken else {
            files.uncharge_bytes(self.area, EXTENT);
            return None;
        };
        self.end.fetch_max(extent + 1, Relaxed);
        Some(extent)
    }

    fn give(&self, extent: u32) {
        let Some(holder) = self.holder() else { return };
        let pages = self.plan.pages(self.area);
        let give_back = || punch(extents::Extents::file(self), extent, pages);
        if let Some(area) = holder.leave(extent, give_back) {
            self.control.files.uncharge_bytes(area, EXTENT);
            self.hint.fetch_min(extent, Relaxed);
        }
    }

    fn is_sole(&self, extent: u32) -> bool {
        self.holder().is_some_and(|holder| holder.is_sole(extent))
    }
}

impl Child {
    /// Makes the extents this process's own: in the child.
    pub fn become_this(self) {
        self.extents.slot.store(self.slot, Relaxed);
        self.extents.unmap(self.extents.column.swap(self.column, Release));
    }

    /// Leaves them to the child: in the parent.
    pub fn leave_to_child(self) {
        self.extents.unmap(self.column);
    }

    /// Undoes the notes: there is no child.
    pub fn undo(self) {
        if let Some(holder) = self.extents.holder() {
            // SAFETY: mapped until the next line.
            holder.take_from(unsafe { self.extents.bits(self.column) });
        }
        self.extents.unmap(self.column);
    }
}
