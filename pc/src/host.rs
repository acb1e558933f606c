//! Programs of the host, brought with what they need to start: the interpreter and the libraries.

use crate::archive::{Content, Single};
use object::elf::{EM_X86_64, FileHeader64, PT_INTERP};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, ReadCache, ReadRef};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The limit of nested interpreters, as in Linux.
const MOST_INTERPRETERS: u32 = 4;

/// Where glibc's loader looks libraries up that are not in its own directories.
const CACHE: &str = "/etc/ld.so.cache";

/// Why a program cannot be brought.
#[derive(Debug)]
pub enum BringError {
    /// A file could not be read.
    Read(PathBuf, io::Error),
    /// It is no program for a 64-bit PC.
    NotForPc(PathBuf),
    /// Its headers contradict each other.
    Damaged(PathBuf),
    /// Its interpreter could not be run to find the libraries.
    Loader(PathBuf, io::Error),
    /// The host lacks a library, or the loader has another complaint; this is what it said.
    Libraries(PathBuf, String),
    /// Too many nested interpreters.
    TooManyInterpreters(PathBuf),
}

impl std::fmt::Display for BringError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Read(path, error) => write!(f, "{}: {error}", path.display()),
            Self::NotForPc(path) => write!(f, "{}: not for x86-64", path.display()),
            Self::Damaged(path) => write!(f, "{}: damaged", path.display()),
            Self::Loader(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Libraries(path, said) => write!(f, "{}: {said}", path.display()),
            Self::TooManyInterpreters(path) => {
                write!(f, "{}: too many nested interpreters", path.display())
            }
        }
    }
}

impl std::error::Error for BringError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read(_, error) | Self::Loader(_, error) => Some(error),
            _ => None,
        }
    }
}

/// The files that a program of the host needs to start, each at the host's own path; the program,
/// whose path is to be absolute, comes first.
///
/// What a program opens later, by `dlopen` or otherwise, is not among them.
pub fn bring(program: &Path) -> Result<Vec<Single>, BringError> {
    let mut files = vec![of_host(program.to_owned())];
    let mut path = program.to_owned();
    for _ in 0..=MOST_INTERPRETERS {
        let Some(interpreter) = script_interpreter(&path)? else {
            files.extend(libraries(&path)?.into_iter().map(of_host));
            return Ok(files);
        };
        files.push(of_host(interpreter.clone()));
        path = interpreter;
    }
    Err(BringError::TooManyInterpreters(program.to_owned()))
}

fn of_host(path: PathBuf) -> Single {
    Single { content: Content::Of(path.clone()), path }
}

/// The interpreter that a script's first line names; `None` of what is no script.
fn script_interpreter(path: &Path) -> Result<Option<PathBuf>, BringError> {
    let read = |error| BringError::Read(path.to_owned(), error);
    let mut start = Vec::new();
    File::open(path).map_err(read)?.take(256).read_to_end(&mut start).map_err(read)?;
    let Some(line) = start.strip_prefix(b"#!") else { return Ok(None) };
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let mut words = line.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty());
    Ok(words.next().map(|word| OsString::from_vec(word.to_vec()).into()))
}

/// A program's interpreter and libraries, as its interpreter finds them.
fn libraries(program: &Path) -> Result<Vec<PathBuf>, BringError> {
    let Some(loader) = loader(program)? else { return Ok(Vec::new()) };
    let said = Command::new(&loader)
        .arg("--list")
        .arg(program)
        .output()
        .map_err(|error| BringError::Loader(loader.clone(), error))?;
    if !said.status.success() {
        let complaint = String::from_utf8_lossy(&said.stderr).trim().to_owned();
        if complaint.is_empty() {
            // It fell over what it found, without a word.
            return Err(BringError::Damaged(program.to_owned()));
        }
        return Err(BringError::Libraries(program.to_owned(), complaint));
    }
    let mut files = listed(&String::from_utf8_lossy(&said.stdout))
        .map_err(|missing| BringError::Libraries(program.to_owned(), missing))?;
    files.push(loader);
    if Path::new(CACHE).exists() {
        files.push(CACHE.into());
    }
    files.sort();
    files.dedup();
    Ok(files)
}

/// The interpreter that a program's header names; `None` of a static program.
fn loader(program: &Path) -> Result<Option<PathBuf>, BringError> {
    let damaged = || BringError::Damaged(program.to_owned());
    let read = |error| BringError::Read(program.to_owned(), error);
    let data = ReadCache::new(File::open(program).map_err(read)?);
    let wrong = || BringError::NotForPc(program.to_owned());
    let header = FileHeader64::<Endianness>::parse(&data).map_err(|_| wrong())?;
    let endian = header.endian().map_err(|_| wrong())?;
    if header.e_machine(endian) != EM_X86_64 {
        return Err(wrong());
    }
    let segments = header.program_headers(endian, &data).map_err(|_| damaged())?;
    let Some(named) = segments.iter().find(|segment| segment.p_type(endian) == PT_INTERP) else {
        return Ok(None);
    };
    let (at, length) = (named.p_offset(endian), named.p_filesz(endian));
    let name = (&data).read_bytes_at(at, length).map_err(|()| damaged())?;
    let name = name.split(|byte| *byte == 0).next().unwrap_or(name);
    Ok(Some(PathBuf::from(OsStr::from_bytes(name))))
}

/// The paths in a loader's list, whose lines are `NAME => PATH (ADDRESS)` or `PATH (ADDRESS)`; the
/// error is the line of a library that was not found.
fn listed(list: &str) -> Result<Vec<PathBuf>, String> {
    let mut paths = Vec::new();
    for line in list.lines().map(str::trim) {
        let (_, found) = line.split_once(" => ").unwrap_or(("", line));
        let path = found.rsplit_once(" (").map_or(found, |(path, _)| path);
        if path.starts_with('/') {
            paths.push(path.into());
        } else if path == "not found" {
            return Err(line.replace(" => ", ": "));
        }
    }
    Ok(paths)
}

/// The bytes of a program without what is only there for debuggers.
pub fn stripped(program: &Path) -> Result<Vec<u8>, BringError> {
    let mut bytes =
        fs::read(program).map_err(|error| BringError::Read(program.to_owned(), error))?;
    let damaged = || BringError::Damaged(program.to_owned());
    let end = {
        let header = FileHeader64::<Endianness>::parse(&*bytes).map_err(|_| damaged())?;
        let endian = header.endian().map_err(|_| damaged())?;
        let segments = header.program_headers(endian, &*bytes).map_err(|_| damaged())?;
        let ends = segments.iter().map(|s| s.p_offset(endian).saturating_add(s.p_filesz(endian)));
        ends.max().unwrap_or_default()
    };
    // Sections stand behind the segments: the header forgets them (e_shoff; e_shnum, e_shstrndx).
    bytes.truncate(usize::try_from(end).map_err(|_| damaged())?.max(64));
    for field in [0x28..0x30, 0x3c..0x40] {
        bytes.get_mut(field).ok_or_else(damaged)?.fill(0);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
