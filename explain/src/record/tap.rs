//! The calls of the machine and the events of the memory manager, in one sequence.

use pagefault::Event;
use pagefault::machine::Stale;
use pagefault_sim::{Call, Observer};
use std::sync::{Arc, Mutex, PoisonError};

/// One note.
#[derive(Clone, Debug)]
pub(super) enum Note {
    /// The machine was called.
    Call(Call),
    /// These translations are flushed next.
    Stale(u32, Vec<Stale>),
    /// The memory manager reported an event.
    Event(Event),
}

/// Collects notes; clones share one list.
#[derive(Clone, Debug, Default)]
pub(super) struct Tap(Arc<Mutex<Vec<Note>>>);

impl Tap {
    /// The notes since the last time.
    pub(super) fn drain(&self) -> Vec<Note> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn push(&self, note: Note) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(note);
    }
}

impl Observer for Tap {
    fn note(&self, call: &Call) {
        self.push(Note::Call(*call));
    }

    fn note_stale(&self, space: u32, stale: &[Stale]) {
        self.push(Note::Stale(space, stale.to_vec()));
    }
}

impl pagefault::Observer for Tap {
    fn event(&self, event: &Event) {
        self.push(Note::Event(*event));
    }
}
