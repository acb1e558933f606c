//! The first road: a shared object that the dynamic linker loads into the program.

use super::Error;
use super::front::{self, Child};
use super::inherited::Inherited;
use pagefault_control::VARIABLE;
use rustix::process::Pid;
use std::env;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{self, Command};

/// Starts a program with the object and the shared memory in its environment.
pub fn start(
    program: &Path,
    arguments: &[OsString],
    object: &OwnedFd,
    shared: &OwnedFd,
) -> Result<Child, Error> {
    let here = format!("/proc/{}/fd", process::id());
    let mut preload = OsString::from(format!("{here}/{}", object.as_raw_fd()));
    if let Some(others) = env::var_os("LD_PRELOAD").filter(|others| !others.is_empty()) {
        preload.push(":");
        preload.push(others);
    }
    let mut command = Command::new(program);
    command
        .arg0(arguments.first().map_or(OsStr::new(""), OsString::as_os_str))
        .args(arguments.get(1..).unwrap_or_default())
        .env("LD_PRELOAD", preload)
        .env(VARIABLE, format!("{here}/{}", shared.as_raw_fd()));

    // Taken before there is a child to pass them on to, so that none is lost.
    let signals = front::signals();
    let inherited = Inherited::block(&signals);
    // SAFETY: restoring what was inherited is async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            inherited.restore();
            Ok(())
        });
    }
    let child = command.spawn();
    let child = child.map_err(|source| Error::Spawn { program: program.to_owned(), source })?;
    // Waited for by number from here on, since stops must be seen too.
    Ok(Child::adopt(Pid::from_child(&child), signals))
}
