//! The compressor: a thread of the keeper that compresses pages for the processes of the tree.
//!
//! It runs where a processor is idle and nowhere else: under `SCHED_IDLE` everybody else comes first, and
//! nobody ever waits for it. A thread of the program itself would share its memory, and each page that
//! leaves would interrupt the processor that it runs on.

use pagefault_control::{AttachError, Control, Desks, Mapped};
use pagefault_linux::store::scratch::Scratch;
use rustix::fd::OwnedFd;
use rustix::thread::futex;
use std::ops::Deref;
use std::time::{Duration, Instant};

/// How long it looks for work before it sleeps: to be woken costs the program more than a page does.
const PATIENCE: Duration = Duration::from_micros(150);

/// Starts the compressor, which lives as long as the keeper, or notes that there is none.
pub fn start(file: &OwnedFd, control: &Control) {
    if start_thread(file, control).is_err() {
        control.offload.refuse();
    }
}

fn start_thread(file: &OwnedFd, control: &Control) -> Result<(), AttachError> {
    // Where there is only one processor whoever compresses takes it from the program.
    if std::thread::available_parallelism().is_ok_and(|count| count.get() == 1) {
        return Err(rustix::io::Errno::AGAIN.into());
    }
    let desks = Desks::new(file, control.plan())?;
    let control = Mapped::new(file)?;
    let builder = std::thread::Builder::new().name("pagefault-lz4".into());
    let refused = |_| AttachError::from(rustix::io::Errno::AGAIN);
    builder.spawn(move || serve(&desks, control)).map(drop).map_err(refused)
}

fn serve(desks: &Desks, control: impl Deref<Target = Control>) {
    run_when_idle();
    let (offload, mut scratch) = (&control.offload, Scratch::new());
    let mut look = || {
        let serve = |slot| {
            desks.serve(slot, |page, result| match scratch.compress(page) {
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
            // Whoever announced a page before that did not wake us.
            if look() == 0 {
                let _ = futex::wait(offload.bell(), futex::Flags::empty(), 1, None);
            }
            offload.get_up();
            last = Instant::now();
        }
    }
}

/// Leaves every processor to whoever else wants it.
fn run_when_idle() {
    let idle = libc::sched_param { sched_priority: 0 };
    // SAFETY: the parameters are valid; of this thread alone.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const idle) };
}
