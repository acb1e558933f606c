//! The machine's file system as an archive in the cpio format, which QEMU puts in its memory.

use cpio::NewcBuilder;
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Where the kernel looks for the command: arguments that end with a zero byte each.
const COMMAND: &str = ".pagefault/command";

/// Writes an archive with the files of some directories, in the order given, and the command.
///
/// Only directories, regular files and symbolic links are taken; a file that is in several
/// directories is taken from the last.
pub fn write(to: impl Write, directories: &[&Path], command: &[Vec<u8>]) -> io::Result<()> {
    let mut archive = Archive { to, inode: 1 };
    for directory in directories {
        archive.directory(directory, "")?;
    }
    let command: Vec<u8> =
        command.iter().flat_map(|text| text.iter().chain(&[0])).copied().collect();
    archive.entry(COMMAND, 0o100_444, &command)?;
    cpio::newc::trailer(archive.to)?;
    Ok(())
}

struct Archive<W> {
    to: W,
    inode: u32,
}

impl<W: Write> Archive<W> {
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
