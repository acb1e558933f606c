//! This process's mailbox: pages that the supervisor's compressor compresses for it.

use crate::shared::{self, ACCESS};
use crate::sys::{self, Result};
use crate::thread::Thread;
use crate::{files, process, supervisor};
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32};
use linux_raw_sys::general as nr;
use pagefault_control::{Control, Mailbox, PLACE, PLACES, Plan};
use pagefault_linux::store::offload;
use pagefault_machine::PAGE_SIZE;
use pagefault_machine::store::PageBytes;

const _: () = assert!(PLACES <= offload::MOST && PLACE == 2 * PAGE_SIZE);

/// One part in so many of an area may be taken by pages that wait.
const SHARE: u64 = 32;
/// The fewest places that are worth it.
const LEAST: u64 = 8;
/// The compressor wakes up for this many pages: waking it costs as much as compressing one or two.
const ENOUGH: u32 = 8;

/// The mailbox of this process, for an area of the pool.
pub struct Offload {
    control: &'static Control,
    plan: Plan,
    area: usize,
    /// The places that the area's size allows; 0 where it is too small.
    places: usize,
    /// The slot whose mailbox it is, and the mailbox; null until it is charged for.
    slot: AtomicU32,
    mailbox: AtomicPtr<Mailbox>,
    pages: AtomicPtr<PageBytes>,
    /// Whether there can be no mailbox.
    refused: AtomicBool,
    /// The pages handed over since the compressor was last looked after.
    unheard: AtomicU32,
}

/// The mailbox of a child that is about to be forked.
pub struct Child {
    offload: &'static Offload,
    slot: u32,
    mailbox: *mut Mailbox,
    pages: *mut PageBytes,
}

impl Offload {
    /// The mailbox of this process, for an area of at most `bytes`. It takes no memory until a page waits.
    pub fn new(control: &'static Control, area: usize, bytes: u64) -> Self {
        let places = bytes / SHARE / PLACE;
        Self {
            control,
            plan: control.plan(),
            area,
            places: if places < LEAST { 0 } else { PLACES.min(places as usize) },
            slot: AtomicU32::new(process::boot().slot),
            mailbox: AtomicPtr::default(),
            pages: AtomicPtr::default(),
            refused: AtomicBool::new(false),
            unheard: AtomicU32::new(0),
        }
    }

    fn mailbox(&self) -> Option<&Mailbox> {
        // SAFETY: null, or a mapping of a mailbox that stays mapped while it is this process's.
        unsafe { self.mailbox.load(Acquire).as_ref() }
    }

    /// Makes the mailbox, or asks for the compressor, where there is time to do either.
    #[cold]
    fn prepare(&self) {
        let offload = &self.control.offload;
        if offload.is_to_be_asked_for() {
            supervisor::offload(Thread::current().member());
        }
        if !offload.runs() || self.refused.swap(true, Relaxed) {
            return;
        }
        let charge = self.places as u64 * PLACE;
        let limit = self.control.ram_bytes(self.area).unwrap_or(0);
        if !offload.charge_mailbox(&self.control.pool, self.area, charge, limit) {
            return;
        }
        let [file, ..] = files::shared();
        match map_mailbox(&self.plan, self.slot.load(Relaxed), file) {
            Ok((mailbox, pages)) => {
                // SAFETY: just mapped; all bytes are values of its atomics.
                let made = unsafe { &*mailbox };
                made.clear();
                made.note_charge(self.area, charge as u32);
                self.pages.store(pages, Release);
                self.mailbox.store(mailbox, Release);
            }
            Err(_) => offload.uncharge_mailbox(&self.control.pool, self.area, charge),
        }
    }

    /// Makes the mailbox of the child that has `slot`, with the pages that wait at `places`, for which the pool
    /// has no room. Nothing else is under way.
    pub fn child(
        &'static self,
        places: impl Iterator<Item = usize>,
        slot: u32,
        file: u32,
    ) -> Result<Child> {
        let (mailbox, pages) = (core::ptr::null_mut(), core::ptr::null_mut());
        let mut child = Child { offload: self, slot, mailbox, pages };
        for place in places {
            if child.mailbox.is_null() {
                (child.mailbox, child.pages) = map_mailbox(&self.plan, slot, file)?;
                // SAFETY: just mapped; all bytes are values of its atomics.
                let made = unsafe { &*child.mailbox };
                made.clear();
                // The pages are there whether they are paid for or not.
                made.note_charge(self.area, 0);
            }
            // SAFETY: both mailboxes have that place, and nobody writes this process's page.
            unsafe {
                let from = self.pages.load(Acquire).add(2 * place);
                child.pages.add(2 * place).copy_from_nonoverlapping(from, 1);
                (*child.mailbox).hand_over(place);
            }
        }
        Ok(child)
    }
}

// SAFETY: each place has two pages of a mapping that is this process's own but for the compressor, which
// writes the second one, between `hand_over` and its announcement that it has finished. What was announced
// stays until a new turn begins.
unsafe impl offload::Offload for &'static Offload {
    fn places(&self) -> usize {
        if self.places == 0 || !self.mailbox.load(Relaxed).is_null() {
            return self.places;
        }
        if !self.refused.load(Relaxed) {
            self.prepare();
        }
        if self.mailbox.load(Relaxed).is_null() { 0 } else { self.places }
    }

    fn page(&self, place: usize) -> *mut PageBytes {
        self.pages.load(Acquire).wrapping_add(2 * place)
    }

    fn result(&self, place: usize) -> *const u8 {
        self.pages.load(Acquire).wrapping_add(2 * place + 1).cast()
    }

    fn hand_over(&self, place: usize) {
        let Some(mailbox) = self.mailbox() else { return };
        mailbox.hand_over(place);
        let offload = &self.control.offload;
        offload.announce(self.slot.load(Relaxed));
        if self.unheard.fetch_add(1, Relaxed) + 1 >= ENOUGH {
            self.unheard.store(0, Relaxed);
            if offload.is_to_be_woken() {
                let args = [(&raw const *offload.bell()) as u64, u64::from(nr::FUTEX_WAKE), 1];
                // SAFETY: the word lives as long as the process.
                let _ = unsafe { sys::call(nr::__NR_futex, args) };
            }
        }
    }

    fn take_back(&self, place: usize) {
        if let Some(mailbox) = self.mailbox() {
            mailbox.take_back(place);
        }
    }

    fn finished(&self, place: usize) -> Option<usize> {
        self.mailbox()?.result(place)
    }
}

impl Child {
    /// Makes the mailbox this process's own: in the child, which makes one when it evicts if it has none now.
    pub fn become_this(self) {
        let offload = self.offload;
        offload.slot.store(self.slot, Relaxed);
        offload.refused.store(!self.mailbox.is_null(), Relaxed);
        let mailbox = offload.mailbox.swap(self.mailbox, Release);
        let pages = offload.pages.swap(self.pages, Release);
        offload.control.offload.announce(self.slot);
        unmap(mailbox, pages);
    }

    /// Leaves the mailbox to the child: in the parent.
    pub fn leave_to_child(self) {
        unmap(self.mailbox, self.pages);
    }

    /// Undoes what was prepared: there is no child. The memory serves the next process of the slot.
    pub fn undo(self) {
        // SAFETY: null, or mapped until it is unmapped below.
        if let Some(mailbox) = unsafe { self.mailbox.as_ref() } {
            mailbox.clear();
        }
        unmap(self.mailbox, self.pages);
    }
}

/// Maps a mailbox and its pages.
fn map_mailbox(plan: &Plan, slot: u32, file: u32) -> Result<(*mut Mailbox, *mut PageBytes)> {
    let (mailbox, pages) = (plan.mailbox(slot), plan.mailbox_pages(slot));
    let mailbox = shared::map(file, mailbox, ACCESS)?.cast();
    match shared::map(file, pages, ACCESS) {
        Ok(pages) => Ok((mailbox, pages.cast())),
        Err(errno) => {
            // SAFETY: just mapped, and used by nobody.
            unsafe { shared::unmap(mailbox.cast(), size_of::<Mailbox>() as u64) };
            Err(errno)
        }
    }
}

fn unmap(mailbox: *mut Mailbox, pages: *mut PageBytes) {
    if mailbox.is_null() {
        return;
    }
    // SAFETY: nobody uses them any more.
    unsafe {
        shared::unmap(mailbox.cast(), size_of::<Mailbox>() as u64);
        shared::unmap(pages.cast(), PLACES as u64 * PLACE);
    }
}
