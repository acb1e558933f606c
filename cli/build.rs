//! Builds the shared object that `pagefault run` loads into programs, to be embedded in the command.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

/// What the object is built from.
const SOURCES: [&str; 8] =
    ["machine", "mm", "linux", "control", "preload", "Cargo.toml", "Cargo.lock", "cli/build.rs"];

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", root.join(source).display());
    }
    let (Some(out), Some(cargo)) = (env::var_os("OUT_DIR"), env::var_os("CARGO")) else {
        fail("OUT_DIR and CARGO are set by cargo, which must run this");
    };
    let target = PathBuf::from(out).join("preload");
    let status = Command::new(cargo)
        .args(["build", "--release", "--locked", "--package", "pagefault-preload"])
        .arg("--manifest-path")
        .arg(root.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        // What the outer build is told, as to measure coverage or to lint, is not for an object
        // that runs inside of other programs.
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("CARGO_BUILD_TARGET")
        // There is nobody to catch a panic between a program and its page.
        .env("CARGO_PROFILE_RELEASE_PANIC", "abort")
        .env("CARGO_PROFILE_RELEASE_STRIP", "debuginfo")
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => fail(&format!("building pagefault-preload: {status}")),
        Err(error) => fail(&format!("cannot start cargo: {error}")),
    }
    let object = target.join("release/libpagefault_preload.so");
    println!("cargo::rustc-env=PAGEFAULT_PRELOAD={}", object.display());
}

fn fail(why: &str) -> ! {
    println!("cargo::error={why}");
    exit(1)
}
