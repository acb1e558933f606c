//! Whose code an address is in.

use core::ffi::{c_int, c_void};
use core::ops::Range;
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering::Relaxed;

/// The addresses of a loaded object, found once.
pub struct Module {
    start: AtomicUsize,
    end: AtomicUsize,
}

/// The dynamic linker.
pub static LINKER: Module = Module::new();

/// libc.
pub static LIBC: Module = Module::new();

impl Module {
    const fn new() -> Self {
        Self { start: AtomicUsize::new(0), end: AtomicUsize::new(0) }
    }

    /// Whether an address is in the object.
    pub fn contains(&self, address: usize) -> bool {
        (self.start.load(Relaxed)..self.end.load(Relaxed)).contains(&address)
    }

    fn set(&self, range: &Range<usize>) {
        self.end.store(range.end, Relaxed);
        self.start.store(range.start, Relaxed);
    }
}

/// Finds the objects. Called once, before the program starts.
pub fn find() {
    // SAFETY: reads a word that the kernel gave the process.
    let linker = unsafe { libc::getauxval(libc::AT_BASE) } as usize;
    let libc = libc::gnu_get_libc_version as *const () as usize;
    let mut wanted = [(linker, &LINKER), (libc, &LIBC)];
    // SAFETY: `visit` has the type asked for and takes its data for what is passed.
    unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut wanted).cast()) };
}

/// Notes the range of a loaded object if it contains an address that is looked for.
unsafe extern "C" fn visit(
    info: *mut libc::dl_phdr_info,
    _size: usize,
    wanted: *mut c_void,
) -> c_int {
    // SAFETY: the dynamic linker gives a valid description, and `find` the table.
    let (info, wanted) = unsafe { (&*info, &*wanted.cast::<[(usize, &'static Module); 2]>()) };
    // SAFETY: the description's headers are an array of the length given.
    let headers =
        unsafe { core::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
    let base = info.dlpi_addr as usize;
    let loaded = headers.iter().filter(|header| header.p_type == libc::PT_LOAD).map(|header| {
        let start = base + header.p_vaddr as usize;
        start..start + header.p_memsz as usize
    });
    let range = loaded.reduce(|a, b| a.start.min(b.start)..a.end.max(b.end)).unwrap_or(0..0);
    for (address, module) in wanted {
        if range.contains(address) {
            module.set(&range);
        }
    }
    0
}
