//! Without `std` the crate links no libc: the program in `freestanding/` is built with `-nostdlib`,
//! where a symbol that libc would have is an error, and manages its own memory.

use std::path::Path;
use std::process::Command;

#[test]
fn a_program_without_libc_manages_its_own_memory() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("freestanding");
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| sources.join("target"), Into::into);
    // Started inside the sources, so that their own configuration counts and no flags meant for
    // this build.
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "--target-dir"])
        .arg(&target)
        .current_dir(&sources)
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let program = target.join("x86_64-unknown-linux-gnu/debug/pagefault-freestanding");
    let status = Command::new(program).status().unwrap();
    assert_eq!(status.code(), Some(0), "the status names the line that failed: {status}");
}
