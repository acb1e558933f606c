//! Finding the kernel, or building it.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Names a kernel that was built before.
pub const VARIABLE: &str = "PAGEFAULT_KERNEL";

/// The triple that the kernel is built for.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The kernel that a release build of this package has in it.
#[cfg(embedded)]
const EMBEDDED: Option<&[u8]> = Some(include_bytes!(env!("PAGEFAULT_KERNEL_IMAGE")));
#[cfg(not(embedded))]
const EMBEDDED: Option<&[u8]> = None;

/// Why there is no kernel.
#[derive(Debug)]
pub enum KernelError {
    /// None is part of this build, none is named, and the sources are not where this package was built.
    NoSources,
    /// Cargo could not be started.
    Cargo(io::Error),
    /// Cargo's compiler found errors; this is what it said.
    Build(String),
    /// The kernel could not be written to where QEMU reads it.
    Write(io::Error),
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSources => {
                write!(f, "the kernel's sources are gone; name a kernel in {VARIABLE}")
            }
            Self::Cargo(error) => write!(f, "cargo: {error}"),
            Self::Build(text) => write!(f, "the kernel's build failed:\n{text}"),
            Self::Write(error) => write!(f, "the kernel cannot be written for QEMU: {error}"),
        }
    }
}

impl std::error::Error for KernelError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Cargo(error) | Self::Write(error) => Some(error),
            Self::NoSources | Self::Build(_) => None,
        }
    }
}

/// The kernel's path: the one named by [`VARIABLE`], else the one in this build, written into a
/// directory, else the one built from the sources beside this package, which is brought up to date
/// first.
pub fn locate(directory: &Path) -> Result<PathBuf, KernelError> {
    if let Some(path) = env::var_os(VARIABLE) {
        return Ok(path.into());
    }
    if let Some(kernel) = EMBEDDED {
        let path = directory.join("kernel");
        fs::write(&path, kernel).map_err(KernelError::Write)?;
        return Ok(path);
    }
    let program = env::current_exe().unwrap_or_default();
    build(&Places::of_this_build().beside(&program))
}

/// Where the kernel is built.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Places {
    sources: PathBuf,
    /// The kernel's target directory, in that of the build.
    target: PathBuf,
}

impl Places {
    fn of_this_build() -> Self {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernel");
        // Where a release build makes it too.
        Self { sources, target: env!("PAGEFAULT_KERNEL_TARGET").into() }
    }

    /// The places for a program that runs. Cargo does not rebuild a checkout that was copied with its target
    /// directory, so the program names the first checkout. It must build the kernel of its own.
    fn beside(self, program: &Path) -> Self {
        let here = program.ancestors().find(|above| above.join("CACHEDIR.TAG").exists());
        let (Some(here), Some(there)) = (here, self.target.parent()) else { return self };
        let checkouts = here.parent().zip(there.parent());
        let moved = checkouts.and_then(|(new, old)| {
            self.sources.strip_prefix(old).ok().map(|inside| new.join(inside))
        });
        match moved {
            Some(sources) if sources.join("Cargo.toml").exists() => {
                Self { sources, target: here.join("kernel") }
            }
            _ => self,
        }
    }
}

fn build(Places { sources, target }: &Places) -> Result<PathBuf, KernelError> {
    if !sources.join("Cargo.toml").exists() {
        return Err(KernelError::NoSources);
    }
    let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    // Started inside the sources, so that the kernel's own configuration counts and no flags meant
    // for the caller's build.
    command
        .args(["build", "--release", "--quiet", "--locked", "--target-dir"])
        .arg(target)
        .current_dir(sources)
        .env("CARGO_PROFILE_RELEASE_STRIP", "symbols")
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    let output = command.output().map_err(KernelError::Cargo)?;
    if !output.status.success() {
        return Err(KernelError::Build(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    Ok(target.join(TARGET).join("release/pagefault-kernel"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A checkout with the kernel's sources and a target directory.
    fn checkout(root: &Path) -> Places {
        let places = Places { sources: root.join("pc/kernel"), target: root.join("target/kernel") };
        for directory in [&places.sources, &places.target, &root.join("target/debug/deps")] {
            fs::create_dir_all(directory).unwrap();
        }
        fs::write(places.sources.join("Cargo.toml"), "").unwrap();
        fs::write(root.join("target/CACHEDIR.TAG"), "").unwrap();
        places
    }

    #[test]
    fn a_copied_checkout_builds_its_own_kernel() {
        let root = env::temp_dir().join(format!("pagefault-checkouts-{}", std::process::id()));
        let (first, copy) = (checkout(&root.join("first")), checkout(&root.join("copy")));
        let program = |of: &str| root.join(of).join("target/debug/deps/test");
        assert_eq!(first.clone().beside(&program("first")), first);
        assert_eq!(first.clone().beside(&program("copy")), copy);
        // An installed program is in no target directory.
        assert_eq!(first.clone().beside(Path::new("/no/such/place/pagefault")), first);
        // Nor is a target directory elsewhere beside a checkout.
        fs::remove_file(copy.sources.join("Cargo.toml")).unwrap();
        assert_eq!(first.clone().beside(&program("copy")), first);
        fs::remove_dir_all(&root).unwrap();
    }
}
