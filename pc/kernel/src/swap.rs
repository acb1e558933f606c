//! The devices that may be swap areas, turned on and off by their paths.

use crate::errno::Errno;
use crate::sleep::SleepMutex;
use crate::{kernel, report};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use pagefault::machine::store::PageBytes;
use pagefault::machine::{IoError, SwapDevice};
use pagefault::swap::area::{Priority, SwapOnError};

/// A device, which outlives its being an area.
#[derive(Clone)]
struct Kept(Arc<dyn SwapDevice>);

impl SwapDevice for Kept {
    fn slots(&self) -> u32 {
        self.0.slots()
    }

    fn read(&self, slot: u32, page: &mut PageBytes) -> Result<(), IoError> {
        self.0.read(slot, page)
    }

    fn write(&self, slot: u32, page: &PageBytes) -> Result<(), IoError> {
        self.0.write(slot, page)
    }

    fn discard(&self, slot: u32) {
        self.0.discard(slot);
    }
}

struct Entry {
    path: String,
    device: Kept,
    /// The number of the area that it is.
    area: Option<u8>,
}

/// Held while areas are added and removed; a swapoff may take long.
static DEVICES: SleepMutex<Vec<Entry>> = SleepMutex::new(Vec::new());

/// Makes a device known, and a swap area; says if that cannot be.
pub fn add(device: impl SwapDevice + 'static) -> Result<(), SwapOnError> {
    let device = Kept(Arc::new(device));
    let pages = device.slots();
    let area = kernel().manager.swap_on(Box::new(device.clone()), Priority::Descending)?;
    let mut devices = DEVICES.lock();
    let path = format!("/dev/vd{}", (b'a' + devices.len() as u8) as char);
    report!("swap area {area}: {pages} pages");
    devices.push(Entry { path, device, area: Some(area) });
    Ok(())
}

/// The paths of all devices.
pub fn paths() -> Vec<String> {
    DEVICES.lock().iter().map(|entry| entry.path.clone()).collect()
}

/// The path of the device that is an area.
pub fn path_of(area: u8) -> Option<String> {
    DEVICES.lock().iter().find(|entry| entry.area == Some(area)).map(|entry| entry.path.clone())
}

/// Turns a device on.
pub fn on(path: &str, priority: Priority) -> Result<(), Errno> {
    let mut devices = DEVICES.lock();
    let entry = devices.iter_mut().find(|entry| entry.path == path).ok_or(Errno::EINVAL)?;
    if entry.area.is_some() {
        return Err(Errno::EBUSY);
    }
    let device = Box::new(entry.device.clone());
    // A device that was one before has a size that can be; there may be too many.
    let area = kernel().manager.swap_on(device, priority).map_err(|_| Errno::EPERM)?;
    entry.area = Some(area);
    Ok(())
}

/// Turns a device off, once all its pages are in memory.
pub fn off(path: &str) -> Result<(), Errno> {
    let mut devices = DEVICES.lock();
    let entry = devices.iter_mut().find(|entry| entry.path == path).ok_or(Errno::EINVAL)?;
    let area = entry.area.ok_or(Errno::EINVAL)?;
    kernel().manager.swap_off(area)?;
    entry.area = None;
    Ok(())
}
