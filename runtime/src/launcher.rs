//! The launcher: the user started it, and it waits for the program. Killing it must end the tree.
//!
//! Its supervisor ensures that, unless both are killed at once. So the host sends the program, the
//! launcher's child, a signal at its parent's end (`PR_SET_PDEATHSIG`), and the program's runtime ends
//! the tree. The signal also reaches a process that computes or sleeps, and costs other processes
//! nothing. It is `SIGSYS`, which is the runtime's and never blocked.

use crate::frame::Info;
use crate::{process, sys};
use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering::Relaxed;
use linux_raw_sys::general as nr;
use linux_raw_sys::prctl::{PR_GET_PDEATHSIG, PR_SET_PDEATHSIG};
use pagefault_control::Control;

/// The signal that reports the launcher's end.
const SIGNAL: u32 = nr::SIGSYS;

/// Whether the program has asked for a signal of its own at its parent's end.
static IS_PROGRAMS: AtomicBool = AtomicBool::new(false);

/// Requests the signal at the launcher's end, if the launcher is the parent and the program has not
/// requested one. The request survives an exec; a change of user cancels it.
pub fn begin() {
    let Some(control) = process::control() else { return };
    if parent() != control.launcher.load(Relaxed) || signal() != 0 {
        return;
    }
    // SAFETY: the runtime handles the signal.
    let _ = unsafe { sys::call(nr::__NR_prctl, [u64::from(PR_SET_PDEATHSIG), SIGNAL.into()]) };
    if parent() != control.launcher.load(Relaxed) {
        end_tree(control);
    }
}

/// Checks whether a sent signal reports the launcher's end.
pub fn look_at(info: &Info) {
    /// `SI_USER`.
    const USER: i32 = 0;
    let Some(control) = process::control() else { return };
    let launcher = control.launcher.load(Relaxed);
    // The host names the process that ended; by then the parent is another.
    let is_of_launcher = info.code == USER && info.fields[0] as u32 == launcher;
    if is_of_launcher && info.signal as u32 == SIGNAL && parent() != launcher {
        end_tree(control);
    }
}

/// Notes that the program asks for a signal of its own, or for none.
pub fn program_sets_signal() {
    // Each thread has its own.
    if signal() == SIGNAL {
        IS_PROGRAMS.store(true, Relaxed);
    }
}

/// Whether the signal that the host would send at the parent's end is not the program's wish.
pub fn is_signal_ours() -> bool {
    !IS_PROGRAMS.load(Relaxed) && signal() == SIGNAL
}

/// The signal that the host sends at the parent's end; 0 for none.
fn signal() -> u32 {
    let mut signal = 0_u32;
    let args = [u64::from(PR_GET_PDEATHSIG), (&raw mut signal) as u64];
    // SAFETY: the word is ours.
    let _ = unsafe { sys::call(nr::__NR_prctl, args) };
    signal
}

fn parent() -> u32 {
    // SAFETY: the call takes nothing and changes nothing.
    unsafe { sys::raw_call(nr::__NR_getppid, [0; 6]) as u32 }
}

/// Kills every process of the tree, this one last. An unregistered child finds no supervisor, and ends
/// by itself.
fn end_tree(control: &Control) -> ! {
    let own = sys::process_id();
    // This process is in the supervisor's process namespace, as the launcher was: the numbers are the same.
    let known = control.slots.all_taken().map(|(_, slot)| slot.pid.load(Relaxed));
    let numbers = known.chain(control.slots.all_taken().filter_map(|(_, slot)| slot.unborn()));
    for number in numbers.filter(|number| ![0, own].contains(number)) {
        sys::kill(number, nr::SIGKILL);
    }
    loop {
        sys::kill(own, nr::SIGKILL);
    }
}
