//! The PC as the memory manager's machine: frames by physical page number, content through the
//! direct map, page tables that the processor walks.

use crate::direct::{content, table};
use crate::frames::Frames;
use crate::layout::{TASK_SIZE, TOP_SPAN, VMALLOC};
use crate::lock::{Spin, SpinMany};
use crate::space::PcSpace;
use crate::{clock, cpu, failures, scheduler, shootdown, vmalloc};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use pagefault::machine::encode::x86_64 as encode;
use pagefault::machine::{
    Capabilities, ContextId, Frame, Machine, NoSpace, OutOfFrames, PAGE_SIZE, Page, Stale, VirtAddr,
};

/// How many frames stay for the kernel itself, whose heap, stacks and queues cannot wait for pages
/// to be evicted (Linux: the minimum watermark). Reclaim makes them good when they were used.
const RESERVE: u32 = 64;

/// The machine.
pub struct Pc {
    frames: &'static Frames,
    /// The reference table of kernel addresses (Linux: `init_mm.pgd`).
    reference: Frame,
    zero: Frame,
    spaces: AtomicU32,
    /// How often the top level of a page table was brought in line with the reference table.
    pub synchronised: AtomicU64,
}

impl Pc {
    /// Takes a frame to be the shared frame of zeros.
    pub fn new(frames: &'static Frames, reference: Frame) -> Result<Self, OutOfFrames> {
        let zero = frames.allocate_table()?;
        let (spaces, synchronised) = (AtomicU32::new(1), AtomicU64::new(0));
        Ok(Self { frames, reference, zero, spaces, synchronised })
    }

    /// The root of the reference table.
    pub const fn reference(&self) -> Frame {
        self.reference
    }
}

/// Refuses if only the kernel's own frames are left. What programs make the kernel take, their page
/// tables too, is not to be taken out of those.
pub fn leave_reserve(frames: &Frames) -> Result<(), OutOfFrames> {
    if frames.free_frames() > RESERVE { Ok(()) } else { Err(OutOfFrames) }
}

impl Machine for Pc {
    type Space = PcSpace;
    type Mutex = Spin;
    type RwLock = SpinMany;

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            accessed: true,
            dirty: true,
            task_size: VirtAddr(TASK_SIZE),
            no_execute: true,
            file_index_limit: encode::LIMITS.file_index,
            last_swap_slot: encode::LIMITS.slot,
        }
    }

    fn frames(&self) -> u32 {
        self.frames.count()
    }

    fn free_frames(&self) -> u32 {
        self.frames.free_frames().saturating_sub(RESERVE)
    }

    fn zero_frame(&self) -> Option<Frame> {
        Some(self.zero)
    }

    fn allocate(&self) -> Result<Frame, OutOfFrames> {
        failures::frame()?;
        leave_reserve(self.frames)?;
        self.frames.allocate(0)
    }

    fn free(&self, frame: Frame) {
        self.frames.free(frame, 0);
    }

    fn zero(&self, frame: Frame) {
        // SAFETY: the memory manager asks for frames that it allocated; programs that write to the
        // frame at the same time race with the zeros as they would on any computer.
        unsafe { content(frame).write_bytes(0, 1) };
    }

    fn copy(&self, from: Frame, to: Frame) {
        // SAFETY: as for `zero`; `to` is no frame that anyone else uses, so the two differ.
        unsafe { content(from).copy_to_nonoverlapping(content(to), 1) };
    }

    fn fill<R>(&self, frame: Frame, f: impl FnOnce(&mut Page) -> R) -> R {
        // SAFETY: the memory manager holds the page's lock, and the frame has no content yet: no
        // page table names it, and whoever finds it in a cache waits for the lock.
        f(unsafe { &mut *content(frame) })
    }

    fn drain<R>(&self, frame: Frame, f: impl FnOnce(&Page) -> R) -> R {
        // SAFETY: the memory manager holds the page's lock, and has taken the right to store from
        // every entry and flushed: nobody stores to the frame until the lock is given up.
        f(unsafe { &*content(frame) })
    }

    fn read(&self, frame: Frame, offset: usize, bytes: &mut [u8]) {
        assert!(offset + bytes.len() <= PAGE_SIZE as usize, "bytes of one page");
        // SAFETY: the bytes lie within the frame. No reference to them is made: a program may store
        // to them meanwhile, as on any computer.
        unsafe {
            let from = content(frame).cast::<u8>().add(offset);
            from.copy_to_nonoverlapping(bytes.as_mut_ptr(), bytes.len());
        }
    }

    fn write(&self, frame: Frame, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= PAGE_SIZE as usize, "bytes of one page");
        // SAFETY: as for `read`.
        unsafe {
            let to = content(frame).cast::<u8>().add(offset);
            to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
    }

    fn space(&self) -> Result<PcSpace, NoSpace> {
        failures::frame()?;
        leave_reserve(self.frames)?;
        let id = self.spaces.fetch_add(1, Ordering::Relaxed);
        Ok(PcSpace::new(self.frames, self.reference, id)?)
    }

    fn flush(&self, space: &PcSpace, stale: &[Stale]) {
        shootdown::flush(space, stale);
    }

    fn flush_here(&self, space: &PcSpace, stale: Stale) -> bool {
        shootdown::flush_here(space, stale)
    }

    /// Copies the top-level entry from the reference table to the root that is loaded (spec A6).
    fn synchronise(&self, address: VirtAddr) -> bool {
        if !VMALLOC.contains(&address.value()) || !vmalloc::is_mapped(self.reference, address) {
            return false;
        }
        let at = (address.value() / TOP_SPAN % 512) as usize;
        // SAFETY: the reference table is never freed, nor is the root while this CPU has it loaded.
        let (from, to) = unsafe { (&table(self.reference)[at], &table(cpu::root())[at]) };
        let raw = from.load(Ordering::Acquire);
        let before = to.swap(raw, Ordering::AcqRel);
        // The hardware sets the accessed bit in each root on its own.
        let same = before == 0 || encode::frame(before) == encode::frame(raw);
        assert!(same, "two kernel tables at {address}");
        self.synchronised.fetch_add(1, Ordering::Relaxed);
        true
    }

    fn context(&self) -> ContextId {
        ContextId(cpu::task_id())
    }

    fn wait(&self, word: &AtomicU32, value: u32) {
        scheduler::wait(word, value);
    }

    fn wake(&self, word: &AtomicU32) {
        scheduler::wake(word);
    }

    fn pause(&self) {
        scheduler::yield_now();
    }

    fn now(&self) -> u64 {
        clock::nanoseconds()
    }
}
