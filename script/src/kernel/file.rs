//! The script's files: memfds, or, on our own kernel, files on its disk, which can fail.

use super::failures_are_taken;
use crate::machine::{self, File, content};
use crate::outcome::{Bytes, Errno};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// [`machine::READ_AT_ONCE`], as a length in memory.
const PIECE: usize = machine::READ_AT_ONCE as usize;

/// A nameless file on the disk of our own kernel.
fn on_disk(number: usize) -> io::Result<OwnedFd> {
    let path = format!("/disk/script-{number}");
    let mut options = std::fs::OpenOptions::new();
    let file = options.read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(path)?;
    Ok(file.into())
}

fn memfd(_: usize) -> io::Result<OwnedFd> {
    let open = |flags| {
        let name = c"pagefault-script".as_ptr();
        // SAFETY: the name is a string that ends with a zero byte.
        unsafe { libc::memfd_create(name, libc::MFD_CLOEXEC | flags) }
    };
    // On some hosts memfds are not executable by default; kernels before 6.3 do not know the flag
    // for executable ones.
    let fd = match open(libc::MFD_EXEC) {
        -1 => open(0),
        fd => fd,
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Every file of a script; those whose `file` line has not come yet are empty.
pub(super) struct Files {
    files: Vec<OwnedFd>,
}

impl Files {
    pub(super) fn new(count: usize) -> io::Result<Self> {
        let make = if failures_are_taken() { on_disk } else { memfd };
        let files = (0..count).map(make).collect::<io::Result<_>>()?;
        Ok(Self { files })
    }

    /// The descriptor; −1 for a file that the script does not have.
    pub(super) fn fd(&self, File(number): File) -> libc::c_int {
        self.files.get(number as usize).map_or(-1, |file| file.as_raw_fd())
    }

    pub(super) fn create(&self, file: File, length: u64, seed: Option<u64>) -> Result<(), Errno> {
        self.truncate(file, length)?;
        let Some(seed) = seed else {
            return Ok(());
        };
        let mut piece = Vec::with_capacity(PIECE);
        for start in (0..length).step_by(PIECE) {
            let end = length.min(start + PIECE as u64);
            piece.clear();
            piece.extend((start..end).map(|index| content(index, seed)));
            self.write(file, start, &piece)?;
        }
        self.leave_cache(file)
    }

    /// Makes the first access to the content read the device, if there is one.
    fn leave_cache(&self, file: File) -> Result<(), Errno> {
        self.sync(file)?;
        let (fd, advice) = (self.fd(file), libc::POSIX_FADV_DONTNEED);
        // SAFETY: plain numbers.
        match unsafe { libc::posix_fadvise(fd, 0, 0, advice) } {
            0 => Ok(()),
            errno => Err(Errno(errno)),
        }
    }

    pub(super) fn truncate(&self, file: File, length: u64) -> Result<(), Errno> {
        // SAFETY: plain numbers; a descriptor of −1 is refused.
        check(unsafe { libc::ftruncate(self.fd(file), length as i64) } as isize)?;
        Ok(())
    }

    pub(super) fn write(&self, file: File, offset: u64, mut bytes: &[u8]) -> Result<(), Errno> {
        let mut offset = offset as i64;
        loop {
            let (fd, length) = (self.fd(file), bytes.len());
            // SAFETY: the pointer and length are those of a live slice.
            let written =
                check(unsafe { libc::pwrite(fd, bytes.as_ptr().cast(), length, offset) })?;
            bytes = &bytes[written..];
            // A kernel that writes beyond the last offset is the finding, not a reason to end.
            offset = offset.wrapping_add(written as i64);
            if bytes.is_empty() {
                return Ok(());
            }
        }
    }

    pub(super) fn read(&self, file: File, offset: u64, length: u64) -> Result<Bytes, Errno> {
        let mut offset = offset as i64;
        let mut piece = vec![0; PIECE];
        let mut head = Vec::new();
        let mut crc = crc32fast::Hasher::new();
        let mut done = 0;
        loop {
            let wanted = (length - done).min(PIECE as u64) as usize;
            let (fd, room) = (self.fd(file), piece.as_mut_ptr().cast());
            // SAFETY: the room is a live vector of PIECE bytes.
            let count = check(unsafe { libc::pread(fd, room, wanted, offset) })?;
            let bytes = &piece[..count];
            head.extend(bytes.iter().take(Bytes::SHOWN - head.len()));
            crc.update(bytes);
            done += count as u64;
            offset += count as i64;
            if count < wanted || done == length {
                return Ok(Bytes::summed(done, crc.finalize(), &head));
            }
        }
    }

    pub(super) fn sync(&self, file: File) -> Result<(), Errno> {
        // SAFETY: a plain number.
        check(unsafe { libc::fsync(self.fd(file)) } as isize)?;
        Ok(())
    }
}

fn check(result: isize) -> Result<usize, Errno> {
    usize::try_from(result).map_err(|_| {
        let error = io::Error::last_os_error();
        Errno(error.raw_os_error().unwrap_or(libc::EIO))
    })
}
