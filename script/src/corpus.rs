//! The scripts in the folder `corpus/`, each of which pins one requirement.
//!
//! A line's answer stands behind it in a comment that starts with `#>`. It is what Linux 6.18
//! answered and what every machine shall answer; where that departs from the specification,
//! `corpus/DEPARTURES.md` says so.

use std::io;
use std::path::Path;

/// One script of the corpus.
#[derive(Clone, Debug)]
pub struct Example {
    /// The file's name without `.pf`.
    pub name: String,
    /// The script.
    pub text: String,
}

impl Example {
    /// The answers that the script's comments tell, with their line numbers.
    pub fn expected(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.text.lines()).filter_map(|(number, line)| {
            let (_, answer) = line.split_once("#> ")?;
            Some((number, answer.trim_end()))
        })
    }

    /// The Linux version, if any, before which the host answers differently: the words
    /// `needs Linux 6.17` in the comment at the top.
    pub fn needs_linux(&self) -> Option<(u32, u32)> {
        let (_, version) = self.text.split_once("needs Linux ")?;
        version_of(version)
    }
}

/// Every script of the corpus by name, from the source tree.
pub fn load() -> io::Result<Vec<Example>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut examples = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "pf") {
            examples.push(Example {
                name: path.file_stem().unwrap_or_default().to_string_lossy().into(),
                text: std::fs::read_to_string(&path)?,
            });
        }
    }
    examples.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(examples)
}

/// The first two numbers of a version such as `6.18.44-generic`.
pub fn version_of(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}
