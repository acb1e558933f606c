//! The cost of an unused machine: nothing grows with its limit.

use pagefault::swap::area::Priority;
use pagefault::{Config as Rules, Manager};
use pagefault_linux::store::CompressedRam;
use pagefault_linux::{Config, Layout, LinuxMachine};
use std::sync::Arc;

/// The field of `/proc/self/status` with this name, in KiB.
fn kibibytes(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_machine_of_a_tebibyte_costs_no_memory_before_it_is_used() {
    let (resident, addresses) = (kibibytes("RssAnon:"), kibibytes("VmSize:"));
    let config = Config { layout: Layout::Identity, ..Config::new(1 << 28) };
    let machine = LinuxMachine::new(&config).unwrap();
    let space = machine.new_space().unwrap();
    let own_addresses = kibibytes("VmSize:") - addresses;
    assert!(own_addresses < 64 << 10, "the machine takes {own_addresses} KiB of addresses");
    let manager = Manager::new(Arc::new(machine), Rules::default());
    let addresses = kibibytes("VmSize:");
    let ram = CompressedRam::new(1 << 20, 512 << 30).unwrap();
    let own_addresses = kibibytes("VmSize:") - addresses;
    assert!(own_addresses < 4 << 20, "compressed memory takes {own_addresses} KiB of addresses");
    manager.swap_on(Box::new(ram), Priority::Descending).unwrap();
    let touched = kibibytes("RssAnon:") - resident;
    assert!(touched < 4 << 10, "{touched} KiB are touched at the start");
    drop((space, manager));
}
