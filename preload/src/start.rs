//! The constructor: what happens before the program's `main`.

use crate::shared::{attach, stop};
use crate::{guard, heap, interpose, managed, manager, module};
use pagefault_control::{Control, VARIABLE};
use std::path::Path;

/// Called by the dynamic linker once libc is ready.
#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = construct;

extern "C" fn construct() {
    let _inside = guard::enter();
    interpose::resolve();
    // Loaded without the command, the program runs as if we were not there.
    let Some(path) = std::env::var_os(VARIABLE) else { return };
    let control = match attach(Path::new(&path)) {
        Ok(control) => control,
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
