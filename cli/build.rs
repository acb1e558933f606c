//! Builds what `pagefault run` places in programs, to be embedded in the command: the runtime, and
//! one for tests.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

/// What they are built from.
const SOURCES: [&str; 10] = [
    "machine",
    "mm",
    "linux",
    "calls",
    "control",
    "runtime",
    "Cargo.toml",
    "Cargo.lock",
    "cli/build.rs",
    "cli/tests/start/jump.rs",
];

fn main() {
    // Of this run: a target directory that was copied has a script that was compiled elsewhere.
    let package = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default();
    let root = Path::new(&package).join("..");
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", root.join(source).display());
    }
    let (Some(out), Some(cargo)) = (env::var_os("OUT_DIR"), env::var_os("CARGO")) else {
        fail("OUT_DIR and CARGO are set by cargo, which must run this");
    };
    let out = PathBuf::from(out);
    let jump = jump(&root, &out);
    println!("cargo::rustc-env=PAGEFAULT_JUMP={}", jump.display());
    let runtime = runtime(&cargo, &root, &shared(&out).join("runtime"));
    println!("cargo::rustc-env=PAGEFAULT_RUNTIME={}", runtime.display());
}

/// The directory of all that is built here, which profiles share; it is named by its tag.
fn shared(out: &Path) -> &Path {
    out.ancestors().find(|above| above.join("CACHEDIR.TAG").exists()).unwrap_or(out)
}

/// The runtime that is placed in programs.
fn runtime(cargo: &OsStr, root: &Path, target: &Path) -> PathBuf {
    let mut command = Command::new(cargo);
    command
        .args(["build", "--release", "--locked", "--target-dir"])
        .arg(target)
        // Where its own configuration is.
        .current_dir(root.join("runtime/image"))
        .env("CARGO_PROFILE_RELEASE_STRIP", "symbols");
    run(&mut command, "pagefault-image");
    target.join("x86_64-unknown-linux-gnu/release/pagefault-image")
}

/// A runtime that only jumps to the program, for tests.
fn jump(root: &Path, out: &Path) -> PathBuf {
    let image = out.join("jump");
    let rustc = |kind: &str| {
        let mut command = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
        command.args([
            "--edition=2024",
            "-Copt-level=1",
            "-Cpanic=abort",
            "-Crelocation-model=pie",
        ]);
        command
            .arg(format!("--crate-type={kind}"))
            .args(["--cap-lints=warn", "--out-dir"])
            .arg(out);
        command
    };
    let mut control = rustc("rlib");
    control.args(["--crate-name=pagefault_control"]).arg(root.join("control/src/lib.rs"));
    run(&mut control, "pagefault-control for the runtime of the tests");
    let mut command = rustc("bin");
    command.arg("--extern=pagefault_control").arg("-L").arg(out);
    command.arg("-Ctarget-feature=+crt-static").arg(root.join("cli/tests/start/jump.rs"));
    for argument in [
        "-nostartfiles",
        "-nostdlib",
        "-static-pie",
        "-Wl,--build-id=none",
        "-Wl,-e,pagefault_start",
        "-Wl,-z,noexecstack",
        "-Wl,-z,separate-code",
        "-Wl,--no-eh-frame-hdr",
    ] {
        command.arg(format!("-Clink-arg={argument}"));
    }
    run(&mut command, "the runtime of the tests");
    image
}

fn run(command: &mut Command, what: &str) {
    // What the outer build is told, as to measure coverage or to lint, is not for code that runs inside
    // of other programs.
    let command = command
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("CARGO_BUILD_TARGET");
    match command.status() {
        Ok(status) if status.success() => {}
        Ok(status) => fail(&format!("building {what}: {status}")),
        Err(error) => fail(&format!("building {what}: cannot start the compiler: {error}")),
    }
}

fn fail(why: &str) -> ! {
    println!("cargo::error={why}");
    exit(1)
}
