//! Sorts an array that is larger than the memory it may use.
//!
//! `cargo run --release -p pagefault-linux --example bigger_than_memory [MIB] [LIMIT_MIB]`

use pagefault_linux::Memory;
use std::error::Error;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default| arguments.next().map_or(Ok(default), |word| word.parse::<usize>());
    let (data, limit) = (number(128)?, number(64)?);

    let memory = Memory::with_limit((limit << 20) as u64)?;
    let mut region = memory.map(data << 20)?;
    let (words, _) = region.as_chunks_mut::<8>();

    let start = Instant::now();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for word in words.iter_mut() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        // Half of each word is zero, as in most programs' memory, so that it compresses.
        *word = (state & 0xffff_ffff).to_be_bytes();
    }
    println!("filled {data} MiB in {:.2?}", start.elapsed());

    let start = Instant::now();
    words.sort_unstable();
    println!("sorted in {:.2?}: {}", start.elapsed(), words.is_sorted());

    let stats = memory.stats();
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!(
        "limit {:.1} MiB, peak {:.1} MiB, resident now {:.1} MiB",
        mib(stats.limit_bytes),
        mib(stats.peak_bytes),
        mib(stats.resident_bytes)
    );
    for (index, area) in stats.swap.iter().enumerate() {
        println!("swap {index}: {} pages out, {} in", area.writes, area.reads);
        if let Some(compressed) = area.compressed {
            println!("        {:.1} times smaller", compressed.ratio());
        }
    }
    println!("{:?}\n{:?}", stats.manager, stats.machine);
    Ok(())
}
