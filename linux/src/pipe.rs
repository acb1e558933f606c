//! Takes the content out of pages while other threads may store to them.
//!
//! The host offers no call that protects scattered pages with one flush, and each flush interrupts the
//! processors on which the program runs. So nothing is protected. A pipe takes a reference to each page
//! (`vmsplice`), all pages are dropped with one flush, and only then is their content read from the pipe:
//! a store that came before the flush is in it, and a store after it faults.
//!
//! The reference must be to the page to which the program stores. After a fork, or after the host merged equal
//! pages, the next store would go to a copy. So each page is stored to first, which changes nothing but makes
//! it this process's own. The host does not begin to swap out a page that was just used, or is referenced.

use crate::deliver::stop;
use crate::host::{self, PAGE};
use crate::lock::SoleMutex;
use crate::store::descriptor::{self, Kept};
use crate::sweep::Ranges;
use crate::sys::{self, Vector};
use alloc::boxed::Box;
use lock_api::RawMutex;
use once_cell::race::OnceBox;
use pagefault_machine::machine::Page;
use rustix::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use rustix::pipe::{PipeFlags, fcntl_getpipe_size, pipe_with};

/// How many threads can take pages out at the same time. One more protects its pages.
const PIPES: usize = 2;

/// The pipes of a machine, once it has several threads.
pub struct Pipes([Pipe; PIPES]);

struct Pipe {
    lock: SoleMutex,
    ends: OnceBox<Ends>,
}

struct Ends {
    read: Kept,
    write: Kept,
}

fn open() -> Option<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).ok()?;
    // An ordinary user who has very many pipes gets small ones.
    let is_large = fcntl_getpipe_size(&write).is_ok_and(|size| size >= Referenced::MOST * PAGE);
    is_large.then_some((read, write))
}

impl Pipes {
    /// No pipes: the machine protects pages.
    pub const fn new() -> Self {
        Self([const { Pipe { lock: SoleMutex::INIT, ends: OnceBox::new() } }; PIPES])
    }

    /// Opens the pipes that are not open. While it does so, the process has other descriptors than before.
    pub fn open(&self) {
        for pipe in self.0.iter().filter(|pipe| pipe.ends.get().is_none()) {
            let Some((read, write)) = descriptor::with_room(open) else { return };
            let [read, write] = [read, write].map(descriptor::keep);
            let _ = pipe.ends.set(Box::new(Ends { read, write }));
        }
    }

    /// The descriptors in use, which the program must not close.
    pub fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        let numbers = |ends: &Ends| [ends.read.as_fd().as_raw_fd(), ends.write.as_fd().as_raw_fd()];
        self.0.iter().filter_map(|pipe| pipe.ends.get()).flat_map(numbers)
    }

    /// Gives a forked child pipes of its own.
    ///
    /// # Safety
    /// No other thread uses the pipes meanwhile.
    pub unsafe fn after_fork_child(&self) {
        for pipe in &self.0 {
            let Some(ends) = pipe.ends.get() else { continue };
            let replaced = descriptor::with_room(open).is_some_and(|(read, write)| {
                ends.read.replace(&read).and_then(|()| ends.write.replace(&write)).is_ok()
            });
            if !replaced {
                // The parent uses this one. It stays locked here, so that nobody does.
                pipe.lock.try_lock();
            }
        }
    }

    /// Takes references to the first of some pages, at most [`Referenced::MOST`]; `None` if the host gives none,
    /// or all pipes are in use.
    ///
    /// # Safety
    /// The pages are present and may be stored to. Only the caller takes them away.
    pub unsafe fn reference(&self, pages: &[u64]) -> Option<Referenced<'_>> {
        let is_free = |pipe: &&Pipe| pipe.ends.get().is_some() && pipe.lock.try_lock();
        let pipe = self.0.iter().find(is_free)?;
        let ends = pipe.ends.get()?;
        let mut referenced = Referenced { pipe, ends, pages: 0 };
        let mut ranges = Ranges::new();
        for (at, page) in pages.iter().enumerate() {
            if let Some(next) = pages.get(at + 1) {
                host::prefetch_page(*next as *const u8);
            }
            // SAFETY: the caller says that the page is there and may be stored to.
            unsafe { host::store_nothing(*page) };
            ranges.push(*page);
        }
        let taken = sys::reference(ends.write.as_fd(), &ranges.vectors()).ok()?;
        referenced.pages = taken / PAGE;
        (referenced.pages > 0).then_some(referenced)
    }
}

/// References to pages, in a pipe of the caller's own.
pub struct Referenced<'a> {
    pipe: &'a Pipe,
    ends: &'a Ends,
    pages: usize,
}

impl Referenced<'_> {
    /// The most pages: what a pipe of the default size holds.
    pub const MOST: usize = 16;

    /// How many of the pages are referenced: the first ones.
    pub fn len(&self) -> usize {
        self.pages
    }

    /// Reads the content of the pages, in the same order, into as many buffers.
    ///
    /// # Safety
    /// The buffers belong to the caller.
    pub unsafe fn read(mut self, buffers: &[*mut Page]) {
        debug_assert_eq!(buffers.len(), self.pages);
        let mut vectors = [Vector::EMPTY; Self::MOST];
        for (vector, buffer) in vectors.iter_mut().zip(buffers) {
            let start = *buffer as u64;
            *vector = (&(start..start + PAGE as u64)).into();
        }
        // SAFETY: the caller vouches for the buffers.
        let read = unsafe { sys::read(self.ends.read.as_fd(), &vectors[..buffers.len()]) };
        if read != Ok(self.pages * PAGE) {
            stop("pagefault: the host does not return the content of pages on their way out\n");
        }
        self.pages = 0;
    }
}

impl Drop for Referenced<'_> {
    fn drop(&mut self) {
        // A pipe that still has pages stays locked, so that nobody takes them for others.
        if self.pages == 0 {
            // SAFETY: locked when this was made.
            unsafe { self.pipe.lock.unlock() };
        }
    }
}
