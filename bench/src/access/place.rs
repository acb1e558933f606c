//! The memory that a measurement accesses.

use super::floor::Floor;
use super::worker::{Arguments, Figures, PAGE, Taken};
use pagefault_linux::Memory;
use pagefault_linux::memory::Region;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};
use serde::{Deserialize, Serialize};
use std::io;
use std::io::{Read, Write};

/// Who owns the pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// The process itself, under whatever runs it.
    Native,
    /// A `Memory` of the library.
    Library,
    /// The cheapest ioctl for each fault and nothing else; data are lost.
    Floor,
}

impl Place {
    /// Whether a page that comes back has its data.
    pub const fn keeps_data(self) -> bool {
        !matches!(self, Self::Floor)
    }
}

/// The pages.
pub enum Area {
    Native(Native),
    Library(Memory, Vec<Region>),
    Floor(Floor),
}

impl Area {
    /// Pages, regions and a resident limit, as in the arguments.
    pub fn new(arguments: &Arguments) -> io::Result<Self> {
        let bytes = arguments.mib << 20;
        let each = bytes / arguments.regions / PAGE * PAGE;
        Ok(match arguments.place {
            Place::Native => Self::Native(Native::new(each, arguments.regions)?),
            Place::Library => {
                let limit = (arguments.resident as u64) << 20;
                let memory = Memory::with_limit(limit).map_err(io::Error::other)?;
                let regions = (0..arguments.regions).map(|_| memory.map(each));
                let regions = regions.collect::<Result<_, _>>().map_err(io::Error::other)?;
                Self::Library(memory, regions)
            }
            Place::Floor => Self::Floor(Floor::new(bytes, arguments.resident << 20)?),
        })
    }

    /// The regions' words.
    pub fn regions(&mut self) -> Vec<&mut [u64]> {
        match self {
            Self::Native(native) => native.regions(),
            Self::Library(_, regions) => {
                let words = |region| bytemuck::cast_slice_mut::<u8, u64>(region);
                regions.iter_mut().map(|region| words(&mut region[..])).collect()
            }
            Self::Floor(floor) => vec![floor.words()],
        }
    }

    /// The figures that only the owner of the pages knows.
    pub fn complete(&self, figures: &mut Figures) {
        if let Self::Library(memory, _) = self {
            let stats = memory.stats();
            figures.pages_in = stats.swap.iter().map(|area| area.reads).sum();
            figures.pages_out = stats.swap.iter().map(|area| area.writes).sum();
            figures.peak = stats.peak_bytes;
        }
    }
}

/// Private anonymous memory of this process, in regions that each end with a page without access.
pub struct Native {
    start: *mut u8,
    each: usize,
    count: usize,
}

impl Native {
    fn new(each: usize, count: usize) -> io::Result<Self> {
        let bytes = Self::bytes(each, count);
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses the place, so that nothing else is there.
        let start = unsafe {
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), bytes, access, MapFlags::PRIVATE)?
        };
        let native = Self { start: start.cast(), each, count };
        for number in 0..count {
            let guard = native.start.wrapping_add(number * (each + PAGE) + each);
            // SAFETY: the page is behind a region, and nobody uses it.
            unsafe { rustix::mm::mprotect(guard.cast(), PAGE, MprotectFlags::empty())? };
        }
        Ok(native)
    }

    const fn bytes(each: usize, count: usize) -> usize {
        (each + PAGE) * count
    }

    fn regions(&mut self) -> Vec<&mut [u64]> {
        let part = |number: usize| {
            let start = self.start.wrapping_add(number * (self.each + PAGE)).cast::<u64>();
            // SAFETY: the region is mapped as long as `self` lives, which is borrowed exclusively;
            // regions do not overlap; pages are aligned for words, and any bytes are words.
            unsafe { std::slice::from_raw_parts_mut(start, self.each / 8) }
        };
        (0..self.count).map(part).collect()
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        let bytes = Self::bytes(self.each, self.count);
        // SAFETY: `new` mapped this much, and no slice of it outlives `self`.
        let _ = unsafe { rustix::mm::munmap(self.start.cast(), bytes) };
    }
}

/// Runs a closure in a forked child and returns its result.
pub fn in_a_child(work: impl FnOnce() -> io::Result<Taken>) -> io::Result<Vec<Taken>> {
    let (mut from, mut to) = io::pipe()?;
    // SAFETY: this process has one thread, so that the child may do whatever its parent may.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let told = work().and_then(|taken| Ok(serde_json::to_vec(&taken)?));
            let ok = told.and_then(|text| to.write_all(&text)).is_ok();
            // SAFETY: ends the child at once; it has nothing to tidy up.
            unsafe { libc::_exit(i32::from(!ok)) }
        }
        child => {
            drop(to);
            let mut text = Vec::new();
            from.read_to_end(&mut text)?;
            // SAFETY: the child is ours, and the status may be left out.
            unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
            Ok(vec![serde_json::from_slice(&text)?])
        }
    }
}
