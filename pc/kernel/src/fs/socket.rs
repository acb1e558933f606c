//! Pairs of connected sockets (`socketpair`): two queues of messages, one a direction. There is no
//! network.

use super::Reading;
use super::ready::{Changes, Ready};
use crate::errno::Errno;
use crate::lock::Mutex;
use crate::process;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

/// The bytes that wait in one direction at most, and so the longest message.
pub const CAPACITY: usize = 65536;

/// The most messages, or pieces of a stream, that wait in one direction: each costs more memory than
/// its bytes, and may have none.
const MOST: usize = 256;

/// What a read takes at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// What there is (`SOCK_STREAM`).
    Bytes,
    /// One message; what of it does not fit is lost (`SOCK_SEQPACKET`, `SOCK_DGRAM`).
    Messages,
}

/// Which directions `shutdown` ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shut {
    /// Nothing is read any more.
    Reading,
    /// Nothing is written any more.
    Writing,
    /// Both.
    Both,
}

/// One end.
pub struct Socket {
    /// What a read takes at once.
    pub unit: Unit,
    incoming: Arc<Channel>,
    outgoing: Arc<Channel>,
}

/// One direction.
struct Channel {
    messages: Mutex<Messages>,
    /// What either side may wait for.
    changes: Changes,
    sender_is_gone: AtomicBool,
    receiver_is_gone: AtomicBool,
}

struct Messages {
    queue: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Channel {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            messages: Mutex::new(Messages { queue: VecDeque::new(), bytes: 0 }),
            changes: Changes::new(),
            sender_is_gone: AtomicBool::new(false),
            receiver_is_gone: AtomicBool::new(false),
        })
    }
}

impl Messages {
    /// Takes what one read gets; `None` if there is nothing.
    fn take(&mut self, unit: Unit, bytes: &mut [u8]) -> Option<usize> {
        let mut done = 0;
        while done < bytes.len() || unit == Unit::Messages {
            let Some(first) = self.queue.front_mut() else { break };
            let n = first.len().min(bytes.len() - done);
            bytes[done..done + n].copy_from_slice(&first[..n]);
            done += n;
            if n < first.len() && unit == Unit::Bytes {
                first.drain(..n);
                self.bytes -= n;
                break;
            }
            self.bytes -= first.len();
            self.queue.pop_front();
            if unit == Unit::Messages {
                return Some(done);
            }
        }
        (done > 0).then_some(done)
    }
}

/// Makes two sockets that are connected to each other.
pub fn pair(unit: Unit) -> (Socket, Socket) {
    let (there, back) = (Channel::new(), Channel::new());
    let first = Socket { unit, incoming: back.clone(), outgoing: there.clone() };
    (first, Socket { unit, incoming: there, outgoing: back })
}

impl Socket {
    /// Reads what is there, or waits for something, or for the other side to end.
    pub fn read(&self, bytes: &mut [u8], reading: Reading) -> Result<usize, Errno> {
        let channel = &self.incoming;
        loop {
            let seen = channel.changes.now();
            let is_last = channel.sender_is_gone.load(Ordering::Acquire)
                || channel.receiver_is_gone.load(Ordering::Acquire);
            if bytes.is_empty() && self.unit == Unit::Bytes {
                return Ok(0);
            }
            let taken = channel.messages.lock().take(self.unit, bytes);
            if let Some(n) = taken {
                channel.changes.tell();
                return Ok(n);
            }
            if is_last {
                return Ok(0);
            }
            channel.changes.wait(seen, reading)?;
        }
    }

    /// Writes all, waiting for room, while the other side reads. `SIGPIPE` is the caller's affair.
    pub fn write(&self, bytes: &[u8], reading: Reading) -> Result<usize, Errno> {
        if self.unit == Unit::Messages && bytes.len() > CAPACITY {
            return Err(Errno::EMSGSIZE);
        }
        let channel = &self.outgoing;
        let mut done = 0;
        loop {
            let seen = channel.changes.now();
            if channel.receiver_is_gone.load(Ordering::Acquire)
                || channel.sender_is_gone.load(Ordering::Acquire)
            {
                return if done > 0 { Ok(done) } else { Err(Errno::EPIPE) };
            }
            let rest = &bytes[done..];
            // What it is kept in until it is read.
            let mut kept = process::buffer(rest.len())?;
            kept.copy_from_slice(rest);
            let sent = {
                let mut messages = channel.messages.lock();
                let room = CAPACITY - messages.bytes;
                let n = if self.unit == Unit::Bytes { rest.len().min(room) } else { rest.len() };
                let fits = n <= room && (n > 0 || rest.is_empty()) && messages.queue.len() < MOST;
                if fits && (n > 0 || self.unit == Unit::Messages) {
                    messages.bytes += n;
                    kept.truncate(n);
                    kept.shrink_to_fit();
                    messages.queue.push_back(kept);
                }
                fits.then_some(n)
            };
            if let Some(n) = sent {
                done += n;
                channel.changes.tell();
                if done == bytes.len() {
                    return Ok(done);
                }
            } else if let Err(error) = channel.changes.wait(seen, reading) {
                return if done > 0 { Ok(done) } else { Err(error) };
            }
        }
    }

    /// Ends a direction, or both.
    pub fn shut(&self, what: Shut) {
        if what != Shut::Writing {
            self.incoming.receiver_is_gone.store(true, Ordering::Release);
            self.incoming.changes.tell();
        }
        if what != Shut::Reading {
            self.outgoing.sender_is_gone.store(true, Ordering::Release);
            self.outgoing.changes.tell();
        }
    }

    /// What the socket is ready for, and a count of its changes.
    pub fn ready(&self) -> (Ready, u64) {
        let mut ready = Ready::empty();
        let (has_bytes, ended) = (
            !self.incoming.messages.lock().queue.is_empty(),
            self.incoming.sender_is_gone.load(Ordering::Acquire),
        );
        let shut = self.outgoing.receiver_is_gone.load(Ordering::Acquire);
        ready.set(Ready::IN, has_bytes || ended);
        ready.set(Ready::PEER_SHUT, ended);
        ready.set(Ready::HUP, ended && shut);
        let has_room = {
            let messages = self.outgoing.messages.lock();
            messages.bytes < CAPACITY / 2 && messages.queue.len() < MOST
        };
        ready.set(Ready::OUT, shut || has_room);
        let changes = [&self.incoming, &self.outgoing].map(|channel| channel.changes.now());
        (ready, u64::from(changes[0]) << 32 | u64::from(changes[1]))
    }

    /// How many bytes the next read gets at most (`FIONREAD`).
    pub fn bytes(&self) -> usize {
        let messages = self.incoming.messages.lock();
        match self.unit {
            Unit::Bytes => messages.bytes,
            Unit::Messages => messages.queue.front().map_or(0, Vec::len),
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.shut(Shut::Both);
    }
}
