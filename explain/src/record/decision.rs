//! The questions of the tree (docs/fault.svg) with the answers that one fault got.

use super::names::Names;
use super::tap::Note;
use super::{Story, Watched, words};
use crate::model::Question;
use pagefault::entry::{Oops, SegvCode, Signal, Verdict};
use pagefault::machine::{
    Entry, Erratum, ErrorCode, Frame, Mode, PageFault, Rights, SwapSlot, VirtAddr,
};
use pagefault::{Correction, Event, Mm, RegionReport, Turn, Visit, Weight};
use pagefault_sim::{Architecture, Call};
use std::sync::Arc;

/// What the computer looked like when the fault arrived.
pub(super) struct Facts {
    /// The regions that the search visited.
    pub(super) visits: Vec<Visit>,
    /// The region with the address.
    pub(super) region: Option<RegionReport>,
    /// If there is none, the first region above.
    pub(super) above: Option<RegionReport>,
    /// The page's entry.
    pub(super) entry: Entry,
    /// The level at which the walk ends; 1: at the page's own entry.
    pub(super) level: u32,
}

impl Facts {
    pub(super) fn gather<A: Architecture>(mm: &Arc<Mm<Watched<A>>>, fault: &PageFault) -> Self {
        let address = fault.address;
        let visits = mm.look_up(address);
        let at = |range| mm.maps(range).into_iter().next();
        let region = visits
            .iter()
            .find(|visit| visit.turn == Turn::Found)
            .and_then(|visit| at(visit.range.clone()));
        let above = visits
            .iter()
            .rfind(|visit| visit.turn == Turn::Left)
            .filter(|_| region.is_none())
            .and_then(|visit| at(visit.range.clone()));
        let level = mm.space().inner().walk(address).last().map_or(1, |step| step.level);
        Self { visits, region, above, entry: entry_of(mm, address), level }
    }
}

/// The page's entry as the memory manager reads it.
pub(super) fn entry_of<A: Architecture>(mm: &Arc<Mm<Watched<A>>>, address: VirtAddr) -> Entry {
    match mm.space().inner().walk(address).last() {
        Some(step) if step.level == 1 => A::decode(step.raw),
        _ => Entry::None,
    }
}

/// Where a fault found the content of a page of an object.
#[derive(Clone, Copy)]
pub(super) enum Origin {
    /// In the page cache.
    Cache,
    /// In the file.
    File,
    /// Nowhere: a page of shared memory that is new, or was given up.
    Zeros,
    /// In a slot: the page of shared memory was evicted.
    Slot(SwapSlot),
}

/// How a fault ended.
pub(super) struct Outcome {
    pub(super) verdict: Verdict,
    /// The processor's erratum that explains it.
    pub(super) erratum: Option<Erratum>,
    pub(super) correction: Option<Correction>,
    pub(super) major: bool,
    /// The frames that got their content for it.
    brought: Vec<(Frame, Origin)>,
    /// How many pages were read ahead.
    pub(super) ahead: usize,
}

impl Outcome {
    pub(super) fn of(notes: &[Note], verdict: Verdict) -> Self {
        let explains = notes.iter().find_map(|note| match note {
            Note::Call(Call::Erratum { explains }) => *explains,
            _ => None,
        });
        let corrected = notes.iter().rev().find_map(|note| match note {
            Note::Event(Event::Corrected { correction, weight, .. }) => {
                Some((*correction, *weight))
            }
            _ => None,
        });
        let brought = notes.iter().filter_map(|note| match note {
            Note::Call(Call::Fill(frame)) => Some((*frame, Origin::File)),
            Note::Call(Call::Zero(frame)) => Some((*frame, Origin::Zeros)),
            Note::Event(Event::SwapRead { frame, slot }) => Some((*frame, Origin::Slot(*slot))),
            _ => None,
        });
        let is_ahead = |note: &&Note| matches!(note, Note::Event(Event::ReadAhead { .. }));
        Self {
            brought: brought.collect(),
            ahead: notes.iter().filter(is_ahead).count(),
            verdict,
            erratum: explains,
            correction: corrected.map(|(correction, _)| correction),
            major: corrected.is_some_and(|(_, weight)| weight == Weight::Major),
        }
    }

    /// Where the content of a page of an object came from. A slot is read by filling a frame, so the
    /// last note on a frame tells.
    pub(super) fn origin(&self, frame: Frame) -> Origin {
        let brought = self.brought.iter().rev().find(|(of, _)| *of == frame);
        brought.map_or(Origin::Cache, |(_, origin)| *origin)
    }

    /// The correction's name, as its counter has it.
    pub(super) fn name(&self) -> Option<&'static str> {
        Some(match self.correction? {
            Correction::Anonymous => "anonymous",
            Correction::Zero => "zero",
            Correction::File => "file",
            Correction::Nonlinear => "nonlinear",
            Correction::Device => "device",
            Correction::SwapIn => "swap_in",
            Correction::CopyOnWrite => "copy_on_write",
            Correction::Reuse => "reuse",
            Correction::Standby => "standby",
            Correction::Spurious => "spurious",
        })
    }

    /// The boxes of the figure that follow the questions.
    pub(super) fn ends(&self, questions: &[Question]) -> Vec<String> {
        // The last question comes before the content: past it, the kernel's access failed for want of content.
        // A guard page has none.
        let is_allowed =
            |question: &Question| question.node == "entry" && question.answer != words::GUARD_PAGE;
        let is_bad_area = !questions.iter().any(is_allowed);
        let ends: &[&str] = match self.verdict {
            Verdict::Resume => match self.name() {
                Some(name) => return vec![name.to_owned()],
                None if self.erratum.is_some() => &["badarea", "erratum"],
                None => &["sync"],
            },
            Verdict::Signal(Signal::Segv(_)) => &["badarea", "segv"],
            Verdict::Signal(Signal::Bus) => &["bus"],
            Verdict::Signal(Signal::Illegal) => &["badarea", "erratum"],
            Verdict::Fixup(_) if is_bad_area => &["badarea", "fixup"],
            Verdict::Fixup(_) => &["bus", "fixup"],
            Verdict::Oops(Oops::OutOfMemory) => &["oom", "oops"],
            Verdict::Oops(_) if is_bad_area => &["badarea", "oops"],
            Verdict::Oops(_) => &["bus", "oops"],
            Verdict::OutOfMemory => &["oom"],
            Verdict::Corrupt => &["corrupt"],
        };
        ends.iter().map(|end| (*end).to_owned()).collect()
    }
}

/// The questions of one fault.
pub(super) struct Decided {
    pub(super) sentence: String,
    pub(super) spec: Vec<&'static str>,
    pub(super) questions: Vec<Question>,
    pub(super) way: Vec<String>,
}

/// Asks the questions in order, as far as they were asked.
pub(super) fn decide<A: Architecture>(
    story: &Story<A>,
    mm: &Arc<Mm<Watched<A>>>,
    fault: &PageFault,
    facts: &Facts,
    outcome: &Outcome,
) -> Decided {
    let mut asked = Asked { questions: Vec::new(), spec: Vec::new() };
    let last = asked.all(story, mm, fault, facts, outcome);
    let mut way = vec!["machine".to_owned()];
    way.extend(asked.questions.iter().map(|question| question.node.clone()));
    way.dedup();
    Decided { sentence: last, spec: asked.spec, questions: asked.questions, way }
}

struct Asked {
    questions: Vec<Question>,
    spec: Vec<&'static str>,
}

impl Asked {
    fn ask(&mut self, (node, text, spec): (&str, &str, &'static str), answer: &str, value: String) {
        self.spec.push(spec);
        self.questions.push(Question {
            node: node.into(),
            text: text.into(),
            answer: answer.into(),
            value,
            spec: spec.into(),
        });
    }

    /// Returns the decision in one sentence.
    fn all<A: Architecture>(
        &mut self,
        story: &Story<A>,
        mm: &Arc<Mm<Watched<A>>>,
        fault: &PageFault,
        facts: &Facts,
        outcome: &Outcome,
    ) -> String {
        let address = fault.address.value();
        let task = A::TASK_SIZE.value();
        let kernel = ("kernel", "A kernel address?", "A4");
        if address >= task {
            self.ask(kernel, "yes", format!("{address:#x} ≥ {task:#x}"));
            return self.of_the_kernel(fault, outcome);
        }
        self.ask(kernel, "no", format!("{address:#x} < {task:#x}"));
        let reserved = fault.code.contains(ErrorCode::RESERVED);
        let bit = u8::from(reserved);
        let answer = if reserved { "yes" } else { "no" };
        self.ask(
            ("reserved", "A reserved bit set in a table?", "A10"),
            answer,
            format!("RSVD = {bit}"),
        );
        if reserved {
            return "A reserved bit is set in the table: it is corrupt.".into();
        }
        let sleep = ("sleep", "An address space, and may we sleep?", "A11");
        self.ask(sleep, "yes", format!("{} runs, and its context may sleep", story.process()));
        if !self.region(story, mm, fault, facts, outcome) {
            return "No region has the address: a bad area.".into();
        }
        if !self.access::<A>(fault, facts, mm) {
            return format!(
                "The region does not allow the {}: a bad area.",
                words::kind(fault.access())
            );
        }
        let (level, entry) = (facts.level, words::entry::<A>(facts.entry, Mode::User));
        let value = match level {
            1 => format!("{}: {}", entry.word, entry.says),
            _ => format!("no table at {}", words::level_name::<A>(level - 1)),
        };
        self.ask(("entry", "What does the page's entry say?", "B4"), &entry.says, value);
        let found = match facts.entry {
            _ if level > 1 => "there is not even a table for the page's entry".into(),
            Entry::None => "the page's entry is empty".into(),
            Entry::Present { frame, .. } => format!("its entry names frame {}", frame.0),
            _ => format!("its entry says {}", entry.says),
        };
        format!("The region allows the {}, and {found}.", words::kind(fault.access()))
    }

    fn of_the_kernel(&mut self, fault: &PageFault, outcome: &Outcome) -> String {
        let clear = ErrorCode::PROTECTION | ErrorCode::USER | ErrorCode::RESERVED;
        let ask = ("kernel", "The kernel's access, not present, no reserved bit?", "A4");
        if fault.code.intersects(clear) {
            self.ask(ask, "no", format!("error code {:#x}", fault.code.bits()));
            return "No program may use the kernel's addresses: a bad area.".into();
        }
        self.ask(ask, "yes", format!("error code {:#x}", fault.code.bits()));
        let ask = ("kernel", "Does the reference table map it?", "A5");
        if outcome.verdict == Verdict::Resume {
            self.ask(ask, "yes", "its entry is copied to the loaded table".into());
            return "The kernel's reference table maps the address; only the loaded table lacks it."
                .into();
        }
        self.ask(ask, "no", "nothing is there either".into());
        "Not even the reference table maps the address: a bad area.".into()
    }

    /// Whether a region has the address, perhaps because a stack has grown to it.
    fn region<A: Architecture>(
        &mut self,
        story: &Story<A>,
        mm: &Arc<Mm<Watched<A>>>,
        fault: &PageFault,
        facts: &Facts,
        outcome: &Outcome,
    ) -> bool {
        let ask = ("region", "A region, or a stack that may grow?", "A13");
        let place =
            |report: &RegionReport| story.names.place(story.process(), report.range.start.value());
        let seen = nodes(&story.names, story.process(), &facts.visits);
        if let Some(region) = &facts.region {
            let (start, end) = (region.range.start.value(), region.range.end.value());
            let value = format!("{}: {start:#x}–{end:#x}; nodes visited: {seen}", place(region));
            self.ask(ask, "yes", value);
            return true;
        }
        let grew = mm.maps(fault.address.page()..fault.address.page() + 1).into_iter().next();
        match (&facts.above, grew) {
            (Some(above), Some(_)) => {
                let value = format!("none, but the stack above, at {}, grows down", place(above));
                self.ask(ask, "yes", format!("{value}; nodes visited: {seen}"));
                self.spec.extend(["A14", "A15"]);
                true
            }
            (Some(above), None) => {
                let why = match (above.grows_down, outcome.verdict) {
                    (true, _) => "is a stack that may not grow so far",
                    (false, _) => "does not grow down",
                };
                let value = format!("the next region above, at {}, {why}", place(above));
                self.ask(ask, "no", format!("{value}; nodes visited: {seen}"));
                false
            }
            (None, _) => {
                self.ask(
                    ask,
                    "no",
                    format!("no region ends above the address; nodes visited: {seen}"),
                );
                false
            }
        }
    }

    fn access<A: Architecture>(
        &mut self,
        fault: &PageFault,
        facts: &Facts,
        mm: &Arc<Mm<Watched<A>>>,
    ) -> bool {
        let grown = || mm.maps(fault.address.page()..fault.address.page() + 1).into_iter().next();
        let Some(region) = facts.region.clone().or_else(grown) else { return false };
        let spec = if A::RIGHTS == Rights::Each { "A17" } else { "A16" };
        let has = region.protection;
        let allowed = allows(has, fault, A::RIGHTS);
        let answer = if allowed { "yes" } else { "no" };
        let value = format!(
            "a {} of a region that allows {}",
            words::kind(fault.access()),
            words::letters(has)
        );
        self.ask(("access", "Does the region allow the access?", spec), answer, value);
        allowed
    }
}

/// Whether a region with this protection allows a fault's access (spec A16, A17).
///
/// It repeats the rule in the specification's words, so that the tests can compare it with what the
/// memory manager did.
pub(super) fn allows(
    has: pagefault::machine::Protection,
    fault: &PageFault,
    rights: Rights,
) -> bool {
    use pagefault::machine::{Access, Protection};
    let any = |bits: Protection| has.intersects(bits);
    let is_present = fault.code.contains(ErrorCode::PROTECTION);
    match (fault.access(), rights) {
        (Access::Write, _) => any(Protection::WRITE),
        (Access::Execute, Rights::Each) => any(Protection::EXECUTE),
        (Access::Execute, Rights::Implied) if is_present => any(Protection::EXECUTE),
        (Access::Read, Rights::Each) => any(Protection::READ | Protection::WRITE),
        (Access::Read | Access::Execute, Rights::Implied) => any(Protection::all()),
    }
}

fn nodes(names: &Names, process: &str, visits: &[Visit]) -> String {
    let node = |visit: &Visit| names.place(process, visit.range.start.value());
    match visits {
        [] => "none, the tree is empty".into(),
        visits => visits.iter().map(node).collect::<Vec<_>>().join(" → "),
    }
}

/// The code of a segmentation violation.
pub(super) const fn code(code: SegvCode) -> &'static str {
    match code {
        SegvCode::MapErr => "MAPERR",
        SegvCode::AccErr => "ACCERR",
    }
}
