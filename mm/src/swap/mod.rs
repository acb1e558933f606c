//! Swap areas: where evicted anonymous pages are kept.

pub mod area;
pub(crate) mod cache;
pub mod header;
pub(crate) mod off;
pub(crate) mod owners;
mod release;
pub(crate) mod slots;

use crate::error::OutOfMemory;
use alloc::boxed::Box;

/// This many zeros, which may cost no memory until they are changed.
fn zeroed<T: bytemuck::Zeroable>(count: usize) -> Result<Box<[T]>, OutOfMemory> {
    bytemuck::allocation::try_zeroed_slice_box(count).map_err(|()| OutOfMemory)
}
