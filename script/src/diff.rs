//! Runs a script on several machines, and compares their answers.

use crate::ast::Script;
use crate::machine::{Entry, Machine, StartError};
use crate::runner::{Run, setup};
use std::fmt::{self, Display, Formatter};

/// What several machines answered to one script.
pub struct Comparison<'a> {
    script: &'a Script,
    machines: Vec<Answers>,
}

/// One machine's answers and counts.
pub struct Answers {
    /// The machine's name.
    pub machine: &'static str,
    /// The results, one a line of the script.
    pub texts: Vec<String>,
    /// The machine's counts at the end.
    pub stats: Vec<(&'static str, u64)>,
}

/// Runs the script on each machine, one after the other.
pub fn compare<'a>(
    script: &'a Script,
    machines: &[&Entry],
    seed: u64,
) -> Result<Comparison<'a>, StartError> {
    compare_told(script, machines, seed, &|_| {})
}

/// The same, with progress: `told` gets the number of new answers after each line, or all at once from a
/// machine that runs the script as a whole.
pub fn compare_told<'a>(
    script: &'a Script,
    machines: &[&Entry],
    seed: u64,
    told: &dyn Fn(usize),
) -> Result<Comparison<'a>, StartError> {
    let answers = |entry: &&Entry| -> Result<Answers, StartError> {
        let mut machine = (entry.start)(&setup(script, seed))?;
        let texts = match machine.whole(script) {
            Some(texts) => texts.inspect(|texts| told(texts.len()))?,
            None => {
                let lines = Run::new(script, &mut *machine);
                lines.inspect(|_| told(1)).map(|answer| answer.text).collect()
            }
        };
        Ok(Answers { machine: entry.name, texts, stats: machine.stats() })
    };
    let machines = machines.iter().map(answers).collect::<Result<_, _>>()?;
    Ok(Comparison { script, machines })
}

/// The answers of a fresh machine, line by line.
pub fn texts(script: &Script, machine: &mut dyn Machine) -> Vec<String> {
    Run::new(script, machine).map(|answer| answer.text).collect()
}

impl Comparison<'_> {
    /// The number of lines on which not all machines agree.
    pub fn differences(&self) -> usize {
        self.differing().count()
    }

    /// What each machine answered.
    pub fn machines(&self) -> &[Answers] {
        &self.machines
    }

    /// The index of the first line on which not all machines agree.
    pub fn first_difference(&self) -> Option<usize> {
        self.differing().next()
    }

    /// The first line on which not all machines agree, with each machine's answer, and how many there are;
    /// empty if there is none.
    pub fn summary(&self) -> String {
        let first = self.first_difference().map(|index| self.told(index));
        first.map_or_else(String::new, |first| format!("first difference: {first}{}", self.count()))
    }

    /// Each machine's name, and its answer to the line at an index.
    pub fn answers(&self, line: usize) -> impl Iterator<Item = (&'static str, &str)> {
        self.machines.iter().map(move |answers| {
            let text = answers.texts.get(line).map_or("", String::as_str);
            (answers.machine, text)
        })
    }

    /// The indexes of the lines on which not all machines agree.
    fn differing(&self) -> impl Iterator<Item = usize> {
        (0..self.script.lines.len()).filter(|&line| {
            let mut texts = self.machines.iter().map(|answers| answers.texts.get(line));
            let first = texts.next();
            texts.any(|text| Some(text) != first)
        })
    }
}

impl Comparison<'_> {
    /// A line of the script with each machine's answer.
    fn told(&self, index: usize) -> String {
        let width = self.machines.iter().map(|answers| answers.machine.len()).max().unwrap_or(0);
        let line = &self.script.lines[index];
        let mut told = format!("line {}: {line}\n", line.number);
        for (name, text) in self.answers(index) {
            told += &format!("  {name:width$}  {text}\n");
        }
        told
    }

    /// How many lines differ.
    fn count(&self) -> String {
        let (differences, lines) = (self.differences(), self.script.lines.len());
        let names: Vec<&str> = self.machines.iter().map(|answers| answers.machine).collect();
        let names = names.join(", ");
        if differences == 0 {
            format!("{names}: {lines} lines, all equal\n")
        } else {
            format!("{names}: {differences} of {lines} lines differ\n")
        }
    }
}

impl Display for Comparison<'_> {
    /// Every line on which machines differ: its number, the line, and each machine's answer. The
    /// first one, after which the machines' memories differ anyway, is marked.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (rank, index) in self.differing().enumerate() {
            let mark = if rank == 0 { "first difference: " } else { "" };
            write!(f, "{mark}{}", self.told(index))?;
        }
        f.write_str(&self.count())
    }
}

#[cfg(test)]
mod tests;
