//! Interleavings that repeat: several tasks, of which one runs at a time, as a seed decides.
//!
//! Each task is a thread of the host that runs only while it has the turn. At every point where
//! another CPU could come in between (a lock, an access, a change of an entry, a wait) the seed
//! decides whether the turn passes on, and to whom. As nothing else decides, a seed names an
//! interleaving: the one that fails can be run again.
//!
//! A kernel that is not preempted has another kind of interleavings, in which a task goes on until
//! it waits: a busy loop on what another thread will do never ends.

use crate::arch::Architecture;
use crate::chance::{Chance, mix};
use crate::computer::Computer;
use crate::context;
use crate::cpu::run_on;
use core::any::Any;
use core::cell::{Cell, RefCell};
use core::fmt::{self, Write as _};
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

/// What one task does.
pub type Task<'a> = Box<dyn FnOnce() + Send + 'a>;

/// Where the turn may pass from one task to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switching {
    /// At every point: tasks on processors of their own, or preempted.
    Anywhere,
    /// At any point, but seldom: one task may do all of its work while another stands between two steps.
    Seldom,
    /// At every point, to the next task in order: processors of equal speed, to count how often they wait for
    /// each other. The seed decides only which waits for a word end early.
    Evenly,
    /// Where a task waits, for a lock, a device or another task, or pauses
    /// ([`Machine::pause`](pagefault_machine::Machine::pause)): one processor, and nobody preempted.
    WhereTasksWait,
}

/// How an interleaving went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Explored {
    /// Points at which the turn could have passed on.
    pub steps: u64,
    /// Times it did.
    pub switches: u64,
    /// Times a task found a lock taken, and waited until it was free.
    pub waits: u64,
    /// Of these, the waits for the lock that was waited for most often.
    pub most_waits: u64,
    /// Times a task paused, or waited until another one woke it.
    pub pauses: u64,
    /// A digest of who ran when: equal for equal interleavings.
    pub digest: u64,
}

/// More steps than this, and the tasks are taken to run in circles.
const STEP_LIMIT: u64 = 20_000_000;

impl<A: Architecture> Computer<A> {
    /// Runs tasks in the interleaving that a seed names, and returns when all are done. Task `n`
    /// runs on CPU `n` modulo the number of CPUs. The turn may pass on anywhere.
    ///
    /// # Panics
    /// As [`explore_with`](Self::explore_with).
    pub fn explore(&self, seed: u64, tasks: Vec<Task<'_>>) -> Explored {
        self.explore_with(Switching::Anywhere, seed, tasks)
    }

    /// Runs tasks in the interleaving that a seed names among those of a kind, and returns when all
    /// are done.
    ///
    /// Between the tasks everything is under the seed's control only if they meet on this crate's
    /// locks, words and computers: what blocks a thread otherwise stops them all.
    ///
    /// # Panics
    /// When a task panics, with its payload, after the seed was printed; when all tasks wait for
    /// each other, with what each waits for; when they run in circles.
    pub fn explore_with(&self, switching: Switching, seed: u64, tasks: Vec<Task<'_>>) -> Explored {
        let cpus = self.cpus();
        let on_cpu = |(number, task): (u32, _)| -> Task<'_> {
            Box::new(move || {
                run_on(number % cpus);
                let task: Task<'_> = task;
                task();
            })
        };
        run(switching, seed, (0..).zip(tasks).map(on_cpu).collect())
    }
}

/// Gives the seed an occasion to pass the turn on, as while waiting for a device; outside
/// [`Computer::explore`], yields to other threads.
pub fn yield_point() {
    if !is_task() {
        std::thread::yield_now();
        return;
    }
    with_task(|schedule, me| match schedule.switching {
        Switching::Anywhere | Switching::Seldom | Switching::Evenly => schedule.point(me),
        Switching::WhereTasksWait => schedule.give_way(me),
    });
}

/// One interleaving under way.
struct Schedule {
    state: Mutex<State>,
    /// Where each task sleeps while it has not the turn.
    turns: Box<[Condvar]>,
    chance: Chance,
    switching: Switching,
    /// The turn passes on at one point in this many, on average.
    one_in: u64,
}

struct State {
    /// The task that has the turn.
    turn: usize,
    tasks: Vec<TaskState>,
    explored: Explored,
    /// How often each lock was waited for, by its address.
    waited_for: HashMap<usize, u64>,
    /// A task panicked or none can continue: the others unwind.
    failure: Option<Failure>,
}

enum Failure {
    /// A task panicked with this.
    Panic(Box<dyn Any + Send>),
    /// No task can continue.
    Report(String),
}

/// What a task waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Obstacle {
    Mutex,
    ReadersWriterLock,
    /// A word that another task changes ([`Machine::wait`](pagefault_machine::Machine::wait)).
    Word,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mutex => "mutex",
            Self::ReadersWriterLock => "readers-writer lock",
            Self::Word => "word",
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum TaskState {
    Ready,
    /// Until something is released at the address.
    Waiting(Obstacle, usize),
    Done,
}

/// The panic of a task that ends because another one failed.
struct Aborted;

thread_local! {
    /// Whether the thread is a task; kept apart because every lock asks it.
    static IS_TASK: Cell<bool> = const { Cell::new(false) };
    static TASK: RefCell<Option<(Arc<Schedule>, usize)>> = const { RefCell::new(None) };
}

fn run(switching: Switching, seed: u64, tasks: Vec<Task<'_>>) -> Explored {
    let count = tasks.len();
    let chance = Chance::new(seed, 0);
    let schedule = Arc::new(Schedule {
        state: Mutex::new(State {
            turn: count,
            tasks: vec![TaskState::Ready; count],
            explored: Explored::default(),
            waited_for: HashMap::new(),
            failure: None,
        }),
        turns: (0..count).map(|_| Condvar::new()).collect(),
        // Some bugs need many switches, others long runs between two.
        one_in: if switching == Switching::Seldom { 16 } else { 2 } << chance.below(6),
        switching,
        chance,
    });
    let contexts = context::lease(count as u32);
    std::thread::scope(|scope| {
        for (number, task) in tasks.into_iter().enumerate() {
            let schedule = schedule.clone();
            let context = contexts.number(number as u32);
            scope.spawn(move || {
                context::adopt(context);
                schedule.run_task(number, task);
            });
        }
        schedule.pass_on(&mut schedule.state.lock());
    });
    let mut state = schedule.state.lock();
    match state.failure.take() {
        None => Explored {
            waits: state.waited_for.values().sum(),
            most_waits: state.waited_for.values().copied().max().unwrap_or(0),
            ..state.explored
        },
        Some(Failure::Report(report)) => panic!("{report} (seed {seed})"),
        Some(Failure::Panic(payload)) => {
            eprintln!("the interleaving of seed {seed} failed at step {}", state.explored.steps);
            resume_unwind(payload)
        }
    }
}

/// What the rest of the crate calls.
impl Schedule {
    fn run_task(self: Arc<Self>, number: usize, task: Task<'_>) {
        TASK.set(Some((self.clone(), number)));
        IS_TASK.set(true);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            drop(self.await_turn(number, self.state.lock()));
            task();
        }));
        IS_TASK.set(false);
        let mut state = self.state.lock();
        state.tasks[number] = TaskState::Done;
        match outcome {
            Err(payload) if !payload.is::<Aborted>() => {
                self.fail(&mut state, Failure::Panic(payload))
            }
            _ => {}
        }
        self.pass_on(&mut state);
    }

    /// Perhaps passes the turn on.
    fn point(&self, me: usize) {
        let mut state = self.step();
        let passes = match self.switching {
            Switching::WhereTasksWait => false,
            Switching::Evenly => true,
            Switching::Anywhere | Switching::Seldom => self.chance.below(self.one_in) == 0,
        };
        if passes {
            self.pass_on(&mut state);
        }
        drop(self.await_turn(me, state));
    }

    /// Passes the turn on, perhaps to the same task.
    fn give_way(&self, me: usize) {
        let mut state = self.step();
        state.explored.pauses += 1;
        self.pass_on(&mut state);
        drop(self.await_turn(me, state));
    }

    fn step(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock();
        state.explored.steps += 1;
        if state.explored.steps > STEP_LIMIT {
            let report = format!("the tasks run in circles: no end after {STEP_LIMIT} steps");
            self.fail(&mut state, Failure::Report(report));
        }
        state
    }

    /// Passes the turn on until something is released at `address`.
    fn block(&self, me: usize, what: Obstacle, address: usize) {
        let mut state = self.state.lock();
        state.explored.pauses += u64::from(what == Obstacle::Word);
        state.tasks[me] = TaskState::Waiting(what, address);
        self.pass_on(&mut state);
        drop(self.await_turn(me, state));
    }

    fn release(&self, address: usize) {
        for task in &mut self.state.lock().tasks {
            if matches!(*task, TaskState::Waiting(_, at) if at == address) {
                *task = TaskState::Ready;
            }
        }
    }

    /// Gives the turn to a task that can go on: as chance will have it, or the next in order.
    fn pass_on(&self, state: &mut State) {
        let is_ready = |(_, task): &(usize, &TaskState)| **task == TaskState::Ready;
        let ready = state.tasks.iter().enumerate().filter(is_ready).count() as u64;
        if ready == 0 {
            let is_waiting = |task: &TaskState| matches!(task, TaskState::Waiting(..));
            if state.tasks.iter().any(is_waiting) {
                let report = report(&state.tasks);
                self.fail(state, Failure::Report(report));
            }
            return;
        }
        let nth = match self.switching {
            Switching::Evenly => {
                let after = |(number, _): &(usize, &TaskState)| *number <= state.turn;
                let before = state.tasks.iter().enumerate().filter(is_ready).filter(after).count();
                before % ready as usize
            }
            _ => self.chance.below(ready) as usize,
        };
        let chosen = state.tasks.iter().enumerate().filter(is_ready).nth(nth);
        let Some((next, _)) = chosen else { return };
        if next != state.turn {
            state.turn = next;
            let Explored { steps, switches, digest, .. } = &mut state.explored;
            *switches += 1;
            *digest = mix(*digest ^ mix(*steps) ^ next as u64);
            self.turns[next].notify_one();
        }
    }

    /// Sleeps until it is this task's turn, or ends it if another one failed.
    fn await_turn<'a>(
        &'a self,
        me: usize,
        mut state: MutexGuard<'a, State>,
    ) -> MutexGuard<'a, State> {
        while state.turn != me && state.failure.is_none() {
            self.turns[me].wait(&mut state);
        }
        if state.failure.is_some() {
            drop(state);
            resume_unwind(Box::new(Aborted));
        }
        state
    }

    fn fail(&self, state: &mut State, failure: Failure) {
        state.failure.get_or_insert(failure);
        for turn in &self.turns {
            turn.notify_all();
        }
    }
}

fn report(tasks: &[TaskState]) -> String {
    let mut report = String::from("deadlock:");
    for (number, task) in tasks.iter().enumerate() {
        if let TaskState::Waiting(what, address) = task {
            // Writing to a string does not fail.
            let _ = write!(report, " task {number} waits for the {what} at {address:#x};");
        }
    }
    report
}

/// Whether the calling thread is a task that has to take turns. A task that unwinds has not: it
/// runs together with the others, which unwind too.
pub(crate) fn is_task() -> bool {
    IS_TASK.get() && !std::thread::panicking()
}

/// A point at which another task may come in between.
pub(crate) fn point() {
    if is_task() {
        with_task(Schedule::point);
    }
}

/// Lets the other tasks run for a moment.
pub(crate) fn pause() {
    if is_task() {
        with_task(Schedule::give_way);
    } else {
        std::thread::yield_now();
    }
}

/// Lets the other tasks run until something is released at `address`.
///
/// To be called by a task only.
pub(crate) fn block(what: Obstacle, address: usize) {
    with_task(|schedule, me| schedule.block(me, what, address));
}

/// Counts a lock that a task found taken.
pub(crate) fn found_taken(address: usize) {
    if is_task() {
        with_task(|schedule, _| {
            *schedule.state.lock().waited_for.entry(address).or_default() += 1;
        });
    }
}

/// Lets the tasks that wait for something at `address` try again.
pub(crate) fn release(address: usize) {
    if IS_TASK.get() {
        with_task(|schedule, _| schedule.release(address));
    }
}

/// True once in `limit` times on average, for a task.
pub(crate) fn happens_once_in(limit: u64) -> bool {
    let mut happens = false;
    with_task(|schedule, _| happens = schedule.chance.below(limit) == 0);
    happens
}

fn with_task(f: impl FnOnce(&Schedule, usize)) {
    let task = TASK.with_borrow(|task| task.clone());
    if let Some((schedule, me)) = task {
        f(&schedule, me);
    }
}
