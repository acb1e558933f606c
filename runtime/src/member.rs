//! What belongs to a process as the kernel counts them: a forked child, or one that shares this
//! memory for a while (`vfork`), has its own.

use crate::signal::action::Actions;
use crate::sys::Result;
use alloc::boxed::Box;
use core::ptr::NonNull;
use core::sync::atomic::AtomicU32;

/// A process of this address space.
pub struct Member {
    actions: Actions,
    /// Its place in the control memory.
    pub slot: AtomicU32,
}

impl Member {
    /// A process of its own.
    pub fn new(actions: Actions, slot: u32) -> NonNull<Self> {
        NonNull::from(Box::leak(Box::new(Self { actions, slot: AtomicU32::new(slot) })))
    }

    /// A child that does not share this process's actions.
    pub fn forked(&self) -> Result<NonNull<Self>> {
        Ok(Self::new(self.actions.copied(), 0))
    }

    /// Frees a process.
    ///
    /// # Safety
    /// No thread of this address space is of it.
    pub unsafe fn end(member: NonNull<Self>) {
        // SAFETY: made by `new`; the caller vouches for the rest.
        drop(unsafe { Box::from_raw(member.as_ptr()) });
    }

    /// What it wants done about signals.
    pub fn signals(&self) -> &Actions {
        &self.actions
    }
}
