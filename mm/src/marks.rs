//! Marks on pages that were brought ahead: each is a guess that proves used or wasted.

use crate::event::{Ahead, Event};
use crate::machine::{Frame, Machine};
use crate::manager::Manager;
use crate::page::{Page, PageFlags};

/// The flags of pages that were brought ahead and have shown no sign of use.
const GUESSED: PageFlags = PageFlags::READ_AHEAD.union(PageFlags::POPULATED_AHEAD);

impl Ahead {
    const fn flag(self) -> PageFlags {
        match self {
            Self::Swapped => PageFlags::READ_AHEAD,
            Self::Fresh => PageFlags::POPULATED_AHEAD,
        }
    }

    const fn of(flags: PageFlags) -> Option<Self> {
        match () {
            () if flags.contains(PageFlags::READ_AHEAD) => Some(Self::Swapped),
            () if flags.contains(PageFlags::POPULATED_AHEAD) => Some(Self::Fresh),
            () => None,
        }
    }
}

impl<M: Machine> Manager<M> {
    /// Marks a page that was brought ahead; the caller keeps it from being freed.
    pub(crate) fn mark_guessed(&self, frame: Frame, ahead: Ahead) {
        self.page(frame).set(&*self.machine, ahead.flag());
    }

    /// Notes that a page is used; the caller keeps it from being freed.
    pub(crate) fn note_use(&self, frame: Frame) {
        if let Some(page) = self.normal_page(frame) {
            self.note_use_of(page);
        }
    }

    /// Like [`note_use`](Self::note_use), where it is known that the frame is a page.
    #[inline]
    pub(crate) fn note_use_of(&self, page: &Page) {
        if let Some(ahead) = take_guess(&*self.machine, page) {
            self.count_used(ahead, 1);
        }
    }

    /// Clears the mark of a guess on a page that is used; the caller counts it.
    pub(crate) fn take_guess(&self, frame: Frame) -> Option<Ahead> {
        take_guess(&*self.machine, self.page(frame))
    }

    /// Counts pages that were brought ahead as used.
    pub(crate) fn count_used(&self, ahead: Ahead, pages: u32) {
        let counter = match ahead {
            Ahead::Swapped => &self.stats.of(&*self.machine).read_ahead_used,
            Ahead::Fresh => &self.stats.of(&*self.machine).populated_ahead_used,
        };
        counter.add(&*self.machine, pages.into());
        self.guesses.of(ahead).note(pages as i32);
        self.observe(|| Event::Used { ahead, pages });
    }

    /// Notes the eviction of a page: a guess without a sign of use by then was wrong.
    #[inline]
    pub(crate) fn note_eviction(&self, page: &Page) {
        let Some(ahead) = take_guess(&*self.machine, page) else { return };
        let counter = match ahead {
            Ahead::Swapped => &self.stats.of(&*self.machine).read_ahead_wasted,
            Ahead::Fresh => &self.stats.of(&*self.machine).populated_ahead_wasted,
        };
        counter.add(&*self.machine, 1);
        self.guesses.of(ahead).note(-1);
        self.observe(|| Event::Wasted { ahead });
    }
}

/// Read first: most pages were no guess, and a load is cheap.
#[inline]
fn take_guess(machine: &impl Machine, page: &Page) -> Option<Ahead> {
    if !page.has(GUESSED) {
        return None;
    }
    Ahead::of(page.clear(machine, GUESSED))
}
