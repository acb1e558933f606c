//! Limits of the caller that are meant for the program, and would stop us: of file sizes (the shared
//! memory is a file, and so is swap) and of the stack.

use super::Error;
use pagefault_control::Slot;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::sync::atomic::Ordering::Relaxed;

/// The stack that we need.
const STACK: u64 = 1 << 20;

/// The limits that the program begins with.
pub struct Limits {
    file_size: Rlimit,
    stack: Rlimit,
}

impl Limits {
    /// Raises this process's limits as far as it may.
    pub fn raise() -> Self {
        let limits =
            Self { file_size: getrlimit(Resource::Fsize), stack: getrlimit(Resource::Stack) };
        raise_fully(Resource::Fsize, limits.file_size);
        if limits.stack.current.is_some_and(|bytes| bytes < STACK) {
            // The host grows a stack up to the limit of the moment.
            let enough = limits.stack.maximum.map_or(STACK, |most| most.min(STACK));
            let _ = setrlimit(Resource::Stack, Rlimit { current: Some(enough), ..limits.stack });
        }
        limits
    }

    /// Whether this process may make a file of so many bytes.
    pub fn permit(&self, bytes: u64) -> Result<(), Error> {
        match getrlimit(Resource::Fsize).current {
            Some(most) if most < bytes => Err(Error::FileSizeLimit(most)),
            _ => Ok(()),
        }
    }

    /// Gives the program its limits. The host's hard limit of file sizes stays raised, for swap; the
    /// slot keeps the program's.
    pub fn restore(&self, slot: Option<&Slot>) {
        let _ = setrlimit(Resource::Stack, self.stack);
        let Some(slot) = slot else {
            let _ = setrlimit(Resource::Fsize, self.file_size);
            return;
        };
        let maximum = getrlimit(Resource::Fsize).maximum;
        let _ = setrlimit(Resource::Fsize, Rlimit { maximum, ..self.file_size });
        slot.file_size_below.store(!self.file_size.maximum.unwrap_or(u64::MAX), Relaxed);
    }
}

/// Raises a limit to the highest value that we may set.
pub fn raise_fully(resource: Resource, own: Rlimit) {
    for maximum in [None, own.maximum] {
        if setrlimit(resource, Rlimit { current: maximum, maximum }).is_ok() {
            break;
        }
    }
}
