//! Pipes, with or without a name.

use super::Reading;
use super::open::{Open, What};
use super::ready::{Changes, Ready};
use crate::errno::Errno;
use crate::lock::Mutex;
use crate::{heap, process, signal};
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering};

/// How many bytes a pipe holds, as in Linux.
pub const CAPACITY: usize = 65536;

/// A pipe grows only while the heap has so much: the next call may need it.
const GROWTH: usize = CAPACITY + process::CALL;

/// This many bytes are written whole or not at all (`PIPE_BUF`).
const WHOLE: usize = 4096;

/// What both ends share.
#[derive(Default)]
pub struct Pipe {
    bytes: Mutex<VecDeque<u8>>,
    /// What either side may wait for.
    changes: Changes,
    readers: AtomicU32,
    writers: AtomicU32,
    /// How often an end was opened by its name: who waits for the other side to be opened must not
    /// miss one that is closed again at once.
    opened: [AtomicU32; 2],
}

/// An end of a pipe that has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The one that is read.
    Read,
    /// The one that is written.
    Write,
}

/// The end of a pipe that is read.
pub struct ReadEnd(Arc<Pipe>);

/// The end of a pipe that is written.
pub struct WriteEnd(Arc<Pipe>);

/// Makes a pipe: the end to read from and the end to write to.
pub fn pipe(flags: u32) -> (Arc<Open>, Arc<Open>) {
    let pipe = Arc::new(Pipe::default());
    let read = Open::new(What::Read(ReadEnd::new(&pipe)), flags);
    (read, Open::new(What::Write(WriteEnd::new(&pipe)), flags | 1))
}

/// Opens an end of a pipe that has a name, and waits until the other is opened too.
pub fn open(pipe: &Arc<Pipe>, end: End, flags: u32) -> Result<Arc<Open>, Errno> {
    let (own, other, others) = match end {
        End::Read => (&pipe.opened[0], &pipe.opened[1], &pipe.writers),
        End::Write => (&pipe.opened[1], &pipe.opened[0], &pipe.readers),
    };
    let before = other.load(Ordering::Acquire);
    let what = match end {
        End::Read => What::Read(ReadEnd::new(pipe)),
        End::Write => What::Write(WriteEnd::new(pipe)),
    };
    own.fetch_add(1, Ordering::AcqRel);
    let open = Open::new(what, flags);
    pipe.changes.tell();
    loop {
        let seen = pipe.changes.now();
        if others.load(Ordering::Acquire) > 0 || other.load(Ordering::Acquire) != before {
            return Ok(open);
        }
        match (open.reading(), end) {
            (Reading::NonBlocking, End::Read) => return Ok(open),
            (Reading::NonBlocking, End::Write) => return Err(Errno::ENXIO),
            (Reading::Blocking, _) => pipe.changes.wait(seen, Reading::Blocking)?,
        }
    }
}

impl ReadEnd {
    fn new(pipe: &Arc<Pipe>) -> Self {
        pipe.readers.fetch_add(1, Ordering::AcqRel);
        Self(pipe.clone())
    }

    /// What the end is ready for, and a count of its changes.
    pub fn ready(&self) -> (Ready, u64) {
        let mut ready = Ready::empty();
        ready.set(Ready::HUP, self.0.writers.load(Ordering::Acquire) == 0);
        ready.set(Ready::IN, self.bytes() > 0);
        (ready, self.0.changes.now().into())
    }

    /// How much is there to be read.
    pub fn bytes(&self) -> usize {
        self.0.bytes.lock().len()
    }

    /// Reads what is there, or waits for something, or for the last writer to go.
    pub(super) fn read(&self, bytes: &mut [u8], reading: Reading) -> Result<usize, Errno> {
        loop {
            let seen = self.0.changes.now();
            let writers = self.0.writers.load(Ordering::Acquire);
            let n = {
                let mut held = self.0.bytes.lock();
                let n = held.len().min(bytes.len());
                for (to, from) in bytes.iter_mut().zip(held.drain(..n)) {
                    *to = from;
                }
                n
            };
            if n > 0 {
                self.0.changes.tell();
                return Ok(n);
            }
            if writers == 0 || bytes.is_empty() {
                return Ok(0);
            }
            self.0.changes.wait(seen, reading)?;
        }
    }
}

impl ReadEnd {
    /// Puts bytes back that were read and could not be delivered.
    pub(super) fn put_back(&self, bytes: &[u8]) {
        let mut held = self.0.bytes.lock();
        // Who wrote meanwhile may have taken the room: what fits is the end.
        let room = CAPACITY - held.len().min(CAPACITY);
        for byte in bytes[bytes.len() - bytes.len().min(room)..].iter().rev() {
            held.push_front(*byte);
        }
        drop(held);
        self.0.changes.tell();
    }
}

impl WriteEnd {
    fn new(pipe: &Arc<Pipe>) -> Self {
        pipe.writers.fetch_add(1, Ordering::AcqRel);
        Self(pipe.clone())
    }

    /// What the end is ready for, and a count of its changes.
    pub fn ready(&self) -> (Ready, u64) {
        let mut ready = Ready::empty();
        ready.set(Ready::ERR, self.0.readers.load(Ordering::Acquire) == 0);
        ready.set(Ready::OUT, self.0.bytes.lock().len() + WHOLE <= CAPACITY);
        (ready, self.0.changes.now().into())
    }

    /// Writes all, waiting for room, while there is a reader.
    pub(super) fn write(&self, bytes: &[u8], reading: Reading) -> Result<usize, Errno> {
        let mut done = 0;
        while done < bytes.len() {
            let seen = self.0.changes.now();
            if self.0.readers.load(Ordering::Acquire) == 0 {
                signal::send(process::current(), signal::SIGPIPE);
                return Err(Errno::EPIPE);
            }
            let n = {
                let mut held = self.0.bytes.lock();
                let (room, rest) = (CAPACITY - held.len(), bytes.len() - done);
                let n = if bytes.len() <= WHOLE && room < rest { 0 } else { room.min(rest) };
                let has_room = held.len() + n <= held.capacity() || heap::has_room(GROWTH);
                (has_room && held.try_reserve(n).is_ok()).then(|| {
                    held.extend(&bytes[done..done + n]);
                    n
                })
            };
            let Some(n) = n else {
                return if done > 0 { Ok(done) } else { Err(Errno::ENOMEM) };
            };
            done += n;
            if n > 0 {
                self.0.changes.tell();
            } else if let Err(error) = self.0.changes.wait(seen, reading) {
                return if done > 0 { Ok(done) } else { Err(error) };
            }
        }
        Ok(done)
    }
}

impl Drop for ReadEnd {
    fn drop(&mut self) {
        self.0.readers.fetch_sub(1, Ordering::AcqRel);
        self.0.changes.tell();
    }
}

impl Drop for WriteEnd {
    fn drop(&mut self) {
        self.0.writers.fetch_sub(1, Ordering::AcqRel);
        self.0.changes.tell();
    }
}
