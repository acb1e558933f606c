//! What heaps are made of: a window of addresses handed out from its start, and a lock that a
//! forking thread may pass.

use crate::thread;
use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut, Range};
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering::Relaxed;
use lock_api::RawMutex;
use pagefault_linux::lock::FutexMutex;

/// A window of addresses, handed out from its start to dlmalloc; used under its heap's lock.
pub struct Window {
    next: AtomicUsize,
    end: AtomicUsize,
    /// Sees to it that the window has addresses, if there are any to be had.
    ready: fn(&Self) -> bool,
    /// What gives the memory of a range back, so that it reads as zero afterwards.
    release: fn(Range<usize>) -> bool,
}

impl Window {
    /// A window of no addresses yet.
    pub const fn new(ready: fn(&Self) -> bool, release: fn(Range<usize>) -> bool) -> Self {
        Self { next: AtomicUsize::new(0), end: AtomicUsize::new(0), ready, release }
    }

    /// Gives the window its addresses.
    pub fn open(&self, range: Range<usize>) {
        self.next.store(range.start, Relaxed);
        self.end.store(range.end, Relaxed);
    }

    /// Hands out the next `size` addresses, if there are as many.
    pub fn take(&self, size: usize) -> Option<usize> {
        let start = self.next.load(Relaxed);
        let next = start.checked_add(size).filter(|next| *next <= self.end.load(Relaxed))?;
        self.next.store(next, Relaxed);
        Some(start)
    }

    /// Takes back the addresses handed out last; false, and nothing done, for any others.
    ///
    /// Others are better kept: dlmalloc uses them again, and holes would only cut up the window.
    pub fn give_back(&self, range: Range<usize>) -> bool {
        if range.end != self.next.load(Relaxed) || !(self.release)(range.clone()) {
            return false;
        }
        self.next.store(range.start, Relaxed);
        true
    }
}

// SAFETY: the window gives out disjoint parts of a mapping that lives as long as the process; a
// part is given out anew only after it was given up, and zeroed by `release` before.
unsafe impl dlmalloc::Allocator for Window {
    fn alloc(&self, size: usize) -> (*mut u8, usize, u32) {
        let start = if (self.ready)(self) { self.take(size) } else { None };
        start.map_or((core::ptr::null_mut(), 0, 0), |start| (start as *mut u8, size, 0))
    }

    fn remap(&self, _: *mut u8, _: usize, _: usize, _can_move: bool) -> *mut u8 {
        core::ptr::null_mut()
    }

    fn free_part(&self, start: *mut u8, old: usize, new: usize) -> bool {
        self.give_back(start.addr() + new..start.addr() + old)
    }

    fn free(&self, start: *mut u8, size: usize) -> bool {
        self.give_back(start.addr()..start.addr() + size)
    }

    fn can_release_part(&self, _flags: u32) -> bool {
        true
    }

    fn allocates_zeros(&self) -> bool {
        true
    }

    fn page_size(&self) -> usize {
        4096
    }
}

/// A value behind a lock that the thread which is about to fork, and holds it, may pass.
///
/// Handlers of the program that run around a fork may allocate, after ours took every lock.
pub struct Lock<T> {
    raw: FutexMutex,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached only by the holder of the lock.
unsafe impl<T: Send> Sync for Lock<T> {}

impl<T> Lock<T> {
    /// A free lock.
    pub const fn new(value: T) -> Self {
        Self { raw: FutexMutex::INIT, value: UnsafeCell::new(value) }
    }

    /// Waits for the lock. Must not be called by a holder.
    pub fn lock(&self) -> Guard<'_, T> {
        let forking = thread::words().forking.get() != 0;
        if !forking {
            self.raw.lock();
        }
        Guard { lock: self, release: !forking }
    }

    /// Takes the lock for a fork.
    pub fn hold(&self) {
        self.raw.lock();
    }

    /// Ends [`Lock::hold`], in the parent or in the child.
    ///
    /// # Safety
    /// The calling thread, or the one that it is a copy of, called [`Lock::hold`].
    pub unsafe fn let_go(&self) {
        // SAFETY: the caller vouches that the lock is held on its behalf.
        unsafe { self.raw.unlock() };
    }
}

/// The value while its lock is held.
pub struct Guard<'a, T> {
    lock: &'a Lock<T>,
    release: bool,
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the lock is held by this guard or by this thread's fork.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above; a forking thread makes one guard at a time, for it calls no allocation
        // inside of another.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        if self.release {
            // SAFETY: the guard took the lock.
            unsafe { self.lock.raw.unlock() };
        }
    }
}
