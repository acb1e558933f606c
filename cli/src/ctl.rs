//! `pagefault ctl`: changes the limit of a running tree.

use crate::size::{Size, about};
use crate::trees::{self, Tree};
use crate::{complain, say, status};
use pagefault_control::{Control, RECLAIM_SIGNAL, RECLAIM_VALUE, Slot, ask};
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// How long to wait for the processes to evict enough.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often to ask the processes to evict meanwhile.
const PAUSE: Duration = Duration::from_millis(2);

const EXAMPLES: &str = "\
PID is `pagefault run` or any process of its tree; `pagefault top` lists both.

Examples:
  pagefault ctl 4711                   # show the limit and the resident memory
  pagefault ctl 4711 --memory 128M

Lowering the limit evicts pages, and returns once the tree fits. Raising it takes effect at once, up to
four times the limit that the tree was started with.";

/// Show or change the limit of a running managed tree.
#[derive(clap::Args)]
#[command(after_long_help = EXAMPLES, after_help = EXAMPLES)]
pub struct Arguments {
    /// Any process of the tree, or its `pagefault run`
    #[arg(value_name = "PID", value_parser = trees::pid)]
    pid: u32,
    /// The new resident memory limit
    #[arg(long, short, value_name = "SIZE")]
    memory: Option<Size>,
}

/// Why the limit was not changed, or is not met yet.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Tree(#[from] trees::Error),
    #[error("--memory {0}: too small to work; give at least {1}")]
    TooSmall(Size, Size),
    #[error("--memory {0}: more than four times the limit at the start; give at most {1}")]
    TooLarge(Size, Size),
    #[error(
        "the limit is {limit} now, but {left} are still resident: locked and shared pages stay, \
         and no page leaves while its process is stopped or swap is full"
    )]
    Stays { limit: Size, left: String },
}

/// Runs the subcommand.
pub fn run(arguments: &Arguments) -> ExitCode {
    match obey(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain!("{error}");
            ExitCode::from(status::FAILED)
        }
    }
}

fn obey(arguments: &Arguments) -> Result<(), Error> {
    let tree = trees::of(arguments.pid)?;
    if let Some(memory) = arguments.memory {
        set(&tree, memory)?;
    }
    let control = tree.look()?;
    let resident = about(control.slots.charged() * 4096);
    say::print(&format!("{resident} of {} resident\n", about(control.limit_bytes())));
    Ok(())
}

/// Changes the limit of a tree, and waits until the tree fits.
pub fn set(tree: &Tree, memory: Size) -> Result<(), Error> {
    let control = tree.attach()?;
    let (least, most) = (crate::run::LEAST_MEMORY, Size(control.most_bytes()));
    if memory < least {
        return Err(Error::TooSmall(memory, least));
    }
    if memory > most {
        return Err(Error::TooLarge(memory, most));
    }
    control.set_limit(memory.0);
    let begin = Instant::now();
    while control.slots.charged() > control.frames() {
        if begin.elapsed() > PATIENCE {
            return Err(Error::Stays {
                limit: memory,
                left: about(control.slots.charged() * 4096),
            });
        }
        request_reclaim(tree, &control);
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// Asks every process above its share to evict.
fn request_reclaim(tree: &Tree, control: &Control) {
    let taken = control.slots.taken().max(1) as u64;
    let part = control.frames() / taken;
    // A program that has not begun yet, or has no runtime, has no handler, and the signal's default action kills.
    let runs = |slot: &Slot| slot.word.load(Relaxed) == ask::IDLE && !slot.is_unmanaged();
    let rich = control
        .slots
        .all_taken()
        .filter(|(_, slot)| u64::from(slot.resident()) > part && runs(slot));
    for pid in rich.map(|(_, slot)| slot.pid.load(Relaxed)).filter(|pid| *pid != 0) {
        // SAFETY: all zero bytes are a siginfo_t.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        info.si_signo = RECLAIM_SIGNAL;
        info.si_code = libc::SI_QUEUE;
        // SAFETY: the value follows the process and the user, 24 bytes after the beginning.
        unsafe { (&raw mut info).cast::<u64>().add(3).write(RECLAIM_VALUE) };
        let Some(process) = tree.hold(pid) else { continue };
        let (process, at) = (process.as_raw_fd(), &raw const info);
        // SAFETY: the information outlives the call. If the process has ended, the call fails.
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process, RECLAIM_SIGNAL, at, 0) };
    }
}
