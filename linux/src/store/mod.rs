//! Where evicted pages go: compressed RAM and files.
//!
//! Both stores run inside a page-fault handler, possibly of a program whose `malloc` and `mmap` are
//! ours. So after construction neither allocates from the Rust heap. All tables are host mappings
//! made by raw system calls, and every lock is a futex.
//!
//! | module | what it holds |
//! |---|---|
//! | [`compressed`] | [`CompressedRam`]: LZ4 pages in a size-classed arena under a hard cap |
//! | [`arena`] | the size-classed arena |
//! | [`scratch`] | buffers for compression |
//! | [`offload`] | pages that wait for a helper's compression |
//! | [`pool`] | the arena's memory: the process's own, or a pool that processes share |
//! | `behind` | pages on their way to a file: gathered, and written in long runs |
//! | `ahead` | pages read from a file in clusters |
//! | [`mod@file`] | [`SwapFile`]: an unlinked temporary file or a named one |
//! | [`extents`] | the parts of a file that a process holds, alone or with others |
//! | `positions` | the place of each page in a file |
//! | [`failure`] | why the last read failed |
//! | `open`, `growth` | opening a file as swap, and how far it may grow |
//! | [`descriptor`] | descriptors kept out of the program's way |

mod ahead;
pub mod arena;
mod behind;
pub mod compressed;
pub mod descriptor;
pub mod extents;
pub mod failure;
pub mod file;
mod growth;
mod name;
pub mod offload;
mod open;
pub mod pool;
mod positions;
pub mod scratch;

/// A value behind a lock that may be taken in a fault handler.
type Mutex<T> = lock_api::Mutex<crate::lock::SoleMutex, T>;

pub use crate::reserve::ReserveError;
pub use compressed::{Compressed, CompressedRam, CompressedStats};
pub use failure::{Cause, Failure};
pub use file::{Damage, FileStats, SwapFile};
pub use growth::{Shortage, ShortageKind};
pub use name::FileName;
pub use open::{OpenError, Opened};

#[cfg(test)]
mod tests;
