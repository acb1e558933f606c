//! Stale translations of a few address spaces, gathered until one flush of each.

use crate::machine::{Fate, Frame, Machine, Stale};
use crate::manager::Manager;
use crate::mm::Mm;
use crate::tlb::Noted;
use alloc::sync::Arc;
use arrayvec::ArrayVec;

/// How many translations are gathered before a flush.
const STALES: usize = 64;

/// Of how many address spaces.
const SPACES: usize = 4;

/// The translations, each with the number of its space.
pub(super) struct Stales<M: Machine> {
    spaces: ArrayVec<(Arc<Mm<M>>, Noted), SPACES>,
    list: ArrayVec<(u8, Stale), STALES>,
}

impl<M: Machine> Stales<M> {
    pub(super) const fn new() -> Self {
        Self { spaces: ArrayVec::new_const(), list: ArrayVec::new_const() }
    }

    /// How many translations wait.
    pub(super) const fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is room for one more of this address space. The caller takes room with
    /// [`note`](Self::note) before it asks again.
    pub(super) fn has_room_for(&self, mm: &Arc<Mm<M>>) -> bool {
        !self.list.is_full() && (!self.spaces.is_full() || self.number_of(mm).is_some())
    }

    /// Notes a translation whose entry was changed just now, under the cursor that the caller holds.
    /// There is room.
    pub(super) fn note(&mut self, mm: &Arc<Mm<M>>, stale: Stale) {
        let number = self.number_of(mm).unwrap_or_else(|| {
            self.spaces.push((mm.clone(), Noted::default()));
            self.spaces.len() - 1
        });
        mm.pending.note(&mut self.spaces[number].1);
        self.list.push((number as u8, stale));
    }

    /// Notes that nobody will need the content of a frame whose translations were noted from the
    /// `from`th on.
    pub(super) fn set_freed(&mut self, from: usize, frame: Frame) {
        for (_, stale) in &mut self.list[from..] {
            if stale.frame == frame {
                stale.fate = Fate::Freed;
            }
        }
    }

    /// Flushes all, those of each address space together.
    pub(super) fn flush(&mut self, manager: &Manager<M>) {
        let machine = &*manager.machine;
        for (number, (mm, noted)) in self.spaces.drain(..).enumerate() {
            let own = self.list.iter().filter(|(of, _)| usize::from(*of) == number);
            let together: ArrayVec<Stale, STALES> = own.map(|(_, stale)| *stale).collect();
            machine.flush(&mm.space, &together);
            mm.pending.flushed(noted, machine);
            manager.stats.flushes.add(machine.context(), 1);
        }
        self.list.clear();
    }

    fn number_of(&self, mm: &Arc<Mm<M>>) -> Option<usize> {
        self.spaces.iter().position(|(other, _)| Arc::ptr_eq(other, mm))
    }
}
