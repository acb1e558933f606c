//! The processes of the tree, and the charge of each in frames.

use crate::MOST_AREAS;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicI32, AtomicU32, AtomicU64};

/// The most processes of a tree.
pub const MOST_PROCESSES: usize = 4096;

/// The values of [`Slot::word`].
pub mod ask {
    /// No request.
    pub const IDLE: u32 = 0;
    /// The process wants to execute a program.
    pub const ASKED: u32 = 1;
    /// The supervisor waits for the exec.
    pub const SEIZED: u32 = 2;
    /// The supervisor refuses; [`Slot::error`](super::Slot::error) says why.
    pub const REFUSED: u32 = 3;
}

/// The tree's record of one process.
#[repr(C, align(64))]
pub struct Slot {
    /// 0 free, 1 taken.
    state: AtomicU32,
    /// The process's number as the supervisor sees it; 0 until the supervisor knows it.
    pub pid: AtomicU32,
    /// A futex: one of [`ask`].
    pub word: AtomicU32,
    /// The frames charged to this process.
    charged: AtomicU32,
    /// The thread that is about to execute, by its number in its own process namespace.
    pub tid: AtomicU32,
    /// The signals that the program it is about to execute blocks.
    pub mask: AtomicU64,
    /// The descriptor of the control memory in this process.
    pub control_fd: AtomicI32,
    /// The socket to the supervisor in this process.
    pub socket_fd: AtomicI32,
    /// The file of the runtime's code in this process; −1 for none.
    pub code_fd: AtomicI32,
    /// The swap file of each area in this process; −1 for none.
    pub swap_fds: [AtomicI32; MOST_AREAS],
    /// The descriptor, in this process, whose reader answers accesses from [`outside`](crate::outside); −1 for none.
    pub server_fd: AtomicI32,
    /// 1 once the process executes a program without a runtime.
    unmanaged: AtomicU32,
    /// 1 if the server is asked for frames.
    frames_asked: AtomicU32,
    /// 1 if the last access from outside got no answer.
    unserved: AtomicU32,
    /// The host's error number if the supervisor refused.
    pub error: AtomicI32,
    /// The soft limit of descriptors that the program sees; the real one may be higher.
    pub nofile_soft: AtomicU64,
    /// The hard limit of descriptors that the program sees.
    pub nofile_hard: AtomicU64,
    /// The number from which the runtime's descriptors lie, unless the program took their numbers.
    pub kept_from: AtomicU64,
    /// The highest soft limit that the program had: all descriptors above are the runtime's.
    pub nofile_most: AtomicU64,
    /// How far the program's hard limit of file sizes is below infinity, if it is below the real
    /// one.
    pub file_size_below: AtomicU64,
    /// How far the program's soft and hard limits of address space are below infinity; the host's
    /// are higher, since they also count the runtime's own mappings.
    pub addresses_below: [AtomicU64; 2],
    /// The same for the limit of private writable memory.
    pub data_below: [AtomicU64; 2],
    /// The signals that the program handles, bit n − 1 for signal n; the host knows the runtime's handlers too.
    pub handled: AtomicU64,
    /// The signals that it ignores.
    pub ignored: AtomicU64,
    /// The number of shares that this process is in.
    shared: AtomicU32,
    /// The ticket of the taker of the slot; then its child's number, as the parent sees it.
    forked: AtomicU32,
    /// 1 while the host manages the process's pages.
    passive: AtomicU32,
    /// One more than the slot that the process's memory is charged to, if that is another process's, as
    /// for a `vfork` child. 0 while the slot is free, so that its next process shares nothing.
    memory: AtomicU32,
    /// Whether another process has ever shared the memory that is charged to this slot.
    is_shared: AtomicU32,
    /// The pages of this process in each swap area, as it last said.
    stored: [AtomicU32; MOST_AREAS],
}

/// One taking of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u32);

/// The bit of a ticket that no process number has.
const TICKET: u32 = 1 << 31;

/// How the supervisor comes to know a process that shares the memory of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Birth {
    /// By the process ID that the host writes into its slot ([`Slot::number`]) before it can run.
    Numbered,
    /// By its own message to the supervisor.
    Told,
}

/// What a program does with a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// The kernel's default.
    Default,
    /// Nothing.
    Ignored,
    /// A handler of its own.
    Handled,
}

/// Who manages a process's pages, and answers its faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeper {
    /// The host: the process is passive.
    Host,
    /// Its runtime.
    Runtime,
}

/// In [`Slot::memory`]: the process sends the supervisor a message.
const TOLD: u32 = 1 << 31;

impl Slot {
    /// Whether it is taken.
    pub fn is_taken(&self) -> bool {
        self.state.load(Acquire) != 0
    }

    /// Whether the host manages the process's pages, and answers its faults.
    pub fn is_passive(&self) -> bool {
        self.passive.load(Relaxed) != 0
    }

    /// Notes who manages the process's pages.
    pub fn set_keeper(&self, keeper: Keeper) {
        self.passive.store((keeper == Keeper::Host).into(), Relaxed);
    }

    /// Whether the process has executed a program without a runtime: its memory is the host's alone.
    pub fn is_unmanaged(&self) -> bool {
        self.unmanaged.load(Acquire) != 0
    }

    /// Notes that the process executes such a program.
    pub fn begin_unmanaged(&self) {
        self.unmanaged.store(1, Release);
    }

    /// Notes that the process has its runtime after all.
    pub fn end_unmanaged(&self) {
        self.unmanaged.store(0, Release);
    }

    /// Asks the server for frames, which the asker then wakes.
    pub fn ask_for_frames(&self) {
        self.frames_asked.store(1, Release);
    }

    /// Whether somebody asks for frames: the server's answer to that.
    pub fn take_frames_asked(&self) -> bool {
        self.frames_asked.load(Relaxed) != 0 && self.frames_asked.swap(0, AcqRel) != 0
    }

    /// Whether the last access from outside got no answer: the next one need not wait long.
    pub fn is_unserved(&self) -> bool {
        self.unserved.load(Relaxed) != 0
    }

    /// Notes that an access from outside got an answer.
    pub fn note_answer(&self) {
        self.unserved.store(0, Relaxed);
    }

    /// Notes that an access from outside got no answer.
    pub fn note_silence(&self) {
        self.unserved.store(1, Relaxed);
    }

    /// Distinguishes this use of the slot from earlier and later ones.
    pub fn ticket(&self) -> Ticket {
        Ticket(self.forked.load(Acquire))
    }

    /// Where the host may write a child's process ID when it makes the child.
    pub const fn number(&self) -> &AtomicU32 {
        &self.forked
    }

    /// The slot that the process's memory is charged to, if that is another process's.
    pub fn memory(&self) -> Option<u32> {
        (self.memory.load(Acquire) & !TOLD).checked_sub(1)
    }

    /// Whether another process has ever shared the memory that is charged to this slot.
    pub fn is_shared(&self) -> bool {
        self.is_shared.load(Acquire) != 0
    }

    /// Whether the process will send the supervisor a message.
    pub fn is_told_of(&self) -> bool {
        self.memory.load(Acquire) & TOLD != 0
    }

    /// Claims the duty to free the slot of a child that the supervisor does not know yet. The parent, which
    /// has its ticket or process ID, and the supervisor may both try; returns whether the caller is the one.
    pub fn claim(&self, ticket: Option<Ticket>, number: u32) -> bool {
        let ticket = ticket.map(|ticket| ticket.0);
        let mut words = ticket.into_iter().chain((number != 0).then_some(number));
        words.any(|word| self.forked.compare_exchange(word, 0, AcqRel, Relaxed).is_ok())
    }

    /// Copies another process's descriptors, limits and actions for signals.
    pub fn inherit(&self, from: &Self) {
        let numbers = [&self.control_fd, &self.socket_fd, &self.code_fd];
        let theirs = [&from.control_fd, &from.socket_fd, &from.code_fd];
        let numbers = numbers.into_iter().chain(&self.swap_fds);
        for (own, from) in numbers.zip(theirs.into_iter().chain(&from.swap_fds)) {
            own.store(from.load(Relaxed), Relaxed);
        }
        for (own, from) in self.copied().zip(from.copied()) {
            own.store(from.load(Relaxed), Relaxed);
        }
    }

    /// The words that are copied.
    fn copied(&self) -> impl Iterator<Item = &AtomicU64> {
        let own = [&self.nofile_soft, &self.nofile_hard, &self.nofile_most, &self.kept_from];
        let own = own.into_iter().chain([&self.file_size_below]);
        own.chain(&self.addresses_below)
            .chain(&self.data_below)
            .chain([&self.handled, &self.ignored])
    }

    /// Notes what the program does with a signal.
    pub fn note_action(&self, signal: i32, action: Disposition) {
        let bit = 1 << (signal - 1);
        let words = [(&self.handled, Disposition::Handled), (&self.ignored, Disposition::Ignored)];
        for (word, meant) in words {
            match action == meant {
                true => word.fetch_or(bit, Relaxed),
                false => word.fetch_and(!bit, Relaxed),
            };
        }
    }

    /// Notes what the program does with every signal.
    pub fn note_actions(&self, actions: impl Iterator<Item = (i32, Disposition)>) {
        let [mut handled, mut ignored] = [0, 0];
        for (signal, action) in actions {
            let bit = 1 << (signal - 1);
            match action {
                Disposition::Handled => handled |= bit,
                Disposition::Ignored => ignored |= bit,
                Disposition::Default => {}
            }
        }
        self.handled.store(handled, Relaxed);
        self.ignored.store(ignored, Relaxed);
    }

    /// Notes a child's process ID as its parent sees it, if the supervisor sees the same. Does nothing if
    /// the slot has been freed since, and perhaps taken again.
    pub fn set_forked(&self, ticket: Ticket, number: u32) {
        let _ = self.forked.compare_exchange(ticket.0, number, AcqRel, Relaxed);
    }

    /// The number of a child that the supervisor does not know yet.
    pub fn unborn(&self) -> Option<u32> {
        let number = Some(self.forked.load(Acquire)).filter(|word| (1..TICKET).contains(word));
        number.filter(|_| self.is_taken() && self.pid.load(Relaxed) == 0)
    }

    /// The frames charged to its process.
    pub fn charged(&self) -> u32 {
        self.charged.load(Relaxed)
    }

    /// The pages of its process in each swap area, by its last report.
    pub fn stored(&self) -> [u32; MOST_AREAS] {
        core::array::from_fn(|area| self.stored[area].load(Relaxed))
    }

    /// Reports how many pages the process has in a swap area.
    pub fn set_stored(&self, area: usize, pages: u32) {
        if let Some(stored) = self.stored.get(area) {
            stored.store(pages, Relaxed);
        }
    }

    /// The frames of its process, including shared ones.
    pub fn resident(&self) -> u32 {
        self.charged().saturating_add(self.shared.load(Relaxed))
    }
}

/// All slots, and the charge of the tree.
#[repr(C)]
pub struct Slots {
    /// The frames charged over the tree.
    charged: AtomicU64,
    /// The most frames that were charged at once.
    peak: AtomicU64,
    /// Where the next search for a free slot begins.
    hint: AtomicU32,
    /// One more than the highest slot that was ever taken: searches stop there.
    used: AtomicU32,
    slots: [Slot; MOST_PROCESSES],
}

impl Slots {
    /// The slot of this number, or `None` if there is none.
    pub fn get(&self, slot: u32) -> Option<&Slot> {
        self.slots.get(slot as usize)
    }

    /// Takes a free slot without a charge; `None` if the tree has [`MOST_PROCESSES`].
    pub fn take(&self) -> Option<u32> {
        let turn = self.hint.fetch_add(1, Relaxed);
        let begin = turn as usize;
        (0..MOST_PROCESSES).map(|step| (begin + step) % MOST_PROCESSES).find_map(|index| {
            let slot = &self.slots[index];
            // First: a reader that sees the slot taken searches far enough.
            self.used.fetch_max(index as u32 + 1, Release);
            slot.state.compare_exchange(0, 1, AcqRel, Relaxed).ok()?;
            slot.pid.store(0, Relaxed);
            slot.forked.store(TICKET | turn, Relaxed);
            slot.word.store(ask::IDLE, Relaxed);
            slot.error.store(0, Relaxed);
            slot.swap_fds.iter().for_each(|file| file.store(-1, Relaxed));
            slot.server_fd.store(-1, Relaxed);
            slot.unserved.store(0, Relaxed);
            slot.frames_asked.store(0, Relaxed);
            slot.unmanaged.store(0, Relaxed);
            slot.passive.store(0, Relaxed);
            slot.file_size_below.store(0, Relaxed);
            slot.addresses_below
                .iter()
                .chain(&slot.data_below)
                .chain([&slot.handled, &slot.ignored])
                .for_each(|word| word.store(0, Relaxed));
            Some(index as u32)
        })
    }

    /// Notes that a process about to be made will use memory that is charged to another slot.
    pub fn share_memory(&self, slot: u32, memory: u32, birth: Birth) {
        let (Some(own), Some(owner)) = (self.get(slot), self.get(memory)) else { return };
        owner.is_shared.store(1, Release);
        let told = if birth == Birth::Told { TOLD } else { 0 };
        own.memory.store((memory + 1) | told, Release);
    }

    /// Notes that a process has its own memory from now on, which no other process shares.
    pub fn leave_memory(&self, slot: u32) {
        if let Some(own) = self.get(slot) {
            own.is_shared.store(0, Relaxed);
            own.memory.store(0, Release);
        }
    }

    /// Notes that the process of a slot is gone, but its memory is used by others.
    pub fn outlive(&self, slot: u32) {
        if let Some(own) = self.get(slot) {
            own.forked.store(0, Relaxed);
            own.pid.store(0, Relaxed);
        }
    }

    /// The slots of other processes whose memory is charged to a slot.
    pub fn sharers(&self, memory: u32) -> impl Iterator<Item = u32> {
        let uses = move |(_, found): &(u32, &Slot)| found.memory() == Some(memory);
        self.all_taken().filter(uses).map(|(slot, _)| slot)
    }

    /// Frees a slot, and takes back its process's charge.
    pub fn release(&self, slot: u32) {
        let Some(found) = self.get(slot) else { return };
        self.discharge(slot);
        self.leave_memory(slot);
        found.forked.store(0, Relaxed);
        found.pid.store(0, Relaxed);
        found.state.store(0, Release);
    }

    /// Charges frames to a process, unless the tree would then exceed `limit`.
    ///
    /// Returns whether it did. A process that is killed within this call leaves the tree charged
    /// too much, never too little: the limit holds.
    pub fn charge(&self, slot: u32, frames: u32, limit: u64) -> bool {
        let Some(found) = self.get(slot) else { return false };
        let more = |charged: u64| {
            charged.checked_add(u64::from(frames)).filter(|charged| *charged <= limit)
        };
        let Ok(before) = self.charged.fetch_update(Relaxed, Relaxed, more) else { return false };
        self.peak.fetch_max(before + u64::from(frames), Relaxed);
        found.charged.fetch_add(frames, Relaxed);
        true
    }

    /// Takes back at most `frames` of a process's charge.
    pub fn uncharge(&self, slot: u32, frames: u32) {
        let Some(found) = self.get(slot) else { return };
        let less = |charged: u32| Some(charged.saturating_sub(frames));
        let before = found.charged.fetch_update(Relaxed, Relaxed, less).unwrap_or(0);
        self.lower(u64::from(before.min(frames)));
    }

    /// Takes back all of a process's charge: it has ended, or executed another program.
    pub fn discharge(&self, slot: u32) {
        let Some(found) = self.get(slot) else { return };
        found.shared.store(0, Relaxed);
        found.stored.iter().for_each(|stored| stored.store(0, Relaxed));
        self.lower(u64::from(found.charged.swap(0, Relaxed)));
    }

    /// Notes that a process has joined a share.
    pub fn join_share(&self, slot: u32) {
        if let Some(found) = self.get(slot) {
            found.shared.fetch_add(1, Relaxed);
        }
    }

    /// Notes that a process has left a share.
    pub fn leave_share(&self, slot: u32) {
        let Some(found) = self.get(slot) else { return };
        let less = |shared: u32| shared.checked_sub(1);
        let _ = found.shared.fetch_update(Relaxed, Relaxed, less);
    }

    /// Moves the charge for a frame from a process to a share.
    pub fn begin_share(&self, slot: u32) {
        let Some(found) = self.get(slot) else { return };
        let less = |charged: u32| charged.checked_sub(1);
        let _ = found.charged.fetch_update(Relaxed, Relaxed, less);
    }

    /// Moves the charge for a frame from a share to its last process.
    pub fn take_over(&self, slot: u32) {
        if let Some(found) = self.get(slot) {
            found.charged.fetch_add(1, Relaxed);
        }
    }

    /// Takes back the charge for a frame whose share is empty.
    pub fn end_share(&self) {
        self.lower(1);
    }

    fn lower(&self, frames: u64) {
        let less = |charged: u64| Some(charged.saturating_sub(frames));
        let _ = self.charged.fetch_update(Relaxed, Relaxed, less);
    }

    /// The process with the most frames, own and shared, of those that `may_be` allows and that have more
    /// than `least`.
    pub fn richest(&self, least: u32, may_be: impl Fn(u32) -> bool) -> Option<u32> {
        let rich = self.all_taken().filter(|(_, slot)| slot.resident() > least);
        let found = rich.filter(|(number, _)| may_be(*number));
        found.max_by_key(|(_, slot)| slot.resident()).map(|(number, _)| number)
    }

    /// How many times a slot was taken, modulo 2³²: the next search begins at that slot.
    pub fn begun(&self) -> u32 {
        self.hint.load(Relaxed)
    }

    /// The slots that were ever taken, so that a tree of three processes does not search 4,096
    /// slots.
    fn used(&self) -> &[Slot] {
        let used = (self.used.load(Acquire) as usize).min(MOST_PROCESSES);
        &self.slots[..used]
    }

    /// The taken slots, with their numbers.
    pub fn all_taken(&self) -> impl Iterator<Item = (u32, &Slot)> {
        (0..).zip(self.used()).filter(|(_, slot)| slot.is_taken())
    }

    /// The slots of children that the supervisor does not know yet, and their numbers.
    pub fn unborn(&self) -> impl Iterator<Item = (u32, u32)> {
        (0..).zip(self.used()).filter_map(|(slot, found)| Some((slot, found.unborn()?)))
    }

    /// The slot of a process, by its number as the supervisor sees it, or will see it.
    pub fn of(&self, process: u32) -> Option<&Slot> {
        self.get(self.number_of(process)?)
    }

    /// The number of that slot.
    pub fn number_of(&self, process: u32) -> Option<u32> {
        let has_number =
            |slot: &Slot| slot.pid.load(Relaxed) == process || slot.unborn() == Some(process);
        let mut taken = self.all_taken().filter(|_| process != 0);
        taken.find(|(_, slot)| has_number(slot)).map(|(number, _)| number)
    }

    /// The frames charged over the tree.
    pub fn charged(&self) -> u64 {
        self.charged.load(Relaxed)
    }

    /// The most frames that were charged at once.
    pub fn peak(&self) -> u64 {
        self.peak.load(Relaxed)
    }

    /// The number of processes of the tree.
    pub fn taken(&self) -> usize {
        self.used().iter().filter(|slot| slot.is_taken()).count()
    }
}

#[cfg(all(test, feature = "std"))]
mod tests;
