//! The table's lengths and directions against the host's kernel.
//!
//! Each case makes one call with buffers that end at an unmapped page and are exactly as long as the
//! table says. Those that the kernel only reads are read-only. The call must not fail with `EFAULT`.
//! With any buffer one byte shorter it must, and so it must with one read-only that the kernel writes.

mod devices;
mod events;
mod files;
mod harness;
mod identity;
mod inner;
mod ipc;
mod process;
mod sockets;
mod stat;
mod system;
mod time;

use harness::{Case, Outcome, prove};

fn all() -> impl Iterator<Item = &'static Case> {
    [
        files::CASES,
        stat::CASES,
        events::CASES,
        sockets::CASES,
        process::CASES,
        identity::CASES,
        time::CASES,
        ipc::CASES,
        system::CASES,
        inner::CASES,
        devices::CASES,
    ]
    .into_iter()
    .flatten()
}

#[test]
fn the_kernel_touches_what_the_table_says() {
    let only = std::env::var("PAGEFAULT_CALL").ok();
    let (mut proven, mut skipped, mut wrong) = (Vec::new(), Vec::new(), Vec::new());
    for case in all().filter(|case| only.as_deref().is_none_or(|name| case.0 == name)) {
        match prove(case) {
            Outcome::Proven => proven.push(case.0),
            Outcome::Unavailable(why) => skipped.push(format!("{}: {why}", case.0)),
            Outcome::Wrong(why) => wrong.push(format!("{}: {why}", case.0)),
        }
    }
    let cases = proven.len();
    proven.sort_unstable();
    proven.dedup();
    println!("{} calls proven by {cases} cases: {}", proven.len(), proven.join(" "));
    println!("not available here: {skipped:#?}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}
