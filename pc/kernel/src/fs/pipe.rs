//! Pipes.

use super::Reading;
use super::open::{Open, What};
use crate::errno::Errno;
use crate::lock::Mutex;
use crate::scheduler::{self, Patience};
use crate::{process, signal};
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering};

/// How many bytes a pipe holds, as in Linux.
pub const CAPACITY: usize = 65536;

struct Pipe {
    bytes: Mutex<VecDeque<u8>>,
    /// Counts what either side may wait for.
    event: AtomicU32,
    readers: AtomicU32,
    writers: AtomicU32,
}

impl Pipe {
    fn notify(&self) {
        self.event.fetch_add(1, Ordering::AcqRel);
        scheduler::wake(&self.event);
    }

    fn wait(&self, event: u32, reading: Reading) -> Result<(), Errno> {
        if reading == Reading::NonBlocking {
            return Err(Errno::EAGAIN);
        }
        if signal::is_pending() {
            return Err(Errno::EINTR);
        }
        scheduler::wait_until(&self.event, event, u64::MAX, Patience::Signals);
        Ok(())
    }
}

/// The end of a pipe that is read.
pub struct ReadEnd(Arc<Pipe>);

/// The end of a pipe that is written.
pub struct WriteEnd(Arc<Pipe>);

/// Makes a pipe: the end to read from and the end to write to.
pub fn pipe(flags: u32) -> (Arc<Open>, Arc<Open>) {
    let pipe = Arc::new(Pipe {
        bytes: Mutex::new(VecDeque::new()),
        event: AtomicU32::new(0),
        readers: AtomicU32::new(1),
        writers: AtomicU32::new(1),
    });
    let read = Open::new(What::Read(ReadEnd(pipe.clone())), flags);
    (read, Open::new(What::Write(WriteEnd(pipe)), flags | 1))
}

impl ReadEnd {
    /// Whether a read would not wait.
    pub fn is_ready(&self) -> bool {
        !self.0.bytes.lock().is_empty() || self.0.writers.load(Ordering::Acquire) == 0
    }

    /// Whether something is there to be read.
    pub fn has_bytes(&self) -> bool {
        !self.0.bytes.lock().is_empty()
    }

    /// Reads what is there, or waits for something, or for the last writer to go.
    pub(super) fn read(&self, bytes: &mut [u8], reading: Reading) -> Result<usize, Errno> {
        loop {
            let event = self.0.event.load(Ordering::Acquire);
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
                self.0.notify();
                return Ok(n);
            }
            if writers == 0 || bytes.is_empty() {
                return Ok(0);
            }
            self.0.wait(event, reading)?;
        }
    }
}

impl WriteEnd {
    /// Writes all, waiting for room, while there is a reader.
    pub(super) fn write(&self, bytes: &[u8], reading: Reading) -> Result<usize, Errno> {
        let mut done = 0;
        while done < bytes.len() {
            let event = self.0.event.load(Ordering::Acquire);
            if self.0.readers.load(Ordering::Acquire) == 0 {
                signal::send(process::current(), signal::SIGPIPE);
                return Err(Errno::EPIPE);
            }
            let n = {
                let mut held = self.0.bytes.lock();
                let n = (CAPACITY - held.len()).min(bytes.len() - done);
                held.extend(&bytes[done..done + n]);
                n
            };
            done += n;
            if n > 0 {
                self.0.notify();
            } else if let Err(error) = self.0.wait(event, reading) {
                return if done > 0 { Ok(done) } else { Err(error) };
            }
        }
        Ok(done)
    }
}

impl Drop for ReadEnd {
    fn drop(&mut self) {
        self.0.readers.fetch_sub(1, Ordering::AcqRel);
        self.0.notify();
    }
}

impl Drop for WriteEnd {
    fn drop(&mut self) {
        self.0.writers.fetch_sub(1, Ordering::AcqRel);
        self.0.notify();
    }
}
