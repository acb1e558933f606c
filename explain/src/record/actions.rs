//! What was done, in order, in words.

use super::sentences::mode;
use super::state::slot_name;
use super::tap::Note;
use super::{Story, words};
use crate::model::{Action, State};
use pagefault::machine::{Entry, Frame, Stale, VirtAddr};
use pagefault::{Ahead, Event, PageOwner};
use pagefault_script::ast::Op;
use pagefault_sim::{Architecture, Call};

/// Tells what the notes of one step say.
pub(super) fn describe<A: Architecture>(
    story: &Story<A>,
    notes: &[Note],
    before: &State,
    after: &State,
) -> Vec<Action> {
    let mut teller = Teller { story, before, after, actions: Vec::new() };
    teller.new_tables();
    let mut notes = notes.iter().filter(|note| says_something(note)).peekable();
    while let Some(note) = notes.next() {
        match note {
            // The event that follows says what the device did.
            Note::Call(Call::Drain(_) | Call::Fill(_))
                if matches!(
                    notes.peek(),
                    Some(Note::Event(Event::SwapOut { .. } | Event::SwapRead { .. }))
                ) => {}
            Note::Call(Call::ClearAccessed { .. }) => {
                let mut looks: Vec<Look> = Look::of(note).into_iter().collect();
                while let Some(next) = notes.peek().and_then(|note| Look::of(note)) {
                    if teller.is_other(&looks, &next) {
                        break;
                    }
                    looks.push(next);
                    notes.next();
                }
                teller.aged(&looks);
            }
            Note::Call(call) => teller.call(call),
            Note::Stale(space, stale) => teller.flush(*space, stale),
            Note::Event(event) => teller.event(event),
        }
    }
    teller.lost_tables();
    spared(&mut teller.actions);
    teller.actions
}

/// Whose accessed bits were cleared, and what followed: advice to page out takes such a page all the same.
const USED: &str = "its accessed bits are cleared.";

/// Says of the pages that were used and stay that they were spared.
fn spared(actions: &mut [Action]) {
    for at in 0..actions.len() {
        let frame = actions[at].frame;
        let next = actions[at + 1..]
            .iter()
            .find(|later| later.frame == frame && matches!(&*later.kind, "young" | "evict"));
        let leaves = next.is_some_and(|later| later.kind == "evict");
        let action = &mut actions[at];
        if action.kind == "young"
            && !leaves
            && let Some(text) = action.text.strip_suffix(USED)
        {
            action.text = format!("{text}its accessed bits are cleared, and it is spared.");
        }
    }
}

/// An accessed bit that reclaim read and cleared.
#[derive(Clone, Copy)]
struct Look {
    space: u32,
    address: VirtAddr,
    was_set: bool,
}

impl Look {
    fn of(note: &Note) -> Option<Self> {
        match *note {
            Note::Call(Call::ClearAccessed { space, address, was_set }) => {
                Some(Self { space, address, was_set })
            }
            _ => None,
        }
    }
}

/// Whether a note says something: more than a lock, and nothing that another note says better.
const fn says_something(note: &Note) -> bool {
    !matches!(
        note,
        Note::Call(
            Call::Drop(_)
                | Call::Flush { .. }
                | Call::Lock { result: Ok(()), .. }
                | Call::LockExisting { .. }
                | Call::Unlock { .. }
                | Call::Prune { .. }
                | Call::Wait
                | Call::Wake
        )
    )
}

struct Teller<'a, A: Architecture> {
    story: &'a Story<A>,
    before: &'a State,
    after: &'a State,
    actions: Vec<Action>,
}

fn action(kind: &str, text: String, spec: &str, frame: Option<Frame>) -> Action {
    Action {
        kind: kind.into(),
        text,
        spec: spec.into(),
        frame: frame.map(|frame| frame.0),
        before: None,
        after: None,
    }
}

impl<A: Architecture> Teller<'_, A> {
    fn tell(&mut self, kind: &str, text: String, spec: &str, frame: Option<Frame>) {
        self.actions.push(action(kind, text, spec, frame));
    }

    fn call(&mut self, call: &Call) {
        match *call {
            Call::Allocate(Ok(frame)) => {
                self.tell("allocate", format!("Frame {} is allocated.", frame.0), "", Some(frame));
            }
            Call::Allocate(Err(_)) => {
                self.tell("allocate", "No frame is free.".into(), "F23", None)
            }
            Call::Lock { result: Err(_), .. } => {
                self.tell("allocate", "No frame is free for a page table.".into(), "F23", None);
            }
            Call::Free(frame) => {
                let text = format!("Frame {} is freed: nothing refers to it any more.", frame.0);
                self.tell("free", text, "G4", Some(frame));
            }
            Call::Zero(frame) => {
                self.tell(
                    "zero",
                    format!("Frame {} is filled with zeros.", frame.0),
                    "B19",
                    Some(frame),
                );
            }
            Call::Copy { from, to } => {
                let text = format!("Frame {} is copied to frame {}.", from.0, to.0);
                self.tell("copy", text, "B19", Some(to));
            }
            Call::Fill(frame) => self.filled(frame),
            Call::Drain(frame) => self.drained(frame),
            Call::Space(Ok(space)) => {
                let root = self.after.processes.iter().find(|process| process.space == space);
                let root =
                    root.map_or_else(String::new, |p| format!(", its root in frame {}", p.root));
                self.tell("table", format!("An address space is made{root}."), "E1", None);
            }
            Call::Space(Err(_)) => {
                self.tell("table", "No frame is free for an address space.".into(), "E1", None);
            }
            Call::Replace { space, address, old, new } => self.replaced(space, address, old, new),
            Call::Protect { space, address, old, protection } => {
                if let Entry::Present { frame, accessed, dirty, .. } = old {
                    let new = Entry::Present { frame, protection, accessed, dirty };
                    self.replaced(space, address, old, new);
                }
            }
            Call::Synchronise { address, mapped: true } => {
                let text =
                    format!("The root's entry for {address} is copied from the reference table.");
                self.tell("synchronise", text, "A5", None);
            }
            _ => {}
        }
    }

    fn place(&self, space: u32, address: VirtAddr) -> String {
        let process = self.story.process_of(space).unwrap_or_else(|| self.story.process());
        let place = self.story.names.place(process, address.value());
        // With a single process, its name says nothing.
        match self.after.processes.len().max(self.before.processes.len()) {
            0 | 1 => place,
            _ => format!("{process}:{place}"),
        }
    }

    fn replaced(&mut self, space: u32, address: VirtAddr, old: Entry, new: Entry) {
        let mode = mode::<A>(address.value());
        let place = self.place(space, address);
        let (was, is) = (words::entry::<A>(old, mode), words::entry::<A>(new, mode));
        let says = |was: &str, is: &str| format!("The entry of {place}: {was} → {is}.");
        // Cleared and set again at once: one change.
        if let Some(last) = self.actions.last_mut()
            && last.kind == "entry"
            && old.is_none()
            && last.text.starts_with(&format!("The entry of {place}:"))
            && last.after.as_ref().is_some_and(|entry| entry.says == "empty")
        {
            let before = last.before.as_ref().map_or("", |entry| &entry.says);
            last.text = says(before, &is.says);
            last.frame = new.frame().map(|frame| frame.0);
            last.after = Some(is);
            return;
        }
        if old == new {
            return;
        }
        let spec = match (old, new) {
            (Entry::None, _) => "B3",
            (_, Entry::Swap(_)) => "F19",
            _ => "G5",
        };
        let mut change =
            action("entry", says(&was.says, &is.says), spec, new.frame().or(old.frame()));
        change.before = Some(was);
        change.after = Some(is);
        self.actions.push(change);
    }

    /// Whether a look concerns another page, or the same entry a second time.
    fn is_other(&self, looks: &[Look], next: &Look) -> bool {
        let again =
            looks.iter().any(|look| (look.space, look.address) == (next.space, next.address));
        again || looks.first().is_some_and(|first| self.frame_at(first) != self.frame_at(next))
    }

    /// Reclaim read the accessed bits of one page in all of its entries.
    fn aged(&mut self, looks: &[Look]) {
        let Some(first) = looks.first() else { return };
        let places: Vec<String> =
            looks.iter().map(|look| self.place(look.space, look.address)).collect();
        let frame = self.frame_at(first);
        let page = match frame {
            Some(frame) => format!("Frame {} ({})", frame.0, places.join(", ")),
            None => places.join(", "),
        };
        let (text, spec) = match looks.iter().any(|look| look.was_set) {
            true => (format!("{page} was used since the last check: {USED}"), "F15"),
            false => (format!("{page} was not used since the last check: it may leave."), "F18"),
        };
        self.tell("young", text, spec, frame);
    }

    /// The frame that an entry named before the step.
    fn frame_at(&self, look: &Look) -> Option<Frame> {
        let process = self.before.processes.iter().find(|process| process.space == look.space)?;
        let address = format!("{:#x}", look.address.value());
        let page = process.pages.iter().find(|page| page.address == address)?;
        page.frame.map(Frame)
    }

    fn filled(&mut self, frame: Frame) {
        let text = match self.page_of_file(frame) {
            Some(page) => format!("{page} is read into frame {}.", frame.0),
            None => format!("Frame {} is filled.", frame.0),
        };
        self.tell("read", text, "D2", Some(frame));
    }

    fn drained(&mut self, frame: Frame) {
        let reads = matches!(self.story.op(), Some(Op::Pread(..)));
        let (verb, spec) = if reads {
            ("is read by the kernel from", "")
        } else {
            ("is written to its file from", "F20")
        };
        let page = self.page_of_file(frame).unwrap_or_else(|| "A page".into());
        self.tell("write", format!("{page} {verb} frame {}.", frame.0), spec, Some(frame));
    }

    /// Which page of which file a frame holds, or held before the step.
    fn page_of_file(&self, frame: Frame) -> Option<String> {
        let report = self.story.manager.frame_report(frame);
        if let Some(report) = report.filter(|report| matches!(report.owner, PageOwner::File(_))) {
            return Some(self.story.owner(&report));
        }
        let was =
            self.before.frames.iter().find(|used| used.frame == frame.0 && used.kind == "file");
        was.map(|used| used.owner.clone())
    }

    fn flush(&mut self, space: u32, stale: &[Stale]) {
        let process = self.story.process_of(space).unwrap_or_else(|| self.story.process());
        let pages: Vec<String> =
            stale.iter().map(|stale| self.place(space, stale.address)).collect();
        let pages = match pages.len() {
            0..=4 => pages.join(", "),
            n => format!("{n} pages from {}", pages[0]),
        };
        let runs = |tlb: &&crate::model::CpuTlb| tlb.process == process;
        let told: Vec<String> = self
            .after
            .tlbs
            .iter()
            .filter(|tlb| tlb.cpu != self.story.cpu)
            .filter(runs)
            .map(|tlb| tlb.cpu.to_string())
            .collect();
        let others = match &told[..] {
            [] => "no other CPU runs the process".into(),
            [one] => format!("CPU {one} runs it too, is interrupted, and answers"),
            many => format!("CPUs {} run it too, are interrupted, and answer", many.join(", ")),
        };
        let text =
            format!("{pages}: CPU {} forgets the old translation; {others}.", self.story.cpu);
        self.tell("flush", text, "G3", None);
    }

    fn event(&mut self, event: &Event) {
        match *event {
            Event::SwapOut { frame, slot } => {
                let text = format!("Frame {} is written to slot {}.", frame.0, slot_name(slot));
                self.tell("write", text, "F7", Some(frame));
            }
            Event::SwapRead { frame, slot } => {
                let text = format!("Slot {} is read into frame {}.", slot_name(slot), frame.0);
                self.tell("read", text, "F8", Some(frame));
            }
            // The note before has said what was read.
            Event::ReadAhead { frame } => {
                let read = self.actions.iter_mut().rev();
                let read = read
                    .into_iter()
                    .find(|action| action.kind == "read" && action.frame == Some(frame.0));
                if let Some(action) = read {
                    action.text = action.text.replace(" is read into ", " is read ahead into ");
                    action.spec = "D3".into();
                }
            }
            Event::Evicted { frame, .. } => {
                let text = format!("The page in frame {} has left memory.", frame.0);
                self.tell("evict", text, "F21", Some(frame));
            }
            Event::Brought { address, ahead, .. } => {
                let place = self.story.names.place(self.story.process(), address.value());
                let (how, spec) = match ahead {
                    Ahead::Swapped => ("is brought back", "F17"),
                    Ahead::Fresh => ("gets a page of zeros", "B7"),
                };
                self.tell("read", format!("{place} {how} before it is touched."), spec, None);
            }
            Event::Wasted { .. } => {
                let text = "The page was brought ahead of need, and never used.".to_owned();
                self.tell("note", text, "F17", None);
            }
            _ => {}
        }
    }

    fn tables(&self, state: &State) -> Vec<(u32, String)> {
        let tables = state.frames.iter().filter(|used| used.kind == "table");
        tables.map(|used| (used.frame, used.owner.clone())).collect()
    }

    fn new_tables(&mut self) {
        let (was, mut is) = (self.tables(self.before), self.tables(self.after));
        // In the order in which they were made, from the root down.
        is.sort_by_key(|(frame, _)| *frame);
        for (frame, owner) in is.into_iter().filter(|table| !was.contains(table)) {
            let text = format!(
                "A table is missing: frame {frame} becomes {owner}, all of its entries empty."
            );
            self.tell("table", text, "B1", Some(Frame(frame)));
        }
    }

    fn lost_tables(&mut self) {
        let (was, is) = (self.tables(self.before), self.tables(self.after));
        for (frame, owner) in was.into_iter().filter(|table| !is.contains(table)) {
            let text =
                format!("{owner}, in frame {frame}, serves no mapping any more and is freed.");
            self.tell("prune", text, "E6", Some(Frame(frame)));
        }
    }
}
