//! The kernel's reading of the firmware's tables, on tables made here.

extern crate alloc;

#[path = "../kernel/src/acpi.rs"]
#[allow(dead_code, reason = "the kernel uses all of it")]
mod acpi;

use acpi::Tables;

const ROOT: usize = 0x100;
const OTHER: usize = 0x200;
const LIST: usize = 0x300;

/// Puts a table at an address, its length and checksum right.
fn put(memory: &mut [u8], at: usize, name: &[u8; 4], content: &[u8]) {
    let mut table = vec![0; 36];
    table[..4].copy_from_slice(name);
    table[4..8].copy_from_slice(&(36 + content.len() as u32).to_le_bytes());
    table.extend(content);
    table[9] = table.iter().fold(0, |sum: u8, byte| sum.wrapping_sub(*byte));
    memory[at..at + table.len()].copy_from_slice(&table);
}

/// Memory with a root pointer at 16, of the first version or of the second.
fn memory(version: u8, entries: &[u8]) -> Vec<u8> {
    let mut memory = vec![0; 0x400];
    memory[16..24].copy_from_slice(b"RSD PTR ");
    memory[31] = version;
    let addresses = [OTHER as u64, LIST as u64];
    let root: Vec<u8> = if version < 2 {
        memory[32..36].copy_from_slice(&(ROOT as u32).to_le_bytes());
        addresses.iter().flat_map(|at| (*at as u32).to_le_bytes()).collect()
    } else {
        memory[40..48].copy_from_slice(&(ROOT as u64).to_le_bytes());
        addresses.iter().flat_map(|at| at.to_le_bytes()).collect()
    };
    put(&mut memory, ROOT, b"RSDT", &root);
    put(&mut memory, OTHER, b"FACP", &[1, 2, 3]);
    put(&mut memory, LIST, b"APIC", &[&[0; 8], entries].concat());
    memory
}

fn processors(memory: &[u8], limit: usize) -> Vec<u32> {
    let read = |at, bytes| memory.get(at as usize..)?.get(..bytes);
    Tables { read: &read, pointer: 16 }.processors(limit)
}

/// Two processors, one that is not enabled, an interrupt controller, and a third.
const ENTRIES: [u8; 44] = [
    0, 8, 0, 0, 1, 0, 0, 0, 0, 8, 1, 4, 1, 0, 0, 0, 0, 8, 2, 5, 0, 0, 0, 0, //
    1, 12, 7, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0, 0, 8, 3, 9, 1, 0, 0, 0,
];

#[test]
fn the_processors_that_are_enabled_are_found() {
    for version in [0, 2] {
        let memory = memory(version, &ENTRIES);
        assert_eq!(processors(&memory, 8), [0, 4, 9]);
        assert_eq!(processors(&memory, 2), [0, 4]);
    }
}

#[test]
fn what_makes_no_sense_is_the_end() {
    let good = memory(2, &ENTRIES);
    let spoilt = |at: usize, byte: u8| {
        let mut memory = good.clone();
        memory[at] = byte;
        processors(&memory, 8)
    };
    // The root pointer's name, the root table's address, its checksum, and the list's length.
    for (at, byte) in [(16, 0), (41, 0xff), (ROOT + 9, 0), (LIST + 4, 1), (LIST + 7, 1)] {
        assert_eq!(spoilt(at, byte), [0; 0], "{at:#x}");
    }
    // Entries whose length is nothing, or more than there is.
    assert_eq!(processors(&memory(2, &[&ENTRIES[..8], &[0, 0]].concat()), 8), [0]);
    assert_eq!(processors(&memory(2, &[&ENTRIES[..8], &[0, 9, 1, 1, 1]].concat()), 8), [0]);
}
