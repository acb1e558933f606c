//! Who runs: one queue of ready tasks for all CPUs, in turn.
//!
//! The kernel itself is not preempted: a task gives the CPU up where it waits, or on its way back
//! to its program when its time is over. The queues' lock is taken with interrupts disabled and is
//! held across the switch; the task that comes in releases it, so that no other CPU takes a task up
//! while its registers are still being saved.

use crate::lock::{Mutex, Spin};
use crate::task::Task;
use crate::{clock, cpu, signal, times};
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use x86_64::instructions::interrupts;

/// How a task waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Until it is woken.
    Endless,
    /// Until it is woken or a signal arrives.
    Signals,
}

struct Waiter {
    /// The address of the word that is waited on.
    word: usize,
    task: Arc<Task>,
    deadline: u64,
    patience: Patience,
}

struct Queues {
    ready: VecDeque<Arc<Task>>,
    waiting: Vec<Waiter>,
    /// Tasks that have ended, until someone else's stack is in use.
    dead: Vec<Arc<Task>>,
    idle: Option<Arc<Task>>,
    tasks: usize,
}

impl Queues {
    /// Whether so many tasks fit into each queue without the heap.
    fn has_room_for(&self, tasks: usize) -> bool {
        let smallest = self.ready.capacity().min(self.waiting.capacity());
        smallest.min(self.dead.capacity()) >= tasks
    }
}

static QUEUES: Mutex<Queues> = Mutex::new(Queues {
    ready: VecDeque::new(),
    waiting: Vec::new(),
    dead: Vec::new(),
    idle: None,
    tasks: 0,
});

/// The running task's time is over.
static EXPIRED: AtomicBool = AtomicBool::new(false);

/// What becomes of the task that gives the CPU up.
enum Then {
    Ready,
    Wait { word: usize, deadline: u64, patience: Patience },
    End,
}

/// Makes the boot code the idle task.
pub fn start(idle: Task) {
    let idle = Arc::new(idle);
    QUEUES.lock().idle = Some(idle.clone());
    // SAFETY: interrupts are disabled at boot, and the boot stack is the idle task's.
    unsafe { cpu::set_task(Arc::into_raw(idle), 0, 0) };
}

/// Lets a new task run.
pub fn add(task: Arc<Task>) {
    let mut new = Some(task);
    while new.is_some() {
        let room = interrupts::without_interrupts(|| {
            let mut queues = QUEUES.lock();
            let room = queues.tasks + 1;
            if queues.has_room_for(room)
                && let Some(task) = new.take()
            {
                queues.tasks = room;
                queues.ready.push_back(task);
            }
            room
        });
        if new.is_some() {
            grow(2 * room);
        }
    }
}

/// Makes room in the queues. The heap is not used while their lock is held: whoever holds the
/// heap's lock may be interrupted by a tick, which waits for the queues.
fn grow(room: usize) {
    let mut ready = VecDeque::with_capacity(room);
    let mut waiting = Vec::with_capacity(room);
    let mut dead = Vec::with_capacity(room);
    interrupts::without_interrupts(|| {
        let mut queues = QUEUES.lock();
        if queues.has_room_for(room) {
            return;
        }
        ready.append(&mut queues.ready);
        waiting.append(&mut queues.waiting);
        dead.append(&mut queues.dead);
        mem::swap(&mut ready, &mut queues.ready);
        mem::swap(&mut waiting, &mut queues.waiting);
        mem::swap(&mut dead, &mut queues.dead);
    });
}

/// The idle task's life: sleeps until an interrupt makes someone ready.
pub fn idle() -> ! {
    loop {
        interrupts::disable();
        if QUEUES.lock().ready.is_empty() {
            interrupts::enable_and_hlt();
            interrupts::disable();
        }
        give_up(Then::Ready);
        interrupts::enable();
        reap();
    }
}

/// Lets the next task run if the running one's time is over. Called on the way back to a program.
pub fn yield_if_expired() {
    if EXPIRED.swap(false, Ordering::Relaxed) {
        yield_now();
    }
}

/// Lets the next task run.
pub fn yield_now() {
    interrupts::without_interrupts(|| give_up(Then::Ready));
    reap();
}

/// Waits while a word holds a value; may return early for no reason.
pub fn wait(word: &AtomicU32, value: u32) {
    wait_until(word, value, u64::MAX, Patience::Endless);
}

/// Waits while a word holds a value, until a time.
pub fn wait_until(word: &AtomicU32, value: u32, deadline: u64, patience: Patience) {
    interrupts::without_interrupts(|| {
        let queues = QUEUES.lock();
        if word.load(Ordering::SeqCst) != value {
            return;
        }
        // Who sends a signal notes it first and then looks here for the task: under the lock, either
        // the signal is seen now or the sender finds the task waiting.
        if patience == Patience::Signals && signal::is_pending() {
            return;
        }
        let word = core::ptr::from_ref(word).addr();
        switch(queues, Then::Wait { word, deadline, patience });
    });
    reap();
}

/// Wakes every task that waits on a word.
pub fn wake(word: &AtomicU32) {
    let word = core::ptr::from_ref(word).addr();
    wake_where(|waiter| waiter.word == word);
}

/// Wakes a task whose wait may be ended by a signal.
pub fn interrupt(id: u32) {
    wake_where(|waiter| waiter.task.id == id && waiter.patience == Patience::Signals);
}

/// Called at every tick: wakes those whose time has come, and ends the running task's turn.
pub fn tick() {
    EXPIRED.store(true, Ordering::Relaxed);
    let now = clock::nanoseconds();
    wake_where(|waiter| waiter.deadline <= now);
}

fn wake_where(which: impl Fn(&Waiter) -> bool) {
    interrupts::without_interrupts(|| {
        let mut queues = QUEUES.lock();
        let mut at = 0;
        while at < queues.waiting.len() {
            if which(&queues.waiting[at]) {
                let waiter = queues.waiting.swap_remove(at);
                queues.ready.push_back(waiter.task);
            } else {
                at += 1;
            }
        }
    });
}

/// Ends the running task.
pub fn end() -> ! {
    interrupts::disable();
    give_up(Then::End);
    unreachable!("a task that has ended runs")
}

fn give_up(then: Then) {
    switch(QUEUES.lock(), then);
}

/// The running task.
pub fn current() -> &'static Task {
    // SAFETY: the scheduler keeps the running task alive: it is in no queue, and its reference is
    // only put back into one, or among the dead, by the switch away from it. A task that asks is
    // running, so the reference it gets is good as long as it can use it.
    unsafe { &*cpu::task() }
}

/// Takes the next task's side of a switch. Interrupts are disabled.
fn switch(mut queues: lock_api::MutexGuard<'static, Spin, Queues>, then: Then) {
    // SAFETY: `set_task` was given this pointer from an `Arc` whose count it left raised.
    let previous = unsafe { Arc::from_raw(cpu::task()) };
    let from = previous.saved.get();
    let next = match queues.ready.pop_front() {
        Some(task) => task,
        None if matches!(then, Then::Ready) => {
            let _ = Arc::into_raw(previous);
            return;
        }
        None => queues.idle.clone().expect("the scheduler has started"),
    };
    times::switch(&previous, &next);
    match then {
        Then::Ready if previous.id == 0 => drop(previous),
        Then::Ready => queues.ready.push_back(previous),
        Then::Wait { word, deadline, patience } => {
            queues.waiting.push(Waiter { word, task: previous, deadline, patience });
        }
        Then::End => {
            queues.tasks -= 1;
            queues.dead.push(previous);
        }
    }
    // SAFETY: the lock keeps `saved` ours.
    let to = unsafe { *next.saved.get() };
    // SAFETY: interrupts are disabled, and the switch follows.
    unsafe { cpu::set_task(Arc::as_ptr(&next), next.id, next.stack_top()) };
    load_space(&next);
    let _ = Arc::into_raw(next);
    // The lock is released on the other side, by `switched`.
    mem::forget(queues);
    // SAFETY: `from` is the place of the task whose stack this is, which stays alive in a queue or
    // among the dead; `to` was saved by this function or made by `Task::new`.
    unsafe { switch_stacks(from, to) };
    switched();
}

/// Loads a task's page table and thread pointer; a kernel task keeps whatever is loaded.
pub fn load_space(task: &Task) {
    if let Some(space) = task.space() {
        // SAFETY: the kernel half was copied from the reference table, and the task keeps the space
        // alive; when it lets go of it, `PcSpace`'s end makes this CPU leave it.
        unsafe { cpu::load(space.space().root()) };
    }
    if let Some(thread) = &task.thread {
        cpu::set_thread_pointer(thread.pointer.load(Ordering::Relaxed));
    }
}

/// Ends a switch on the side of the task that came in.
extern "C" fn switched() {
    // SAFETY: the lock was taken before the switch, and its guard forgotten, for us to release.
    unsafe { QUEUES.force_unlock() };
}

/// Lets go of the tasks that have ended, now that another stack is in use.
fn reap() {
    // One at a time, and dropped with the lock free: that gives memory back to the heap.
    while let Some(task) =
        interrupts::without_interrupts(|| QUEUES.try_lock().and_then(|mut q| q.dead.pop()))
    {
        drop(task);
    }
}

/// Where a new task begins: ends the switch and goes to its trap frame.
#[unsafe(naked)]
pub extern "C" fn task_start() {
    core::arch::naked_asm!(
        "call {switched}",
        "jmp {ret}",
        switched = sym switched,
        ret = sym crate::entry::trap_return,
    );
}

/// Saves the registers that a call preserves, and takes up another stack.
#[unsafe(naked)]
unsafe extern "C" fn switch_stacks(from: *mut u64, to: u64) {
    core::arch::naked_asm!(
        "push rbx",
        "push rbp",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov [rdi], rsp",
        "mov rsp, rsi",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbp",
        "pop rbx",
        "ret",
    );
}
