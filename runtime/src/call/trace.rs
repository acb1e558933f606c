//! Debuggers: a program that traces others of the tree sees them as without pagefault.
//!
//! Two things would show. A system call of a managed program raises `SIGSYS`, and an access to an absent page
//! `SIGBUS`; a tracer is told of every signal. And the host lets a tracer's access (`PTRACE_PEEKDATA`, `/proc/PID/mem`) fail
//! on a page that is absent. The tracee's server makes that access ([`memory::outside`]).

use super::passed::Vectors;
use super::stop::{OF_CALL, Settled, Stop};
use super::{Call, Outcome, tracees};
use crate::entry::{NOT_STARTED, RESTART};
use crate::frame::Info;
use crate::memory::outside::Other;
use crate::memory::{self, Forced};
use crate::sys::{self, Errno, Result};
use crate::thread::Thread;
use crate::{files, tracer, user};
use alloc::vec;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;
use linux_raw_sys::general as nr;
use linux_raw_sys::ptrace;
use pagefault_control::outside::{Answer, Manner, WINDOW};
use pagefault_machine::Access;

/// The error of an access to an absent page of another process.
const ABSENT: i64 = -(linux_raw_sys::errno::EIO as i64);
const PAGE: u64 = crate::memory::PAGE;
/// The bytes of a word.
const WORD: u64 = 8;

/// How the program last continued its tracees, where not by `PTRACE_CONT`. There is no lock, which a fork in
/// another thread would copy while it is held.
static RESUMED: [AtomicU64; 256] = [const { AtomicU64::new(0) }; 256];

/// A tracee, and the request by which the program continued it.
#[derive(Clone, Copy)]
struct Resumed {
    tracee: u32,
    request: u32,
}

impl Resumed {
    fn of(word: u64) -> Self {
        Self { tracee: (word >> 32) as u32, request: word as u32 }
    }

    fn word(self) -> u64 {
        u64::from(self.tracee) << 32 | u64::from(self.request)
    }

    /// Notes how a tracee goes on; where there is no room, it goes on by `PTRACE_CONT`.
    fn note(self) {
        Self::forget(self.tracee);
        if self.request == ptrace::PTRACE_CONT {
            return;
        }
        let is_taken = |word: &AtomicU64| {
            word.load(Relaxed) == 0
                && word.compare_exchange(0, self.word(), Relaxed, Relaxed).is_ok()
        };
        let _ = RESUMED.iter().any(is_taken);
    }

    /// Forgets a tracee that has ended or is let go: another one may get its number.
    fn forget(tracee: u32) {
        for word in &RESUMED {
            let seen = word.load(Relaxed);
            if seen != 0 && Self::of(seen).tracee == tracee {
                // Only its tracer changes the word, and that is one thread.
                word.store(0, Relaxed);
            }
        }
    }

    /// The request by which a tracee was continued.
    fn request_for(tracee: u32) -> u32 {
        let mut all = RESUMED.iter().map(|word| Self::of(word.load(Relaxed)));
        let found = all.find(|resumed| resumed.tracee == tracee);
        found.map_or(ptrace::PTRACE_CONT, |found| found.request)
    }
}

impl Call<'_> {
    pub(super) fn trace(&mut self) -> Outcome {
        match self.number {
            nr::__NR_wait4 => self.wait(1, Self::stop_of_status),
            nr::__NR_waitid => self.wait(2, Self::stop_of_info),
            _ => self.ptrace(),
        }
    }

    fn ptrace(&mut self) -> Outcome {
        let [request, tracee, ..] = self.args;
        match request as u32 {
            ptrace::PTRACE_PEEKTEXT | ptrace::PTRACE_PEEKDATA => self.peek(),
            ptrace::PTRACE_POKETEXT | ptrace::PTRACE_POKEDATA => self.poke(),
            ptrace::PTRACE_CONT
            | ptrace::PTRACE_SYSCALL
            | ptrace::PTRACE_SINGLESTEP
            | ptrace::PTRACE_SYSEMU
            | ptrace::PTRACE_SYSEMU_SINGLESTEP
            | ptrace::PTRACE_SINGLEBLOCK => {
                Resumed { tracee: tracee as u32, request: request as u32 }.note();
                self.pass()
            }
            ptrace::PTRACE_DETACH => {
                Resumed::forget(tracee as u32);
                self.pass()
            }
            ptrace::PTRACE_ATTACH | ptrace::PTRACE_SEIZE => {
                // Once its threads are stopped, none of them could start it.
                if let Some(other) = Other::of(tracee as u32) {
                    other.prepare(self.thread.member());
                }
                tracees::watch();
                self.pass()
            }
            ptrace::PTRACE_GETSIGINFO => self.signal_of_stop(),
            ptrace::PTRACE_GETREGS | ptrace::PTRACE_GETREGSET => self.read_registers(),
            ptrace::PTRACE_TRACEME if self.thread.member().defer_tracing() => Outcome::Raw(0),
            ptrace::PTRACE_TRACEME if self.thread.member().has_executed() => {
                tracer::answer_for_parent().into()
            }
            ptrace::PTRACE_TRACEME => {
                memory::serve::add();
                let traced = self.pass();
                tracees::tell_tracer();
                traced
            }
            _ => self.pass(),
        }
    }

    /// Reads a word of a tracee's memory.
    fn peek(&mut self) -> Outcome {
        let [_, tracee, address, to, ..] = self.args;
        let raw = self.make_pinned(self.args);
        let Some(other) = (raw == ABSENT).then(|| Other::of(tracee as u32)).flatten() else {
            return Outcome::Raw(raw);
        };
        let read = self.read_word(&other, address);
        read.and_then(|word| user::write(to, &word)).map(|()| 0).into()
    }

    /// Writes a word of a tracee's memory.
    fn poke(&mut self) -> Outcome {
        let [_, tracee, address, word, ..] = self.args;
        let raw = self.make_pinned(self.args);
        match (raw == ABSENT).then(|| Other::of(tracee as u32)).flatten() {
            Some(other) => self.write_word(&other, address, word).map(|()| 0).into(),
            None => Outcome::Raw(raw),
        }
    }

    fn read_word(&self, other: &Other, address: u64) -> Result<u64> {
        if let Some(cut) = Cut::of(address) {
            return cut.join(cut.words().map(|at| self.read_word(other, at)));
        }
        let mut word = 0_u64;
        let args = self.on_word(ptrace::PTRACE_PEEKDATA, address, (&raw mut word) as u64);
        // SAFETY: the word is ours.
        match unsafe { sys::call(nr::__NR_ptrace, args) } {
            Err(Errno::EIO) => {}
            host => return host.map(|_| word),
        }
        let mut bytes = [0; WORD as usize];
        match other.access(self.thread.member(), Manner::ForcedRead, address, &mut bytes) {
            Some(Answer::Copied(8)) => Ok(u64::from_ne_bytes(bytes)),
            _ => Err(Errno::EIO),
        }
    }

    fn write_word(&self, other: &Other, address: u64, word: u64) -> Result<()> {
        if let Some(cut) = Cut::of(address) {
            let [low, high] = cut.words().map(|at| self.read_word(other, at));
            let [low, high] = cut.split([low?, high?], word);
            let [first, second] = cut.words();
            self.write_word(other, first, low)?;
            return self.write_word(other, second, high);
        }
        let args = self.on_word(ptrace::PTRACE_POKEDATA, address, word);
        // SAFETY: the tracee's memory is the program's to change.
        match unsafe { sys::call(nr::__NR_ptrace, args) } {
            Err(Errno::EIO) => {}
            host => return host.map(drop),
        }
        let mut bytes = word.to_ne_bytes();
        match other.access(self.thread.member(), Manner::ForcedWrite, address, &mut bytes) {
            Some(Answer::Copied(8)) => Ok(()),
            _ => Err(Errno::EIO),
        }
    }

    fn on_word(&self, request: u32, address: u64, data: u64) -> [u64; 4] {
        [request.into(), self.args[1], address, data]
    }

    /// Tells of the signal that a tracee stopped with as the kernel would.
    fn signal_of_stop(&mut self) -> Outcome {
        let at = self.args[3];
        let raw = self.make_pinned(self.args);
        if raw == 0
            && let Ok(mut info) = user::read::<Info>(at)
            && tracer::unmark(&mut info)
        {
            // It could be written a moment ago.
            let _ = user::write(at, &info);
        }
        Outcome::Raw(raw)
    }

    /// Makes a call that accesses a file, which may be the memory of a process.
    pub(super) fn access_file(&mut self) -> Outcome {
        let [descriptor, _, len, offset, ..] = self.args;
        let number = self.number;
        let remote = || {
            let access = match number {
                nr::__NR_read | nr::__NR_pread64 => Access::Read,
                _ => Access::Write,
            };
            let process = files::process_of_memory(descriptor as u32)?;
            let start = match number {
                nr::__NR_pread64 | nr::__NR_pwrite64 => offset,
                _ => files::position(descriptor as u32)?,
            };
            Some(Remote { process, start, len, access })
        };
        let raw = self.make_pinned(self.args);
        let is_at = matches!(number, nr::__NR_pread64 | nr::__NR_pwrite64);
        if raw > 0 && matches!(number, nr::__NR_read | nr::__NR_pread64) {
            self.correct_status(
                raw as u64,
                is_at.then_some(offset),
                [[self.args[1], len]].into_iter(),
            );
        }
        // A longer access ends before an absent page.
        let is_cut = is_at
            && (1..len as i64).contains(&raw)
            && offset.wrapping_add(raw as u64).is_multiple_of(PAGE);
        if raw != ABSENT && !is_cut {
            return Outcome::Raw(raw);
        }
        match remote() {
            Some(own) if Thread::is_here(own.process as u32) => {
                Outcome::Raw(self.go_on_with(&own, raw.max(0) as u64, Self::access_own))
            }
            Some(other) => {
                Outcome::Raw(self.go_on_with(&other, raw.max(0) as u64, Self::access_other))
            }
            None => Outcome::Raw(raw),
        }
    }

    /// The same with several buffers: where the host stops, one after the other.
    pub(super) fn access_file_parts(&mut self) -> Outcome {
        let [descriptor, array, count, offset, ..] = self.args;
        let raw = self.make_pinned(self.args);
        let is_at = matches!(self.number, nr::__NR_preadv | nr::__NR_pwritev);
        let Some(vectors) = Vectors::of_buffers(array, count) else { return Outcome::Raw(raw) };
        if raw > 0 && matches!(self.number, nr::__NR_readv | nr::__NR_preadv) {
            let at = (self.number == nr::__NR_preadv).then_some(offset);
            self.correct_status(raw as u64, at, vectors.each());
        }
        let is_short = raw == ABSENT || is_at && (1..vectors.total as i64).contains(&raw);
        if !is_short || files::process_of_memory(descriptor as u32).is_none() {
            return Outcome::Raw(raw);
        }
        let done = raw.max(0) as u64;
        let position = if is_at { Some(offset) } else { files::position(descriptor as u32) };
        let Some(start) = position else { return Outcome::Raw(raw) };
        self.number = match self.number {
            nr::__NR_readv | nr::__NR_preadv => nr::__NR_pread64,
            _ => nr::__NR_pwrite64,
        };
        let raw = self.access_parts(&vectors, start, done);
        if !is_at && raw > 0 {
            files::set_position(descriptor as u32, start.wrapping_add(raw as u64));
        }
        Outcome::Raw(raw)
    }

    /// Accesses what follows the first `done` bytes, buffer by buffer, as far as possible.
    fn access_parts(&mut self, vectors: &Vectors, start: u64, mut done: u64) -> i64 {
        let mut before = done;
        for [buffer, len] in vectors.each() {
            let skipped = before.min(len);
            before -= skipped;
            if skipped == len {
                continue;
            }
            let left = len - skipped;
            self.args[1..4].copy_from_slice(&[buffer + skipped, left, start.wrapping_add(done)]);
            let Outcome::Raw(raw) = self.access_file() else { break };
            if done == 0 && raw <= 0 {
                return raw;
            }
            done += raw.max(0) as u64;
            if raw < left as i64 {
                break;
            }
        }
        done as i64
    }

    /// Goes on with an access from where the host stopped after `done` bytes, piece by piece, as far as possible.
    /// `piece` accesses what it can of the rest, at a place in the program's buffer.
    fn go_on_with(
        &mut self,
        all: &Remote,
        mut done: u64,
        piece: impl Fn(&mut Self, &Remote, u64) -> i64,
    ) -> i64 {
        let [descriptor, buffer, ..] = self.args;
        let number = self.number;
        // The host's own pieces are accessed by their place.
        self.number = if all.access == Access::Read { nr::__NR_pread64 } else { nr::__NR_pwrite64 };
        let mut last = ABSENT;
        while done < all.len {
            last = piece(self, &all.after(done), buffer + done);
            if last <= 0 {
                break;
            }
            done += last as u64;
        }
        if done == 0 {
            return last;
        }
        if number != self.number {
            files::set_position(descriptor as u32, all.start.wrapping_add(done));
        }
        done as i64
    }

    /// Accesses what it can of the process's own memory.
    fn access_own(&mut self, own: &Remote, buffer: u64) -> i64 {
        match Forced::look(own.start, own.len) {
            Forced::Managed(piece) => sys::raw(piece.copy(own.access, buffer)),
            Forced::Host(len) => {
                let descriptor = self.args[0];
                self.make_pinned([descriptor, buffer, len, own.start, 0, 0])
            }
        }
    }

    /// Accesses what it can of another process's memory.
    fn access_other(&mut self, remote: &Remote, buffer: u64) -> i64 {
        let Some(other) = Other::of(remote.process as u32) else { return ABSENT };
        let mut bytes = vec![0; remote.len.min(WINDOW as u64) as usize];
        let (manner, given) = match remote.access {
            Access::Write => (Manner::ForcedWrite, user::read_some(buffer, &mut bytes)),
            _ => (Manner::ForcedRead, bytes.len()),
        };
        if given == 0 {
            return -i64::from(Errno::EFAULT.0);
        }
        let bytes = &mut bytes[..given];
        match other.access(self.thread.member(), manner, remote.start, bytes) {
            Some(Answer::Copied(0)) | None => ABSENT,
            Some(Answer::Copied(done)) if manner.writes() => done.into(),
            Some(Answer::Copied(done)) => {
                let written = user::write_bytes(buffer, &bytes[..done as usize]);
                sys::raw(written.map(|()| done.into()))
            }
            Some(Answer::Host(len)) => {
                self.make_pinned([self.args[0], buffer, len.into(), remote.start, 0, 0])
            }
        }
    }

    /// Waits for a child, without those stops of tracees that are a system call or a fault. Which argument says where
    /// the kernel tells what became of it.
    fn wait(&mut self, told: usize, stop: impl Fn(&Self, i64, u64) -> Option<Stop>) -> Outcome {
        let mut args = self.args;
        // A program that passes no pointer waits for the same stops.
        let mut own = [0_u64; 16];
        if args[told] == 0 {
            args[told] = (&raw mut own) as u64;
        }
        let mut has_waited = false;
        loop {
            let raw = match self.make_pinned(args) {
                // A signal that comes between two waits of the runtime's interrupts the program's one wait.
                NOT_STARTED if has_waited => RESTART,
                raw => raw,
            };
            has_waited = true;
            let Some(stop) = stop(self, raw, args[told]) else { return Outcome::Raw(raw) };
            if stop.is_for_runtime() {
                if self.leaves_stops() {
                    stop.take();
                }
                stop.go_on();
            } else if self.leaves_stops() {
                // Unless a look has let the tracee go on meanwhile.
                if stop.is_there() {
                    return Outcome::Raw(raw);
                }
            } else if stop.settle() == Settled::Stopped {
                return Outcome::Raw(raw);
            }
        }
    }

    /// Whether the program looks at what became of its children, and waits for it later.
    fn leaves_stops(&self) -> bool {
        self.number == nr::__NR_waitid && self.args[3] as u32 & nr::WNOWAIT != 0
    }

    /// The stop that `wait4` reported.
    fn stop_of_status(&self, raw: i64, told: u64) -> Option<Stop> {
        let status: u32 = user::read(told).ok().filter(|_| raw > 0)?;
        if status & 0x7f != 0x7f {
            Resumed::forget(raw as u32);
        }
        (status & 0xff == 0x7f).then(|| Stop::new(raw as u32, status >> 8))
    }

    /// The stop that `waitid` reported.
    fn stop_of_info(&self, raw: i64, told: u64) -> Option<Stop> {
        /// `CLD_DUMPED`, the last code of an end.
        const DUMPED: u32 = 3;
        /// `CLD_TRAPPED`.
        const TRAPPED: u32 = 4;
        if raw != 0 {
            return None;
        }
        // The signal, an error, a code, padding, the process, the user, the status.
        let info: [u32; 7] = user::read(told).ok()?;
        let [_, _, code, _, tracee, _, signal] = info;
        if (1..=DUMPED).contains(&code) && !self.leaves_stops() {
            Resumed::forget(tracee);
        }
        (code == TRAPPED).then(|| Stop::new(tracee, signal))
    }
}

/// The signals that a tracee's runtime may be meant by.
const RUNTIME_S: [u32; 2] = [nr::SIGSYS, tracer::FAULT];

impl Stop {
    /// Whether the stop is for the tracee's runtime: a system call that traps, a call of the runtime's, a reclaim
    /// request, a fault, or the default of a signal that it has handled.
    pub(super) fn is_for_runtime(&self) -> bool {
        /// `SYS_USER_DISPATCH`.
        const USER_DISPATCH: i32 = 2;
        if self.is_call_of_runtime() || self.is_told() {
            return true;
        }
        if self.event != 0 || !RUNTIME_S.contains(&self.signal) {
            return false;
        }
        let mut info = Info::new(0, 0);
        let args = self.request(ptrace::PTRACE_GETSIGINFO, (&raw mut info) as u64);
        // SAFETY: the place for the answer is ours.
        if unsafe { sys::call(nr::__NR_ptrace, args) }.is_err() {
            return false;
        }
        if tracer::unmark(&mut info) {
            return false;
        }
        match self.signal {
            nr::SIGSYS => info.code == USER_DISPATCH || info.request().is_some(),
            _ => tracer::is_hidden(self.tracee, &info),
        }
    }

    /// Whether the tracee still stands where it stopped.
    fn is_there(&self) -> bool {
        let mut info = Info::new(0, 0);
        let args = self.request(ptrace::PTRACE_GETSIGINFO, (&raw mut info) as u64);
        // SAFETY: the place for the answer is ours. A stopped job has no signal to tell of.
        let told = unsafe { sys::call(nr::__NR_ptrace, args) };
        told != Err(Errno::ESRCH)
    }

    /// Takes the report of the stop, which a look has left.
    pub(super) fn take(&self) {
        let options = nr::WUNTRACED | nr::WNOHANG | nr::__WALL;
        let args = [self.tracee.into(), 0, options.into(), 0];
        // SAFETY: without a place for it, no status is written.
        let _ = unsafe { sys::call(nr::__NR_wait4, args) };
    }

    pub(super) fn go_on(&self) {
        // The stop of a call is no signal.
        let is_call = self.signal & !OF_CALL == nr::SIGTRAP && !self.is_told();
        let signal = if is_call { 0 } else { self.signal };
        let args = self.request(Resumed::request_for(self.tracee), signal.into());
        // SAFETY: another process goes on. One that was killed meanwhile is waited for again.
        let _ = unsafe { sys::call(nr::__NR_ptrace, args) };
    }

    fn request(&self, request: u32, data: u64) -> [u64; 4] {
        [request.into(), self.tracee.into(), 0, data]
    }
}

/// Memory of another process to access.
struct Remote {
    process: u64,
    start: u64,
    len: u64,
    access: Access,
}

impl Remote {
    /// What follows the first `done` bytes.
    fn after(&self, done: u64) -> Self {
        Self { start: self.start.wrapping_add(done), len: self.len - done, ..*self }
    }
}

/// A word in two pages, in two aligned words.
#[derive(Clone, Copy)]
struct Cut {
    first: u64,
    /// The bits of the first word that it does not have.
    shift: u32,
}

impl Cut {
    /// `None` if a word at this address is within a page.
    fn of(address: u64) -> Option<Self> {
        let within = address % WORD;
        let is_cut = within != 0 && address % PAGE > PAGE - WORD;
        is_cut.then_some(Self { first: address - within, shift: 8 * within as u32 })
    }

    fn words(self) -> [u64; 2] {
        [self.first, self.first.wrapping_add(WORD)]
    }

    /// The word in two aligned ones.
    fn join(self, words: [Result<u64>; 2]) -> Result<u64> {
        let [low, high] = words;
        Ok(low? >> self.shift | high? << (64 - self.shift))
    }

    /// Two aligned words, with this one in them.
    fn split(self, words: [u64; 2], word: u64) -> [u64; 2] {
        let [low, high] = words;
        let kept = (1 << self.shift) - 1;
        [low & kept | word << self.shift, high & !kept | word >> (64 - self.shift)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_in_two_pages_is_cut_and_joined() {
        assert!(
            Cut::of(0x1ff8).is_none() && Cut::of(0x1ff3).is_none() && Cut::of(0x2000).is_none()
        );
        let cut = Cut::of(0x1ffb).unwrap();
        assert_eq!(cut.words(), [0x1ff8, 0x2000]);
        let [low, high] =
            cut.split([0x1111_1111_1111_1111, 0x2222_2222_2222_2222], 0x0807_0605_0403_0201);
        assert_eq!([low, high], [0x0504_0302_0111_1111, 0x2222_2222_2208_0706]);
        assert_eq!(cut.join([Ok(low), Ok(high)]), Ok(0x0807_0605_0403_0201));
    }
}
