//! Builds the kernel into a release build with the feature `embedded`, so that booting needs neither
//! sources nor cargo. Other builds make the kernel from the sources when it is first wanted, in the same
//! place.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

/// What the kernel is built from.
const SOURCES: [&str; 3] = ["pc/kernel", "machine", "mm"];

fn main() {
    println!("cargo::rustc-check-cfg=cfg(embedded)");
    let Some(out) = env::var_os("OUT_DIR").map(PathBuf::from) else {
        fail("OUT_DIR is set by cargo, which must run this");
    };
    let target = shared(&out).join("kernel");
    println!("cargo::rustc-env=PAGEFAULT_KERNEL_TARGET={}", target.display());
    // Of this run: a target directory that was copied has a script that was compiled elsewhere.
    let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let sources = package.join("kernel");
    let is_release = env::var_os("PROFILE").is_some_and(|profile| profile == "release");
    if env::var_os("CARGO_FEATURE_EMBEDDED").is_none() || !is_release {
        println!("cargo::rerun-if-changed=build.rs");
        return;
    }
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", package.join("..").join(source).display());
    }
    // A package from the registry has no kernel beside it.
    if sources.join("Cargo.toml").exists() {
        let kernel = build(&sources, &target);
        println!("cargo::rustc-env=PAGEFAULT_KERNEL_IMAGE={}", kernel.display());
        println!("cargo::rustc-cfg=embedded");
    }
}

/// The directory of all that is built here, which profiles share; it is named by its tag.
fn shared(out: &Path) -> &Path {
    out.ancestors().find(|above| above.join("CACHEDIR.TAG").exists()).unwrap_or(out)
}

fn build(sources: &Path, target: &Path) -> PathBuf {
    let Some(cargo) = env::var_os("CARGO") else {
        fail("CARGO is set by cargo, which must run this");
    };
    let status = Command::new(cargo)
        .args(["build", "--release", "--locked", "--target-dir"])
        .arg(target)
        // Where its own configuration is.
        .current_dir(sources)
        .env("CARGO_PROFILE_RELEASE_STRIP", "symbols")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("CARGO_BUILD_TARGET")
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => fail(&format!("building the kernel: {status}")),
        Err(error) => fail(&format!("building the kernel: cannot start cargo: {error}")),
    }
    target.join("x86_64-unknown-linux-gnu/release/pagefault-kernel")
}

fn fail(why: &str) -> ! {
    println!("cargo::error={why}");
    exit(1)
}
