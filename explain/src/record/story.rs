//! The story as it grows: steps, and the states after them.

use super::names::Names;
use super::tap::{Note, Tap};
use super::{Request, Watched, actions, calls, sentences, words};
use crate::model::{Computer, Count, Explanation, FORMAT, Operation, Phase, State, Step};
use pagefault::machine::{Machine, PAGE_SIZE};
use pagefault::{Manager, Mm};
use pagefault_script::ast::{Line, Op, Script};
use pagefault_sim::{Architecture, SimDevice};
use std::collections::HashMap;
use std::sync::{Arc, Weak};

/// The steps so far, and what is needed to tell the next one.
pub(super) struct Story<A: Architecture> {
    pub(super) sim: pagefault_sim::Computer<A>,
    pub(super) manager: Arc<Manager<Watched<A>>>,
    pub(super) tap: Tap,
    pub(super) names: Names,
    /// The address spaces, with the names of their processes.
    pub(super) spaces: Vec<(String, Weak<Mm<Watched<A>>>)>,
    /// The names of files, by the memory manager's numbers.
    pub(super) files: HashMap<u64, String>,
    /// The frames of the script's devices.
    devices: HashMap<u32, String>,
    /// The faults so far.
    pub(super) faults: usize,
    /// The CPU that makes the accesses.
    pub(super) cpu: u32,
    /// The process that is killed for want of memory, and why, until that is told.
    victim: Option<String>,
    line: usize,
    process: String,
    op: Option<Op>,
    first: usize,
    before: State,
    steps: Vec<Step>,
    states: Vec<State>,
    operations: Vec<Operation>,
}

impl<A: Architecture> Story<A> {
    pub(super) fn new(
        sim: pagefault_sim::Computer<A>,
        manager: Arc<Manager<Watched<A>>>,
        tap: Tap,
    ) -> Self {
        Self {
            sim,
            manager,
            tap,
            names: Names::new(PAGE_SIZE),
            spaces: Vec::new(),
            files: HashMap::new(),
            devices: HashMap::new(),
            faults: 0,
            cpu: 0,
            victim: None,
            line: 0,
            process: "p0".into(),
            op: None,
            first: 0,
            before: State::default(),
            steps: Vec::new(),
            states: Vec::new(),
            operations: Vec::new(),
        }
    }

    /// Begins a line.
    pub(super) fn begin(&mut self, line: &Line) {
        self.tap.drain();
        self.line = line.number;
        self.process.clone_from(&line.process);
        self.op = Some(line.op.clone());
        self.first = self.steps.len();
        self.before = self.snapshot();
    }

    /// Ends a line. A line without steps of its own is one step; the end of a killed process is one more.
    pub(super) fn end(&mut self, line: &Line, answer: String) {
        self.tell_victim();
        let notes = self.tap.drain();
        let after = self.snapshot();
        if self.steps.len() == self.first {
            let actions = actions::describe(self, &notes, &self.before, &after);
            let (sentence, spec) = calls::tell(line, &answer, &self.before, &after);
            let counts = changes(&self.before, &after);
            let step = Step { actions, counts, ..self.draft(Phase::Call, sentence, &spec) };
            self.add(step, after);
        } else if self.states.last() != Some(&after)
            && after.processes.iter().all(|process| process.name != self.process)
        {
            let gone = format!("{} is gone", self.process);
            self.released(&gone, &["E5", "E6", "E7"], &notes, after);
        }
        self.background();
        self.operations.push(Operation {
            line: line.number,
            process: line.process.clone(),
            text: line.op.to_string(),
            answer,
            first: self.first,
            count: self.steps.len() - self.first,
        });
    }

    /// Lets the background thread run if the line has woken it: the CPU was the program's until now.
    fn background(&mut self) {
        let before = self.snapshot();
        let Some(freed) = self.manager.reclaim_ahead() else { return };
        let (notes, after) = (self.tap.drain(), self.snapshot());
        let actions = actions::describe(self, &notes, &before, &after);
        let counts = changes(&before, &after);
        let sentence = sentences::background(self.manager.watermarks(), before.free, freed);
        let spec = &["F22", "F24"];
        let step = Step { actions, counts, ..self.draft(Phase::Background, sentence, spec) };
        self.add(step, after);
    }

    /// Memory has run out, and this address space was chosen to end.
    pub(super) fn chosen(&mut self, mm: &Arc<Mm<Watched<A>>>) {
        let pages = |mm: &Arc<Mm<Watched<A>>>| {
            let usage = mm.usage();
            usage.anonymous + usage.file + mm.swapped_pages()
        };
        let (mut name, mut others) = (String::new(), Vec::new());
        for (process, space) in &self.spaces {
            let Some(space) = space.upgrade() else { continue };
            if Arc::ptr_eq(&space, mm) {
                name.clone_from(process);
            } else {
                others.push(format!("{process} {}", pages(&space)));
            }
        }
        let beside = match others.is_empty() {
            true => "it is the only process".to_owned(),
            false => format!("the others: {}", others.join(", ")),
        };
        self.victim = Some(format!(
            "{name} is killed, because its end gives back the most, {} pages in memory and in swap ({beside})",
            pages(mm)
        ));
    }

    /// Tells which process was killed for want of memory, once its memory is free.
    pub(super) fn tell_victim(&mut self) {
        if let Some(killed) = self.victim.take() {
            let (notes, after) = (self.tap.drain(), self.snapshot());
            self.released(&killed, &["F25", "E5", "E6"], &notes, after);
        }
    }

    /// Adds the step in which an ended process gives back its memory, after the fault's own steps.
    fn released(&mut self, what: &str, spec: &[&str], notes: &[Note], after: State) {
        let before = self.states.last().cloned().unwrap_or_default();
        let actions = actions::describe(self, notes, &before, &after);
        let counts = changes(&before, &after);
        let sentence = format!(
            "{what}: every entry is taken out, and the frames that nobody else uses are freed."
        );
        let step = Step { actions, counts, ..self.draft(Phase::Call, sentence, spec) };
        self.add(step, after);
    }

    /// Names an address space that was just made: after the child that the line forks, or `p0`.
    pub(super) fn started(&mut self, mm: &Arc<Mm<Watched<A>>>) {
        let name = match &self.op {
            Some(Op::Fork(child)) => child.clone(),
            _ => "p0".into(),
        };
        self.spaces.push((name, Arc::downgrade(mm)));
    }

    pub(super) fn ended(&mut self, mm: &Arc<Mm<Watched<A>>>) {
        self.spaces
            .retain(|(_, weak)| weak.upgrade().is_some_and(|other| !Arc::ptr_eq(&other, mm)));
    }

    /// The names of the processes that have an address space.
    pub(super) fn processes(&self) -> Vec<String> {
        self.spaces.iter().map(|(name, _)| name.clone()).collect()
    }

    /// A file of the script was opened.
    pub(super) fn opened(&mut self, mapping: u64) {
        if let Some(Op::File { name, .. } | Op::Device { name, .. }) = &self.op {
            self.files.insert(mapping, name.clone());
        }
    }

    /// A device of the script was made; its frames get its name.
    pub(super) fn device_made(&mut self, device: &SimDevice) {
        if let Some(Op::Device { name, .. }) = &self.op {
            let pages = (0..).zip(device.frames());
            self.devices.extend(
                pages.map(|(page, frame): (u32, _)| (frame.0, format!("{name} page {page}"))),
            );
        }
    }

    /// Which page of which device a frame is, if it is one.
    pub(super) fn device_page(&self, frame: u32) -> Option<&str> {
        self.devices.get(&frame).map(String::as_str)
    }

    /// The name of a file or object.
    pub(super) fn file_name(&self, mapping: u64) -> String {
        self.files.get(&mapping).cloned().unwrap_or_else(|| format!("shared object {mapping}"))
    }

    /// The line's process.
    pub(super) fn process(&self) -> &str {
        &self.process
    }

    /// The line's operation.
    pub(super) const fn op(&self) -> Option<&Op> {
        self.op.as_ref()
    }

    /// The process that has an address space.
    pub(super) fn process_of(&self, space: u32) -> Option<&str> {
        let has = |weak: &Weak<Mm<Watched<A>>>| {
            weak.upgrade().is_some_and(|mm| pagefault::machine::Space::id(mm.space()) == space)
        };
        self.spaces.iter().find(|(_, weak)| has(weak)).map(|(name, _)| name.as_str())
    }

    /// A step with nothing but its sentence.
    pub(super) fn draft(&self, phase: Phase, sentence: String, spec: &[&str]) -> Step {
        Step {
            id: String::new(),
            line: self.line,
            phase,
            sentence,
            spec: unique(spec),
            state: 0,
            process: self.process.clone(),
            access: None,
            questions: Vec::new(),
            way: Vec::new(),
            correction: None,
            major: false,
            before: None,
            after: None,
            actions: Vec::new(),
            counts: Vec::new(),
        }
    }

    /// Adds a step, and the state after it.
    pub(super) fn add(&mut self, step: Step, state: State) {
        if self.states.last() != Some(&state) {
            self.states.push(state);
        }
        let id = format!("{}.{}", self.line, self.steps.len() - self.first + 1);
        self.steps.push(Step { id, state: self.states.len() - 1, ..step });
    }

    /// The whole story.
    pub(super) fn finish(self, request: &Request, script: &Script) -> Explanation {
        let bits = self.manager.machine().capabilities();
        Explanation {
            format: FORMAT,
            title: request.title.clone(),
            prose: request.prose.clone(),
            computer: Computer {
                arch: script.sizes.arch.name().into(),
                page: PAGE_SIZE,
                entry_bytes: A::ENTRY_BYTES,
                levels: words::levels::<A>(),
                task_size: format!("{:#x}", A::TASK_SIZE.value()),
                sets_bits: bits.accessed && bits.dirty,
                frames: self.sim.frames(),
                low: self.manager.watermarks().low,
                high: self.manager.watermarks().high,
                cpus: self.sim.cpus(),
            },
            source: request.source.lines().map(str::to_owned).collect(),
            operations: self.operations,
            steps: self.steps,
            states: self.states,
        }
    }
}

/// The same requirements without duplicates.
fn unique(spec: &[&str]) -> Vec<String> {
    let mut seen = Vec::new();
    for number in spec {
        if !seen.iter().any(|known| known == number) {
            seen.push((*number).to_owned());
        }
    }
    seen
}

/// The numbers that differ between two states.
pub(super) fn changes(before: &State, after: &State) -> Vec<Count> {
    let mut counts = Vec::new();
    let mut count = |what: String, before: u64, after: u64| {
        if before != after {
            counts.push(Count { what, before, after });
        }
    };
    count("free frames".into(), before.free.into(), after.free.into());
    for process in &after.processes {
        let Some(was) = before.processes.iter().find(|was| was.space == process.space) else {
            continue;
        };
        let name = &process.name;
        count(format!("{name}: resident anonymous pages"), was.anonymous, process.anonymous);
        count(format!("{name}: resident file pages"), was.file, process.file);
        count(format!("{name}: minor faults"), was.minor, process.minor);
        count(format!("{name}: major faults"), was.major, process.major);
        count(format!("{name}: page tables"), was.tables.into(), process.tables.into());
        let regions = |process: &crate::model::Process| process.regions.len() as u64;
        count(format!("{name}: regions"), regions(was), regions(process));
    }
    for frame in after.frames.iter().chain(&before.frames) {
        let find = |state: &State| state.frames.iter().find(|f| f.frame == frame.frame).cloned();
        let (was, is) = (find(before), find(after));
        let counted = |frame: &Option<crate::model::FrameUse>| {
            frame
                .as_ref()
                .filter(|frame| matches!(&*frame.kind, "anonymous" | "file"))
                .map_or((0, 0), |frame| (u64::from(frame.maps), u64::from(frame.refs)))
        };
        // Once for each frame: as it is now, or as it was if it is free now.
        if is.is_some() && !after.frames.iter().any(|f| std::ptr::eq(f, frame)) {
            continue;
        }
        let (was, is) = (counted(&was), counted(&is));
        count(format!("frame {}: entries that name it", frame.frame), was.0, is.0);
        count(format!("frame {}: references", frame.frame), was.1, is.1);
    }
    for (area, was) in after.swap.iter().zip(&before.swap) {
        let slots = area.used.iter().chain(&was.used).map(|(slot, _)| *slot);
        let slots: std::collections::BTreeSet<u32> = slots.collect();
        for slot in slots {
            let refs = |area: &crate::model::Area| {
                area.used.iter().find(|(s, _)| *s == slot).map_or(0, |(_, refs)| u64::from(*refs))
            };
            count(format!("slot {}:{slot}: references", area.area), refs(was), refs(area));
        }
    }
    counts
}
