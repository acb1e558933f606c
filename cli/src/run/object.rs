//! The shared object that is loaded into programs.

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;

/// The object, built by the build script.
static OBJECT: &[u8] = include_bytes!(env!("PAGEFAULT_PRELOAD"));

/// Puts the object into memory of its own that nobody can change.
///
/// Programs find it through this process's descriptor, so that there is no file to be left over.
pub fn hold() -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels before 6.3 know no such flag, and let every memfd be executed.
    let file = match rustix::fs::memfd_create("pagefault", flags | MemfdFlags::EXEC) {
        Err(Errno::INVAL) => rustix::fs::memfd_create("pagefault", flags)?,
        made => made?,
    };
    let mut file = File::from(file);
    file.write_all(OBJECT)?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file.into())
}
