//! The configuration of a simulated computer.

use core::fmt;

/// The parts of a simulated computer, and its hazards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The number of frames, page tables included: 4 to [`Config::MOST_FRAMES`].
    pub frames: u32,
    /// The number of frames of device memory, numbered from [`Config::frames`] on.
    pub device_frames: u32,
    /// The number of CPUs, 1 to 64.
    pub cpus: u32,
    /// The seed of everything random.
    pub seed: u64,
    /// How many translations each CPU's TLB holds, rounded up to a power of two, at least 4.
    pub tlb_entries: u32,
    /// Whether there is a shared zero frame for read faults (spec B8).
    pub zero_frame: bool,
    /// Whether CPUs set the accessed bit.
    pub accessed_bits: bool,
    /// Whether CPUs set the dirty bit.
    pub dirty_bits: bool,
    /// Whether the computer says that its user is [alone](pagefault_machine::Machine::is_alone), in the
    /// [manager](pagefault_machine::Machine::is_sole) too. True only of one CPU that a single thread of
    /// control uses.
    pub alone: bool,
    /// Whether the processors have the errata of their kind
    /// ([`Architecture::ERRATA`](crate::Architecture::ERRATA)).
    pub errata: bool,
    /// What happens at random moments.
    pub hazards: Hazards,
    /// What happens when the computer's rules are broken.
    pub on_violation: OnViolation,
}

/// How often a CPU does by itself what a real one may do at any moment, in 1,024ths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hazards {
    /// A translation is dropped from the TLB, at an access.
    pub evictions: u16,
    /// A page is translated ahead of need, at an access or just before an entry changes: the TLB
    /// takes the translation in and the accessed bit is set.
    pub prefetches: u16,
}

/// Why a computer cannot be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// [`Config::frames`] is below 4, or with [`Config::device_frames`] above [`Config::MOST_FRAMES`] or what
    /// the processor's entries can name.
    Frames,
    /// [`Config::cpus`] is not 1 to 64.
    Cpus,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Frames => {
                "the number of frames is below 4, above 4194304, or above what an entry can name"
            }
            Self::Cpus => "the number of CPUs is not 1 to 64",
        })
    }
}

impl core::error::Error for ConfigError {}

impl Hazards {
    /// CPUs do only what they are asked.
    pub const NONE: Self = Self { evictions: 0, prefetches: 0 };
}

/// What the computer does when its rules are broken: a frame freed twice, a stale translation used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnViolation {
    /// Panic with the report, so that a test ends where the rule was broken.
    Panic,
    /// Keep the report for [`Computer::violations`](crate::Computer::violations) and go on.
    Record,
}

impl Default for Config {
    /// One CPU, 4,096 frames, hazards now and then, and a panic when a rule is broken.
    fn default() -> Self {
        Self {
            frames: 4096,
            device_frames: 0,
            cpus: 1,
            seed: 1,
            tlb_entries: 64,
            zero_frame: true,
            accessed_bits: true,
            dirty_bits: true,
            alone: false,
            errata: true,
            hazards: Hazards { evictions: 16, prefetches: 16 },
            on_violation: OnViolation::Panic,
        }
    }
}

impl Config {
    /// The most frames: 16 GiB of pages of 4 KiB. The host holds a record of each from the start, about a hundred
    /// bytes with the memory manager's.
    pub const MOST_FRAMES: u32 = 1 << 22;

    /// The default without hazards: accessed bits and TLBs hold exactly what accesses put there.
    pub fn calm() -> Self {
        Self { hazards: Hazards::NONE, ..Self::default() }
    }
}
