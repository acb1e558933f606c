//! A CPU's cache of translations, which goes stale until it is flushed.

use crate::chance::Chance;
use crate::frames::Frames;
use pagefault_machine::{Access, Frame, Mode};

/// How many slots a page can be in.
const WAYS: usize = 4;

/// A translation as a CPU remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// The number of the page.
    pub page: u64,
    /// The frame that it is in.
    pub frame: Frame,
    /// What it allows.
    pub rights: Rights,
    /// The entry is known to be marked dirty, so that a store need not look at it again.
    pub dirty: bool,
    /// It is the same under every root.
    pub global: bool,
}

/// What a walk through all levels allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// Loads succeed.
    pub read: bool,
    /// Stores succeed.
    pub write: bool,
    /// User mode may use it.
    pub user: bool,
    /// Instruction fetches succeed.
    pub execute: bool,
}

impl Rights {
    /// What two entries on the way to a page allow together.
    #[must_use]
    pub fn and(self, lower: Self) -> Self {
        Self {
            read: self.read && lower.read,
            write: self.write && lower.write,
            user: self.user && lower.user,
            execute: self.execute && lower.execute,
        }
    }

    /// Everything is allowed.
    pub const ALL: Self = Self { read: true, write: true, user: true, execute: true };

    /// Whether an access succeeds. Kernel-mode stores honour write protection (WP set, spec H3).
    pub fn allow(self, access: Access, mode: Mode) -> bool {
        let allowed = match access {
            Access::Read => self.read,
            Access::Write => self.write,
            Access::Execute => self.execute,
        };
        allowed && (self.user || mode == Mode::Kernel)
    }
}

/// The translations of one CPU.
pub(crate) struct Tlb {
    sets: Box<[[Option<Translation>; WAYS]]>,
}

impl Tlb {
    pub(crate) fn new(entries: u32) -> Self {
        let sets = (entries as usize / WAYS).max(1).next_power_of_two();
        Self { sets: vec![[None; WAYS]; sets].into() }
    }

    pub(crate) fn find(&self, page: u64) -> Option<Translation> {
        self.sets[self.set(page)].iter().flatten().find(|slot| slot.page == page).copied()
    }

    /// Takes a translation in, in place of an older one of the page, or of any other where there
    /// is no room.
    pub(crate) fn insert(&mut self, new: Translation, frames: &Frames, chance: &Chance) {
        self.remove(new.page, frames);
        let set = self.set(new.page);
        let set = &mut self.sets[set];
        let empty = set.iter().position(Option::is_none);
        let slot = &mut set[empty.unwrap_or_else(|| chance.below(WAYS as u64) as usize)];
        drop_translation(slot, frames);
        frames.translation_made(new.frame);
        *slot = Some(new);
    }

    /// Forgets one page (INVLPG).
    pub(crate) fn remove(&mut self, page: u64, frames: &Frames) {
        let set = self.set(page);
        for slot in &mut self.sets[set] {
            if slot.is_some_and(|slot| slot.page == page) {
                drop_translation(slot, frames);
            }
        }
    }

    /// Forgets a page of the CPU's own choice.
    pub(crate) fn evict(&mut self, frames: &Frames, chance: &Chance) {
        let start = chance.below(self.sets.len() as u64) as usize;
        let way = chance.below(WAYS as u64) as usize;
        let (before, from) = self.sets.split_at_mut(start);
        let mut slots = from.iter_mut().chain(before).flat_map(|set| {
            let (before, from) = set.split_at_mut(way);
            from.iter_mut().chain(before)
        });
        if let Some(slot) = slots.find(|slot| slot.is_some()) {
            drop_translation(slot, frames);
        }
    }

    /// Forgets everything that is not global, as a processor does when its root is loaded.
    pub(crate) fn flush(&mut self, frames: &Frames) {
        for slot in self.sets.iter_mut().flatten() {
            if slot.is_some_and(|slot| !slot.global) {
                drop_translation(slot, frames);
            }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Translation> {
        self.sets.iter().flatten().filter_map(|slot| *slot)
    }

    fn set(&self, page: u64) -> usize {
        page as usize & (self.sets.len() - 1)
    }
}

fn drop_translation(slot: &mut Option<Translation>, frames: &Frames) {
    if let Some(old) = slot.take() {
        frames.translation_dropped(old.frame);
    }
}
