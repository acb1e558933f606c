//! Memory of a device, which programs can map.

use crate::arch::Architecture;
use crate::computer::Computer;
use crate::conduct::Conduct;
use core::sync::atomic::{AtomicU64, Ordering};
use pagefault_machine::{DeviceMemory, Frame, NoPage};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;

/// A device with memory of its own, page by page, which shows it to programs (spec B13).
///
/// A value is only a handle; clones name the same device.
#[derive(Clone, Debug)]
pub struct SimDevice {
    device: Arc<Device>,
}

#[derive(Debug)]
struct Device {
    /// Which frame shows which page.
    frames: Mutex<Vec<Frame>>,
    /// What the next questions are answered, instead of by a frame.
    refusals: Mutex<VecDeque<NoPage>>,
    conduct: Conduct,
    asked: AtomicU64,
    opened: AtomicU64,
    closed: AtomicU64,
}

/// What was asked of a [`SimDevice`] so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceStats {
    /// Calls of [`DeviceMemory::frame`].
    pub asked: u64,
    /// Calls of [`DeviceMemory::opened`].
    pub opened: u64,
    /// Calls of [`DeviceMemory::closed`].
    pub closed: u64,
}

impl<A: Architecture> Computer<A> {
    /// Makes a device with `pages` pages of zeros out of what is left of
    /// [`Config::device_frames`](crate::Config::device_frames); `None` if there are fewer.
    ///
    /// A test plays the device: it reads and writes the frames by [`Machine::read`] and [`Machine::write`].
    ///
    /// [`Machine::read`]: pagefault_machine::Machine::read
    /// [`Machine::write`]: pagefault_machine::Machine::write
    pub fn device(&self, pages: u32) -> Option<SimDevice> {
        let frames = self.hw.frames.take_device_frames(pages)?;
        Some(SimDevice::over(frames.map(Frame).collect()))
    }
}

impl SimDevice {
    /// A device whose pages are shown by these frames, whatever they are.
    pub fn over(frames: Vec<Frame>) -> Self {
        Self {
            device: Arc::new(Device {
                frames: Mutex::new(frames),
                refusals: Mutex::default(),
                conduct: Conduct::default(),
                asked: AtomicU64::new(0),
                opened: AtomicU64::new(0),
                closed: AtomicU64::new(0),
            }),
        }
    }

    /// The frames that show the pages, in the order of the pages.
    pub fn frames(&self) -> Vec<Frame> {
        self.device.frames.lock().clone()
    }

    /// Exchanges the frames of two pages, as a device does that switches banks. Entries that name them
    /// are the caller's to revoke.
    ///
    /// # Panics
    /// If the device has no such pages.
    pub fn exchange(&self, page: usize, other: usize) {
        self.device.frames.lock().swap(page, other);
    }

    /// Answers one question that is still to come in this way.
    pub fn refuse_next(&self, refusal: NoPage) {
        self.device.refusals.lock().push_back(refusal);
    }

    /// Makes each answer yield to other threads this many times first.
    pub fn set_latency(&self, steps: u64) {
        self.device.conduct.set_latency(steps);
    }

    /// What was asked so far.
    pub fn stats(&self) -> DeviceStats {
        DeviceStats {
            asked: self.device.asked.load(Ordering::Relaxed),
            opened: self.device.opened.load(Ordering::Relaxed),
            closed: self.device.closed.load(Ordering::Relaxed),
        }
    }
}

impl DeviceMemory for SimDevice {
    fn frame(&self, index: u64) -> Result<Frame, NoPage> {
        let frames = self.frames();
        self.device.conduct.take_time(&self.device.asked);
        if let Some(refusal) = self.device.refusals.lock().pop_front() {
            return Err(refusal);
        }
        let frame = usize::try_from(index).ok().and_then(|index| frames.get(index).copied());
        frame.ok_or(NoPage::Bus)
    }

    fn opened(&self) {
        self.device.opened.fetch_add(1, Ordering::Relaxed);
    }

    fn closed(&self) {
        self.device.closed.fetch_add(1, Ordering::Relaxed);
    }
}
