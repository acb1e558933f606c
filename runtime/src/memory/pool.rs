//! The compressed memory of the tree, as this process uses it.
//!
//! The spans lie in the shared memory's file, which is mapped whole without access rights. When
//! this process takes a span, it opens 8 MiB around it. A forked child inherits that, and so can
//! read all that its parent has compressed.

use super::swap::SwapError;
use crate::shared::{self, ACCESS};
use crate::sys::{self, Result};
use alloc::vec::Vec;
use core::sync::atomic::Ordering::{Acquire, Release};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64};
use linux_raw_sys::general as nr;
use pagefault_control::{Control, Holder, Plan, Spans};
use pagefault_linux::store::pool::{self, SPAN};

const _: () = assert!(SPAN as u64 == pagefault_control::SPAN);

/// The spans that are opened together: 8 MiB.
const CHUNK: u32 = 256;

/// The state shared by all areas of compressed memory in this process.
pub struct Pool {
    control: &'static Control,
    plan: Plan,
    spans: Spans<'static>,
    /// The bits of the spans that this process holds.
    column: AtomicPtr<AtomicU64>,
    /// Where the search for a free span begins.
    hint: AtomicU32,
    /// The address of the first span.
    memory: *mut u8,
    /// Whether each chunk may be accessed.
    open: Vec<AtomicBool>,
}

// SAFETY: the memory is shared by processes anyway, and its spans say whose they are.
unsafe impl Send for Pool {}
// SAFETY: as above.
unsafe impl Sync for Pool {}

/// The part of the pool that one area may use.
pub struct Part {
    pool: &'static Pool,
    area: usize,
    limit: u64,
}

/// The column of a child that is about to be forked.
pub struct Child {
    pool: &'static Pool,
    column: *mut AtomicU64,
}

impl Pool {
    /// The pool, for the process that has a slot.
    pub fn new(control: &'static Control, slot: u32, file: u32) -> Result<Self> {
        let plan = control.plan();
        let words = shared::map(file, plan.span_words(), ACCESS)?;
        // SAFETY: the mapping has a word for each span, and is never unmapped.
        let words = unsafe { core::slice::from_raw_parts(words.cast(), plan.spans() as usize) };
        let chunks = plan.spans().div_ceil(CHUNK);
        Ok(Self {
            control,
            plan,
            spans: Spans::new(words),
            column: AtomicPtr::new(map_column(&plan, slot, file)?),
            hint: AtomicU32::new(0),
            memory: shared::map(file, plan.pool(), nr::PROT_NONE)?,
            open: (0..chunks).map(|_| AtomicBool::new(false)).collect(),
        })
    }

    /// The shared memory that it is in.
    pub const fn control(&self) -> &'static Control {
        self.control
    }

    /// The part that an area of the configuration may use.
    pub fn part(&'static self, area: usize) -> core::result::Result<Part, SwapError> {
        let limit = self.control.ram_bytes(area).ok_or(SwapError::Config)?;
        Ok(Part { pool: self, area, limit })
    }

    /// Makes the child with `slot` hold the spans of this process. No other operation is running.
    pub fn child(&'static self, slot: u32, file: u32) -> Result<Child> {
        let column = map_column(&self.plan, slot, file)?;
        let child = Child { pool: self, column };
        self.holder().share_with(child.column());
        Ok(child)
    }

    /// What this process holds.
    fn holder(&self) -> Holder<'_> {
        // SAFETY: a column stays mapped while it is this one.
        Holder::new(self.spans, unsafe { column(&self.plan, self.column.load(Acquire)) })
    }

    /// Releases a span of this process.
    fn leave(&self, span: u32) {
        let give_back = || {
            let start = self.memory(span) as usize;
            // SAFETY: the span holds no object of anybody's. Memory that the host does not take back
            // serves the next holder.
            let _ = unsafe { sys::advise(start, SPAN, nr::MADV_REMOVE) };
        };
        if let Some(area) = self.holder().leave(span, give_back) {
            self.control.pool.uncharge(area);
        }
    }

    fn memory(&self, span: u32) -> *mut u8 {
        self.memory.wrapping_add(span as usize * SPAN)
    }

    /// Opens the chunk that a span lies in.
    fn open(&self, span: u32) -> Result<()> {
        let number = span / CHUNK;
        let is_open = &self.open[number as usize];
        if is_open.load(Acquire) {
            return Ok(());
        }
        let first = number * CHUNK;
        let len = CHUNK.min(self.plan.spans() - first) as usize * SPAN;
        let args = [self.memory(first) as u64, len as u64, ACCESS.into()];
        // SAFETY: the range is of the mapping of the pool; to open it once more changes nothing.
        unsafe { sys::call(nr::__NR_mprotect, args) }?;
        is_open.store(true, Release);
        Ok(())
    }
}

// SAFETY: a span's memory lies in a mapping that is never unmapped and that a child inherits. The word of
// a span says how many processes hold it: `take` gives it to one, and only a sole holder is told that
// it may write. Memory is given back by the last one to leave.
unsafe impl pool::Pool for Part {
    fn spans(&self) -> u32 {
        self.pool.plan.spans()
    }

    fn limit(&self) -> u64 {
        self.limit
    }

    fn used(&self) -> u64 {
        self.pool.control.pool.used(self.area)
    }

    fn take(&self) -> Option<u32> {
        let pool = self.pool;
        if !pool.control.pool.charge(self.area, self.limit) {
            return None;
        }
        let Some(span) = pool.holder().take(self.area, &pool.hint) else {
            pool.control.pool.uncharge(self.area);
            return None;
        };
        if pool.open(span).is_ok() {
            return Some(span);
        }
        // Without address space there is no room either. Nothing was written there.
        if let Some(area) = pool.holder().leave(span, || ()) {
            pool.control.pool.uncharge(area);
        }
        None
    }

    fn give(&self, span: u32) {
        self.pool.leave(span);
    }

    fn is_sole(&self, span: u32) -> bool {
        self.pool.spans.is_sole(span)
    }

    fn memory(&self, span: u32) -> *mut u8 {
        self.pool.memory(span)
    }

    /// A process's tables are its own, and not in the pool.
    fn charge_page(&self) -> bool {
        true
    }

    fn uncharge_page(&self) {}

    fn may_have_room(&self) -> bool {
        self.used() + SPAN as u64 <= self.limit
    }
}

impl Child {
    /// Makes the column this process's own: in the child.
    pub fn become_this(self) {
        let old = self.pool.column.swap(self.column, Release);
        self.unmap(old);
    }

    /// Leaves the column to the child: in the parent.
    pub fn leave_to_child(self) {
        self.unmap(self.column);
    }

    /// Undoes what was noted: there is no child.
    pub fn undo(self) {
        self.pool.holder().take_from(self.column());
        self.unmap(self.column);
    }

    fn column(&self) -> &[AtomicU64] {
        // SAFETY: mapped until this is consumed.
        unsafe { column(&self.pool.plan, self.column) }
    }

    fn unmap(&self, column: *mut AtomicU64) {
        let range = self.pool.plan.span_column(0);
        // SAFETY: nobody uses it any more.
        unsafe { shared::unmap(column.cast(), range.end - range.start) };
    }
}

/// The bits of a column.
///
/// # Safety
/// It is mapped, and stays so for the lifetime.
unsafe fn column<'a>(plan: &Plan, start: *mut AtomicU64) -> &'a [AtomicU64] {
    // SAFETY: a column has a bit for each span.
    unsafe { core::slice::from_raw_parts(start, plan.spans().div_ceil(64) as usize) }
}

fn map_column(plan: &Plan, slot: u32, file: u32) -> Result<*mut AtomicU64> {
    Ok(shared::map(file, plan.span_column(slot), ACCESS)?.cast())
}
