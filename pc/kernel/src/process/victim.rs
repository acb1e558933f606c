//! Who dies when no memory can be had.

use super::{Death, PROCESSES, Process, Reason, kill_threads};
use crate::errno::Errno;
use crate::sleep::SleepMutex;
use crate::{heap, kernel, report, scheduler, signal, task};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

/// What a call may take from the kernel's heap, but for the few that ask for more.
pub const CALL: usize = 144 << 10;

/// How often pages are evicted for the kernel's heap before it is told that there is no memory.
const PASSES: u32 = 16;

/// Makes sure that the kernel's heap can give so much, by evicting pages of programs; whether it can.
/// What allocates in the kernel cannot wait, and has nobody to tell: so a call comes here before it
/// begins.
pub fn make_room(bytes: usize) -> bool {
    for _ in 0..PASSES {
        if heap::has_room(bytes) {
            return true;
        }
        if kernel().manager.reclaim(64) == 0 {
            break;
        }
    }
    heap::has_room(bytes)
}

/// Memory of the kernel for a call, full of zeros. Some is left for the small things that the call
/// may need beside it.
pub fn buffer(bytes: usize) -> Result<Vec<u8>, Errno> {
    if !make_room(bytes + CALL) {
        return Err(Errno::ENOMEM);
    }
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(bytes).map_err(|_| Errno::ENOMEM)?;
    buffer.resize(bytes, 0);
    Ok(buffer)
}

/// Looks for room for what may take much more: it has to be found in frames.
pub fn find_room(bytes: usize) -> Result<(), Errno> {
    let frames = (bytes / 4096) as u32;
    while bytes > CALL && kernel().frames.free_frames() < frames + heap::PLENTY {
        if kernel().manager.reclaim(64) == 0 {
            return Err(Errno::ENOMEM);
        }
    }
    Ok(())
}

/// Held while a victim is chosen.
static CHOICE: SleepMutex<()> = SleepMutex::new(());

/// No memory could be had for the running program: the largest process dies (spec F25, the score of
/// newer kernels: resident and swapped pages).
///
/// While an earlier victim still holds its memory, nobody else has to die.
pub fn out_of_memory() {
    // One at a time: two that look for a victim at once would find two.
    let choice = CHOICE.lock();
    let is_dying =
        |process: &Arc<Process>| process.is_killed() && !process.ended.load(Ordering::Acquire);
    if PROCESSES.lock().values().any(is_dying) {
        drop(choice);
        return scheduler::yield_now();
    }
    let victim = PROCESSES
        .lock()
        .values()
        .filter(|process| process.ending.lock().is_none())
        .max_by_key(|process| {
            let usage = process.usage();
            // The first comes last: without it the machine ends.
            (process.id != kernel().init, usage.anonymous + usage.file, process.id)
        })
        .cloned();
    let Some(victim) = victim else { return };
    let usage = victim.usage();
    report!(
        "out of memory: killing process {} ({}): {} pages resident of {} mapped, {} frames free",
        victim.id,
        victim.name.lock(),
        usage.anonymous + usage.file,
        usage.total,
        task::free_frames(),
    );
    let death = Death { reason: Reason::Signal(signal::SIGKILL) };
    kill_threads(&victim, death);
    // Whoever runs in the same memory keeps it: the child of a vfork, for which its parent waits.
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
