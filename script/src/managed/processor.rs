//! The interface that a machine implements to run scripts.

use crate::Window;
use crate::ast::Arch;
use crate::outcome::Oops;
use pagefault::Mm;
use pagefault::entry::{self, Signal, Verdict};
use pagefault::exception::ExceptionTables;
use pagefault::machine::{self as waist, PageFault, VirtAddr};
use std::sync::Arc;

/// Why an access did not happen.
pub enum Stopped {
    /// The process gets a signal for this address.
    Signal(Signal, u64),
    /// There is no memory for the page.
    OutOfMemory,
    /// The memory manager reported a bug.
    Bug(String),
    /// The kernel cannot continue: its message, and the address.
    Oops(Oops, u64),
}

impl Stopped {
    /// The effect of a verdict on the access at an address; `None` resumes it.
    pub fn by(verdict: Verdict, address: u64) -> Option<Self> {
        Some(match verdict {
            Verdict::Resume => return None,
            Verdict::Signal(signal) => Self::Signal(signal, address),
            Verdict::OutOfMemory => Self::OutOfMemory,
            Verdict::Oops(oops) => {
                let oops = match oops {
                    entry::Oops::NullPointer => Oops::NullPointer,
                    entry::Oops::PagingRequest => Oops::PagingRequest,
                    entry::Oops::OutOfMemory => Oops::OutOfMemory,
                };
                Self::Oops(oops, address)
            }
            verdict => Self::Bug(format!("verdict {verdict:?}")),
        })
    }
}

/// The loop of a trap handler: repeats an access until it succeeds or the memory manager refuses a
/// fault.
pub fn until_done<M: waist::Machine, T>(
    mm: &Arc<Mm<M>>,
    mut access: impl FnMut() -> Result<T, PageFault>,
) -> Result<T, Stopped> {
    let tables = ExceptionTables::default();
    loop {
        let fault = match access() {
            Ok(done) => return Ok(done),
            Err(fault) => fault,
        };
        let verdict = mm.manager().page_fault(Some(mm), &fault, &tables);
        if let Some(stopped) = Stopped::by(verdict, fault.address.value()) {
            return Err(stopped);
        }
    }
}

/// The part of a machine that makes accesses and knows its own state. A machine implements it to run
/// scripts.
///
/// The first three methods are enough. The others have bodies; they are for machines with invariants of
/// their own, injected failures, several processors, or the kernel's own accesses.
pub trait Processor<M: waist::Machine> {
    /// Loads bytes in ascending order.
    fn load(&mut self, mm: &Arc<Mm<M>>, address: u64, bytes: &mut [u8]) -> Result<(), Stopped>;
    /// Stores bytes in ascending order.
    fn store(&mut self, mm: &Arc<Mm<M>>, address: u64, bytes: &[u8]) -> Result<(), Stopped>;
    /// Fetches an instruction.
    fn fetch(&mut self, mm: &Arc<Mm<M>>, address: u64) -> Result<(), Stopped>;
    /// Checks the machine's own invariants, for `check` lines.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }
    /// Where scripts live.
    fn window(&self) -> Window {
        Window::of(Arch::X86_64)
    }
    /// Stores a `ret` at an address before an instruction fetch, if the page is writable.
    fn plant(&mut self, mm: &Arc<Mm<M>>, address: u64) -> Result<(), Stopped> {
        self.store(mm, address, &[0xc3])
    }
    /// Makes the `nth` allocation of a frame fail.
    fn fail_allocation(&mut self, _nth: u64) {}
    /// Copies bytes to the program's memory as the kernel does. Returns how many were not copied.
    fn copy_to_user(&mut self, mm: &Arc<Mm<M>>, address: u64, bytes: &[u8]) -> usize {
        mm.copy_to_user(VirtAddr(address), bytes)
    }
    /// Copies bytes from the program's memory as the kernel does. Returns how many were not copied.
    fn copy_from_user(&mut self, mm: &Arc<Mm<M>>, address: u64, bytes: &mut [u8]) -> usize {
        mm.copy_from_user(VirtAddr(address), bytes)
    }
    /// Loads bytes for the kernel itself, without a fixup.
    fn kernel_load(&mut self, _: &Arc<Mm<M>>, _: u64, _: &mut [u8]) -> Result<(), Stopped> {
        Err(Stopped::Bug("the machine has no kernel to watch".into()))
    }
    /// Stores bytes for the kernel itself, without a fixup.
    fn kernel_store(&mut self, _: &Arc<Mm<M>>, _: u64, _: &[u8]) -> Result<(), Stopped> {
        Err(Stopped::Bug("the machine has no kernel to watch".into()))
    }
    /// Maps frames for the kernel itself. Returns whether there was memory.
    fn kernel_map(&mut self, _address: u64, _length: u64) -> bool {
        false
    }
    /// Prefetches from an address, by the instruction at another.
    fn prefetch(&mut self, _: &Arc<Mm<M>>, _code: u64, _address: u64) -> Result<(), Stopped> {
        Err(Stopped::Bug("the machine executes no prefetch".into()))
    }
    /// Makes all further accesses on this processor.
    fn run_on(&mut self, _cpu: u64) {}
    /// Makes a device with `pages` pages of memory, if the machine has devices.
    fn device(&mut self, _pages: u32) -> Option<Arc<dyn waist::DeviceMemory>> {
        None
    }
    /// A file or a device of the script was opened.
    fn opened(&mut self, _file: u32, _mapping: u64) {}
    /// An address space was made.
    fn started(&mut self, _mm: &Arc<Mm<M>>) {}
    /// Memory has run out, and this address space was chosen to end.
    fn chosen(&mut self, _mm: &Arc<Mm<M>>) {}
    /// An address space is about to be dropped.
    fn ended(&mut self, _mm: &Arc<Mm<M>>) {}
}
