//! The memory shared with the command, and the end of a program that cannot go on.

use crate::sys;
use pagefault_control::{AttachError, Control, Mapped, STATUS_FAILED};
use std::fmt;
use std::path::Path;
use std::sync::OnceLock;

/// The shared memory, while the program runs under the command.
static CONTROL: OnceLock<Mapped> = OnceLock::new();

/// Maps the shared memory.
pub fn attach(path: &Path) -> Result<&'static Control, AttachError> {
    let control = Control::attach(path)?;
    Ok(CONTROL.get_or_init(|| control))
}

/// The memory shared with the command.
pub fn control() -> Option<&'static Control> {
    CONTROL.get().map(|mapped| &**mapped)
}

/// Ends the process with a message: shown by the command where it can, else written here.
pub fn stop(message: fmt::Arguments<'_>) -> ! {
    let text = message.to_string();
    let process = std::process::id();
    if !control().is_some_and(|control| control.fail(process, &text)) {
        sys::complain(&format!("pagefault: process {process}: {text}\n"));
    }
    sys::exit(STATUS_FAILED)
}
