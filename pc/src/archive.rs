//! The machine's file system as an archive in the cpio format, which QEMU puts in its memory.

use cpio::NewcBuilder;
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where the kernel looks for the command: arguments that end with a zero byte each.
const COMMAND: &str = ".pagefault/command";

/// A single file for the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Single {
    /// Its absolute path in the machine.
    pub path: PathBuf,
    /// What is in it.
    pub content: Content,
}

/// What is in a file that the machine gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// The content of a file of the host, which is executable there or not.
    Of(PathBuf),
    /// These bytes, executable.
    Program(Vec<u8>),
    /// These bytes, to be read.
    Data(Vec<u8>),
}

/// Writes an archive with single files, the files of some directories, and the command. What comes
/// later in this order takes the place of what came before under the same path.
///
/// Of directories only directories, regular files and symbolic links are taken.
pub fn write(
    to: impl Write,
    singles: &[Single],
    directories: &[PathBuf],
    command: &[Vec<u8>],
) -> io::Result<()> {
    let mut archive = Archive { to, inode: 1 };
    archive.singles(singles)?;
    for directory in directories {
        archive.directory(directory, "").map_err(|error| about(directory, &error))?;
    }
    let command: Vec<u8> =
        command.iter().flat_map(|text| text.iter().chain(&[0])).copied().collect();
    archive.entry(COMMAND, 0o100_444, &command)?;
    cpio::newc::trailer(archive.to)?;
    Ok(())
}

/// An error with the path that it is about.
fn about(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

struct Archive<W> {
    to: W,
    inode: u32,
}

impl<W: Write> Archive<W> {
    /// Files with the directories above them.
    fn singles(&mut self, singles: &[Single]) -> io::Result<()> {
        let mut parents = BTreeSet::new();
        for single in singles {
            parents.extend(single.path.ancestors().skip(1).filter(|path| path.parent().is_some()));
        }
        for parent in parents {
            self.entry(name_of(parent)?, 0o040_755, &[])?;
        }
        for Single { path, content } in singles {
            let name = name_of(path)?;
            match content {
                Content::Of(source) => {
                    let read = || Ok((fs::read(source)?, fs::metadata(source)?.mode()));
                    let (bytes, mode) = read().map_err(|error| about(source, &error))?;
                    self.entry(name, mode, &bytes)?;
                }
                Content::Program(bytes) => self.entry(name, 0o100_755, bytes)?,
                Content::Data(bytes) => self.entry(name, 0o100_644, bytes)?,
            }
        }
        Ok(())
    }

    fn directory(&mut self, directory: &Path, name: &str) -> io::Result<()> {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let path = entry.path();
            let file_name = entry.file_name();
            let file_name = file_name.to_str().ok_or(io::ErrorKind::InvalidFilename)?;
            let name =
                if name.is_empty() { file_name.into() } else { format!("{name}/{file_name}") };
            let metadata = fs::symlink_metadata(&path)?;
            let kind = metadata.file_type();
            if kind.is_symlink() {
                let target = fs::read_link(&path)?;
                self.entry(&name, metadata.mode(), target.as_os_str().as_bytes())?;
            } else if kind.is_dir() {
                self.entry(&name, metadata.mode(), &[])?;
                self.directory(&path, &name)?;
            } else if kind.is_file() {
                self.entry(&name, metadata.mode(), &fs::read(&path)?)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        let length = u32::try_from(content.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let builder = NewcBuilder::new(name).ino(self.inode).mode(mode).nlink(1);
        self.inode += 1;
        let mut writer = builder.write(&mut self.to, length);
        writer.write_all(content)?;
        writer.finish()?;
        Ok(())
    }
}

/// A path as the archive names it: from the root, without the slash in front.
fn name_of(path: &Path) -> io::Result<&str> {
    let path = path.strip_prefix("/").unwrap_or(path);
    path.to_str().ok_or_else(|| io::ErrorKind::InvalidFilename.into())
}
