//! A file that keeps its content in memory.

use crate::conduct::{Conduct, FailNth};
use crate::content::Content;
use core::sync::atomic::{AtomicU64, Ordering};
use pagefault_machine::machine::Page;
use pagefault_machine::{Backing, IoError, PAGE_SIZE};
use parking_lot::Mutex;
use std::sync::Arc;

/// A file to map, which fails when told to.
///
/// A value is only a handle; clones name the same file, so that a test keeps one while the memory
/// manager owns another.
#[derive(Clone, Debug)]
pub struct SimFile {
    file: Arc<File>,
}

#[derive(Debug, Default)]
struct File {
    content: Mutex<Content>,
    fail_read: FailNth,
    fail_write: FailNth,
    fail_make_writable: FailNth,
    fail_length: FailNth,
    conduct: Conduct,
    reads: AtomicU64,
    writes: AtomicU64,
    syncs: AtomicU64,
    made_writable: AtomicU64,
    lengths: AtomicU64,
    opened: AtomicU64,
    closed: AtomicU64,
}

/// What was asked of a [`SimFile`] so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileStats {
    /// Pages read, failed reads among them.
    pub reads: u64,
    /// Pages written, failed writes among them.
    pub writes: u64,
    /// Calls of [`Backing::sync`].
    pub syncs: u64,
    /// Calls of [`Backing::make_writable`].
    pub made_writable: u64,
    /// Calls of [`Backing::len`], failed ones among them.
    pub lengths: u64,
    /// Calls of [`Backing::opened`].
    pub opened: u64,
    /// Calls of [`Backing::closed`].
    pub closed: u64,
}

impl SimFile {
    /// A file with this content.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self::holding(Content::new(&bytes))
    }

    /// A file of `length` zeros, which take no memory until they are written.
    pub fn zeros(length: u64) -> Self {
        Self::holding(Content::zeros(length))
    }

    fn holding(content: Content) -> Self {
        Self { file: Arc::new(File { content: Mutex::new(content), ..File::default() }) }
    }

    /// A file of `length` bytes in which every page differs: byte `i` is the low byte of
    /// `i * 31 + (i >> 12) * 7 + seed`.
    pub fn pattern(length: u64, seed: u64) -> Self {
        Self::new((0..length).map(|index| Self::pattern_byte(index, seed)).collect())
    }

    /// The byte at `index` of a [`SimFile::pattern`].
    pub fn pattern_byte(index: u64, seed: u64) -> u8 {
        index.wrapping_mul(31).wrapping_add((index >> 12).wrapping_mul(7)).wrapping_add(seed) as u8
    }

    /// The content, holes as zeros: as many bytes of memory as the file is long.
    pub fn contents(&self) -> Vec<u8> {
        self.file.content.lock().bytes()
    }

    /// Changes the content behind the memory manager's back, within the file's length.
    pub fn overwrite(&self, offset: u64, bytes: &[u8]) {
        self.file.content.lock().write(offset, bytes);
    }

    /// Makes the `nth` question for the length from now on fail; 0 makes none fail.
    pub fn fail_nth_length(&self, nth: u64) {
        self.file.fail_length.set(nth);
    }

    /// Makes the `nth` read from now on fail, the next one being the first; 0 lets all succeed.
    pub fn fail_nth_read(&self, nth: u64) {
        self.file.fail_read.set(nth);
    }

    /// Makes the `nth` write from now on fail, the next one being the first; 0 lets all succeed.
    pub fn fail_nth_write(&self, nth: u64) {
        self.file.fail_write.set(nth);
    }

    /// Makes the `nth` [`Backing::make_writable`] from now on fail; 0 lets all succeed.
    pub fn fail_nth_make_writable(&self, nth: u64) {
        self.file.fail_make_writable.set(nth);
    }

    /// Makes every read and write give way to other threads `steps` times.
    pub fn set_latency(&self, steps: u64) {
        self.file.conduct.set_latency(steps);
    }

    /// Accepts calls by threads that hold locks of the computer, which otherwise panic: no lock is
    /// to be held across I/O.
    pub fn tolerate_locks(&self) {
        self.file.conduct.tolerate_locks();
    }

    /// What was asked of the file so far.
    pub fn stats(&self) -> FileStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        FileStats {
            reads: read(&self.file.reads),
            writes: read(&self.file.writes),
            syncs: read(&self.file.syncs),
            made_writable: read(&self.file.made_writable),
            lengths: read(&self.file.lengths),
            opened: read(&self.file.opened),
            closed: read(&self.file.closed),
        }
    }
}

impl Backing for SimFile {
    fn read(&self, index: u64, page: &mut Page) -> Result<(), IoError> {
        self.file.conduct.begin(&self.file.reads, &self.file.fail_read)?;
        self.file.content.lock().read(index, page);
        Ok(())
    }

    /// Bytes beyond the end of the file are dropped: the file may have been truncated meanwhile.
    fn write(&self, index: u64, page: &[u8]) -> Result<(), IoError> {
        self.file.conduct.begin(&self.file.writes, &self.file.fail_write)?;
        self.overwrite(index.saturating_mul(PAGE_SIZE), page);
        Ok(())
    }

    fn len(&self) -> Result<u64, IoError> {
        self.file.conduct.begin(&self.file.lengths, &self.file.fail_length)?;
        Ok(self.file.content.lock().length())
    }

    fn set_len(&self, bytes: u64) -> Result<(), IoError> {
        self.file.conduct.expect_no_locks();
        self.file.content.lock().set_length(bytes);
        Ok(())
    }

    fn sync(&self) -> Result<(), IoError> {
        self.file.conduct.expect_no_locks();
        self.file.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn make_writable(&self, _index: u64) -> Result<(), IoError> {
        self.file.conduct.begin(&self.file.made_writable, &self.file.fail_make_writable)
    }

    fn opened(&self) {
        self.file.conduct.expect_no_locks();
        self.file.opened.fetch_add(1, Ordering::Relaxed);
    }

    fn closed(&self) {
        self.file.conduct.expect_no_locks();
        self.file.closed.fetch_add(1, Ordering::Relaxed);
    }
}
