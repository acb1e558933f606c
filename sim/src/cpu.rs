//! A CPU: accesses through the TLB and the tables, and the faults they raise.

use crate::arch::Architecture;
use crate::chance::Chance;
use crate::config::Config;
use crate::frames::Owner;
use crate::hardware::Hardware;
use crate::schedule;
use crate::space::SimSpace;
use crate::stats::count;
use crate::table::Table;
use crate::tlb::{Tlb, Translation};
use crate::violation::Violation;
use crate::walk::{Leaf, Marks, Walked, walk};
use core::cell::Cell;
use core::fmt;
use pagefault_machine::{Access, Context, ErrorCode, Frame, Mode, PAGE_SIZE, PageFault, VirtAddr};
use parking_lot::MutexGuard;
use std::sync::Arc;

/// One of a computer's CPUs.
///
/// A value is only a handle: several name the same CPU, and using them from several threads is
/// allowed, each access being one step. Every access makes this CPU the one that the calling
/// thread runs on, which decides which flushes count as remote.
pub struct Cpu<A: Architecture> {
    pub(crate) hw: Arc<Hardware<A>>,
    pub(crate) number: u32,
    /// What a fault reports besides the address and the error code.
    pub registers: Registers,
}

/// The registers of the interrupted code that a page fault carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registers {
    /// The address of the instruction.
    pub ip: VirtAddr,
    /// The stack pointer.
    pub sp: VirtAddr,
    /// Whether the code may sleep.
    pub context: Context,
}

impl Default for Registers {
    fn default() -> Self {
        Self { ip: VirtAddr::ZERO, sp: VirtAddr::ZERO, context: Context::MaySleep }
    }
}

impl<A: Architecture> Cpu<A> {
    /// Loads a byte.
    pub fn load(
        &self,
        space: &SimSpace<A>,
        address: VirtAddr,
        mode: Mode,
    ) -> Result<u8, PageFault> {
        let mut byte = [0];
        self.load_bytes(space, address, mode, &mut byte)?;
        Ok(byte[0])
    }

    /// Stores a byte.
    pub fn store(
        &self,
        space: &SimSpace<A>,
        address: VirtAddr,
        mode: Mode,
        byte: u8,
    ) -> Result<(), PageFault> {
        self.store_bytes(space, address, mode, &[byte])
    }

    /// Fetches a byte as an instruction.
    pub fn fetch(
        &self,
        space: &SimSpace<A>,
        address: VirtAddr,
        mode: Mode,
    ) -> Result<u8, PageFault> {
        let mut byte = [0];
        self.access(space, address, mode, Bytes::Fetch(&mut byte))?;
        Ok(byte[0])
    }

    /// Asks for a translation ahead of need. The instruction must not fault, whatever the address; where the
    /// processor has that erratum, it does every other time that the page cannot be translated (spec A24).
    pub fn prefetch(
        &self,
        space: &SimSpace<A>,
        address: VirtAddr,
        mode: Mode,
    ) -> Result<(), PageFault> {
        let mut state = self.step_in(space);
        let Err(reason) = self.hw.walk_and_cache(&mut state, address, Access::Read, mode) else {
            return Ok(());
        };
        let strays = self.hw.config.errata && A::ERRATA.stray_prefetches && !state.has_strayed;
        state.has_strayed = strays;
        if strays {
            Err(self.report(address, self.hw.fault(Access::Read, mode, reason)))
        } else {
            Ok(())
        }
    }

    /// What a program's locked compare with a register comes to: `None` is the exception of an illegal
    /// instruction; a processor with that erratum faults at the table of exceptions (spec A24).
    pub fn locked_compare(&self) -> Option<PageFault> {
        const ILLEGAL_GATE: u64 = 48;
        let table = A::ERRATA.locked_compares.filter(|_| self.hw.config.errata)?;
        let code = ErrorCode::PROTECTION | ErrorCode::WRITE | ErrorCode::USER;
        Some(self.report(table + ILLEGAL_GATE, code))
    }

    /// Loads bytes in ascending order; those below the fault's address have been loaded.
    pub fn load_bytes(
        &self,
        space: &SimSpace<A>,
        address: VirtAddr,
        mode: Mode,
        bytes: &mut [u8],
    ) -> Result<(), PageFault> {
        self.access(space, address, mode, Bytes::Load(bytes))
    }

    /// Stores bytes in ascending order; those below the fault's address have been stored.
    pub fn store_bytes(
        &self,
        space: &SimSpace<A>,
        address: VirtAddr,
        mode: Mode,
        bytes: &[u8],
    ) -> Result<(), PageFault> {
        self.access(space, address, mode, Bytes::Store(bytes))
    }

    /// Loads a byte in kernel mode under whatever root is loaded: what an interrupt handler or a
    /// kernel thread does.
    pub fn load_as_loaded(&self, address: VirtAddr) -> Result<u8, PageFault> {
        let mut byte = [0];
        self.access_page(self.step(), address, Mode::Kernel, Bytes::Load(&mut byte))?;
        Ok(byte[0])
    }

    /// Loads a space's root, as a context switch does, and makes the space this CPU's own.
    pub fn switch(&self, space: &SimSpace<A>) {
        self.hw.switch(&mut self.step(), &space.table);
    }

    /// Goes on as a kernel thread, which has no address space of its own: the root stays loaded
    /// and its translations stay cached until a flush makes the CPU leave (lazy TLB, spec G3).
    pub fn idle(&self) {
        self.step().is_lazy = true;
    }

    /// The frame of the root that is loaded (CR3).
    pub fn root(&self) -> Frame {
        self.hw.cpus[self.number as usize].lock().loaded.root
    }

    /// This CPU's number, from 0.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// How many translations the TLB holds.
    pub fn cached(&self) -> usize {
        self.hw.cpus[self.number as usize].lock().tlb.iter().count()
    }

    /// The same CPU with other registers.
    #[must_use]
    pub fn with(&self, registers: Registers) -> Self {
        Self { registers, ..self.clone() }
    }

    fn access(
        &self,
        space: &SimSpace<A>,
        address: VirtAddr,
        mode: Mode,
        mut bytes: Bytes<'_>,
    ) -> Result<(), PageFault> {
        let mut address = address;
        while bytes.len() != 0 {
            let here = bytes.take(PAGE_SIZE as usize - address.page_offset());
            let length = here.len() as u64;
            let state = self.step_in(space);
            self.access_page(state, address, mode, here)?;
            address = VirtAddr(address.value().wrapping_add(length));
        }
        Ok(())
    }

    /// Begins an instruction under a space's root.
    fn step_in(&self, space: &SimSpace<A>) -> MutexGuard<'_, CpuState> {
        let mut state = self.step();
        if state.loaded.id != space.table.id || state.is_lazy {
            self.hw.switch(&mut state, &space.table);
        }
        state
    }

    fn report(&self, address: VirtAddr, code: ErrorCode) -> PageFault {
        let Registers { ip, sp, context } = self.registers;
        PageFault { address, code, context, ip, sp }
    }

    /// Begins an instruction: interrupts wait until the guard is dropped.
    fn step(&self) -> MutexGuard<'_, CpuState> {
        schedule::point();
        LOCAL.set(self.number);
        self.hw.tick(1);
        self.hw.cpus[self.number as usize].lock()
    }

    /// One access within one page.
    fn access_page(
        &self,
        mut state: MutexGuard<'_, CpuState>,
        address: VirtAddr,
        mode: Mode,
        bytes: Bytes<'_>,
    ) -> Result<(), PageFault> {
        self.hw.misbehave(&mut state, address);
        let access = bytes.access();
        let translated = self.hw.translate(&mut state, address, access, mode);
        let frame = translated.map_err(|code| self.report(address, code))?;
        let is_astray = matches!(self.hw.frames.owner(frame), Owner::Nobody | Owner::Table);
        match bytes {
            Bytes::Load(into) | Bytes::Fetch(into) => {
                self.hw.frames.load(frame, address.page_offset(), into);
            }
            Bytes::Store(from) => self.hw.frames.store(frame, address.page_offset(), from),
        }
        drop(state);
        if is_astray {
            let cpu = self.number;
            let violation = Violation::StrayAccess { frame, cpu, address, access };
            self.hw.expect(Err(violation));
        }
        Ok(())
    }
}

impl<A: Architecture> Clone for Cpu<A> {
    fn clone(&self) -> Self {
        Self { hw: self.hw.clone(), number: self.number, registers: self.registers }
    }
}

impl<A: Architecture> fmt::Debug for Cpu<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cpu")
            .field("number", &self.number)
            .field("registers", &self.registers)
            .finish_non_exhaustive()
    }
}

/// What an access moves, and where to or from.
enum Bytes<'a> {
    Load(&'a mut [u8]),
    Store(&'a [u8]),
    Fetch(&'a mut [u8]),
}

impl Bytes<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Load(bytes) | Self::Fetch(bytes) => bytes.len(),
            Self::Store(bytes) => bytes.len(),
        }
    }

    fn access(&self) -> Access {
        match self {
            Self::Load(_) => Access::Read,
            Self::Store(_) => Access::Write,
            Self::Fetch(_) => Access::Execute,
        }
    }

    /// Cuts off at most `length` bytes at the front.
    fn take(&mut self, length: usize) -> Self {
        let length = length.min(self.len());
        match self {
            Self::Load(bytes) | Self::Fetch(bytes) => {
                let (now, rest) = core::mem::take(bytes).split_at_mut(length);
                *bytes = rest;
                match self {
                    Self::Fetch(_) => Self::Fetch(now),
                    _ => Self::Load(now),
                }
            }
            Self::Store(bytes) => {
                let (now, rest) = bytes.split_at(length);
                *bytes = rest;
                Self::Store(now)
            }
        }
    }
}

thread_local! {
    /// The CPU that the calling thread runs on.
    static LOCAL: Cell<u32> = const { Cell::new(0) };
}

/// Makes the calling thread run on a CPU.
pub(crate) fn run_on(cpu: u32) {
    LOCAL.set(cpu);
}

/// The CPU, of `cpus`, that the calling thread runs on.
pub(crate) fn local_cpu(cpus: u32) -> u32 {
    LOCAL.get() % cpus
}

/// What one CPU holds.
pub(crate) struct CpuState {
    pub(crate) number: u32,
    pub(crate) tlb: Tlb,
    /// The space whose root is loaded.
    pub(crate) loaded: Arc<Table>,
    /// The CPU runs a kernel thread and only keeps the root.
    pub(crate) is_lazy: bool,
    /// The last prefetch faulted, which the next will not (spec A24).
    has_strayed: bool,
    chance: Chance,
}

impl CpuState {
    pub(crate) fn new(config: &Config, number: u32, reference: Arc<Table>) -> Self {
        Self {
            number,
            tlb: Tlb::new(config.tlb_entries),
            loaded: reference,
            is_lazy: true,
            has_strayed: false,
            chance: Chance::new(config.seed, u64::from(number)),
        }
    }
}

/// Translation.
impl<A: Architecture> Hardware<A> {
    /// Finds the frame for an access, or the error code of its fault (spec A2).
    fn translate(
        &self,
        state: &mut CpuState,
        address: VirtAddr,
        access: Access,
        mode: Mode,
    ) -> Result<Frame, ErrorCode> {
        if !A::is_canonical(address) {
            // A real processor raises a general-protection exception, which like this fault ends
            // in SIGSEGV or a fixup.
            return Err(self.fault(access, mode, ErrorCode::empty()));
        }
        if let Some(cached) = state.tlb.find(address.page_number()) {
            if !cached.rights.allow(access, mode) {
                // A fault drops the translation that caused it, so that the retry looks at the
                // table (and never loops on a right that the table has granted meanwhile).
                state.tlb.remove(cached.page, &self.frames);
                self.count_if_stale(state, address, access, mode);
                return Err(self.fault(access, mode, ErrorCode::PROTECTION));
            }
            let notes_dirty = self.config.dirty_bits && access == Access::Write;
            if cached.dirty || !notes_dirty {
                count(&self.counters.tlb_hits, 1);
                return Ok(cached.frame);
            }
            // The first store through a clean translation has to go and mark the entry.
        }
        count(&self.counters.tlb_misses, 1);
        self.walk_and_cache(state, address, access, mode)
            .map_err(|reason| self.fault(access, mode, reason))
    }

    /// Walks the tables, marks the entry as used, and takes the translation in; or returns the
    /// bits of the error code that say why not.
    fn walk_and_cache(
        &self,
        state: &mut CpuState,
        address: VirtAddr,
        access: Access,
        mode: Mode,
    ) -> Result<Frame, ErrorCode> {
        loop {
            let leaf = match walk::<A>(&self.frames, state.loaded.root, address, self.marks()) {
                Walked::Missing => return Err(ErrorCode::empty()),
                Walked::Reserved => return Err(ErrorCode::PROTECTION | ErrorCode::RESERVED),
                Walked::Found(leaf) => leaf,
            };
            if !leaf.rights.allow(access, mode) {
                return Err(ErrorCode::PROTECTION);
            }
            if let Some(dirty) = self.mark_used(&leaf, access) {
                let Leaf { frame, rights, global, .. } = leaf;
                let page = address.page_number();
                let new = Translation { page, frame, rights, dirty, global };
                state.tlb.insert(new, &self.frames, &state.chance);
                return Ok(frame);
            }
            // The entry changed between the look and the mark: look again.
        }
    }

    /// Sets the accessed bit, and the dirty bit for a store, in one atomic step (spec G5). Returns
    /// whether the entry is dirty then, or `None` if it changed meanwhile.
    fn mark_used(&self, leaf: &Leaf, access: Access) -> Option<bool> {
        let accessed = if self.config.accessed_bits { A::ACCESSED } else { 0 };
        let stores = self.config.dirty_bits && access == Access::Write;
        let marks = accessed | if stores { A::DIRTY } else { 0 };
        let is_marked =
            leaf.raw & marks == marks || self.frames.mark::<A>(leaf.place, leaf.raw, marks);
        is_marked.then_some((leaf.raw | marks) & A::DIRTY != 0)
    }

    fn marks(&self) -> Marks {
        if self.config.accessed_bits { Marks::Set } else { Marks::Leave }
    }

    fn fault(&self, access: Access, mode: Mode, reason: ErrorCode) -> ErrorCode {
        count(&self.counters.faults, 1);
        let mut code = reason;
        code.set(ErrorCode::WRITE, access == Access::Write);
        code.set(ErrorCode::USER, mode == Mode::User);
        code.set(ErrorCode::FETCH, access == Access::Execute && A::NO_EXECUTE);
        code
    }

    fn count_if_stale(&self, state: &CpuState, address: VirtAddr, access: Access, mode: Mode) {
        let walked = walk::<A>(&self.frames, state.loaded.root, address, Marks::Leave);
        if matches!(walked, Walked::Found(leaf) if leaf.rights.allow(access, mode)) {
            count(&self.counters.stale_faults, 1);
        }
    }
}

/// What a processor does unasked.
impl<A: Architecture> Hardware<A> {
    /// Perhaps drops a translation, perhaps translates a page near an access ahead of need.
    fn misbehave(&self, state: &mut CpuState, address: VirtAddr) {
        let hazards = self.config.hazards;
        if state.chance.happens(hazards.evictions) {
            state.tlb.evict(&self.frames, &state.chance);
        }
        if state.chance.happens(hazards.prefetches) {
            let pages = state.chance.below(9).wrapping_sub(4);
            let near = address.value().wrapping_add(pages.wrapping_mul(PAGE_SIZE));
            self.prefetch(state, VirtAddr(near));
        }
    }

    /// Perhaps makes some CPU that runs a space translate a page at the worst moment, which is
    /// just before its entry changes.
    pub(crate) fn prefetch_before_change(&self, table: &Table, address: VirtAddr) {
        if !self.chance.happens(self.config.hazards.prefetches) {
            return;
        }
        let cpu = self.chance.below(self.cpus.len() as u64) as usize;
        let mut state = self.cpus[cpu].lock();
        if state.loaded.id == table.id {
            self.prefetch(&mut state, address);
        }
    }

    fn prefetch(&self, state: &mut CpuState, address: VirtAddr) {
        let cached = state.tlb.find(address.page_number());
        if cached.is_some() || !A::is_canonical(address) {
            return;
        }
        // A prefetch that may not be made is dropped without a fault.
        let mode = A::mode(address);
        if self.walk_and_cache(state, address, Access::Read, mode).is_ok() {
            count(&self.counters.prefetches, 1);
        }
    }
}
