//! Probes the running kernel's features at the start.

use crate::sweep::Sweep;
use crate::uffd::{Device, Scope, UffdFeatures, Userfault};
use core::fmt;
use rustix::io::Errno;

/// How faults reach the memory manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The faulting thread runs the memory manager in its own `SIGBUS` handler. System calls on
    /// absent pages fail with `EFAULT`: populate or pin first.
    Inline,
    /// This many threads of the machine's own answer faults, including those of system calls.
    Threads(usize),
}

/// The feature or right that is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// The system call does not exist.
    #[error(
        "this kernel has no userfaultfd: it needs Linux 5.11 or later with CONFIG_USERFAULTFD=y"
    )]
    NoUserfaultfd,
    /// The kernel refuses a descriptor that sees the kernel's own accesses.
    #[error(
        "the kernel refuses a userfaultfd that sees faults of system calls: run as root, set \
         vm.unprivileged_userfaultfd=1 (sysctl), or give access to /dev/userfaultfd"
    )]
    NotPermitted,
    /// The kernel refuses even a user-mode-only descriptor; a seccomp filter does that.
    #[error(
        "the kernel refuses every userfaultfd (a container's seccomp filter does that): allow the \
         system call userfaultfd in its profile"
    )]
    Forbidden,
    /// A feature is missing.
    #[error("this kernel's userfaultfd lacks {name}: it needs Linux {since} or later")]
    MissingFeature {
        /// The feature.
        name: &'static str,
        /// The first version that has it.
        since: &'static str,
    },
    /// Another error of the host.
    #[error("the kernel refused a userfaultfd: {0}")]
    Host(Errno),
}

/// What inline delivery needs.
const INLINE: UffdFeatures = UffdFeatures::WRITE_PROTECT.union(UffdFeatures::SIGBUS);

/// The running kernel's features; printable, for `--stats` and bug reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The features of a userfaultfd.
    pub features: UffdFeatures,
    /// The widest scope that this user may use.
    pub scope: Scope,
    /// One call drops many pages (`process_madvise` with `MADV_DONTNEED` on the own process).
    pub batched_drop: bool,
}

impl Probe {
    /// Asks the kernel.
    pub fn new() -> Result<Self, ProbeError> {
        let (descriptor, scope) = widest()?;
        let features = descriptor.offered().map_err(ProbeError::Host)?;
        Ok(Self { features, scope, batched_drop: Sweep::new().is_batched() })
    }

    /// Opens the descriptor that a machine needs, and asks the kernel what is known by it. Inline delivery needs
    /// the narrowest scope, so whether the user may have more is not asked.
    pub(crate) fn begin(
        delivery: Delivery,
        sweep: &Sweep,
    ) -> Result<(Self, Userfault), ProbeError> {
        if delivery == Delivery::Inline
            && let Ok(descriptor) = Userfault::open(Scope::UserOnly)
            && let Ok(features) = descriptor.enable(INLINE)
        {
            let batched_drop = sweep.is_batched();
            return Ok((Self { features, scope: Scope::UserOnly, batched_drop }, descriptor));
        }
        let probe = Self::new()?;
        let descriptor = probe.open(delivery)?;
        Ok((probe, descriptor))
    }

    /// Opens the descriptor that `delivery` needs, or returns what prevents it.
    pub fn open(&self, delivery: Delivery) -> Result<Userfault, ProbeError> {
        self.open_by(delivery, None)
    }

    /// The same for a process that may have lost the right but kept the device open.
    pub(crate) fn open_by(
        &self,
        delivery: Delivery,
        device: Option<&Device>,
    ) -> Result<Userfault, ProbeError> {
        let mut wanted = UffdFeatures::WRITE_PROTECT;
        self.require(UffdFeatures::WRITE_PROTECT, "write protection", "5.7")?;
        let descriptor = match (delivery, device) {
            (Delivery::Inline, _) => {
                self.require(UffdFeatures::SIGBUS, "SIGBUS delivery", "4.14")?;
                wanted |= INLINE;
                // It suffices, since a system call on an absent page fails in any case.
                Userfault::open(Scope::UserOnly)
            }
            (Delivery::Threads(_), device) => {
                let useful = UffdFeatures::THREAD_ID | UffdFeatures::EXACT_ADDRESS;
                wanted |= self.features & useful;
                device.map_or_else(|| Userfault::open(self.scope), Device::descriptor)
            }
        };
        let descriptor = descriptor.map_err(ProbeError::Host)?;
        descriptor.enable(wanted).map_err(ProbeError::Host)?;
        Ok(descriptor)
    }

    /// An error unless faults of system calls can be seen.
    pub fn require_kernel_faults(&self) -> Result<(), ProbeError> {
        if self.scope == Scope::UserOnly { Err(ProbeError::NotPermitted) } else { Ok(()) }
    }

    fn require(
        &self,
        feature: UffdFeatures,
        name: &'static str,
        since: &'static str,
    ) -> Result<(), ProbeError> {
        if self.features.contains(feature) {
            Ok(())
        } else {
            Err(ProbeError::MissingFeature { name, since })
        }
    }
}

fn widest() -> Result<(Userfault, Scope), ProbeError> {
    for scope in [Scope::All, Scope::AllByDevice] {
        match Userfault::open(scope) {
            Ok(descriptor) => return Ok((descriptor, scope)),
            Err(Errno::NOSYS) => return Err(ProbeError::NoUserfaultfd),
            Err(_) => {}
        }
    }
    match Userfault::open(Scope::UserOnly) {
        Ok(descriptor) => Ok((descriptor, Scope::UserOnly)),
        Err(Errno::NOSYS) => Err(ProbeError::NoUserfaultfd),
        Err(Errno::PERM) => Err(ProbeError::Forbidden),
        Err(Errno::INVAL) => {
            Err(ProbeError::MissingFeature { name: "user-mode-only descriptors", since: "5.11" })
        }
        Err(errno) => Err(ProbeError::Host(errno)),
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scope = match self.scope {
            Scope::UserOnly => "user-mode faults only",
            Scope::All => "all faults",
            Scope::AllByDevice => "all faults, by /dev/userfaultfd",
        };
        write!(f, "userfaultfd: {scope}")?;
        for (feature, name) in [
            (UffdFeatures::WRITE_PROTECT, "write protection"),
            (UffdFeatures::SIGBUS, "inline delivery"),
            (UffdFeatures::EXACT_ADDRESS, "exact addresses"),
            (UffdFeatures::MOVE, "move"),
            (UffdFeatures::POISON, "poison"),
        ] {
            let has = if self.features.contains(feature) { "yes" } else { "no" };
            write!(f, "; {name}: {has}")?;
        }
        let batched = if self.batched_drop { "yes" } else { "no, page by page" };
        write!(f, "; batched drop: {batched}")
    }
}
