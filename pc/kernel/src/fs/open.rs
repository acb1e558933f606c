//! Open files, and a process's numbers for them.

use super::epoll::Epoll;
use super::event::{Counter, Timer};
use super::locks::{self, Owner};
use super::pipe::{ReadEnd, WriteEnd};
use super::ready::Ready;
use super::socket::{Socket, Unit};
use super::{Device, Follow, Kind, Node, find};
use crate::errno::Errno;
use crate::process::{self, Process};
use crate::scheduler::{self, Patience};
use crate::serial::CONSOLE;
use crate::sleep::{Sleep, SleepMutex};
use crate::{clock, failures, procfs, signal};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use linux_raw_sys::general as nr;

/// An open file, shared by the numbers that were duplicated from one.
pub struct Open {
    /// What was opened.
    pub what: What,
    /// Where the next read or write begins.
    pub offset: AtomicU64,
    /// How it was opened (`O_` flags).
    pub flags: AtomicU32,
    /// Held while the offset is used and moved on.
    turn: SleepMutex<()>,
    /// Whether it may have locks of its own.
    pub has_locks: AtomicBool,
}

/// What can be open.
pub enum What {
    /// Something with a path.
    Node(Arc<Node>, String),
    /// The end of a pipe that is read.
    Read(ReadEnd),
    /// The end of a pipe that is written.
    Write(WriteEnd),
    /// One of two sockets that are connected.
    Socket(Socket),
    /// An `eventfd`.
    Counter(Counter),
    /// A `timerfd`.
    Timer(Timer),
    /// A list of files to wait for.
    Epoll(Epoll),
}

/// Whether reading ahead of the data waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Until there is something.
    Blocking,
    /// Not at all.
    NonBlocking,
}

const O_ACCMODE: u32 = 3;
const O_PATH: u32 = 0o10_000_000;
const O_APPEND: u32 = 0o2000;
const O_NONBLOCK: u32 = 0o4000;

impl Open {
    /// An open file at its beginning.
    pub fn new(what: What, flags: u32) -> Arc<Self> {
        let (offset, flags) = (AtomicU64::new(0), AtomicU32::new(flags));
        let (has_locks, turn) = (AtomicBool::new(false), SleepMutex::new(()));
        Arc::new(Self { what, offset, flags, turn, has_locks })
    }

    /// Whether it stands for a path alone (`O_PATH`).
    pub fn is_only_path(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & O_PATH != 0
    }

    /// Whether it was opened for reading.
    pub fn is_readable(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & O_ACCMODE != 1 && !self.is_only_path()
    }

    /// Whether it is a device that takes whatever is written, and open for that.
    pub fn swallows(&self) -> bool {
        let What::Node(node, _) = &self.what else { return false };
        matches!(node.kind, Kind::Device(Device::Null | Device::Zero)) && self.is_writable()
    }

    /// Whether it was opened for writing.
    pub fn is_writable(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & O_ACCMODE != 0 && !self.is_only_path()
    }

    /// Whether reading and writing wait.
    pub fn reading(&self) -> Reading {
        if self.flags.load(Ordering::Relaxed) & O_NONBLOCK != 0 {
            Reading::NonBlocking
        } else {
            Reading::Blocking
        }
    }

    /// Waits for the turn to use the offset, where there is one that means something.
    fn turn(&self) -> Option<lock_api::MutexGuard<'_, Sleep, ()>> {
        let What::Node(node, _) = &self.what else { return None };
        (!matches!(node.kind, Kind::Device(_))).then(|| self.turn.lock())
    }

    /// What the file is ready for, and a count of what changed about it.
    pub fn ready(&self) -> (Ready, u64) {
        match &self.what {
            What::Read(end) => end.ready(),
            What::Write(end) => end.ready(),
            What::Socket(socket) => socket.ready(),
            What::Counter(counter) => counter.ready(),
            What::Timer(timer) => timer.ready(),
            What::Epoll(epoll) => epoll.ready(),
            What::Node(node, _) if matches!(node.kind, Kind::Device(Device::Console)) => {
                let can_read = HAS_ENDED.load(Ordering::Relaxed) || CONSOLE.has_byte();
                (if can_read { Ready::IN | Ready::OUT } else { Ready::OUT }, 0)
            }
            What::Node(..) => (Ready::IN | Ready::OUT, 0),
        }
    }

    /// Reads at the offset and moves it on.
    pub fn read(&self, bytes: &mut [u8]) -> Result<usize, Errno> {
        let _turn = self.turn();
        let n = self.read_at(self.offset.load(Ordering::Relaxed), bytes)?;
        self.offset.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }

    /// Takes back that the last bytes of what was just read have been: they could not be delivered.
    /// Returns how many of the others count as delivered: none of a pipe's, which has them all again.
    pub fn undo_read(&self, read: &[u8], undelivered: usize, at: Option<u64>) -> usize {
        match &self.what {
            What::Read(end) => {
                end.put_back(read);
                return 0;
            }
            What::Node(..) if at.is_none() => {
                self.offset.fetch_sub(undelivered as u64, Ordering::Relaxed);
            }
            _ => {}
        }
        read.len() - undelivered
    }

    /// Reads at an offset.
    pub fn read_at(&self, offset: u64, bytes: &mut [u8]) -> Result<usize, Errno> {
        if !self.is_readable() {
            return Err(Errno::EBADF);
        }
        match &self.what {
            What::Read(end) => end.read(bytes, self.reading()),
            What::Write(_) => Err(Errno::EBADF),
            What::Socket(socket) => socket.read(bytes, self.reading()),
            What::Counter(counter) => counter.read(bytes, self.reading()),
            What::Timer(timer) => timer.read(bytes, self.reading()),
            What::Epoll(_) => Err(Errno::EINVAL),
            What::Node(node, _) => match &node.kind {
                Kind::Device(device) => read_device(*device, bytes, self.reading()),
                Kind::Text(text) => {
                    let rest = text.get(offset as usize..).unwrap_or_default();
                    let n = rest.len().min(bytes.len());
                    bytes[..n].copy_from_slice(&rest[..n]);
                    Ok(n)
                }
                Kind::TooLong => Err(Errno::ENOMEM),
                Kind::Memory(process) => procfs::read_memory(process, offset, bytes),
                Kind::Pagemap(process) => read_pagemap(process, offset, bytes),
                _ => Ok(node.content()?.read_at(offset, bytes)?),
            },
        }
    }

    /// Writes at the offset and moves it on.
    pub fn write(&self, bytes: &[u8]) -> Result<usize, Errno> {
        let _turn = self.turn();
        let mut _end = None;
        if self.flags.load(Ordering::Relaxed) & O_APPEND != 0
            && let What::Node(node, _) = &self.what
        {
            _end = Some(node.end.lock());
            self.offset.store(node.len(), Ordering::Relaxed);
        }
        let n = self.write_at(self.offset.load(Ordering::Relaxed), bytes)?;
        self.offset.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }

    /// Writes at an offset.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<usize, Errno> {
        if !self.is_writable() {
            return Err(Errno::EBADF);
        }
        match &self.what {
            What::Write(end) => end.write(bytes, self.reading()),
            What::Read(_) => Err(Errno::EBADF),
            What::Socket(socket) => {
                let written = socket.write(bytes, self.reading());
                if written == Err(Errno::EPIPE) && socket.unit == Unit::Bytes {
                    signal::send(process::current(), signal::SIGPIPE);
                }
                written
            }
            What::Counter(counter) => counter.write(bytes, self.reading()),
            What::Timer(_) | What::Epoll(_) => Err(Errno::EINVAL),
            What::Node(node, _) => match &node.kind {
                Kind::Device(Device::Console) => {
                    let _turn = WRITING.lock();
                    CONSOLE.send(bytes);
                    Ok(bytes.len())
                }
                Kind::Device(Device::Failures) => {
                    failures::order(bytes)?;
                    Ok(bytes.len())
                }
                Kind::Device(Device::Swap) => Err(Errno::EPERM),
                Kind::Device(_) => Ok(bytes.len()),
                Kind::Memory(process) => procfs::write_memory(process, offset, bytes),
                _ => {
                    let _kept = node.seals.keep();
                    let n = node.room_for(offset, bytes.len())?;
                    node.touch();
                    Ok(node.content_for_writing()?.write_at(offset, &bytes[..n])?)
                }
            },
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if *self.has_locks.get_mut() {
            let number = core::ptr::from_ref(self).addr();
            locks::unlock_all(Owner::Open(number));
            locks::unlock_all(Owner::Whole(number));
        }
    }
}

/// Reads whole words, as many as there is room for, up to a piece of the file at once.
fn read_pagemap(process: &Process, offset: u64, bytes: &mut [u8]) -> Result<usize, Errno> {
    if !offset.is_multiple_of(8) || !bytes.len().is_multiple_of(8) {
        return Err(Errno::EINVAL);
    }
    let mut words = [0; 512];
    let n = words.len().min(bytes.len() / 8);
    procfs::pagemap(process, offset / 8, &mut words[..n]);
    for (to, word) in bytes.chunks_exact_mut(8).zip(&words[..n]) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    Ok(n * 8)
}

fn read_device(device: Device, bytes: &mut [u8], reading: Reading) -> Result<usize, Errno> {
    match device {
        Device::Null | Device::Failures => Ok(0),
        Device::Swap => Err(Errno::EPERM),
        Device::Zero => {
            bytes.fill(0);
            Ok(bytes.len())
        }
        Device::Random => {
            crate::random::fill(bytes);
            Ok(bytes.len())
        }
        Device::Console => read_console(bytes, reading),
    }
}

/// Held while the console is written to, so that what two write at once does not mix.
static WRITING: SleepMutex<()> = SleepMutex::new(());

/// End of transmission: the host's input has ended.
const END: u8 = 4;

/// Whether the host's input has ended: it does so once, for all who read it.
static HAS_ENDED: AtomicBool = AtomicBool::new(false);

/// After so many nanoseconds without a byte the next is not expected at once: who reads sleeps from
/// one look at the line to the next.
const SILENCE: u64 = 2_000_000;

/// Reads up to the end of a line.
fn read_console(bytes: &mut [u8], reading: Reading) -> Result<usize, Errno> {
    let mut n = 0;
    let mut heard = clock::nanoseconds();
    while n < bytes.len() && !HAS_ENDED.load(Ordering::Relaxed) {
        let Some(byte) = CONSOLE.receive() else {
            match reading {
                _ if n > 0 && signal::is_pending() => break,
                _ if signal::is_pending() => return Err(Errno::EINTR),
                Reading::NonBlocking if n > 0 => break,
                Reading::NonBlocking => return Err(Errno::EAGAIN),
                Reading::Blocking => {}
            }
            let now = clock::nanoseconds();
            if now - heard < SILENCE {
                scheduler::yield_now();
            } else {
                let never = AtomicU32::new(0);
                scheduler::wait_until(&never, 0, now + SILENCE, Patience::Signals);
            }
            continue;
        };
        heard = clock::nanoseconds();
        if byte == END {
            HAS_ENDED.store(true, Ordering::Relaxed);
            break;
        }
        bytes[n] = byte;
        n += 1;
        if byte == b'\n' {
            break;
        }
    }
    Ok(n)
}

/// One more than the highest number that the running process may give a file.
pub fn most_open() -> usize {
    process::current().limit(nr::RLIMIT_NOFILE) as usize
}

/// A process's open files by number, and its working directory.
#[derive(Clone, Default)]
pub struct Files {
    open: Vec<Option<(Arc<Open>, OnExec)>>,
    /// The working directory.
    pub directory: String,
}

/// What an exec does with a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExec {
    Keep,
    Close,
}

impl OnExec {
    /// As the flags of a call that opens a file say, by `O_CLOEXEC` or a flag of the same value.
    pub const fn of(flags: u32) -> Self {
        Self::closes(flags & nr::O_CLOEXEC != 0)
    }

    /// Closes it on this condition.
    pub const fn closes(condition: bool) -> Self {
        if condition { Self::Close } else { Self::Keep }
    }
}

impl Files {
    /// The first process's: the console three times.
    pub fn with_console() -> Result<Self, Errno> {
        let console = find("/dev/console", Follow::Yes)?;
        let open = Open::new(What::Node(console, String::from("/dev/console")), 2);
        let open = (0..3).map(|_| Some((open.clone(), OnExec::Keep))).collect();
        Ok(Self { open, directory: String::from("/") })
    }

    /// The file with a number.
    pub fn find(&self, number: u32) -> Result<Arc<Open>, Errno> {
        let slot = self.open.get(number as usize).and_then(Option::as_ref);
        slot.map(|(open, _)| open.clone()).ok_or(Errno::EBADF)
    }

    /// Gives a file the lowest free number from `lowest` on.
    pub fn add(&mut self, open: Arc<Open>, lowest: u32, on_exec: OnExec) -> Result<u32, Errno> {
        let mut number = lowest as usize;
        while self.open.get(number).is_some_and(Option::is_some) {
            number += 1;
        }
        if number >= most_open() {
            return Err(Errno::EMFILE);
        }
        drop(self.put(number, open, on_exec));
        Ok(number as u32)
    }

    fn put(
        &mut self,
        number: usize,
        open: Arc<Open>,
        on_exec: OnExec,
    ) -> Option<(Arc<Open>, OnExec)> {
        if self.open.len() <= number {
            self.open.resize(number + 1, None);
        }
        self.open[number].replace((open, on_exec))
    }

    /// Gives a file a certain number; returns what had it.
    pub fn replace(
        &mut self,
        number: u32,
        open: Arc<Open>,
        on_exec: OnExec,
    ) -> Result<Option<Arc<Open>>, Errno> {
        if number as usize >= most_open() {
            return Err(Errno::EBADF);
        }
        Ok(self.put(number as usize, open, on_exec).map(|(open, _)| open))
    }

    /// Whether a file is closed by exec.
    pub fn closes_on_exec(&self, number: u32) -> bool {
        matches!(self.open.get(number as usize), Some(Some((_, OnExec::Close))))
    }

    /// Says what exec does with a file.
    pub fn set_on_exec(&mut self, number: u32, on_exec: OnExec) {
        if let Some(Some((_, now))) = self.open.get_mut(number as usize) {
            *now = on_exec;
        }
    }

    /// The numbers that are in use.
    pub fn numbers(&self) -> impl Iterator<Item = usize> {
        self.open.iter().enumerate().filter(|(_, slot)| slot.is_some()).map(|(number, _)| number)
    }

    /// Takes a number away; the caller drops what had it.
    pub fn close(&mut self, number: u32) -> Result<Arc<Open>, Errno> {
        let slot = self.open.get_mut(number as usize).and_then(Option::take);
        slot.map(|(open, _)| open).ok_or(Errno::EBADF)
    }

    /// Takes all numbers away; the caller drops what had them.
    pub fn take_all(&mut self) -> Vec<Arc<Open>> {
        self.take_if(|_| true)
    }

    /// Takes those away that exec closes; the caller drops what had them.
    pub fn take_closing(&mut self) -> Vec<Arc<Open>> {
        self.take_if(|on_exec| on_exec == OnExec::Close)
    }

    fn take_if(&mut self, goes: impl Fn(OnExec) -> bool) -> Vec<Arc<Open>> {
        let slots = self.open.iter_mut();
        slots.filter_map(|slot| Some(slot.take_if(|(_, on_exec)| goes(*on_exec))?.0)).collect()
    }
}

/// The open file with a number, of the running process.
pub fn file(number: u32) -> Result<Arc<Open>, Errno> {
    process::current().files.lock().find(number)
}
