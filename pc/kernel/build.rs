//! Links the kernel at its own addresses, without the C library's start files.

fn main() {
    // Of this run: a target directory that was copied has a script that was compiled elsewhere.
    let package = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let script = format!("{package}/kernel.ld");
    println!("cargo::rerun-if-changed={script}");
    for argument in ["-nostartfiles", "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none"] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
    println!("cargo::rustc-link-arg-bins=-Wl,-T,{script}");
    println!("cargo::rustc-link-arg-bins=-Wl,-z,max-page-size=4096,-z,noexecstack");
}
