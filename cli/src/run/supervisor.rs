//! The supervisor: a process beside the tree that places the runtime in every program of the tree, and
//! frees the slots of processes that have ended.
//!
//! The launcher forks it, and it outlives the launcher if the tree does. It has no terminal and none of the
//! caller's files, and ends with the last process of the tree. Its first thread does all tracing; the
//! second one compresses (`compress.rs`). A process is traced from its request to the first instruction
//! of the new program.

mod exec;
mod leave;
mod outlived;
mod stopped;
mod victims;

use super::compress;
use super::launcher::Shared;
use super::loader::Layout;
use super::place::Placer;
use crate::signals::Signals;
use exec::Traced;
use leave::leave_the_caller;
use pagefault_control::{
    Control, Departed, Message, RECLAIM_SIGNAL, RECLAIM_VALUE, SERVE_VALUE, Slot, ask, tree,
};
use pagefault_linux::store::extents;
use rustix::event::{PollFd, PollFlags, Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::process::{Pid, PidfdFlags, Signal};
use rustix::thread::futex;
use std::collections::{HashMap, HashSet};
use std::io::{self, IoSliceMut};
use std::mem::{ManuallyDrop, MaybeUninit};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use victims::Victims;

/// The sources of events: these, or a slot.
const MESSAGES: u64 = u64::MAX;
const STOPS: u64 = u64::MAX - 1;
const LAUNCHER: u64 = u64::MAX - 2;
/// How often to check the processes without a pidfd.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 500_000_000 };
const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// Runs until the tree is gone. The process must have one thread, and needs nothing but the
/// arguments.
pub fn run(socket: OwnedFd, tree: Shared<'_>, layout: Layout, start: Start) -> io::Result<()> {
    // `leave` closes it with the caller's files, by number.
    let socket = ManuallyDrop::new(socket);
    let own = [&*socket, tree.memory].into_iter().chain(tree.swap.iter().flatten());
    let mut own = leave_the_caller(&own.collect::<Vec<_>>())?.into_iter();
    let (Some(socket), Some(memory)) = (own.next(), own.next()) else {
        return Err(Errno::BADF.into());
    };
    rustix::net::sockopt::set_socket_passcred(&socket, true)?;
    let files = own.collect();
    let departed = Departed::new(memory, tree.control.plan(), files, extents::punch)?;
    Supervisor::new(socket, departed, tree.control, layout, start)?.serve()
}

/// How the tree was started.
#[derive(Clone, Copy)]
pub struct Start {
    /// The slot of the program that the command was asked to run.
    pub first: u32,
    /// The command's own process.
    pub launcher: Pid,
}

/// A descriptor that is readable when a traced thread has stopped.
fn stops() -> io::Result<OwnedFd> {
    let set = Signals::of([libc::SIGCHLD]);
    // SAFETY: the set is valid; the descriptor is a new one.
    unsafe {
        match libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
            -1 => Err(io::Error::last_os_error()),
            descriptor => Ok(OwnedFd::from_raw_fd(descriptor)),
        }
    }
}

/// A process of the tree.
struct Member {
    process: Pid,
    /// Its pidfd; `None` if no descriptor was free.
    end: Option<OwnedFd>,
}

impl Member {
    fn has_ended(&self) -> bool {
        match &self.end {
            Some(end) => ready(end, PollFlags::IN).contains(PollFlags::IN),
            None => rustix::process::test_kill_process(self.process).is_err(),
        }
    }

    /// A copy of one of its descriptors. `EBADF`: it has none of this number.
    fn descriptor(&self, number: i32) -> Result<OwnedFd, Errno> {
        let process = self.end.as_ref().ok_or(Errno::MFILE)?.as_raw_fd();
        // SAFETY: the call takes numbers, and makes a descriptor.
        match unsafe { libc::syscall(libc::SYS_pidfd_getfd, process, number, 0) } {
            -1 => Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::PERM)),
            // SAFETY: just made, and nobody else's.
            made => Ok(unsafe { OwnedFd::from_raw_fd(made as i32) }),
        }
    }
}

struct Supervisor<'a> {
    control: &'a Control,
    departed: Departed,
    placer: Placer,
    /// The slot of the program that the command was asked to run.
    first: u32,
    /// Whether that program has begun.
    begun: bool,
    /// Readable when the launcher has ended; `None` once that is known.
    launcher: Option<OwnedFd>,
    /// Whether the launcher was killed, and the tree with it.
    is_doomed: bool,
    /// Whether the compressor was started, or could not be.
    compresses: bool,
    /// The processes that were asked for frames.
    victims: Victims,
    /// Whether a process has asked for frames since the last search for children that were killed
    /// early.
    short: bool,
    /// Slots and process IDs of children that had sent nothing and were gone at the last search.
    unborn: Vec<(u32, u32)>,
    socket: OwnedFd,
    stops: OwnedFd,
    events: OwnedFd,
    members: HashMap<u32, Member>,
    /// Slots whose processes are gone, but whose memory others use.
    outlived: HashSet<u32>,
    /// By process ID.
    traced: HashMap<i32, Traced>,
}

impl<'a> Supervisor<'a> {
    fn new(
        socket: OwnedFd,
        departed: Departed,
        control: &'a Control,
        layout: Layout,
        Start { first, launcher }: Start,
    ) -> io::Result<Self> {
        let events = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let stops = stops()?;
        let launcher = match rustix::process::pidfd_open(launcher, PidfdFlags::empty()) {
            Err(Errno::SRCH) => return Err(Errno::SRCH.into()),
            launcher => launcher.ok(),
        };
        let watched = launcher.as_ref().map(|launcher| (launcher, LAUNCHER));
        for (file, about) in [(&socket, MESSAGES), (&stops, STOPS)].into_iter().chain(watched) {
            let data = epoll::EventData::new_u64(about);
            epoll::add(&events, file, data, epoll::EventFlags::IN)?;
        }
        let (members, traced) = (HashMap::new(), HashMap::new());
        Ok(Self {
            control,
            departed,
            placer: Placer::new(layout, control),
            first,
            begun: false,
            launcher,
            is_doomed: false,
            compresses: false,
            victims: Victims::default(),
            short: false,
            unborn: Vec::new(),
            socket,
            stops,
            events,
            members,
            outlived: HashSet::new(),
            traced,
        })
    }

    fn serve(&mut self) -> io::Result<()> {
        loop {
            let mut found = [MaybeUninit::uninit(); 64];
            let unwatched = self.members.values().any(|member| member.end.is_none());
            let found = match epoll::wait(&self.events, &mut found, unwatched.then_some(&LOOK)) {
                Ok((found, _)) => &*found,
                Err(Errno::INTR) => &[],
                Err(error) => return Err(error.into()),
            };
            let mut left = false;
            for event in found {
                match event.data.u64() {
                    MESSAGES => {
                        self.receive();
                        if std::mem::take(&mut self.short) {
                            self.look_for_unborn();
                        }
                        let flags = event.flags;
                        left = flags.contains(epoll::EventFlags::HUP);
                    }
                    STOPS => self.look_at_stops(),
                    LAUNCHER => self.launcher_ended(),
                    slot => self.ended(slot as u32),
                }
            }
            if left {
                self.tell(tree::GONE);
                return Ok(());
            }
            if unwatched {
                self.look_for_ends();
            }
        }
    }

    /// Receives all waiting messages.
    fn receive(&mut self) {
        loop {
            let mut packet = [0; Message::LEN + 1];
            let mut space =
                [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4), ScmCredentials(1))];
            let mut extra = RecvAncillaryBuffer::new(&mut space);
            let mut parts = [IoSliceMut::new(&mut packet)];
            let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
            let len = match rustix::net::recvmsg(&self.socket, &mut parts, &mut extra, flags) {
                // End of file or an empty packet; the hang-up event tells which.
                Ok(received) if received.bytes == 0 => return,
                Ok(received) => received.bytes,
                Err(Errno::INTR) => continue,
                Err(_) => return,
            };
            let sender = extra.drain().find_map(|message| match message {
                RecvAncillaryMessage::ScmCredentials(sender) => Some(sender.pid),
                _ => None,
            });
            if let (Some(sender), Some(message)) = (sender, Message::from_bytes(&packet[..len])) {
                self.obey(sender, message);
            }
        }
    }

    fn obey(&mut self, sender: Pid, message: Message) {
        if self.is_doomed {
            kill(sender);
        }
        match message {
            Message::Born { slot } => drop(self.enrol(sender, slot)),
            Message::Cancel { .. } => self.cancel(sender),
            // A second request starts no second compressor.
            Message::Compress { .. } if std::mem::replace(&mut self.compresses, true) => {}
            Message::Compress { .. } => compress::start(self.departed.file(), self.control),
            Message::Reclaim { slot } => {
                self.short = true;
                self.request_reclaim(slot);
            }
            Message::Serve { slot } => self.signal(slot, SERVE_VALUE),
            Message::Exec { slot } => {
                let asked = self.enrol(sender, slot).and_then(|()| self.seize(sender, slot));
                let Some(found) = self.control.slots.get(slot) else { return };
                match asked {
                    Ok(()) => answer(found, ask::SEIZED),
                    Err(errno) => {
                        found.error.store(errno.raw_os_error(), Relaxed);
                        answer(found, ask::REFUSED);
                    }
                }
            }
        }
    }

    /// Asks the process with the most frames to evict some for the asking one.
    fn request_reclaim(&mut self, asking: u32) {
        // A process in another one's memory shares what that one is charged with.
        let others = self.control.slots.get(asking).and_then(Slot::memory);
        let richest =
            self.victims.richest(&self.control.slots, others.unwrap_or(asking), self.kept());
        let Some(slot) = richest else { return };
        if self.is_unmanaged(slot) {
            self.look_at_unmanaged(slot);
        } else if self.wake_server(slot).is_none() {
            self.signal(slot, RECLAIM_VALUE);
        }
    }

    fn is_unmanaged(&self, slot: u32) -> bool {
        self.control.slots.get(slot).is_some_and(Slot::is_unmanaged)
    }

    /// Asks a process's server for frames, if it has one: a tracer may have stopped all its threads.
    fn wake_server(&self, slot: u32) -> Option<()> {
        let asked = self.control.slots.get(slot)?;
        let number = asked.server_fd.load(Acquire);
        let server = self.member_with(slot)?.descriptor(number).ok()?;
        // Otherwise it may be a file of the program's that has got the number.
        if asked.server_fd.load(Acquire) != number {
            return None;
        }
        asked.ask_for_frames();
        rustix::io::write(&server, &1_u64.to_ne_bytes()).ok().map(drop)
    }

    /// Sends a process a signal for its runtime, stopped or not.
    fn signal(&self, slot: u32, value: u64) {
        if self.is_unmanaged(slot) {
            return;
        }
        let Some(member) = self.member_with(slot) else { return };
        // A program that has not begun yet has no handler, and the signal's default action kills.
        if self.traced.contains_key(&member.process.as_raw_nonzero().get()) {
            return;
        }
        // SAFETY: all zero bytes are a siginfo_t.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        info.si_signo = RECLAIM_SIGNAL;
        info.si_code = libc::SI_QUEUE;
        // SAFETY: the value follows the process and the user, 24 bytes after the beginning.
        unsafe { (&raw mut info).cast::<u64>().add(3).write(value) };
        // Without a descriptor of it, its process ID may have been reused.
        let Some(end) = &member.end else { return };
        let send = || {
            let (end, at) = (end.as_raw_fd(), &raw const info);
            // SAFETY: the information outlives the call. If the process has ended, the call fails.
            unsafe { libc::syscall(libc::SYS_pidfd_send_signal, end, RECLAIM_SIGNAL, at, 0) };
        };
        let process = member.process.as_raw_nonzero().get();
        if stopped::is_stopped(process) {
            // If it cannot be traced, another one is asked.
            let _ = stopped::request_reclaim(process, send);
        } else {
            send();
        }
    }

    /// The frames that a process may always keep: at most half of its part of the limit, so that somebody
    /// can give when the limit is reached, however many processes there are.
    fn kept(&self) -> u32 {
        const MOST: u64 = 64;
        let processes = self.control.slots.taken().max(1) as u64;
        (self.control.frames() / processes / 2).min(MOST) as u32
    }

    /// Watches a process that has a slot.
    fn enrol(&mut self, process: Pid, slot: u32) -> Result<(), Errno> {
        let found = self.control.slots.get(slot).ok_or(Errno::INVAL)?;
        match self.members.get(&slot) {
            Some(member) if member.process == process => return Ok(()),
            // Another living process has it.
            Some(member) if rustix::process::test_kill_process(member.process).is_ok() => {
                return Err(Errno::BUSY);
            }
            _ => {}
        }
        found.pid.store(process.as_raw_nonzero().get() as u32, Relaxed);
        match self.watch(process, slot) {
            // It ended before its message came, and its parent no longer shares pages with it.
            Err(Errno::SRCH) => {
                self.leave_memory(slot);
                Err(Errno::SRCH)
            }
            watched => watched,
        }
    }

    /// Registers the process of a slot, so that its end is noticed.
    fn watch(&mut self, process: Pid, slot: u32) -> Result<(), Errno> {
        let end = match rustix::process::pidfd_open(process, PidfdFlags::empty()) {
            Ok(end) => {
                let data = epoll::EventData::new_u64(u64::from(slot));
                epoll::add(&self.events, &end, data, epoll::EventFlags::IN)?;
                Some(end)
            }
            Err(Errno::SRCH) => return Err(Errno::SRCH),
            // No descriptor is free, so it is checked from time to time.
            Err(_) => None,
        };
        self.members.insert(slot, Member { process, end });
        Ok(())
    }

    /// Frees the slot of a process that has ended or is no longer managed.
    fn ended(&mut self, slot: u32) {
        if let Some(member) = self.members.remove(&slot) {
            if let Some(end) = &member.end {
                let _ = epoll::delete(&self.events, end);
            }
            self.leave_memory(slot);
            if slot == self.first && !is_hung_up(&self.socket) {
                self.tell(tree::OUTLIVES);
            }
        }
    }

    /// Ends the tree if the launcher ended before the program: a kill of the launcher means the whole
    /// tree.
    fn launcher_ended(&mut self) {
        let Some(launcher) = self.launcher.take() else { return };
        let _ = epoll::delete(&self.events, &launcher);
        self.is_doomed = match self.members.get(&self.first) {
            Some(program) => !program.has_ended(),
            None => !self.begun,
        };
        if self.is_doomed {
            // Children that have sent nothing yet are killed at their first message.
            self.members.values().for_each(|member| kill(member.process));
        }
    }

    /// Frees what a process held, when its memory is gone.
    fn let_go(&self, slot: u32) {
        // If the file cannot be read, the tree is charged too much; its limits still hold.
        let _ = self.departed.leave_all(self.control, slot);
    }

    /// Tells the launcher the state of the tree.
    fn tell(&self, state: u32) {
        self.control.tree.store(state, Release);
        let _ = futex::wake(&self.control.tree, futex::Flags::empty(), u32::MAX >> 1);
    }

    fn look_for_ends(&mut self) {
        let gone = |member: &Member| member.end.is_none() && member.has_ended();
        let ended: Vec<u32> =
            self.members.iter().filter(|(_, member)| gone(member)).map(|(slot, _)| *slot).collect();
        ended.into_iter().for_each(|slot| self.ended(slot));
    }

    /// Frees the slots of children that were killed before their first message. If a child was gone at
    /// the last search, any message of its own has been received by now.
    fn look_for_unborn(&mut self) {
        for (slot, number) in std::mem::take(&mut self.unborn) {
            if self.control.slots.get(slot).is_some_and(|found| found.claim(None, number)) {
                self.let_go(slot);
                self.control.slots.release(slot);
            }
        }
        let is_gone = |(_, number): &(u32, u32)| {
            let process = Pid::from_raw(*number as i32);
            process.is_some_and(|process| {
                rustix::process::test_kill_process(process) == Err(Errno::SRCH)
            })
        };
        self.unborn = self.control.slots.unborn().filter(is_gone).collect();
    }
}

/// Kills a process, if it still exists.
fn kill(process: Pid) {
    let _ = rustix::process::kill_process(process, Signal::KILL);
}

/// Answers a process that waits on its slot.
fn answer(slot: &Slot, word: u32) {
    slot.word.store(word, Release);
    let _ = futex::wake(&slot.word, futex::Flags::empty(), u32::MAX >> 1);
}

/// Whether no process holds the other end of a socket.
pub fn is_hung_up(socket: &OwnedFd) -> bool {
    ready(socket, PollFlags::empty()).contains(PollFlags::HUP)
}

/// The events for which a descriptor is ready.
fn ready(descriptor: &OwnedFd, wanted: PollFlags) -> PollFlags {
    let mut poll = [PollFd::new(descriptor, wanted)];
    match rustix::event::poll(&mut poll, Some(&NOW)) {
        Ok(_) => poll[0].revents(),
        Err(_) => PollFlags::empty(),
    }
}
