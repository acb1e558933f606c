//! The narrow waist of pagefault: what the memory manager asks of a computer.
//!
//! The memory manager (package `pagefault`) owns what memory *means*; a machine owns what a computer
//! *does*: it holds frames, translates addresses, reports faults and flushes stale translations.
//! Everything that crosses between the two is in this package, and nothing else crosses:
//!
//! | module | what it holds |
//! |---|---|
//! | [`addr`] | virtual addresses and page arithmetic |
//! | [`frame`] | the number of a physical page |
//! | [`entry`] | the neutral page-table entry: none, present, swapped, or a place in a file |
//! | [`fault`] | what a processor reports when a translation is missing or forbids the access |
//! | [`machine`] | the traits [`Machine`], [`Space`] and [`Cursor`] |
//! | [`store`] | the traits [`Backing`], [`DeviceMemory`] and [`SwapDevice`], which users implement |
//! | [`encode`] | the page-table entries of real processors |
//!
//! A machine implements [`Machine`], [`Space`] and [`Cursor`]. A file to map implements [`Backing`], a swap
//! device [`SwapDevice`], a device with memory of its own [`DeviceMemory`].
//!
//! A file to map takes a few lines:
//!
//! ```
//! use pagefault_machine::{Backing, IoError, PAGE_SIZE, Page};
//!
//! /// A file in which byte `i` of page `n` is `n`, and that nobody may write.
//! struct Numbers {
//!     pages: u64,
//! }
//!
//! impl Backing for Numbers {
//!     fn read(&self, index: u64, page: &mut Page) -> Result<(), IoError> {
//!         page.fill(index as u8);
//!         Ok(())
//!     }
//!     fn write(&self, _index: u64, _page: &[u8]) -> Result<(), IoError> {
//!         Err(IoError::Unsupported)
//!     }
//!     fn len(&self) -> Result<u64, IoError> {
//!         Ok(self.pages * PAGE_SIZE)
//!     }
//! }
//!
//! let (file, mut page) = (Numbers { pages: 3 }, [0; PAGE_SIZE as usize]);
//! file.read(2, &mut page)?;
//! assert_eq!((page[17], file.len()), (2, Ok(3 * PAGE_SIZE)));
//! # Ok::<(), IoError>(())
//! ```
//!
//! The chapter *Making a machine* in the documentation of package `pagefault` says in which order to
//! implement the three traits, which locks each method's caller holds, which methods are hot, and how to
//! test a machine.
//! Numbers such as `spec A16` refer to the
//! [requirements](https://github.com/pagefault/pagefault/blob/main/docs/spec.md).
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

/// The traits of the locks that a machine provides, [`Machine::Mutex`] and [`Machine::RwLock`].
pub use lock_api;

pub mod addr;
pub mod encode;
pub mod entry;
pub mod fault;
#[cfg(all(feature = "std", unix))]
mod file;
pub mod frame;
pub mod machine;
pub mod store;

pub use addr::{PAGE_SHIFT, PAGE_SIZE, Pages, VirtAddr};
pub use entry::{Entry, Protection, SwapSlot};
pub use fault::{Access, Context, Erratum, ErrorCode, Mode, PageFault};
pub use frame::Frame;
pub use machine::{
    Capabilities, ContextId, Cursor, Fate, Machine, NoSpace, OutOfFrames, Page, Part, Rights,
    Space, Stale,
};
pub use store::{Backing, DeviceMemory, IoError, NoPage, SwapDevice};
