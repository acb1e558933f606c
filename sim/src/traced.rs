//! A machine around a machine that tells what is asked of it.

use core::ops::Range;
use core::sync::atomic::AtomicU32;
use pagefault_machine::machine::Page;
use pagefault_machine::{
    Capabilities, ContextId, Cursor, Entry, Erratum, Frame, Machine, NoSpace, OutOfFrames,
    PageFault, Protection, Rights, Space, Stale, VirtAddr,
};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;

/// One thing that was asked of a machine, and the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// A frame was allocated, or none was free.
    Allocate(Result<Frame, OutOfFrames>),
    /// A frame was freed.
    Free(Frame),
    /// A frame was filled with zeros.
    Zero(Frame),
    /// A frame was copied.
    Copy {
        /// The frame copied from.
        from: Frame,
        /// The frame copied to.
        to: Frame,
    },
    /// A frame's content was changed.
    Fill(Frame),
    /// A frame's content was looked at.
    Drain(Frame),
    /// An address space was made, by number, or no frame was free for it.
    Space(Result<u32, NoSpace>),
    /// An address space was dropped.
    Drop(u32),
    /// Stale translations were flushed.
    Flush {
        /// The address space.
        space: u32,
        /// The number of pages.
        pages: usize,
    },
    /// A range of entries was locked, or no frame was free for the levels above it.
    Lock {
        /// The address space.
        space: u32,
        /// The first page.
        start: VirtAddr,
        /// The end of the last page.
        end: VirtAddr,
        /// Whether it succeeded.
        result: Result<(), OutOfFrames>,
    },
    /// A range of entries was locked if it had a leaf table.
    LockExisting {
        /// The address space.
        space: u32,
        /// The first page.
        start: VirtAddr,
        /// The end of the last page.
        end: VirtAddr,
        /// Whether it had one.
        found: bool,
    },
    /// An entry was exchanged.
    Replace {
        /// The address space.
        space: u32,
        /// The page.
        address: VirtAddr,
        /// What was there.
        old: Entry,
        /// What is there now.
        new: Entry,
    },
    /// An entry's protection was changed.
    Protect {
        /// The address space.
        space: u32,
        /// The page.
        address: VirtAddr,
        /// What was there.
        old: Entry,
        /// The protection it has now, if it was present.
        protection: Protection,
    },
    /// An accessed bit was cleared.
    ClearAccessed {
        /// The address space.
        space: u32,
        /// The page.
        address: VirtAddr,
        /// Whether it was set.
        was_set: bool,
    },
    /// A range of entries was unlocked.
    Unlock {
        /// The address space.
        space: u32,
        /// The first page.
        start: VirtAddr,
    },
    /// Empty levels were freed.
    Prune {
        /// The address space.
        space: u32,
        /// The first page of the range.
        start: VirtAddr,
        /// The end of the last page.
        end: VirtAddr,
    },
    /// A fault was looked at that cannot be corrected.
    Erratum {
        /// The erratum that explains it.
        explains: Option<Erratum>,
    },
    /// A kernel address was brought in line with the reference table.
    Synchronise {
        /// The address.
        address: VirtAddr,
        /// Whether it is mapped there.
        mapped: bool,
    },
    /// A task began to wait on a word.
    Wait,
    /// The waiters on a word were woken.
    Wake,
}

/// Is told of every call of a [`Traced`] machine, by the thread that makes it, right after it was
/// answered. Locks may be held; an observer must not call the machine.
pub trait Observer: Send + Sync + 'static {
    /// Takes note of one call.
    fn note(&self, call: &Call);

    /// Takes note of the translations that a flush is about to be told of.
    fn note_stale(&self, _space: u32, _stale: &[Stale]) {}
}

impl<F: Fn(&Call) + Send + Sync + 'static> Observer for F {
    fn note(&self, call: &Call) {
        self(call);
    }
}

/// An observer that keeps the last calls.
///
/// A value is only a handle; clones name the same log.
#[derive(Clone, Debug)]
pub struct Log {
    calls: Arc<Mutex<Calls>>,
}

#[derive(Debug)]
struct Calls {
    last: VecDeque<Call>,
    capacity: usize,
    total: u64,
}

impl Log {
    /// A log of the last `capacity` calls.
    pub fn new(capacity: usize) -> Self {
        let calls = Calls { last: VecDeque::with_capacity(capacity), capacity, total: 0 };
        Self { calls: Arc::new(Mutex::new(calls)) }
    }

    /// The calls that are kept, the oldest first.
    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().last.iter().copied().collect()
    }

    /// How many calls there were, kept or not.
    pub fn total(&self) -> u64 {
        self.calls.lock().total
    }

    /// Forgets the calls so far.
    pub fn clear(&self) {
        let mut calls = self.calls.lock();
        calls.last.clear();
        calls.total = 0;
    }
}

impl Observer for Log {
    fn note(&self, call: &Call) {
        let mut calls = self.calls.lock();
        calls.total += 1;
        if calls.last.len() == calls.capacity {
            calls.last.pop_front();
        }
        if calls.capacity != 0 {
            calls.last.push_back(*call);
        }
    }
}

/// Any machine, with an observer of every call.
#[derive(Debug)]
pub struct Traced<M, O> {
    inner: M,
    observer: Arc<O>,
}

impl<M: Machine, O: Observer> Traced<M, O> {
    /// A machine that reports its calls to `observer`.
    pub fn new(inner: M, observer: O) -> Self {
        Self { inner, observer: Arc::new(observer) }
    }

    /// The machine inside.
    pub fn inner(&self) -> &M {
        &self.inner
    }
}

impl<M: Machine + Clone, O> Clone for Traced<M, O> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), observer: self.observer.clone() }
    }
}

impl<M: Machine, O: Observer> Machine for Traced<M, O> {
    type Space = TracedSpace<M::Space, O>;
    type Mutex = M::Mutex;
    type RwLock = M::RwLock;
    const RIGHTS: Rights = M::RIGHTS;

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn frames(&self) -> u32 {
        self.inner.frames()
    }

    fn free_frames(&self) -> u32 {
        self.inner.free_frames()
    }

    fn zero_frame(&self) -> Option<Frame> {
        self.inner.zero_frame()
    }

    fn allocate(&self) -> Result<Frame, OutOfFrames> {
        let result = self.inner.allocate();
        self.observer.note(&Call::Allocate(result));
        result
    }

    fn free(&self, frame: Frame) {
        self.inner.free(frame);
        self.observer.note(&Call::Free(frame));
    }

    fn zero(&self, frame: Frame) {
        self.inner.zero(frame);
        self.observer.note(&Call::Zero(frame));
    }

    fn copy(&self, from: Frame, to: Frame) {
        self.inner.copy(from, to);
        self.observer.note(&Call::Copy { from, to });
    }

    fn fill<R>(&self, frame: Frame, f: impl FnOnce(&mut Page) -> R) -> R {
        let result = self.inner.fill(frame, f);
        self.observer.note(&Call::Fill(frame));
        result
    }

    fn drain<R>(&self, frame: Frame, f: impl FnOnce(&Page) -> R) -> R {
        let result = self.inner.drain(frame, f);
        self.observer.note(&Call::Drain(frame));
        result
    }

    fn space(&self) -> Result<Self::Space, NoSpace> {
        let result = self.inner.space();
        self.observer.note(&Call::Space(result.as_ref().map(Space::id).map_err(|error| *error)));
        Ok(TracedSpace { inner: result?, observer: self.observer.clone() })
    }

    fn flush(&self, space: &Self::Space, stale: &[Stale]) {
        self.observer.note_stale(space.id(), stale);
        self.inner.flush(&space.inner, stale);
        self.observer.note(&Call::Flush { space: space.id(), pages: stale.len() });
    }

    fn keeps_unmapped(&self, frame: Frame) -> bool {
        self.inner.keeps_unmapped(frame)
    }

    fn flush_here(&self, space: &Self::Space, stale: Stale) -> bool {
        let flushed = self.inner.flush_here(&space.inner, stale);
        if flushed {
            self.observer.note_stale(space.id(), &[stale]);
            self.observer.note(&Call::Flush { space: space.id(), pages: 1 });
        }
        flushed
    }

    fn direct_batch(&self) -> usize {
        self.inner.direct_batch()
    }

    fn is_alone(&self, space: &Self::Space) -> bool {
        self.inner.is_alone(&space.inner)
    }

    fn is_sole(&self) -> bool {
        self.inner.is_sole()
    }

    fn erratum(&self, fault: &PageFault) -> Option<Erratum> {
        let explains = self.inner.erratum(fault);
        self.observer.note(&Call::Erratum { explains });
        explains
    }

    fn synchronise(&self, address: VirtAddr) -> bool {
        let mapped = self.inner.synchronise(address);
        self.observer.note(&Call::Synchronise { address, mapped });
        mapped
    }

    fn context(&self) -> ContextId {
        self.inner.context()
    }

    fn wait(&self, word: &AtomicU32, value: u32) {
        self.observer.note(&Call::Wait);
        self.inner.wait(word, value);
    }

    fn wake(&self, word: &AtomicU32) {
        self.inner.wake(word);
        self.observer.note(&Call::Wake);
    }

    fn pause(&self) {
        self.observer.note(&Call::Wait);
        self.inner.pause();
    }

    fn now(&self) -> u64 {
        self.inner.now()
    }
}

/// An address space of a [`Traced`] machine.
#[derive(Debug)]
pub struct TracedSpace<S: Space, O: Observer> {
    inner: S,
    observer: Arc<O>,
}

impl<S: Space, O: Observer> TracedSpace<S, O> {
    /// The space of the machine inside.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    fn cursor<'a>(&'a self, inner: S::Cursor<'a>, start: VirtAddr) -> TracedCursor<'a, S, O> {
        TracedCursor { inner, space: self, start }
    }
}

impl<S: Space, O: Observer> Space for TracedSpace<S, O> {
    type Cursor<'a>
        = TracedCursor<'a, S, O>
    where
        Self: 'a;
    const SPAN: u64 = S::SPAN;

    fn id(&self) -> u32 {
        self.inner.id()
    }

    fn covers(&self) -> Range<VirtAddr> {
        self.inner.covers()
    }

    fn lock(&self, range: Range<VirtAddr>) -> Result<Self::Cursor<'_>, OutOfFrames> {
        let Range { start, end } = range;
        let locked = self.inner.lock(range);
        let result = locked.as_ref().map(|_| ()).map_err(|error| *error);
        self.observer.note(&Call::Lock { space: self.id(), start, end, result });
        Ok(self.cursor(locked?, start))
    }

    fn lock_existing(&self, range: Range<VirtAddr>) -> Option<Self::Cursor<'_>> {
        let Range { start, end } = range;
        let locked = self.inner.lock_existing(range);
        let found = locked.is_some();
        self.observer.note(&Call::LockExisting { space: self.id(), start, end, found });
        Some(self.cursor(locked?, start))
    }

    fn next_leaf(&self, range: Range<VirtAddr>) -> Option<VirtAddr> {
        self.inner.next_leaf(range)
    }

    fn prune(&self, hole: Range<VirtAddr>, unmapped: Range<VirtAddr>) {
        let Range { start, end } = unmapped;
        self.inner.prune(hole, unmapped);
        self.observer.note(&Call::Prune { space: self.id(), start, end });
    }

    fn leaves(&self) -> usize {
        self.inner.leaves()
    }
}

impl<S: Space, O: Observer> Drop for TracedSpace<S, O> {
    fn drop(&mut self) {
        self.observer.note(&Call::Drop(self.inner.id()));
    }
}

/// The locked entries of a range of a [`TracedSpace`].
pub struct TracedCursor<'a, S: Space + 'a, O: Observer> {
    inner: S::Cursor<'a>,
    space: &'a TracedSpace<S, O>,
    start: VirtAddr,
}

impl<S: Space, O: Observer> Cursor for TracedCursor<'_, S, O> {
    fn entry(&self, address: VirtAddr) -> Entry {
        self.inner.entry(address)
    }

    fn replace(&mut self, address: VirtAddr, new: Entry) -> Entry {
        let old = self.inner.replace(address, new);
        self.space.observer.note(&Call::Replace { space: self.space.id(), address, old, new });
        old
    }

    fn next(&self, from: VirtAddr) -> Option<VirtAddr> {
        self.inner.next(from)
    }

    fn clear_accessed(&mut self, address: VirtAddr) -> bool {
        let was_set = self.inner.clear_accessed(address);
        let call = Call::ClearAccessed { space: self.space.id(), address, was_set };
        self.space.observer.note(&call);
        was_set
    }

    fn protect(&mut self, address: VirtAddr, protection: Protection) -> Entry {
        let old = self.inner.protect(address, protection);
        let call = Call::Protect { space: self.space.id(), address, old, protection };
        self.space.observer.note(&call);
        old
    }
}

impl<S: Space, O: Observer> Drop for TracedCursor<'_, S, O> {
    fn drop(&mut self) {
        let call = Call::Unlock { space: self.space.id(), start: self.start };
        self.space.observer.note(&call);
    }
}
