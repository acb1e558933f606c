//! Who runs: one queue of ready tasks for all CPUs, in turn.
//!
//! The kernel itself is not preempted: a task gives the CPU up where it waits, or on its way back
//! to its program when its time is over. The queues' lock is taken with interrupts disabled and is
//! held across the switch; the task that comes in releases it, so that no other CPU takes a task up
//! while its registers are still being saved.
//!
//! A CPU without a task to run sleeps in its idle task; whoever makes a task ready wakes one of
//! those that sleep by an interrupt.

use crate::lock::{Mutex, Spin};
use crate::task::Task;
use crate::{apic, clock, cpu, process, shootdown, signal, times};
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem;
use core::sync::atomic::{AtomicU32, Ordering};
use x86_64::instructions::interrupts;

/// How a task waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Until it is woken.
    Endless,
    /// Until it is woken or a signal arrives.
    Signals,
    /// Until it is woken or has to end.
    Death,
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
    /// Tasks that have ended, until another stack is in use.
    dead: Vec<Arc<Task>>,
    tasks: usize,
    /// The idle task of each CPU that is at work.
    idle: [Option<Arc<Task>>; cpu::LIMIT],
    /// The number of the task that each CPU runs.
    running: [u32; cpu::LIMIT],
    /// The CPUs that sleep until an interrupt, as a set of bits.
    sleeping: u32,
}

impl Queues {
    /// Whether this many tasks fit into each queue without the heap.
    fn has_room_for(&self, tasks: usize) -> bool {
        let smallest = self.ready.capacity().min(self.waiting.capacity());
        smallest.min(self.dead.capacity()) >= tasks
    }

    /// Lets a task run, on a CPU that has nothing to do if there is one.
    fn make_ready(&mut self, task: Arc<Task>) {
        let sleeping = self.sleeping & task.cpus.load(Ordering::Relaxed);
        self.ready.push_back(task);
        let own = cpu::number();
        if sleeping & 1 << own != 0 {
            // An interrupt of its sleep does this; it looks here when it is over.
            self.sleeping &= !(1 << own);
        } else if sleeping != 0 {
            let cpu = sleeping.trailing_zeros();
            self.sleeping &= !(1 << cpu);
            apic::interrupt(cpu, apic::LOOK);
        }
    }

    /// Whether any task is ready that may run on a CPU.
    fn has_ready_for(&self, cpu: u32) -> bool {
        self.ready.iter().any(|task| task.may_run_on(cpu))
    }

    /// Takes the first ready task that may run on a CPU.
    fn take_ready_for(&mut self, cpu: u32) -> Option<Arc<Task>> {
        let at = self.ready.iter().position(|task| task.may_run_on(cpu))?;
        self.ready.remove(at)
    }

    fn wake_where(&mut self, which: impl Fn(&Waiter) -> bool) {
        let mut at = 0;
        while at < self.waiting.len() {
            if which(&self.waiting[at]) {
                let waiter = self.waiting.swap_remove(at);
                self.make_ready(waiter.task);
            } else {
                at += 1;
            }
        }
    }
}

static QUEUES: Mutex<Queues> = Mutex::new(Queues {
    ready: VecDeque::new(),
    waiting: Vec::new(),
    dead: Vec::new(),
    tasks: 0,
    idle: [const { None }; cpu::LIMIT],
    running: [0; cpu::LIMIT],
    sleeping: 0,
});

/// What becomes of the task that gives the CPU up.
enum Then {
    Ready,
    Wait { word: usize, deadline: u64, patience: Patience },
    End,
}

/// Makes a CPU's boot code its idle task. Interrupts are disabled.
pub fn start(idle: Task) {
    let (idle, cpu) = (Arc::new(idle), cpu::number() as usize);
    let id = idle.id;
    {
        let mut queues = QUEUES.lock();
        queues.idle[cpu] = Some(idle.clone());
        queues.running[cpu] = id;
    }
    // SAFETY: interrupts are disabled at boot, and the boot stack is the idle task's.
    unsafe { cpu::set_task(Arc::into_raw(idle), id, 0) };
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
                queues.make_ready(task);
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

/// An idle task: sleeps until an interrupt reports a ready task.
pub fn idle() -> ! {
    let own = 1 << cpu::number();
    loop {
        interrupts::disable();
        let nobody = {
            let mut queues = QUEUES.lock();
            let nobody = !queues.has_ready_for(cpu::number());
            queues.sleeping |= if nobody { own } else { 0 };
            nobody
        };
        if nobody {
            // From here on, making a task ready sends an interrupt, which ends the halt.
            interrupts::enable_and_hlt();
            interrupts::disable();
            QUEUES.lock().sleeping &= !own;
        }
        give_up(Then::Ready);
        interrupts::enable();
        reap();
    }
}

/// Lets the next task run if the running one's time is over. Called on the way back to a program.
pub fn yield_if_expired() {
    if cpu::take_expired() {
        yield_now();
    }
}

/// Lets the next task run.
pub fn yield_now() {
    cpu::assert_may_sleep();
    interrupts::without_interrupts(|| give_up(Then::Ready));
    reap();
}

/// Waits while a word holds a value; may return early for no reason.
pub fn wait(word: &AtomicU32, value: u32) {
    wait_until(word, value, u64::MAX, Patience::Endless);
}

/// Waits while a word holds a value, until a time.
pub fn wait_until(word: &AtomicU32, value: u32, deadline: u64, patience: Patience) {
    cpu::assert_may_sleep();
    interrupts::without_interrupts(|| {
        let queues = QUEUES.lock();
        if word.load(Ordering::SeqCst) != value {
            return;
        }
        // Who sends a signal notes it first and then looks here for the task: under the lock, either
        // the signal is seen now or the sender finds the task waiting.
        let is_over = match patience {
            Patience::Endless => false,
            Patience::Signals => signal::is_pending(),
            Patience::Death => process::current().ends_this_thread(),
        };
        if is_over {
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
    interrupts::without_interrupts(|| QUEUES.lock().wake_where(|waiter| waiter.word == word));
}

/// Lets a task see a signal: its wait ends if a signal may end it, and if it runs its program on
/// another CPU, that one looks.
pub fn interrupt(id: u32) {
    interrupts::without_interrupts(|| {
        let mut queues = QUEUES.lock();
        queues.wake_where(|waiter| waiter.task.id == id && waiter.patience != Patience::Endless);
        let cpu = (0..).zip(&queues.running).find(|(_, running)| **running == id);
        if let Some((cpu, _)) = cpu
            && cpu != cpu::number()
        {
            apic::interrupt(cpu, apic::LOOK);
        }
    });
}

/// Called at every tick of each CPU: ends the running task's turn. The first CPU also wakes those
/// whose time has come.
pub fn tick() {
    cpu::expire();
    if cpu::number() == 0 {
        let now = clock::nanoseconds();
        QUEUES.lock().wake_where(|waiter| waiter.deadline <= now);
    }
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
    let cpu = cpu::number() as usize;
    // SAFETY: `set_task` was given this pointer from an `Arc` whose count it left raised.
    let previous = unsafe { Arc::from_raw(cpu::task()) };
    let from = previous.saved.get();
    let stays = previous.is_idle() || previous.may_run_on(cpu as u32);
    let next = match queues.take_ready_for(cpu as u32) {
        Some(task) => task,
        None if matches!(then, Then::Ready) && stays => {
            let _ = Arc::into_raw(previous);
            return;
        }
        None => queues.idle[cpu].clone().expect("the CPU has an idle task"),
    };
    times::switch(&previous, &next);
    match then {
        Then::Ready if previous.is_idle() => drop(previous),
        Then::Ready if stays => queues.ready.push_back(previous),
        Then::Ready => queues.make_ready(previous),
        Then::Wait { word, deadline, patience } => {
            queues.waiting.push(Waiter { word, task: previous, deadline, patience });
        }
        Then::End => {
            queues.tasks -= 1;
            queues.dead.push(previous);
        }
    }
    queues.running[cpu] = next.id;
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

/// Loads a task's page table and thread pointer; a kernel task keeps whatever is loaded. Called
/// with interrupts disabled.
pub fn load_space(task: &Task) {
    // The task keeps the space alive; when it lets go of it, `PcSpace`'s end makes all CPUs leave.
    shootdown::enter(task.space().map(|space| space.space()));
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
