//! A thread of another process under `ptrace(2)`: stop, read, change, resume.
//!
//! Threads are seized, never attached to, so that the program's own stops (`SIGSTOP`, the terminal)
//! keep their meaning.

use libc::{c_int, c_long, c_uint, c_void, pid_t, user_regs_struct};
use std::io::{self, IoSlice, IoSliceMut};
use std::time::{Duration, Instant};
use std::{mem, ptr};

/// The bytes of a set of signals, and of what one request writes.
const WORD: usize = size_of::<u64>();

/// A thread that this process traces, or is about to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tracee(pub pid_t);

/// Why a traced thread no longer runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It has executed a program, which has not run yet.
    Exec,
    /// It enters or leaves a system call.
    Call,
    /// A signal is about to be delivered.
    Signal(c_int),
    /// Its process stops, as by `SIGSTOP`.
    Group,
    /// We asked it to stop.
    Interrupted,
    /// It has ended.
    Ended,
}

/// How a stopped thread resumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// Until its next event.
    Run,
    /// Until it enters or leaves a system call.
    ToCall,
    /// It stays stopped with its process, until the process is continued.
    Listen,
    /// It is no longer traced.
    Detach,
}

impl Tracee {
    /// Begins to trace a running thread. It stops where it executes a program.
    ///
    /// If we end first, the thread is killed: a program without its runtime must not run.
    pub fn seize(self) -> io::Result<()> {
        let options =
            libc::PTRACE_O_TRACEEXEC | libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL;
        self.request(libc::PTRACE_SEIZE, 0, options as usize)
    }

    /// Stops it; [`wait_any`] reports the stop.
    pub fn interrupt(self) -> io::Result<()> {
        self.request(libc::PTRACE_INTERRUPT, 0, 0)
    }

    /// Resumes it, with a signal or without (0).
    pub fn resume(self, how: Resume, signal: c_int) -> io::Result<()> {
        let request = match how {
            Resume::Run => libc::PTRACE_CONT,
            Resume::ToCall => libc::PTRACE_SYSCALL,
            Resume::Listen => libc::PTRACE_LISTEN,
            Resume::Detach => libc::PTRACE_DETACH,
        };
        self.request(request, 0, signal as usize)
    }

    /// Its registers.
    pub fn registers(self) -> io::Result<user_regs_struct> {
        // SAFETY: all zero bytes are registers.
        let mut registers: user_regs_struct = unsafe { mem::zeroed() };
        self.request(libc::PTRACE_GETREGS, 0, (&raw mut registers) as usize)?;
        Ok(registers)
    }

    /// Changes its registers.
    pub fn set_registers(self, registers: &user_regs_struct) -> io::Result<()> {
        self.request(libc::PTRACE_SETREGS, 0, ptr::from_ref(registers) as usize)
    }

    /// Changes the set of signals that it blocks.
    pub fn set_mask(self, mask: u64) -> io::Result<()> {
        self.request(libc::PTRACE_SETSIGMASK, WORD, (&raw const mask) as usize)
    }

    /// Reads memory, up to the first unreadable page.
    pub fn read(self, address: u64, to: &mut [u8]) -> io::Result<usize> {
        let remote = libc::iovec { iov_base: address as *mut c_void, iov_len: to.len() };
        let mut local = [IoSliceMut::new(to)];
        // SAFETY: IoSliceMut is an iovec of writable memory; the other iovec is in the tracee, and
        // the host checks it.
        let read = unsafe {
            libc::process_vm_readv(self.0, local.as_mut_ptr().cast(), 1, &raw const remote, 1, 0)
        };
        usize::try_from(read).map_err(|_| io::Error::last_os_error())
    }

    /// Writes to writable memory.
    pub fn write(self, address: u64, bytes: &[u8]) -> io::Result<()> {
        let remote = libc::iovec { iov_base: address as *mut c_void, iov_len: bytes.len() };
        let local = IoSlice::new(bytes);
        // SAFETY: as above; IoSlice is an iovec of readable memory.
        let written = unsafe {
            let local = (&raw const local).cast();
            libc::process_vm_writev(self.0, local, 1, &raw const remote, 1, 0)
        };
        match usize::try_from(written) {
            Ok(all) if all == bytes.len() => Ok(()),
            Ok(_) => Err(io::Error::from_raw_os_error(libc::EFAULT)),
            Err(_) => Err(io::Error::last_os_error()),
        }
    }

    /// Writes to private memory, whether it may be written or not, in words: up to seven bytes after the last
    /// one become zeros.
    pub fn poke(self, address: u64, bytes: &[u8]) -> io::Result<()> {
        for (number, part) in bytes.chunks(WORD).enumerate() {
            let mut word = [0; WORD];
            word[..part.len()].copy_from_slice(part);
            let at = address as usize + number * WORD;
            self.request(libc::PTRACE_POKEDATA, at, usize::from_ne_bytes(word))?;
        }
        Ok(())
    }

    /// Waits until it stops or ends, but gives up at a deadline.
    pub fn wait_until(self, deadline: Instant) -> io::Result<Option<Stop>> {
        const PAUSE: Duration = Duration::from_micros(20);
        loop {
            match wait(self.0, libc::__WALL | libc::WNOHANG) {
                Ok(Some((_, stop))) => return Ok(Some(stop)),
                Ok(None) if Instant::now() >= deadline => return Ok(None),
                Ok(None) => std::thread::sleep(PAUSE),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn request(self, request: c_uint, address: usize, data: usize) -> io::Result<()> {
        // SAFETY: the memory that the requests above read or write belongs to their callers and
        // outlives the call; the other arguments are numbers.
        let answer =
            unsafe { libc::ptrace(request, self.0, address as *mut c_void, data as *mut c_void) };
        if answer == -1 as c_long { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// A traced thread that has stopped or ended, and was not reported yet.
pub fn wait_any() -> Option<(Tracee, Stop)> {
    loop {
        match wait(-1, libc::__WALL | libc::WNOHANG) {
            Ok(found) => return found,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // No child is left.
            Err(_) => return None,
        }
    }
}

fn wait(process: pid_t, options: c_int) -> io::Result<Option<(Tracee, Stop)>> {
    let mut status = 0;
    // SAFETY: the status is written to memory of ours.
    match unsafe { libc::waitpid(process, &raw mut status, options) } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        found => Ok(Some((Tracee(found), stop(status)))),
    }
}

fn stop(status: c_int) -> Stop {
    if !libc::WIFSTOPPED(status) {
        return Stop::Ended;
    }
    let signal = libc::WSTOPSIG(status);
    match status >> 16 {
        libc::PTRACE_EVENT_EXEC => Stop::Exec,
        libc::PTRACE_EVENT_STOP if signal == libc::SIGTRAP => Stop::Interrupted,
        libc::PTRACE_EVENT_STOP => Stop::Group,
        _ if signal == libc::SIGTRAP | 0x80 => Stop::Call,
        _ => Stop::Signal(signal),
    }
}
