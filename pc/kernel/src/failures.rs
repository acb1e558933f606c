//! Failures on demand, so that a test can see what becomes of them: `frame 3`, `read 1` or `write 2`
//! written to `/proc/pagefault/fail` makes the third request for a frame, the first read or the
//! second write of a page fail, counted from then on. 0 lets all succeed.
//!
//! Reads and writes are counted for each device, and for each file on a disk that has content when
//! the order is given.

use crate::errno::Errno;
use crate::lock::Mutex;
use core::sync::atomic::{AtomicU64, Ordering};
use pagefault::machine::{IoError, OutOfFrames};

/// How many requests for frames are left, the last of which fails.
static FRAMES: AtomicU64 = AtomicU64::new(0);
static READS: Mutex<Order> = Mutex::new(Order { number: 0, nth: 0 });
static WRITES: Mutex<Order> = Mutex::new(Order { number: 0, nth: 0 });

/// Which operation is to fail, as was ordered last.
#[derive(Clone, Copy, Default)]
struct Order {
    number: u64,
    nth: u64,
}

/// Takes an order.
pub fn order(text: &[u8]) -> Result<(), Errno> {
    let text = core::str::from_utf8(text).map_err(|_| Errno::EINVAL)?;
    let (what, nth) = text.trim_end().split_once(' ').ok_or(Errno::EINVAL)?;
    let nth = nth.parse().map_err(|_| Errno::EINVAL)?;
    let orders = match what {
        "frame" => {
            FRAMES.store(nth, Ordering::Relaxed);
            return Ok(());
        }
        "read" => &READS,
        "write" => &WRITES,
        _ => return Err(Errno::EINVAL),
    };
    let mut order = orders.lock();
    *order = Order { number: order.number + 1, nth };
    Ok(())
}

/// Counts a request for a frame; an error if it is the one that fails.
pub fn frame() -> Result<(), OutOfFrames> {
    // Nearly always, and on the way of every fault.
    if FRAMES.load(Ordering::Relaxed) == 0 {
        return Ok(());
    }
    let one_less = |left: u64| left.checked_sub(1);
    match FRAMES.try_update(Ordering::Relaxed, Ordering::Relaxed, one_less) {
        Ok(1) => Err(OutOfFrames),
        _ => Ok(()),
    }
}

/// What one device, or one file, has still to count.
pub struct Counts {
    reads: Mutex<Order>,
    writes: Mutex<Order>,
}

impl Counts {
    /// Nothing: earlier orders are not for this.
    pub fn new() -> Self {
        let counts = Self { reads: Mutex::default(), writes: Mutex::default() };
        counts.forget();
        counts
    }

    /// Forgets the orders that were given.
    pub fn forget(&self) {
        for (counts, orders) in [(&self.reads, &READS), (&self.writes, &WRITES)] {
            let number = orders.lock().number;
            *counts.lock() = Order { number, nth: 0 };
        }
    }

    /// Counts a read of a page; an error if it is the one that fails.
    pub fn read(&self) -> Result<(), IoError> {
        count(&self.reads, &READS)
    }

    /// Counts a write of a page, likewise.
    pub fn write(&self) -> Result<(), IoError> {
        count(&self.writes, &WRITES)
    }
}

fn count(counts: &Mutex<Order>, orders: &Mutex<Order>) -> Result<(), IoError> {
    let order = *orders.lock();
    let mut left = counts.lock();
    if left.number != order.number {
        *left = order;
    }
    match left.nth {
        0 => Ok(()),
        nth => {
            left.nth = nth - 1;
            if nth == 1 { Err(IoError::Device) } else { Ok(()) }
        }
    }
}
