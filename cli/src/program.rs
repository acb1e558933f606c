//! Finds a program, and checks beforehand whether it can be run and managed.

use crate::status;
use object::elf::{EM_X86_64, FileHeader64};
use object::read::elf::FileHeader;
use object::{Endianness, FileKind, ReadCache};
use rustix::fs::{Access, StatVfsMountFlags};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// How many interpreters of interpreters the kernel follows.
const MOST_INTERPRETERS: u32 = 4;

/// Why a program cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: not found", .0.display())]
    NotFound(PathBuf),
    #[error("{}: is a directory", .0.display())]
    Directory(PathBuf),
    #[error("{}: not executable", .0.display())]
    NotExecutable(PathBuf),
    #[error("{}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}: not for x86-64", .0.display())]
    Architecture(PathBuf),
    #[error("{}: damaged", .0.display())]
    Damaged(PathBuf),
    #[error("{}: its interpreter {} was not found", script.display(), interpreter.display())]
    NoInterpreter { script: PathBuf, interpreter: PathBuf },
    #[error("{}: too many nested interpreters", .0.display())]
    TooManyInterpreters(PathBuf),
}

impl Error {
    /// The exit status of the command.
    pub fn status(&self) -> u8 {
        match self {
            Self::NotFound(_) => status::NOT_FOUND,
            _ => status::CANNOT_RUN,
        }
    }
}

/// Why a program can only be run unmanaged.
#[derive(Debug, thiserror::Error)]
pub enum Unmanaged {
    #[error(
        "{}: gains privileges (set-user-ID, set-group-ID or file capabilities), so it runs unmanaged",
        .0.display()
    )]
    Privileged(PathBuf),
    #[error("{}: executable but unreadable, so it runs unmanaged", .0.display())]
    Unreadable(PathBuf),
}

/// A program that can be run.
#[derive(Debug)]
pub struct Found {
    /// The path to execute.
    pub path: PathBuf,
    /// Why it cannot be managed, if it cannot.
    pub unmanaged: Option<Unmanaged>,
}

/// Finds a program as a shell would, and checks it.
pub fn find(name: &OsStr) -> Result<Found, Error> {
    let path = search(name)?;
    let unmanaged = check(&path, 0)?;
    Ok(Found { path, unmanaged })
}

/// The file that a name means: the name itself if it has a slash, else the first executable file in
/// `PATH`.
pub fn search(name: &OsStr) -> Result<PathBuf, Error> {
    if name.as_bytes().contains(&b'/') {
        return Ok(name.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/bin:/usr/bin"));
    let mut found = None;
    for directory in std::env::split_paths(&path) {
        let file = directory.join(name);
        match fs::metadata(&file) {
            Ok(metadata) if metadata.is_file() => {
                if is_executable(&file) {
                    return Ok(file);
                }
                found = found.or(Some(file));
            }
            _ => {}
        }
    }
    Err(found.map_or_else(|| Error::NotFound(name.into()), Error::NotExecutable))
}

fn is_executable(path: &Path) -> bool {
    rustix::fs::access(path, Access::EXEC_OK).is_ok()
}

/// Checks a program, and the interpreters of a script.
fn check(path: &Path, depth: u32) -> Result<Option<Unmanaged>, Error> {
    let read = |source| Error::Read { path: path.to_owned(), source };
    let metadata = fs::metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Error::NotFound(path.to_owned()),
        _ => read(error),
    })?;
    if metadata.is_dir() {
        return Err(Error::Directory(path.to_owned()));
    }
    // Opening a FIFO would wait for a writer.
    if !metadata.is_file() || !is_executable(path) {
        return Err(Error::NotExecutable(path.to_owned()));
    }
    let mut file = match File::open(path) {
        Ok(file) => file,
        // The host hides the memory of a program that may be executed but not read.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Ok(Some(Unmanaged::Unreadable(path.to_owned())));
        }
        Err(error) => return Err(read(error)),
    };
    let mut start = [0; 256];
    let length = read_start(&mut file, &mut start).map_err(read)?;
    let start = &start[..length];
    if start.starts_with(b"\x7fELF") {
        check_elf(path, file)?;
        let gains = gains_rights(path, &metadata);
        return Ok(gains.then(|| Unmanaged::Privileged(path.to_owned())));
    }
    // Any other file is a shell script, as for execvp(3).
    let interpreter = interpreter(start).unwrap_or_else(|| PathBuf::from("/bin/sh"));
    if depth == MOST_INTERPRETERS {
        return Err(Error::TooManyInterpreters(path.to_owned()));
    }
    check(&interpreter, depth + 1).map_err(|error| match error {
        Error::NotFound(interpreter) => {
            Error::NoInterpreter { script: path.to_owned(), interpreter }
        }
        error => error,
    })
}

/// Reads the start of a file, up to the buffer's size.
fn read_start(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

/// The interpreter that a script's first line names.
fn interpreter(start: &[u8]) -> Option<PathBuf> {
    let line = start.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let mut words = line.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty());
    words.next().map(|word| OsString::from_vec(word.to_vec()).into())
}

/// Checks that the program is for this processor.
fn check_elf(path: &Path, file: File) -> Result<(), Error> {
    let damaged = || Error::Damaged(path.to_owned());
    let data = ReadCache::new(file);
    if FileKind::parse(&data).map_err(|_| damaged())? != FileKind::Elf64 {
        return Err(Error::Architecture(path.to_owned()));
    }
    let header = FileHeader64::<Endianness>::parse(&data).map_err(|_| damaged())?;
    let endian = header.endian().map_err(|_| damaged())?;
    if header.e_machine(endian) != EM_X86_64 {
        return Err(Error::Architecture(path.to_owned()));
    }
    header.program_headers(endian, &data).map_err(|_| damaged()).map(drop)
}

/// Whether a program would gain rights when it is executed here.
fn gains_rights(path: &Path, metadata: &Metadata) -> bool {
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    let gains_user = metadata.mode() & 0o4000 != 0 && metadata.uid() != user.as_raw();
    let gains_group = metadata.mode() & 0o2010 == 0o2010 && metadata.gid() != group.as_raw();
    let gains_capabilities = !user.is_root() && has_capabilities(path);
    (gains_user || gains_group || gains_capabilities) && !are_rights_refused(path)
}

/// Whether the host gives no rights by exec, to this process or from this file system.
fn are_rights_refused(path: &Path) -> bool {
    rustix::thread::no_new_privs().unwrap_or(false)
        || rustix::fs::statvfs(path)
            .is_ok_and(|mount| mount.f_flag.contains(StatVfsMountFlags::NOSUID))
}

fn has_capabilities(path: &Path) -> bool {
    rustix::fs::getxattr(path, "security.capability", &mut [0_u8; 64][..]).is_ok()
}
