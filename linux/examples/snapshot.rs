//! Takes a snapshot of a table while it goes on changing, and reads both.
//!
//! `cargo run --release -p pagefault-linux --example snapshot`

use pagefault_linux::Memory;
use std::error::Error;
use std::time::Instant;

const RECORDS: usize = 1 << 20;
const RECORD: usize = 32;

fn total(table: &[u8]) -> u64 {
    let balances = table.chunks_exact(RECORD).map(|record| &record[..8]);
    balances.map(|bytes| u64::from_ne_bytes(bytes.try_into().unwrap_or_default())).sum()
}

/// Moves a unit from one account to another, which leaves the total as it is.
fn transfer(table: &mut [u8], from: usize, to: usize) {
    for (account, change) in [(from, -1), (to, 1)] {
        let bytes = &mut table[account * RECORD..][..8];
        let balance = u64::from_ne_bytes(bytes.try_into().unwrap_or_default());
        bytes.copy_from_slice(&balance.wrapping_add_signed(change).to_ne_bytes());
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let memory = Memory::with_limit(16 << 20)?;
    let mut table = memory.map(RECORDS * RECORD)?;
    for record in table.chunks_exact_mut(RECORD) {
        record[..8].copy_from_slice(&100_u64.to_ne_bytes());
    }

    let start = Instant::now();
    let snapshot = memory.snapshot()?;
    println!("snapshot of {} MiB in {:.2?}", table.len() >> 20, start.elapsed());

    for i in 0..100_000 {
        transfer(&mut table, i * 7919 % RECORDS, i * 104_729 % RECORDS);
    }
    let before = snapshot.get(&table).ok_or("the table is younger than its snapshot")?;
    let changed = table.chunks(4096).zip(before.chunks(4096)).filter(|(a, b)| a != b).count();
    println!("totals {} and {}", total(&table), total(before));
    println!("{changed} of {} pages differ", table.len() / 4096);
    println!("{:?}", memory.stats().manager);
    Ok(())
}
