//! Which process is asked for frames: the one with the most, unless it does not answer.
//!
//! A process that waits for a frame itself gives none up. If the others asked it alone, they would wait as
//! long.

use pagefault_control::Slots;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long a process may take to give up frames before others are asked.
const PATIENCE: Duration = Duration::from_millis(50);

/// The processes that were asked and have given nothing since, by slot.
#[derive(Default)]
pub(super) struct Victims(HashMap<u32, Asked>);

struct Asked {
    since: Instant,
    /// What it had then.
    frames: u32,
}

impl Victims {
    /// The process to ask: the one other than `but` with the most frames, if it has more than `kept`.
    pub fn richest(&mut self, slots: &Slots, but: u32, kept: u32) -> Option<u32> {
        let frames = |slot| slots.get(slot).map_or(0, |slot| slot.resident());
        self.0.retain(|slot, asked| frames(*slot) >= asked.frames);
        let is_deaf =
            |slot| self.0.get(&slot).is_some_and(|asked| asked.since.elapsed() > PATIENCE);
        let found = slots.richest(kept, |slot| slot != but && !is_deaf(slot)).or_else(|| {
            // Perhaps one of them can give by now.
            self.0.clear();
            slots.richest(kept, |slot| slot != but)
        })?;
        let asked = Asked { since: Instant::now(), frames: frames(found) };
        self.0.entry(found).or_insert(asked);
        Some(found)
    }
}
