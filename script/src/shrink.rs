//! Minimises a script on which machines differ.
//!
//! First the lines after the first difference are removed. Then delta debugging removes lines in
//! ever smaller pieces. The rest gets simpler numbers, shorter strings and no offsets, until
//! nothing more can be simplified.
//!
//! A smaller script may differ for another reason. For example, a load after `madvise free` may see
//! either content. So only a difference of the same `Kind` counts.

mod lines;
mod simpler;

use crate::ast::Script;
use crate::diff::{Comparison, compare};
use crate::machine::{Entry, StartError};
use crate::parse::parse;
use std::fmt::Write;

/// A minimal script, and the machines' answers to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Minimal {
    /// The script; the answers to its last line, on which the machines differ, are comments.
    pub text: String,
    /// The number of its operations.
    pub operations: usize,
    /// The number of smaller scripts that were tried.
    pub tried: usize,
}

/// Minimises `script`; `None` if the machines give equal answers.
pub fn shrink(
    script: &Script,
    machines: &[&Entry],
    seed: u64,
) -> Result<Option<Minimal>, StartError> {
    let comparison = compare(script, machines, seed)?;
    let Some(kind) = Kind::of(&comparison, script) else { return Ok(None) };
    let head = Script { lines: Vec::new(), ..script.clone() }.to_string();
    let mut search = Search { machines, seed, kind, head, tried: 0 };
    let mut lines: Vec<String> = script.lines.iter().map(ToString::to_string).collect();
    lines.truncate(search.kind.line + 1);
    loop {
        let before = lines.clone();
        lines = lines::fewer(lines, |candidate| search.still(candidate));
        lines = simpler::simpler(lines, |candidate| search.still(candidate));
        if lines == before {
            break;
        }
    }
    let operations = lines.len();
    Ok(Some(Minimal { text: search.told(&lines)?, operations, tried: search.tried }))
}

/// The kind of a difference.
#[derive(Clone, Debug)]
struct Kind {
    /// The index of the first line on which the machines differ.
    line: usize,
    /// The operation of that line.
    operation: String,
    /// The kind of each machine's answer.
    answers: Vec<String>,
}

impl Kind {
    fn of(comparison: &Comparison<'_>, script: &Script) -> Option<Self> {
        let line = comparison.first_difference()?;
        let operation = script.lines[line].op.to_string();
        let answers = comparison.answers(line).map(|(_, text)| sort_of(text)).collect();
        Some(Self { line, operation: first_word(&operation).to_owned(), answers })
    }

    fn is_like(&self, other: &Self) -> bool {
        (&self.operation, &self.answers) == (&other.operation, &other.answers)
    }
}

fn first_word(text: &str) -> &str {
    text.split(' ').next().unwrap_or_default()
}

/// `ok`, an errno, a signal and its code; all bytes are one kind, and all lists of mappings are
/// one.
fn sort_of(answer: &str) -> String {
    let word = first_word(answer);
    let is_name = |word: &str| word.len() > 1 && word.chars().all(|c| c.is_ascii_uppercase());
    match word {
        _ if word.starts_with("SIG") => answer.split(' ').take(2).collect::<Vec<_>>().join(" "),
        "ok" | "outside" => word.to_owned(),
        _ if is_name(word) => word.to_owned(),
        _ => "content".to_owned(),
    }
}

/// The search for a smaller script.
struct Search<'a> {
    machines: &'a [&'a Entry],
    seed: u64,
    kind: Kind,
    /// The sizes of the machines. They stay, because less memory would be another difference.
    head: String,
    tried: usize,
}

impl Search<'_> {
    /// If the machines still differ in the same way, the candidate up to the difference.
    ///
    /// Lines whose names are gone are left out.
    fn still(&mut self, mut lines: Vec<String>) -> Option<Vec<String>> {
        let script = loop {
            match parse(&self.text(&lines)) {
                Ok(script) => break script,
                Err(error) => {
                    lines.remove(error.line.checked_sub(1 + self.head.lines().count())?);
                }
            }
        };
        self.tried += 1;
        let comparison = compare(&script, self.machines, self.seed).ok()?;
        let kind = Kind::of(&comparison, &script)?;
        lines.truncate(kind.line + 1);
        self.kind.is_like(&kind).then_some(lines)
    }

    fn text(&self, lines: &[String]) -> String {
        let mut text = self.head.clone();
        for line in lines {
            text.push_str(line);
            text.push('\n');
        }
        text
    }

    /// The script with the answers to its last line as comments.
    fn told(&self, lines: &[String]) -> Result<String, StartError> {
        let mut text = self.text(lines);
        let Ok(script) = parse(&text) else { return Ok(text) };
        let comparison = compare(&script, self.machines, self.seed)?;
        if let Some(line) = comparison.first_difference() {
            let width = self.machines.iter().map(|entry| entry.name.len()).max().unwrap_or(0);
            for (name, answer) in comparison.answers(line) {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "# {name:width$}  {answer}");
            }
        }
        Ok(text)
    }
}

#[cfg(test)]
pub(crate) mod tests;
