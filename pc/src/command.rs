//! The command line of `pagefault boot`.

use crate::boot::{Accelerator, Boot};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// What `pagefault boot` says about itself.
pub const USAGE: &str = "\
usage: boot [OPTIONS] -- PROGRAM [ARGUMENTS]

  --memory SIZE   the machine's memory, such as 64M or 1G (64M)
  --swap SIZE     a swap device of this size (none)
  --files DIR     the machine's files; may be given several times
  --cpu MODEL     the processor, as QEMU names it (qemu64)
  --accel KIND    tcg, QEMU's own translation, or kvm (tcg)
  --stats         print the kernel's report on standard error
";

/// Whether the kernel's report is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// It is not.
    Silent,
    /// It is, on standard error.
    Printed,
}

/// Why a command line is not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// An option that there is none of.
    Unknown(OsString),
    /// An option's value is missing.
    Missing(&'static str),
    /// An option's value is not of the form that it needs.
    Value(&'static str, OsString),
    /// There is no program.
    NoProgram,
}

impl std::fmt::Display for CommandError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unknown(option) => write!(f, "unknown option {}", option.display()),
            Self::Missing(option) => write!(f, "{option} needs a value"),
            Self::Value(option, value) => write!(f, "{option} cannot be {}", value.display()),
            Self::NoProgram => f.write_str("no program is named"),
        }
    }
}

impl std::error::Error for CommandError {}

/// Reads a command line, without the word `boot`.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<(Boot, Report), CommandError> {
    let mut boot = Boot::new(&PathBuf::new(), &[]);
    boot.files.clear();
    let mut report = Report::Silent;
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--") => {
                boot.command = arguments.by_ref().map(OsString::into_vec).collect();
                break;
            }
            Some("--stats") => report = Report::Printed,
            Some("--memory") => boot.memory = size("--memory", arguments.next())?,
            Some("--swap") => boot.swap = size("--swap", arguments.next())?,
            Some("--files") => {
                boot.files.push(value("--files", arguments.next())?.into());
            }
            Some("--cpu") => boot.processor = text("--cpu", arguments.next())?,
            Some("--accel") => boot.accelerator = accelerator(arguments.next())?,
            _ => return Err(CommandError::Unknown(argument)),
        }
    }
    if boot.command.is_empty() { Err(CommandError::NoProgram) } else { Ok((boot, report)) }
}

fn value(option: &'static str, value: Option<OsString>) -> Result<OsString, CommandError> {
    value.ok_or(CommandError::Missing(option))
}

fn text(option: &'static str, given: Option<OsString>) -> Result<String, CommandError> {
    value(option, given)?.into_string().map_err(|given| CommandError::Value(option, given))
}

fn accelerator(given: Option<OsString>) -> Result<Accelerator, CommandError> {
    match text("--accel", given)?.as_str() {
        "tcg" => Ok(Accelerator::Tcg),
        "kvm" => Ok(Accelerator::Kvm),
        other => Err(CommandError::Value("--accel", other.into())),
    }
}

/// A size in MiB: a number with `M` or `G` behind it.
fn size(option: &'static str, given: Option<OsString>) -> Result<u32, CommandError> {
    let given = text(option, given)?;
    let wrong = || CommandError::Value(option, given.clone().into());
    let (number, factor) = match given.split_at_checked(given.len().saturating_sub(1)) {
        Some((number, "M" | "m")) => (number, 1),
        Some((number, "G" | "g")) => (number, 1024),
        _ => return Err(wrong()),
    };
    let number: u32 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(factor).filter(|size| *size > 0).ok_or_else(wrong)
}

#[cfg(test)]
mod tests;
