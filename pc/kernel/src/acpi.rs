//! Which CPUs there are, as the firmware's ACPI tables say.
//!
//! The root pointer names the root table, which names the others; the one called `APIC` lists the
//! local interrupt controllers, one for each CPU. What makes no sense is taken for the end: then
//! there is the one CPU that reads this.

use alloc::vec::Vec;

/// The bytes of a table's header; its length is in it.
const HEADER: usize = 36;
/// The bytes of the root pointer.
const POINTER: usize = 36;

/// Finds bytes of physical memory, where they can be read.
pub type Reader<'r, 'a> = dyn Fn(u64, usize) -> Option<&'a [u8]> + 'r;

/// The tables of a machine.
pub struct Tables<'r, 'a> {
    /// How they are read.
    pub read: &'r Reader<'r, 'a>,
    /// Where the loader found the root pointer, or 0.
    pub pointer: u64,
}

impl<'a> Tables<'_, 'a> {
    /// The hardware's numbers of the CPUs that can be used, at most `limit`.
    pub fn processors(&self, limit: usize) -> Vec<u32> {
        let mut found = Vec::new();
        let table = self.find(b"APIC").unwrap_or_default();
        // Entries with a type and a length, behind two words.
        let mut rest = table.get(HEADER + 8..).unwrap_or_default();
        while let [kind, length @ 2..=255, ..] = *rest {
            let Some((entry, more)) = rest.split_at_checked(length.into()) else { break };
            // A local controller: the firmware's number, the hardware's, and whether it is enabled.
            if let (0, [_, _, _, identity, flags, ..]) = (kind, entry)
                && flags & 1 != 0
            {
                found.push(u32::from(*identity));
            }
            rest = more;
        }
        found.truncate(limit);
        found
    }

    /// The table with a name.
    fn find(&self, name: &[u8; 4]) -> Option<&'a [u8]> {
        let pointer = self.bytes(self.pointer, POINTER)?;
        if !pointer.starts_with(b"RSD PTR ") {
            return None;
        }
        // From the second version on there is a root table of 64-bit addresses.
        let (root, width) = match (pointer[15], word(&pointer[24..32])) {
            (2.., root @ 1..) => (root, 8),
            _ => (word(&pointer[16..20]), 4),
        };
        let mut addresses = self.table(root)?.get(HEADER..)?.chunks_exact(width).map(word);
        addresses.find_map(|at| self.table(at).filter(|table| table.starts_with(name)))
    }

    fn table(&self, at: u64) -> Option<&'a [u8]> {
        let length = word(&self.bytes(at, HEADER)?[4..8]) as usize;
        let table = self.bytes(at, length)?;
        let sum = table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        (sum == 0 && length >= HEADER).then_some(table)
    }

    fn bytes(&self, at: u64, bytes: usize) -> Option<&'a [u8]> {
        if at == 0 { None } else { (self.read)(at, bytes) }
    }
}

/// A number of up to eight bytes, the lowest first.
fn word(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}
