//! The command pagefault.
fn main() {}
