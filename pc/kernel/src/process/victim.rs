//! Who dies when no memory can be had.

use super::{Death, PROCESSES, Process, Reason, kill_threads};
use crate::sleep::SleepMutex;
use crate::{kernel, report, scheduler, signal, task};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use pagefault::machine::Space;
use pagefault::oom::{Candidate, Choice, Standing};

/// Held while a victim is chosen.
static CHOICE: SleepMutex<()> = SleepMutex::new(());

/// How many frames the end of a process gives back, more or less.
fn frames_of(process: &Process) -> u64 {
    let tables = process.space.lock().as_ref().map_or(0, |space| space.space().leaves());
    let usage = process.usage();
    usage.anonymous + usage.file + tables as u64
}

/// No memory could be had for the running program: the largest process dies (spec F25, the score of
/// newer kernels: resident pages and page tables).
///
/// While an earlier victim still holds its memory, no other process is killed.
pub fn out_of_memory() {
    // One at a time: two that look for a victim at once would find two.
    let choice = CHOICE.lock();
    let is_dying =
        |process: &Arc<Process>| process.is_killed() && !process.ended.load(Ordering::Acquire);
    if PROCESSES.lock().values().any(is_dying) {
        drop(choice);
        return scheduler::yield_now();
    }
    let all: Vec<_> = PROCESSES.lock().values().cloned().collect();
    let spaces: Vec<_> = all
        .iter()
        .filter(|process| process.ending.lock().is_none())
        .filter_map(|process| Some((process, process.space.lock().clone()?)))
        .collect();
    let candidates: Vec<_> = spaces
        .iter()
        .map(|(process, space)| Candidate {
            mm: space.mm(),
            // Without the first the machine ends.
            standing: match process.id == kernel().init {
                true => Standing::Needed,
                false => Standing::Running,
            },
            tables: space.space().leaves() as u64,
            adjustment: 0,
        })
        .collect();
    let victim = match kernel().manager.choose_victim(&candidates) {
        Choice::Kill(place) => Some(spaces[place].0.clone()),
        Choice::Wait => None,
        Choice::Nobody => all.iter().find(|process| process.id == kernel().init).cloned(),
    };
    let Some(victim) = victim else { return };
    report!(
        "out of memory: killing process {} ({}): {} frames, {} pages mapped, {} frames free",
        victim.id,
        victim.name.lock(),
        frames_of(&victim),
        victim.usage().total,
        task::free_frames(),
    );
    let death = Death { reason: Reason::Signal(signal::SIGKILL) };
    kill_threads(&victim, death);
    // A process in the same memory keeps it alive: the child of a vfork, for which its parent
    // waits.
    let space = victim.space.lock().clone();
    let shares = |process: &&Arc<Process>| {
        let own = process.space.lock();
        !process.is_killed()
            && own.as_ref().zip(space.as_ref()).is_some_and(|(own, space)| Arc::ptr_eq(own, space))
    };
    loop {
        let other = PROCESSES.lock().values().find(shares).cloned();
        let Some(other) = other else { return };
        kill_threads(&other, death);
    }
}
