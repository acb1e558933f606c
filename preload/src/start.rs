//! The constructor: what happens before the program's `main`.

#[cfg(not(test))]
use crate::guard;
#[cfg(not(test))]
use crate::{heap, interpose, managed, module};
use crate::{manager, sys};
#[cfg(not(test))]
use pagefault_control::VARIABLE;
use pagefault_control::{Control, Mapped, STATUS_FAILED};
use std::fmt;
#[cfg(not(test))]
use std::path::Path;
use std::sync::OnceLock;

/// The memory shared with the command, while the program runs under it.
static CONTROL: OnceLock<Mapped> = OnceLock::new();

/// Called by the dynamic linker once libc is ready.
#[cfg(not(test))]
#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = construct;

#[cfg(not(test))]
extern "C" fn construct() {
    let _inside = guard::enter();
    interpose::resolve();
    // Loaded without the command, the program runs as if we were not there.
    let Some(path) = std::env::var_os(VARIABLE) else { return };
    let control = match Control::attach(Path::new(&path)) {
        Ok(control) => CONTROL.get_or_init(|| control),
        Err(error) => stop(format_args!("cannot read the configuration: {error}")),
    };
    control.counters.programs.add(1);
    if let Err(error) = begin(control) {
        stop(format_args!("{error}"));
    }
}

/// Why the program cannot begin under the manager.
#[derive(Debug, thiserror::Error)]
enum BeginError {
    #[error(transparent)]
    Manager(#[from] manager::StartError),
    #[error("no address space for the heap; is `ulimit -v` set?")]
    Heap,
    #[error("no memory for the fork handlers")]
    Fork,
}

#[cfg(not(test))]
fn begin(control: &'static Control) -> Result<(), BeginError> {
    module::find();
    if interpose::register_handlers() != 0 {
        return Err(BeginError::Fork);
    }
    manager::start(control)?;
    let processors = std::thread::available_parallelism().map_or(1, Into::into);
    heap::reserve(processors).map_err(|_| BeginError::Heap)?;
    managed::open();
    Ok(())
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
