//! The compressor: a thread of the supervisor that compresses pages for the processes of the tree.
//!
//! It runs only on idle processors: under `SCHED_IDLE` every other thread comes first, and no thread
//! waits for it. A thread inside the program would share its memory, so that the flush of each evicted
//! page would interrupt it.

use pagefault_control::{AttachError, Control, Mailboxes, Mapped};
use pagefault_linux::store::scratch::Scratch;
use rustix::fd::OwnedFd;
use rustix::thread::futex;
use std::ops::Deref;
use std::time::{Duration, Instant};

/// How long it polls for work before it sleeps: a wake-up costs the program more than compressing a
/// page.
const PATIENCE: Duration = Duration::from_micros(150);

/// Starts the compressor, which runs as long as the supervisor, or notes that there is none.
pub fn start(file: &OwnedFd, control: &Control) {
    if start_thread(file, control).is_err() {
        control.offload.refuse();
    }
}

fn start_thread(file: &OwnedFd, control: &Control) -> Result<(), AttachError> {
    // With a single processor, a compressor would only take it from the program.
    if std::thread::available_parallelism().is_ok_and(|count| count.get() == 1) {
        return Err(rustix::io::Errno::AGAIN.into());
    }
    let mailboxes = Mailboxes::new(file, control.plan())?;
    let control = Mapped::new(file)?;
    let builder = std::thread::Builder::new().name("pagefault-lz4".into());
    let refused = |_| AttachError::from(rustix::io::Errno::AGAIN);
    builder.spawn(move || serve(&mailboxes, control)).map(drop).map_err(refused)
}

fn serve(mailboxes: &Mailboxes, control: impl Deref<Target = Control>) {
    run_when_idle();
    let (offload, mut scratch) = (&control.offload, Scratch::new());
    let mut look = || {
        let serve = |slot| {
            mailboxes.serve(slot, |page, result| match scratch.compress(page) {
                Some(bytes) => {
                    result[..bytes.len()].copy_from_slice(bytes);
                    bytes.len()
                }
                None => page.len(),
            })
        };
        offload.take_waiting().map(serve).sum::<usize>()
    };
    offload.begin();
    let mut last = Instant::now();
    loop {
        if look() > 0 {
            last = Instant::now();
        } else if last.elapsed() < PATIENCE {
            std::hint::spin_loop();
        } else {
            offload.lie_down();
            // A process that announced a page before that did not wake us.
            if look() == 0 {
                let _ = futex::wait(offload.bell(), futex::Flags::empty(), 1, None);
            }
            offload.get_up();
            last = Instant::now();
        }
    }
}

/// Runs this thread only when a processor is otherwise idle.
fn run_when_idle() {
    let idle = libc::sched_param { sched_priority: 0 };
    // SAFETY: the parameters are valid, and concern this thread alone.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const idle) };
}
