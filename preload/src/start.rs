//! The constructor: what happens before the program's `main`.

use crate::{fork, guard, heap, interpose, managed, module, sys};
use pagefault_control::{Control, Mapped, STATUS_FAILED, VARIABLE};
use std::fmt;
use std::path::Path;
use std::sync::OnceLock;

/// The memory shared with the command, while the program runs under it.
static CONTROL: OnceLock<Mapped> = OnceLock::new();

/// Called by the dynamic linker once libc is ready.
#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = construct;

extern "C" fn construct() {
    let _inside = guard::enter();
    interpose::resolve();
    module::find();
    // Loaded without the command: the program runs as if we were not there.
    let Some(path) = std::env::var_os(VARIABLE) else { return };
    match Control::attach(Path::new(&path)) {
        Ok(control) => _ = CONTROL.set(control),
        Err(error) => stop(format_args!("cannot read the configuration: {error}")),
    }
    let processors = std::thread::available_parallelism().map_or(1, Into::into);
    if heap::reserve(processors).is_err() {
        stop(format_args!("no address space for the heap; is `ulimit -v` set?"));
    }
    if fork::install().is_err() {
        stop(format_args!("no memory for the fork handlers"));
    }
    if let Some(control) = control() {
        control.counters.programs.add(1);
    }
    managed::open();
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
