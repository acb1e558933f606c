//! A machine around a machine that fails when told to.

use crate::conduct::FailNth;
use core::ops::Range;
use core::sync::atomic::AtomicU32;
use pagefault_machine::machine::Page;
use pagefault_machine::{
    Capabilities, ContextId, Frame, Machine, NoSpace, OutOfFrames, Rights, Space, Stale, VirtAddr,
};
use std::sync::Arc;

/// Any machine, but that the nth request that could find no frame finds none.
///
/// Such requests are [`Machine::allocate`], [`Machine::space`], and a [`Space::lock`] for which
/// levels of the table are missing.
#[derive(Debug)]
pub struct Faulty<M> {
    inner: M,
    fail: Arc<FailNth>,
}

impl<M: Machine> Faulty<M> {
    /// A machine that does not fail yet.
    pub fn new(inner: M) -> Self {
        Self { inner, fail: Arc::default() }
    }

    /// Makes the `nth` request from now on fail, the next one being the first; 0 lets all succeed.
    pub fn fail_nth_allocation(&self, nth: u64) {
        self.fail.set(nth);
    }

    /// Whether the request that was to fail has come.
    pub fn has_failed(&self) -> bool {
        self.fail.is_spent()
    }

    /// The machine inside.
    pub fn inner(&self) -> &M {
        &self.inner
    }
}

impl<M: Machine + Clone> Clone for Faulty<M> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), fail: self.fail.clone() }
    }
}

impl<M: Machine> Machine for Faulty<M> {
    type Space = FaultySpace<M::Space>;
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
        if self.fail.is_now() { Err(OutOfFrames) } else { self.inner.allocate() }
    }

    fn free(&self, frame: Frame) {
        self.inner.free(frame);
    }

    fn zero(&self, frame: Frame) {
        self.inner.zero(frame);
    }

    fn copy(&self, from: Frame, to: Frame) {
        self.inner.copy(from, to);
    }

    fn fill<R>(&self, frame: Frame, f: impl FnOnce(&mut Page) -> R) -> R {
        self.inner.fill(frame, f)
    }

    fn drain<R>(&self, frame: Frame, f: impl FnOnce(&Page) -> R) -> R {
        self.inner.drain(frame, f)
    }

    fn space(&self) -> Result<Self::Space, NoSpace> {
        if self.fail.is_now() {
            return Err(NoSpace::OutOfFrames);
        }
        Ok(FaultySpace { inner: self.inner.space()?, fail: self.fail.clone() })
    }

    fn flush(&self, space: &Self::Space, stale: &[Stale]) {
        self.inner.flush(&space.inner, stale);
    }

    fn keeps_unmapped(&self, frame: Frame) -> bool {
        self.inner.keeps_unmapped(frame)
    }

    fn flush_here(&self, space: &Self::Space, stale: Stale) -> bool {
        self.inner.flush_here(&space.inner, stale)
    }

    fn is_alone(&self, space: &Self::Space) -> bool {
        self.inner.is_alone(&space.inner)
    }

    fn is_sole(&self) -> bool {
        self.inner.is_sole()
    }

    fn synchronise(&self, address: VirtAddr) -> bool {
        self.inner.synchronise(address)
    }

    fn context(&self) -> ContextId {
        self.inner.context()
    }

    fn wait(&self, word: &AtomicU32, value: u32) {
        self.inner.wait(word, value);
    }

    fn wake(&self, word: &AtomicU32) {
        self.inner.wake(word);
    }

    fn pause(&self) {
        self.inner.pause();
    }

    fn now(&self) -> u64 {
        self.inner.now()
    }
}

/// An address space of a [`Faulty`] machine.
#[derive(Debug)]
pub struct FaultySpace<S> {
    inner: S,
    fail: Arc<FailNth>,
}

impl<S: Space> FaultySpace<S> {
    /// The space of the machine inside.
    pub fn inner(&self) -> &S {
        &self.inner
    }
}

impl<S: Space> Space for FaultySpace<S> {
    type Cursor<'a>
        = S::Cursor<'a>
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
        if let Some(cursor) = self.inner.lock_existing(range.clone()) {
            return Ok(cursor);
        }
        if self.fail.is_now() { Err(OutOfFrames) } else { self.inner.lock(range) }
    }

    fn lock_existing(&self, range: Range<VirtAddr>) -> Option<Self::Cursor<'_>> {
        self.inner.lock_existing(range)
    }

    fn next_leaf(&self, range: Range<VirtAddr>) -> Option<VirtAddr> {
        self.inner.next_leaf(range)
    }

    fn prune(&self, hole: Range<VirtAddr>, unmapped: Range<VirtAddr>) {
        self.inner.prune(hole, unmapped);
    }

    fn leaves(&self) -> usize {
        self.inner.leaves()
    }
}
