//! Atomics with every access as a step, and all orders in which actors can take their steps.
//!
//! An actor is a thread that waits at each step until it may continue, or is killed there. So one
//! actor runs at a time. [`explore`] runs a scenario once for each order.

use core::sync::atomic::Ordering;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

macro_rules! atomic {
    ($name:ident, $of:ident, $value:ty) => {
        /// An atomic of which each access is a step.
        #[repr(transparent)]
        pub struct $name(core::sync::atomic::$of);

        impl $name {
            pub const fn new(value: $value) -> Self {
                Self(core::sync::atomic::$of::new(value))
            }

            pub fn load(&self, order: Ordering) -> $value {
                step();
                self.0.load(order)
            }

            pub fn store(&self, value: $value, order: Ordering) {
                step();
                self.0.store(value, order);
            }

            pub fn fetch_update(
                &self,
                set: Ordering,
                fetch: Ordering,
                change: impl FnMut($value) -> Option<$value>,
            ) -> Result<$value, $value> {
                // A step of another actor within the loop would only restart it.
                step();
                self.0.fetch_update(set, fetch, change)
            }
        }
    };
}

atomic!(Word, AtomicU32, u32);
atomic!(Bits, AtomicU64, u64);

impl Word {
    pub fn fetch_add(&self, value: u32, order: Ordering) -> u32 {
        step();
        self.0.fetch_add(value, order)
    }

    pub fn compare_exchange(
        &self,
        old: u32,
        new: u32,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u32, u32> {
        step();
        self.0.compare_exchange(old, new, success, failure)
    }
}

impl Bits {
    pub fn fetch_or(&self, bits: u64, order: Ordering) -> u64 {
        step();
        self.0.fetch_or(bits, order)
    }

    pub fn fetch_and(&self, bits: u64, order: Ordering) -> u64 {
        step();
        self.0.fetch_and(bits, order)
    }
}

/// An order to an actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    GoOn,
    Die,
}

/// An actor's report: it is before a step, or how it ended.
enum Said {
    Step,
    Done,
    Killed,
    Failed(Box<dyn std::any::Any + Send>),
}

struct Killed;

thread_local! {
    static ACTOR: RefCell<Option<(Sender<Said>, Receiver<Told>)>> = const { RefCell::new(None) };
}

/// Waits for this actor's turn; other threads continue at once.
fn step() {
    let told = ACTOR.with_borrow(|actor| {
        let (say, told) = actor.as_ref()?;
        say.send(Said::Step).ok()?;
        told.recv().ok()
    });
    if told == Some(Told::Die) {
        resume_unwind(Box::new(Killed));
    }
}

/// A process of a scenario.
pub struct Actor<'a> {
    /// What it does.
    pub run: Box<dyn FnOnce() + Send + 'a>,
    /// The clean-up after its kill.
    pub bury: Box<dyn FnOnce() + Send + 'a>,
}

struct Running<'a> {
    say: Sender<Told>,
    hear: Receiver<Said>,
    bury: Option<Box<dyn FnOnce() + Send + 'a>>,
}

/// Runs a scenario in every order of its steps with at most `switches` preemptions of an actor that
/// could continue, without a kill and with each possible kill. Returns the number of orders.
pub fn explore(switches: usize, scenario: impl Fn(&mut Order)) -> usize {
    let (mut choices, mut count) = (Vec::new(), 0);
    loop {
        let mut order = Order { choices, at: 0, switches, may_kill: true };
        scenario(&mut order);
        assert_eq!(order.at, order.choices.len(), "the scenario is not the same each time");
        count += 1;
        choices = order.choices;
        // The next one differs in the last place that can differ.
        while choices.pop_if(|(chosen, of)| *chosen + 1 == *of).is_some() {}
        match choices.last_mut() {
            Some((chosen, _)) => *chosen += 1,
            None => return count,
        }
    }
}

/// One order of steps.
pub struct Order {
    /// The choice at each step, and the number of choices.
    choices: Vec<(usize, usize)>,
    at: usize,
    switches: usize,
    may_kill: bool,
}

impl Order {
    /// Runs all actors to their ends.
    pub fn run<'a>(&mut self, actors: impl IntoIterator<Item = Actor<'a>>) {
        thread::scope(|scope| {
            let begin = |run, bury| begin(scope, run, bury);
            let mut running: Vec<_> =
                actors.into_iter().map(|actor| begin(actor.run, Some(actor.bury))).collect();
            let mut current = 0;
            while !running.is_empty() {
                let (next, told) = self.choose(&running, current);
                let _ = running[next].say.send(told);
                current = next;
                match running[next].hear.recv() {
                    Ok(Said::Step) => {}
                    Ok(Said::Failed(why)) => resume_unwind(why),
                    Ok(Said::Done) | Err(_) => drop(running.remove(next)),
                    Ok(Said::Killed) => {
                        let bury = running.remove(next).bury;
                        running.extend(bury.map(|bury| begin(bury, None)));
                        current = running.len() - 1;
                    }
                }
            }
        });
    }

    /// Whether an actor was killed.
    pub fn was_killed(&self) -> bool {
        !self.may_kill
    }

    /// The actor that takes the next step, or is killed before it.
    fn choose(&mut self, running: &[Running<'_>], current: usize) -> (usize, Told) {
        let current = current.min(running.len() - 1);
        let others = (0..running.len()).filter(|other| *other != current && self.switches > 0);
        let mut possible: Vec<_> =
            [current].into_iter().chain(others).map(|actor| (actor, Told::GoOn)).collect();
        if self.may_kill && running[current].bury.is_some() {
            possible.push((current, Told::Die));
        }
        if self.at == self.choices.len() {
            self.choices.push((0, possible.len()));
        }
        let (actor, told) = possible[self.choices[self.at].0];
        self.at += 1;
        self.switches -= usize::from(actor != current);
        self.may_kill &= told == Told::GoOn;
        (actor, told)
    }
}

/// Starts a thread and waits for its first step, so that nothing runs without an order.
fn begin<'s, 'a: 's>(
    scope: &'s thread::Scope<'s, 'a>,
    run: Box<dyn FnOnce() + Send + 'a>,
    bury: Option<Box<dyn FnOnce() + Send + 'a>>,
) -> Running<'a> {
    let (say, told) = channel();
    let (tell, hear) = channel();
    let ended = tell.clone();
    scope.spawn(move || {
        ACTOR.set(Some((tell, told)));
        let result = catch_unwind(AssertUnwindSafe(|| {
            step();
            run();
        }));
        ACTOR.set(None);
        let _ = ended.send(match result {
            Ok(()) => Said::Done,
            Err(why) if why.is::<Killed>() => Said::Killed,
            Err(why) => Said::Failed(why),
        });
    });
    let Ok(Said::Step) = hear.recv() else { unreachable!("a thread begins with a step") };
    Running { say, hear, bury }
}
