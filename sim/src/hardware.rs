//! What the parts of one computer share.

use crate::arch::Architecture;
use crate::chance::Chance;
use crate::config::{Config, ConfigError, OnViolation};
use crate::cpu::CpuState;
use crate::frames::{Frames, Owner};
use crate::stats::Counters;
use crate::table::Table;
use crate::violation::Violation;
use core::marker::PhantomData;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use pagefault_machine::{Frame, OutOfFrames};
use parking_lot::Mutex;
use std::sync::Arc;

/// The parts of a computer.
pub(crate) struct Hardware<A: Architecture> {
    pub(crate) config: Config,
    pub(crate) frames: Frames,
    /// A CPU's state is locked for the time of one access: an interrupt from another CPU is taken
    /// between two instructions. Nothing else is locked while it is.
    pub(crate) cpus: Box<[Mutex<CpuState>]>,
    /// The reference table (Linux: `init_mm.pgd`).
    pub(crate) reference: Arc<Table>,
    pub(crate) zeros: Option<Frame>,
    pub(crate) counters: Counters,
    /// What is left to chance outside any CPU.
    pub(crate) chance: Chance,
    pub(crate) clock: AtomicU64,
    next_space: AtomicU32,
    violations: Mutex<Vec<Violation>>,
    architecture: PhantomData<A>,
}

impl<A: Architecture> Hardware<A> {
    pub(crate) fn new(config: Config) -> Result<Self, ConfigError> {
        let all = config.frames.checked_add(config.device_frames).ok_or(ConfigError::Frames)?;
        if config.frames < 4 || all > Config::MOST_FRAMES || all - 1 > A::LIMITS.frame {
            return Err(ConfigError::Frames);
        }
        let mut config = config;
        config.accessed_bits &= A::ACCESSED != 0;
        config.dirty_bits &= A::DIRTY != 0;
        if !(1..=64).contains(&config.cpus) {
            return Err(ConfigError::Cpus);
        }
        Self::with_checked(config).map_err(|OutOfFrames| ConfigError::Frames)
    }

    fn with_checked(config: Config) -> Result<Self, OutOfFrames> {
        let frames = Frames::new(config.frames, config.device_frames);
        let zeros = match config.zero_frame {
            true => {
                let (frame, _) = frames.allocate(Owner::Zeros)?;
                frames.zero(frame);
                Some(frame)
            }
            false => None,
        };
        let (root, _) = frames.allocate_table()?;
        let reference = Arc::new(Table::new(0, root));
        let cpu = |number| Mutex::new(CpuState::new(&config, number, reference.clone()));
        Ok(Self {
            cpus: (0..config.cpus).map(cpu).collect(),
            chance: Chance::new(config.seed, u64::MAX),
            counters: Counters::default(),
            clock: AtomicU64::new(0),
            next_space: AtomicU32::new(1),
            violations: Mutex::default(),
            architecture: PhantomData,
            config,
            frames,
            reference,
            zeros,
        })
    }

    /// Takes a frame for the memory manager.
    pub(crate) fn allocate(&self) -> Result<Frame, OutOfFrames> {
        let (frame, intact) = self.frames.allocate(Owner::Manager)?;
        self.expect(intact);
        Ok(frame)
    }

    /// Takes a frame for a page table.
    pub(crate) fn allocate_table(&self) -> Result<Frame, OutOfFrames> {
        let (frame, intact) = self.frames.allocate_table()?;
        self.expect(intact);
        Ok(frame)
    }

    pub(crate) fn free_table(&self, frame: Frame) {
        self.expect(self.frames.free(frame, Owner::Table));
    }

    /// An address space with empty tables but for the kernel's part.
    pub(crate) fn new_table(&self) -> Result<Table, OutOfFrames> {
        let root = self.allocate_table()?;
        self.copy_kernel_part(root);
        Ok(Table::new(self.next_space.fetch_add(1, Ordering::Relaxed), root))
    }

    /// Reports a broken rule, if one was broken.
    ///
    /// Called with no lock of the computer held, because it may panic.
    pub(crate) fn expect(&self, result: Result<(), Violation>) {
        if let Err(violation) = result {
            self.violations.lock().push(violation);
            // A second panic while a test already fails would end the process without its report.
            let panics = self.config.on_violation == OnViolation::Panic;
            assert!(!panics || std::thread::panicking(), "{violation}");
        }
    }

    pub(crate) fn violations(&self) -> Vec<Violation> {
        self.violations.lock().clone()
    }

    /// Lets time pass.
    pub(crate) fn tick(&self, nanoseconds: u64) -> u64 {
        self.clock.fetch_add(nanoseconds, Ordering::Relaxed) + nanoseconds
    }
}
