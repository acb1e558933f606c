//! A thread's block of memory: its state, and the stack on which the runtime runs for it.
//!
//! The block is aligned to its size, so masking the stack pointer finds the state: the runtime has no
//! thread-local storage, and leaves `fs` to the program. For calls without a trap, `gs`, which hardly
//! any program uses, points to the block (`site`). The stack is the thread's alternate signal stack,
//! so the runtime never uses the program's stacks.

use crate::frame::{AltStack, Context, Info};
use crate::lock::Mutex;
use crate::member::{Child, Member};
use crate::memory::{self, Flight, Moves, Pins, Under};
use crate::quiescence::{self, Presence};
use crate::seccomp;
use crate::signal::{Held, Set};
use crate::site;
use crate::stops::Stops;
use crate::sys::{self, Errno};
use alloc::vec::Vec;
use core::arch::asm;
use core::cell::{Cell, RefCell};
use core::ptr::{NonNull, null, null_mut};
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use linux_raw_sys::general as nr;
use lock_api::RawMutex;
use pagefault_calls::Area;
use pagefault_linux::room;

/// The length and alignment of a block.
pub const BLOCK: usize = 256 << 10;
/// The length of the state at its start; a guard page follows, then the stack.
const STATE: usize = 4096;
const GUARD: usize = 4096;

/// The state of a thread, at the start of its block.
#[repr(C)]
pub struct Thread {
    /// Whether a signal waits for delivery at the exit; the assembly reads it as the first word.
    pending: AtomicU32,
    /// Whether it may stop now, for a tracer; see [`stops`](crate::stops).
    pub stops: Stops,
    /// The thread ID; the kernel zeroes it when the thread has ended and its block may be reused.
    number: AtomicU32,
    /// The waiting signal.
    info: Cell<Info>,
    /// Signals that only the runtime holds back from the program, because the host cannot block
    /// them.
    held: Held,
    /// The alternate stack that the program has set.
    pub alt_stack: Cell<AltStack>,
    /// The signals that the program believes to have blocked, but that the runtime needs.
    pub virtual_mask: Cell<Set>,
    /// The temporary mask with which the program waits.
    pub waiting_mask: Cell<Option<Set>>,
    /// The word to zero and wake at the thread's end, for the program; 0 for none.
    pub clear_at_exit: Cell<u64>,
    /// Whether the host zeroes and wakes that word itself; then it does not zero `number`.
    pub host_clears: Cell<bool>,
    /// Who frees the block.
    pub owner: Cell<Owner>,
    /// The area of restartable sequences that the host knows: its address (0 for none), its length
    /// and its signature.
    pub restartable: Cell<[u64; 3]>,
    /// Where the host finds the list of the thread's robust mutexes; 0 for nowhere.
    pub robust_list: AtomicU64,
    /// Pinned pages that the host writes by itself as long as the thread lives.
    pub kept: RefCell<Vec<Pins>>,
    /// In a passive process, where nothing is pinned: the areas to pin after a takeover.
    pub later: RefCell<Vec<Area>>,
    /// The current host call in a passive process.
    pub flight: Flight,
    /// The pages that the current call keeps resident, once all are pinned.
    pub in_use: Cell<*mut Pins>,
    /// The program's protection keys during a call, where it has any.
    pub keys: Cell<u32>,
    /// Whether a reclaim request ended the current host call after a part of its work.
    pub is_cut: Cell<bool>,
    /// Whether it could store to the program's memory.
    pub presence: Presence,
    /// Where the program's registers are while a call of its is made; null at other times.
    pub entered: Cell<*const Context>,
    /// A fault that the tracer sees before the program does.
    pub shown: Cell<Option<Info>>,
    /// The last signal that the host has told a tracer of; 0 where the runtime alone knows of a later one.
    pub told: Cell<i32>,
    /// The progress of its current fault, for events.
    pub under: Cell<Under>,
    /// The pages that moved under it, and are in no event yet.
    pub moves: Cell<Moves>,
    /// The thread's seccomp filters.
    pub seccomp: seccomp::State,
    /// The state for calls without a trap; the assembly knows its offset.
    pub site: site::State,
    /// The thread's process.
    member: Cell<NonNull<Member>>,
    /// The next unused block.
    next: Cell<*mut Thread>,
    /// The next of all blocks; written once.
    next_of_all: *mut Thread,
    /// A number that is unique in this process.
    context: Cell<u32>,
}

const _: () = assert!(size_of::<Thread>() <= STATE);

/// Who frees the block of an ended thread.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The thread itself, at its end.
    Itself,
    /// The thread that made it and waits for it (`CLONE_VFORK`).
    Waiter,
    /// The maker of the next thread: a signal may end its process while this memory lives on.
    Next,
}

/// All blocks.
static BLOCKS: Mutex<Blocks> = Mutex::new(Blocks { used: null_mut(), all: null_mut() });

struct Blocks {
    /// Those whose threads have ended, or are about to.
    used: *mut Thread,
    /// All blocks; they are never unmapped.
    all: *mut Thread,
}

// SAFETY: the lists own their blocks.
unsafe impl Send for Blocks {}

/// The number of the next thread; 0 is the start, before any thread.
static CONTEXTS: AtomicU32 = AtomicU32::new(1);

impl Thread {
    /// The calling thread, which runs on its block.
    pub fn current() -> &'static Self {
        let sp: usize;
        // SAFETY: reads a register. From the first thread's start, the runtime runs only on blocks.
        unsafe {
            asm!("mov {}, rsp", out(reg) sp, options(nomem, nostack, preserves_flags));
            &*((sp & !(BLOCK - 1)) as *const Self)
        }
    }

    /// A block for a new thread of a process.
    pub fn new(member: NonNull<Member>) -> Result<&'static Self, Errno> {
        reap();
        let taken = BLOCKS.lock().take();
        let (block, next_of_all) = match taken {
            // SAFETY: the block is mapped, was written when it was, and its thread has ended.
            Some(block) => (block, unsafe { (*block).forget_memory() }),
            None => (map_block()? as *mut Self, null_mut()),
        };
        let thread = Self {
            pending: AtomicU32::new(0),
            stops: Stops::new(),
            // Not free before the kernel zeroes this.
            number: AtomicU32::new(u32::MAX),
            info: Cell::new(Info::new(0, 0)),
            held: Held::default(),
            alt_stack: Cell::new(AltStack { flags: nr::SS_DISABLE, ..AltStack::default() }),
            virtual_mask: Cell::new(Set::EMPTY),
            waiting_mask: Cell::new(None),
            clear_at_exit: Cell::new(0),
            host_clears: Cell::new(false),
            owner: Cell::new(Owner::Itself),
            restartable: Cell::new([0; 3]),
            robust_list: AtomicU64::new(0),
            kept: RefCell::new(Vec::new()),
            later: RefCell::new(Vec::new()),
            flight: Flight::new(),
            in_use: Cell::new(null_mut()),
            keys: Cell::new(0),
            is_cut: Cell::new(false),
            presence: Presence::default(),
            entered: Cell::new(null()),
            shown: Cell::new(None),
            told: Cell::new(0),
            under: Cell::new(Under::NoFault),
            moves: Cell::new(Moves::NONE),
            seccomp: seccomp::State::default(),
            site: site::State::new(block as u64),
            member: Cell::new(member),
            next: Cell::new(null_mut()),
            next_of_all,
            context: Cell::new(CONTEXTS.fetch_add(1, Relaxed)),
        };
        // Other threads read the state of each block in the list.
        let mut blocks = BLOCKS.lock();
        // SAFETY: the block is used by no other thread, and long enough.
        unsafe {
            block.write(thread);
            if taken.is_none() {
                blocks.add(block);
            }
            Ok(&*block)
        }
    }

    /// The ID of the first other thread of this process for which `is_it` holds.
    pub fn find(&self, is_it: impl Fn(&Thread) -> bool) -> Option<u32> {
        let blocks = BLOCKS.lock();
        let found = self.others(&blocks).find(|thread| is_it(thread));
        found.map(|thread| thread.number.load(Acquire))
    }

    /// Gives a new thread this one's filters. Those that another thread sets for all meanwhile reach either this
    /// thread before, or the new one after.
    pub fn pass_filters_to(&self, child: &Self) {
        let _blocks = BLOCKS.lock();
        child.seccomp.set(self.seccomp.get());
    }

    /// Changes this thread's filters. Those that another thread sets for all come before or after.
    pub fn change_filters(
        &self,
        change: impl FnOnce(seccomp::Mode) -> sys::Result<seccomp::Mode>,
    ) -> sys::Result<()> {
        let _blocks = BLOCKS.lock();
        self.seccomp.set(change(self.seccomp.get())?);
        Ok(())
    }

    /// Changes this thread's filters, and gives all threads of its process the new ones. That needs each thread to
    /// have this one's old filters, or the first of them; returns the ID of a thread that has others.
    pub fn synchronize_filters(
        &self,
        change: impl FnOnce(seccomp::Mode) -> sys::Result<seccomp::Mode>,
    ) -> sys::Result<Option<u32>> {
        let blocks = BLOCKS.lock();
        let old = self.seccomp.get();
        let new = change(old.clone())?;
        let mut others = self.others(&blocks);
        if let Some(other) = others.find(|thread| !thread.seccomp.get().is_before(&old)) {
            return Ok(Some(other.number.load(Acquire)));
        }
        self.others(&blocks).for_each(|thread| thread.seccomp.set(new.clone()));
        self.seccomp.set(new);
        Ok(None)
    }

    /// The other threads of this process.
    fn others<'a>(&'a self, blocks: &'a Blocks) -> impl Iterator<Item = &'a Self> {
        let is_beside = |thread: &&Self| {
            !core::ptr::eq(*thread, self) && thread.member.get() == self.member.get()
        };
        blocks.iter().filter(is_beside).filter(|thread| thread.number.load(Acquire) != 0)
    }

    /// Whether an ID is that of this thread or another one of its process.
    pub fn is_beside(&self, id: u32) -> bool {
        let is_it = |thread: &Self| thread.number.load(Acquire) == id;
        id == sys::process_id() || is_it(self) || self.find(is_it).is_some()
    }

    /// Whether an ID is that of a thread in this memory, of whatever process.
    pub fn is_here(id: u32) -> bool {
        /// `KCMP_VM`.
        const MEMORY: u64 = 1;
        let own = sys::process_id();
        if id == 0 {
            return false;
        }
        if id == own || BLOCKS.lock().iter().any(|thread| thread.number.load(Acquire) == id) {
            return true;
        }
        // A new thread has not told its ID yet.
        // SAFETY: the call compares, and changes nothing.
        let compared = unsafe { sys::call(nr::__NR_kcmp, [own.into(), id.into(), MEMORY]) };
        compared == Ok(0)
    }

    /// All threads that share the memory.
    pub fn all() -> Vec<&'static Self> {
        let blocks = BLOCKS.lock();
        let live = blocks.iter().filter(|thread| thread.number.load(Acquire) != 0);
        // SAFETY: blocks are mapped for ever.
        live.map(|thread| unsafe { &*core::ptr::from_ref(thread) }).collect()
    }

    /// Whether a thread of a process other than this thread's and `member` shares the memory.
    pub fn is_memory_shared(&self, member: NonNull<Member>) -> bool {
        let own = [self.member.get(), member];
        let lives = |thread: &Thread| thread.number.load(Acquire) != 0;
        BLOCKS.lock().iter().any(|thread| lives(thread) && !own.contains(&thread.member.get()))
    }

    /// Whether no other thread, of any process, is in this memory.
    pub fn is_only(&self) -> bool {
        self.holds_of_others(|_| false)
    }

    /// Whether every other thread in this memory is quiescent.
    pub fn are_others_quiescent(&self) -> bool {
        self.holds_of_others(|other| other.presence.is_quiescent())
    }

    fn holds_of_others(&self, holds: impl Fn(&Self) -> bool) -> bool {
        let is_gone = |thread: &Self| thread.number.load(Acquire) == 0;
        BLOCKS
            .lock()
            .iter()
            .all(|thread| core::ptr::eq(thread, self) || is_gone(thread) || holds(thread))
    }

    /// Whether its process has other threads.
    pub fn is_one_of_many(&self) -> bool {
        self.find(|_| true).is_some()
    }

    /// The process that the thread is of.
    pub fn member(&self) -> &'static Member {
        // SAFETY: members are never freed while a thread is of them.
        unsafe { self.member.get().as_ref() }
    }

    /// Moves the thread to another process, after a fork.
    pub fn set_member(&self, member: NonNull<Member>) {
        self.member.set(member);
    }

    /// A number that no other thread of this process has.
    pub fn context(&self) -> u32 {
        self.context.get()
    }

    /// The lowest address of its block.
    pub fn block(&self) -> usize {
        core::ptr::from_ref(self).addr()
    }

    /// The address above its stack.
    pub fn stack_end(&self) -> usize {
        self.block() + BLOCK
    }

    /// Whether a stack pointer is within the block.
    pub fn has_stack_at(&self, sp: u64) -> bool {
        sp.wrapping_sub(self.block() as u64) <= BLOCK as u64
    }

    /// The stack, as the kernel takes it.
    pub fn own_stack(&self) -> AltStack {
        let start = self.block() + STATE + GUARD;
        AltStack {
            start: start as u64,
            len: (self.stack_end() - start) as u64,
            ..AltStack::default()
        }
    }

    /// Makes the block the calling thread's alternate stack, and makes the kernel mark it free at
    /// the thread's end.
    pub fn settle(&self) {
        let stack = self.own_stack();
        // SAFETY: the block is this thread's alone until the kernel zeroes the number, which it does
        // when the thread has left its stack for good.
        let _ = unsafe { sys::call(nr::__NR_sigaltstack, [(&raw const stack) as u64, 0]) };
        match self.host_clears.get() {
            true => self.number.store(sys::thread_id(), Release),
            false => self.clear_number_at_exit(),
        }
    }

    /// Makes the kernel zero the block's `number` when the thread has ended.
    pub fn clear_number_at_exit(&self) {
        let number = (&raw const self.number) as u64;
        // SAFETY: as in `settle`.
        let id = unsafe { sys::call(nr::__NR_set_tid_address, [number]) };
        self.number.store(id.unwrap_or(1) as u32, Release);
        self.host_clears.set(false);
    }

    /// Whether the thread has ended, for any reason.
    fn has_ended(&self) -> bool {
        let number = self.number.load(Acquire);
        if number == 0 || !self.host_clears.get() || number == u32::MAX {
            return number == 0;
        }
        // The thread is the first of its process, so both have one ID.
        let args = [number.into(), number.into(), 0];
        // SAFETY: no signal is sent.
        unsafe { sys::call(nr::__NR_tgkill, args) == Err(Errno::ESRCH) }
    }

    /// The thread ID, once it has settled.
    pub fn number(&self) -> u32 {
        self.number.load(Relaxed)
    }

    /// Frees a block that no thread uses, or that its thread is about to leave.
    pub fn retire(&self) {
        self.seccomp.set(seccomp::Mode::Off);
        BLOCKS.lock().put(self);
    }

    /// Frees the lists of a thread that has ended. Returns the next block of all.
    fn forget_memory(&self) -> *mut Self {
        drop((self.kept.take(), self.later.take()));
        self.next_of_all
    }

    /// Marks the block as without a thread: the thread was never started, or is in another process.
    pub fn abandon(&self) {
        self.number.store(0, Release);
    }

    /// Whether a signal waits for delivery.
    pub fn has_pending(&self) -> bool {
        self.pending.load(Relaxed) != 0
    }

    /// Keeps a signal for delivery at the exit. All others are blocked from now on.
    pub fn defer(&self, info: &Info) {
        self.info.set(*info);
        self.pending.store(1, Relaxed);
    }

    /// The waiting signal.
    pub fn pending(&self) -> Option<Info> {
        self.has_pending().then(|| self.info.get())
    }

    /// The signals that the runtime holds back from the program.
    pub fn held(&self) -> &Held {
        &self.held
    }

    /// Takes the waiting signal.
    pub fn take_pending(&self) -> Option<Info> {
        let info = self.pending()?;
        self.pending.store(0, Relaxed);
        Some(info)
    }
}

impl Blocks {
    fn add(&mut self, block: *mut Thread) {
        // SAFETY: the block was just written, and no other thread writes the field.
        unsafe { (*block).next_of_all = self.all };
        self.all = block;
    }

    fn iter(&self) -> impl Iterator<Item = &Thread> {
        // SAFETY: blocks are mapped for ever, and the fields that change are cells.
        let next = |thread: *mut Thread| unsafe { thread.as_ref() };
        core::iter::successors(next(self.all), move |thread| next(thread.next_of_all))
    }

    /// Takes the blocks of ended threads that are left to the next one.
    fn take_ended(&mut self) -> Vec<&'static Thread> {
        let is_left = |thread: &&Thread| thread.owner.get() == Owner::Next && thread.has_ended();
        let ended = self.iter().filter(is_left);
        // SAFETY: blocks are mapped for ever.
        let ended: Vec<_> = ended.map(|it| unsafe { &*core::ptr::from_ref(it) }).collect();
        ended.iter().for_each(|thread| thread.owner.set(Owner::Itself));
        ended
    }

    fn put(&mut self, thread: &Thread) {
        thread.next.set(self.used);
        self.used = core::ptr::from_ref(thread).cast_mut();
    }

    /// Takes a block that the kernel has marked free.
    fn take(&mut self) -> Option<*mut Thread> {
        let mut link: *mut *mut Thread = &raw mut self.used;
        // SAFETY: the list is locked, and its blocks are mapped for ever.
        unsafe {
            while let Some(thread) = (*link).as_ref() {
                if thread.number.load(Acquire) == 0 {
                    let taken = *link;
                    *link = thread.next.get();
                    return Some(taken);
                }
                link = thread.next.as_ptr();
            }
        }
        None
    }
}

/// Whether any block was ever left to the next thread.
static LEFT: AtomicBool = AtomicBool::new(false);

/// Leaves a thread's block to the maker of the next thread.
pub fn leave_to_next(thread: &Thread) {
    thread.owner.set(Owner::Next);
    LEFT.store(true, Relaxed);
}

/// Frees the blocks of threads whose processes have ended, and the records of these processes.
fn reap() {
    if !LEFT.load(Relaxed) {
        return;
    }
    let ended = BLOCKS.lock().take_ended();
    for thread in ended {
        let member = thread.member.get();
        memory::end_thread(thread);
        thread.abandon();
        let lives =
            |other: &Thread| other.owner.get() == Owner::Next && other.member.get() == member;
        let is_last = !BLOCKS.lock().iter().any(lives);
        thread.retire();
        if is_last {
            // SAFETY: its threads are gone. The supervisor frees its slot.
            unsafe { Member::end(member, Child::Lives) };
        }
    }
}

/// Locks the lists of blocks across a fork.
pub fn hold() {
    // SAFETY: `let_go` unlocks it on both sides of the fork.
    unsafe { BLOCKS.raw() }.lock();
}

/// Ends [`hold`].
pub fn let_go() {
    // SAFETY: held by this thread, or in a child by the thread of which it is a copy.
    unsafe { BLOCKS.raw().unlock() };
}

/// In a forked child, frees the blocks of the parent's other threads, and what was kept for them.
pub fn leave_others(own: &Thread) {
    let mut blocks = BLOCKS.lock();
    blocks.used = null_mut();
    let mut next = blocks.all;
    // SAFETY: blocks are mapped for ever, and their threads do not exist here.
    while let Some(thread) = unsafe { next.as_ref() } {
        next = thread.next_of_all;
        if core::ptr::eq(thread, own) {
            continue;
        }
        thread.abandon();
        thread.owner.set(Owner::Itself);
        // A field that was being changed at the fork stays.
        if let Ok(mut kept) = thread.kept.try_borrow_mut() {
            kept.clear();
        }
        if let Ok(mut later) = thread.later.try_borrow_mut() {
            later.clear();
        }
        thread.flight.abandon();
        let in_use = thread.in_use.replace(null_mut());
        if !in_use.is_null() {
            // SAFETY: complete, in the copy of a stack whose thread does not exist here.
            unsafe { in_use.drop_in_place() };
        }
        blocks.put(thread);
    }
    quiescence::after_fork_child();
}

/// Maps an aligned block, with a guard page below the stack.
fn map_block() -> Result<usize, Errno> {
    let block = match room::take(BLOCK, BLOCK) {
        Some(block) => block.as_ptr() as usize,
        None => map_apart()?,
    };
    let guard = [(block + STATE) as u64, GUARD as u64, nr::PROT_NONE.into()];
    // SAFETY: the block was just made.
    unsafe { sys::call(nr::__NR_mprotect, guard)? };
    Ok(block)
}

/// Maps an aligned block by itself.
fn map_apart() -> Result<usize, Errno> {
    let start = sys::map_private(2 * BLOCK, nr::PROT_READ | nr::PROT_WRITE)?;
    let block = start.next_multiple_of(BLOCK);
    // SAFETY: the mapping was just made, and the cut-off parts are not part of the block.
    unsafe {
        if block > start {
            sys::unmap(start, block - start)?;
        }
        sys::unmap(block + BLOCK, start + BLOCK - block)?;
        // A block does not belong in the program's core file.
        let _ = sys::advise(block, BLOCK, nr::MADV_DONTDUMP);
    }
    Ok(block)
}
