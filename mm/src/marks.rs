//! Marks on pages that were brought ahead: a guess that turns out to be used, or wasted.

use crate::event::{Ahead, Event};
use crate::machine::{Frame, Machine};
use crate::manager::Manager;
use crate::page::{Page, PageFlags};

/// The flags of pages that were brought ahead and show no sign of use yet.
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
    /// A page was brought ahead; the caller keeps it from being freed.
    pub(crate) fn mark_guessed(&self, frame: Frame, ahead: Ahead) {
        self.page(frame).set(&*self.machine, ahead.flag());
    }

    /// A page is used; the caller keeps it from being freed.
    pub(crate) fn note_use(&self, frame: Frame) {
        if !self.is_zero_frame(frame)
            && let Some(ahead) = take_guess(&*self.machine, self.page(frame))
        {
            self.count_used(ahead, 1);
        }
    }

    /// Takes the mark of a guess from a page that turns out to be used; the caller counts it.
    pub(crate) fn take_guess(&self, frame: Frame) -> Option<Ahead> {
        take_guess(&*self.machine, self.page(frame))
    }

    /// Pages that were brought ahead are used.
    pub(crate) fn count_used(&self, ahead: Ahead, pages: u32) {
        let counter = match ahead {
            Ahead::Swapped => &self.stats.read_ahead_used,
            Ahead::Fresh => &self.stats.populated_ahead_used,
        };
        counter.add(&*self.machine, pages.into());
        self.guesses.of(ahead).note(pages as i32);
        self.observe(|| Event::Used { ahead, pages });
    }

    /// A page is evicted: a guess that shows no sign of use until then was wrong.
    pub(crate) fn note_eviction(&self, frame: Frame) {
        let Some(ahead) = take_guess(&*self.machine, self.page(frame)) else { return };
        let counter = match ahead {
            Ahead::Swapped => &self.stats.read_ahead_wasted,
            Ahead::Fresh => &self.stats.populated_ahead_wasted,
        };
        counter.add(&*self.machine, 1);
        self.guesses.of(ahead).note(-1);
        self.observe(|| Event::Wasted { ahead });
    }
}

/// The look comes first: most pages were no guess, and a load is cheap.
fn take_guess(machine: &impl Machine, page: &Page) -> Option<Ahead> {
    if !page.has(GUESSED) {
        return None;
    }
    Ahead::of(page.clear(machine, GUESSED))
}
