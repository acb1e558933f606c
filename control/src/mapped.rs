//! The command's side: makes the shared memory and maps it.

use crate::{Control, Plan, Ring};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};
use std::fmt;
use std::ops::Deref;
use std::path::Path;
use std::ptr::NonNull;

/// The name of the shared memory; `/proc/PID/fd` shows `/memfd:pagefault-control (deleted)`.
pub const NAME: &str = "pagefault-control";

/// Why the shared memory could not be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachError {
    /// The host refused.
    Host(Errno),
    /// Its layout is not that of this build of pagefault.
    Layout,
    /// Its owner could shorten it, and a reader would get `SIGBUS`.
    Unsealed,
}

impl fmt::Display for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(errno) => std::io::Error::from(*errno).fmt(f),
            Self::Layout => f.write_str("it was made by another version of pagefault"),
            Self::Unsealed => f.write_str("its length is not sealed, so it is not pagefault's"),
        }
    }
}

impl std::error::Error for AttachError {}

impl From<Errno> for AttachError {
    fn from(errno: Errno) -> Self {
        Self::Host(errno)
    }
}

/// The shared memory, mapped.
pub struct Mapped(NonNull<Control>);

// SAFETY: Control consists of atomics only.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Control {
    /// Makes the shared memory for a tree, all zero, and maps it.
    pub fn create(plan: Plan) -> Result<(OwnedFd, Mapped), AttachError> {
        Self::create_of(plan.file_len())
    }

    /// The same with room for rings, and marked as observed.
    pub fn create_observed(plan: Plan) -> Result<(OwnedFd, Mapped), AttachError> {
        let made = Self::create_of(plan.observed_len())?;
        made.1.begin_observing();
        Ok(made)
    }

    /// Maps the shared memory that another process published, for reading: the mapping is private,
    /// so writes stay with the caller.
    pub fn look(path: &Path) -> Result<Mapped, AttachError> {
        let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        Mapped::published(file, MapFlags::PRIVATE)
    }

    fn create_of(len: u64) -> Result<(OwnedFd, Mapped), AttachError> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create(NAME, flags)?;
        rustix::fs::ftruncate(&file, len)?;
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK)?;
        let mapped = Mapped::new(&file)?;
        Ok((file, mapped))
    }

    /// Maps the shared memory that another process published, by the path of its descriptor.
    pub fn attach(path: &Path) -> Result<Mapped, AttachError> {
        let file = rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        Mapped::published(file, MapFlags::SHARED)
    }
}

impl Mapped {
    /// Maps the shared memory of a file.
    pub fn new(file: impl AsFd) -> Result<Self, AttachError> {
        Self::with(file, MapFlags::SHARED)
    }

    fn published(file: OwnedFd, flags: MapFlags) -> Result<Self, AttachError> {
        // Reading past the end of a shorter file would be SIGBUS.
        if rustix::fs::fstat(&file)?.st_size < size_of::<Control>() as i64 {
            return Err(AttachError::Layout);
        }
        if !rustix::fs::fcntl_get_seals(&file)?.contains(SealFlags::SHRINK) {
            return Err(AttachError::Unsealed);
        }
        let mapped = Self::with(&file, flags)?;
        if mapped.is_ready() { Ok(mapped) } else { Err(AttachError::Layout) }
    }

    fn with(file: impl AsFd, flags: MapFlags) -> Result<Self, AttachError> {
        let (len, prot) = (size_of::<Control>(), ProtFlags::READ | ProtFlags::WRITE);
        // SAFETY: a new mapping at an address of the host's choice aliases nothing.
        let start = unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, prot, flags, file, 0)? };
        Ok(Self(NonNull::new(start.cast()).ok_or(Errno::FAULT)?))
    }
}

/// The ring of one slot, mapped by its reader.
pub struct MappedRing(NonNull<Ring>);

// SAFETY: a ring consists of atomics only.
unsafe impl Send for MappedRing {}
// SAFETY: as above.
unsafe impl Sync for MappedRing {}

impl MappedRing {
    /// Maps the ring of a slot of a file that has rings.
    pub fn new(file: impl AsFd, plan: Plan, slot: u32) -> Result<Self, Errno> {
        let (range, prot) = (plan.ring(slot), ProtFlags::READ | ProtFlags::WRITE);
        // Reading past the end of a shorter file would be SIGBUS.
        if rustix::fs::fstat(&file)?.st_size < range.end as i64 {
            return Err(Errno::INVAL);
        }
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address of the host's choice aliases nothing.
        let start = unsafe {
            let len = size_of::<Ring>();
            rustix::mm::mmap(std::ptr::null_mut(), len, prot, flags, file, range.start)?
        };
        Ok(Self(NonNull::new(start.cast()).ok_or(Errno::FAULT)?))
    }
}

impl Deref for MappedRing {
    type Target = Ring;

    fn deref(&self) -> &Ring {
        // SAFETY: the mapping is as long as a ring, page-aligned, and lives until the drop; all bytes
        // are values of its atomics.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for MappedRing {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no reference can outlive its owner.
        let _ = unsafe { rustix::mm::munmap(self.0.as_ptr().cast(), size_of::<Ring>()) };
    }
}

impl Deref for Mapped {
    type Target = Control;

    fn deref(&self) -> &Control {
        // SAFETY: the mapping is as long as Control, page-aligned, and lives until the drop; the
        // file has that length; all zero bytes and all others are values of its atomics.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no reference can outlive its owner.
        let _ = unsafe { rustix::mm::munmap(self.0.as_ptr().cast(), size_of::<Control>()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Calls, Config, Delivery, Storage, SwapSpec, TooLong};
    use rustix::fd::AsRawFd;

    fn config() -> Config {
        let file = Storage::File("/some/\u{e4}rea".into());
        Config {
            limit_bytes: 123 << 20,
            most_bytes: 456 << 20,
            delivery: Delivery::Threads,
            calls: Calls::Trapped,
            room_bytes: 1 << 30,
            swap: vec![
                SwapSpec { storage: Storage::Ram, bytes: None, pages: 0 },
                SwapSpec { storage: file, bytes: Some(5 << 30), pages: 77 },
                SwapSpec { storage: Storage::Temporary("/var/tmp".into()), bytes: None, pages: 0 },
            ],
        }
    }

    #[test]
    fn what_one_side_publishes_the_other_reads() {
        let (file, ours) = Control::create(Plan::new(64 << 20, 0, [0; crate::MOST_AREAS])).unwrap();
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        assert_eq!(Control::attach(path.as_ref()).err(), Some(AttachError::Layout));
        ours.publish(&config()).unwrap();
        let theirs = Control::attach(path.as_ref()).unwrap();
        assert_eq!(theirs.config(), Some(config()));

        let looks = Control::look(path.as_ref()).unwrap();
        theirs.set_limit(100 << 20);
        assert_eq!((looks.limit_bytes(), ours.limit_bytes()), (100 << 20, 100 << 20));
        theirs.set_limit(1 << 40);
        assert_eq!(ours.limit_bytes(), 456 << 20);
        // A reader's writes stay with it.
        looks.set_limit(1 << 20);
        assert_eq!(ours.limit_bytes(), 456 << 20);

        theirs.counters.pages_out[2].add(7);
        theirs.counters.fault_time.record(1000);
        assert_eq!(ours.counters.pages_out[2].value(), 7);
        assert_eq!(ours.counters.fault_time.count(), 1);

        assert_eq!(ours.failure(), None);
        assert!(theirs.fail(12, "no room"));
        assert!(!theirs.fail(13, "later"));
        assert_eq!(ours.failure(), Some((12, "no room".to_owned())));

        ours.program.store(14, std::sync::atomic::Ordering::Relaxed);
        assert!(theirs.fail(14, "the program's"));
        assert_eq!(ours.own_failure().as_deref(), Some("the program's"));
        assert_eq!(ours.failure(), Some((12, "no room".to_owned())));
    }

    #[test]
    fn what_is_not_shared_memory_of_ours_is_refused() {
        assert!(matches!(Control::attach("/no/such".as_ref()), Err(AttachError::Host(_))));
        let short = rustix::fs::memfd_create("short", MemfdFlags::CLOEXEC).unwrap();
        let path = format!("/proc/self/fd/{}", short.as_raw_fd());
        assert_eq!(Control::attach(path.as_ref()).err(), Some(AttachError::Layout));
        rustix::fs::ftruncate(&short, size_of::<Control>() as u64).unwrap();
        assert_eq!(Control::attach(path.as_ref()).err(), Some(AttachError::Unsealed));
        assert_eq!(Control::look(path.as_ref()).err(), Some(AttachError::Unsealed));
    }

    #[test]
    fn nobody_shortens_the_shared_memory() {
        let (file, _control) =
            Control::create(Plan::new(64 << 20, 0, [0; crate::MOST_AREAS])).unwrap();
        assert_eq!(rustix::fs::ftruncate(&file, 4096), Err(Errno::PERM));
    }

    #[test]
    fn too_much_is_refused() {
        let (_file, control) =
            Control::create(Plan::new(64 << 20, 0, [0; crate::MOST_AREAS])).unwrap();
        let long =
            SwapSpec { storage: Storage::File("x".repeat(4096).into()), bytes: None, pages: 0 };
        let many =
            vec![SwapSpec { storage: Storage::Ram, bytes: None, pages: 0 }; crate::MOST_AREAS + 1];
        for swap in [vec![long], many] {
            let config = Config { limit_bytes: 1, swap, ..config() };
            assert_eq!(control.publish(&config), Err(TooLong));
        }
    }
}
