//! The explanation as lines for a terminal.

use crate::model::{Action, Entry, Explanation, Operation, Phase, Step, Walked};
use std::fmt::{self, Display, Formatter, Write};

/// How much is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// One line for each step.
    Short,
    /// Walks in bits, questions with their values, every action and count.
    All,
}

/// Whether the lines are coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// With escape sequences.
    On,
    /// Plain.
    Off,
}

/// An explanation to be printed.
#[derive(Clone, Copy, Debug)]
pub struct Lines<'a> {
    /// The explanation.
    pub explanation: &'a Explanation,
    /// How much of it.
    pub detail: Detail,
    /// Whether in colour.
    pub colour: Colour,
}

impl Display for Lines<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let explanation = self.explanation;
        let computer = &explanation.computer;
        writeln!(
            f,
            "{} · {}, {} frames, {}",
            self.paint(BOLD, &explanation.title),
            computer.arch,
            computer.frames,
            if computer.cpus == 1 { "1 CPU".into() } else { format!("{} CPUs", computer.cpus) },
        )?;
        for operation in &explanation.operations {
            self.operation(f, operation)?;
        }
        Ok(())
    }
}

const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";
const BLUE: &str = "34";
const CYAN: &str = "36";

impl Lines<'_> {
    fn operation(&self, f: &mut Formatter<'_>, operation: &Operation) -> fmt::Result {
        let Operation { line, process, text, answer, .. } = operation;
        let head = format!("{line:>3}  {process}: {text}");
        let answered =
            self.paint(if answer == "ok" { DIM } else { YELLOW }, &format!("→ {answer}"));
        writeln!(f, "\n{}  {answered}", self.paint(BOLD, &head))?;
        let steps = operation.first..operation.first + operation.count;
        self.explanation.steps[steps].iter().try_for_each(|step| self.step(f, step))
    }

    fn step(&self, f: &mut Formatter<'_>, step: &Step) -> fmt::Result {
        let name = format!("{:<10}", phase(step.phase));
        let name = self.paint(colour(step.phase), &name);
        let spec = self.paint(DIM, &step.spec.join(" "));
        let sentence = match step.phase {
            Phase::Decision if self.detail == Detail::Short => way(step),
            _ => step.sentence.clone(),
        };
        writeln!(f, "{:>6} {name} {sentence}  {spec}", step.id)?;
        if self.detail == Detail::Short {
            return self.change(f, step);
        }
        self.access(f, step)?;
        for question in &step.questions {
            let answer = self.paint(CYAN, &question.answer);
            self.line(f, &format!("{} {answer}", question.text), &question.value, &question.spec)?;
        }
        self.entries(f, step)?;
        step.actions.iter().try_for_each(|action| self.action(f, action))?;
        for count in &step.counts {
            let text = format!("{}: {} → {}", count.what, count.before, count.after);
            self.line(f, &self.paint(DIM, &text), "", "")?;
        }
        Ok(())
    }

    /// The entry's change, on one line.
    fn change(&self, f: &mut Formatter<'_>, step: &Step) -> fmt::Result {
        let (Some(before), Some(after)) = (&step.before, &step.after) else { return Ok(()) };
        let change = format!("{} → {}", before.word, after.word);
        writeln!(f, "{:>17} {}  {}", "", self.paint(BLUE, &change), self.paint(DIM, &after.says))
    }

    fn line(&self, f: &mut Formatter<'_>, text: &str, value: &str, spec: &str) -> fmt::Result {
        let value = if value.is_empty() { String::new() } else { format!("  {value}") };
        let spec =
            if spec.is_empty() { String::new() } else { self.paint(DIM, &format!("  {spec}")) };
        writeln!(f, "{:>17} {text}{value}{spec}", "")
    }

    fn access(&self, f: &mut Formatter<'_>, step: &Step) -> fmt::Result {
        let Some(access) = step.access.as_ref().filter(|_| shows_walk(step.phase)) else {
            return Ok(());
        };
        if !access.walk.is_empty() {
            let cut = self.cut(&access.address);
            self.line(f, &format!("{} = {cut}", access.address), "", "")?;
        }
        for walked in &access.walk {
            self.walked(f, walked)?;
        }
        if let Some(fault) = &access.fault {
            self.line(f, &format!("CR2 {}, error code {}", fault.address, fault.code), "", "")?;
            for bit in &fault.bits {
                self.line(f, &format!("  {:<4} {}  {}", bit.name, bit.value, bit.meaning), "", "")?;
            }
        }
        Ok(())
    }

    /// The address cut into its indices.
    fn cut(&self, address: &str) -> String {
        let value = u64::from_str_radix(address.trim_start_matches("0x"), 16).unwrap_or(0);
        let computer = &self.explanation.computer;
        let mut text = String::new();
        for level in &computer.levels {
            let index = value >> level.shift & ((1 << level.bits) - 1);
            // Writing to a string does not fail.
            let _ = write!(text, "{} {index} · ", level.name);
        }
        text + &format!("offset {:#x}", value % computer.page)
    }

    fn walked(&self, f: &mut Formatter<'_>, walked: &Walked) -> fmt::Result {
        let level = self.explanation.computer.levels.iter().find(|l| l.level == walked.level);
        let name = level.map_or("", |level| &level.name);
        let entry = &walked.entry;
        let place = format!("{name:<7} frame {:>3}[{:>4}]", walked.table, walked.index);
        let text = format!("{place}  {}  {}", self.paint(BLUE, &entry.word), bits(entry));
        self.line(f, &text, &entry.says, "")
    }

    fn entries(&self, f: &mut Formatter<'_>, step: &Step) -> fmt::Result {
        let (Some(before), Some(after)) = (&step.before, &step.after) else { return Ok(()) };
        for (name, entry) in [("before", before), ("after", after)] {
            let text = format!("{name:<6} {}  {}", self.paint(BLUE, &entry.word), bits(entry));
            self.line(f, &text, &entry.says, "")?;
        }
        Ok(())
    }

    fn action(&self, f: &mut Formatter<'_>, action: &Action) -> fmt::Result {
        self.line(f, &format!("· {}", action.text), "", &action.spec)
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        match self.colour {
            Colour::On => format!("\x1b[{colour}m{text}\x1b[0m"),
            Colour::Off => text.to_owned(),
        }
    }
}

/// Whether a step is the one that shows the walk.
const fn shows_walk(phase: Phase) -> bool {
    matches!(phase, Phase::Hardware | Phase::Access | Phase::Again)
}

/// The word for a phase.
pub const fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Call => "call",
        Phase::Access => "access",
        Phase::Hardware => "hardware",
        Phase::Decision => "decision",
        Phase::Correction => "correction",
        Phase::Refusal => "refusal",
        Phase::Again => "again",
        Phase::Background => "background",
    }
}

const fn colour(phase: Phase) -> &'static str {
    match phase {
        Phase::Call | Phase::Access | Phase::Again => DIM,
        Phase::Hardware => BLUE,
        Phase::Decision => CYAN,
        Phase::Correction => GREEN,
        Phase::Refusal => RED,
        Phase::Background => YELLOW,
    }
}

/// The answers in short: `user address ✓ sound ✓ …`.
fn way(step: &Step) -> String {
    let asked = step.questions.iter().map(|question| {
        let name = match (&*question.node, &*question.answer) {
            ("kernel", "no") if question.text.starts_with("A kernel") => "user address",
            ("kernel", _) => "kernel address",
            ("reserved", "no") => "tables sound",
            ("reserved", _) => "reserved bit",
            ("sleep", _) => "may sleep",
            ("region", "yes") => "region",
            ("region", _) => "no region",
            ("access", "yes") => "allowed",
            ("access", _) => "not allowed",
            _ => return format!("entry: {}", question.answer),
        };
        name.to_owned()
    });
    let mut parts: Vec<String> = asked.collect();
    parts.dedup();
    parts.join(" → ")
}

/// The fields of a word that are single bits and set, by name.
fn bits(entry: &Entry) -> String {
    let shown = entry.fields.iter().map(|field| match (field.bits, field.value) {
        (1, 0) => "·".to_owned(),
        (1, _) => field.name.clone(),
        (_, value) => format!("{}={value}", field.name),
    });
    shown.collect::<Vec<_>>().join(" ")
}
