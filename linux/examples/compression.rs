//! How well and how fast compressed RAM takes the memory of running processes.
//!
//! ```text
//! cargo run --release -p pagefault-linux --example compression -- PID…
//! ```
//!
//! Reads the private anonymous memory of each process from `/proc/PID/mem`, at most 64 MiB of it, and
//! writes it to compressed RAM and back. Times are processor time, the best of five rounds.

use pagefault_linux::store::CompressedRam;
use pagefault_machine::{PAGE_SIZE, SwapDevice};
use rustix::time::{ClockId, clock_gettime};
use std::error::Error;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

type Page = [u8; PAGE_SIZE as usize];

const MOST_PAGES: usize = 16 << 10;
const ROUNDS: usize = 5;

fn main() -> Result<(), Box<dyn Error>> {
    println!("process | pages | of one word | incompressible | ratio | write ns | read ns");
    for process in std::env::args().skip(1) {
        measure(&process, &pages_of(&process)?)?;
    }
    Ok(())
}

fn measure(process: &str, pages: &[Page]) -> Result<(), Box<dyn Error>> {
    let slots = pages.len() as u32 + 1;
    let ram = CompressedRam::new(slots, u64::from(slots) * 2 * PAGE_SIZE)?;
    let (mut write, mut read) = (u64::MAX, u64::MAX);
    let mut back = [0; PAGE_SIZE as usize];
    for _ in 0..ROUNDS {
        let begin = processor_time();
        for (slot, page) in (1..).zip(pages) {
            ram.write(slot, page)?;
        }
        let written = processor_time();
        for slot in 1..slots {
            ram.read(slot, &mut back)?;
        }
        read = read.min(processor_time() - written);
        write = write.min(written - begin);
    }
    let (stats, count) = (ram.stats(), pages.len().max(1) as u64);
    println!(
        "{process} | {} | {} | {} | {:.2} | {} | {}",
        stats.pages,
        stats.same_filled,
        stats.incompressible,
        stats.ratio(),
        write / count,
        read / count
    );
    Ok(())
}

/// The private writable anonymous pages of a process that are resident or can be read.
fn pages_of(process: &str) -> Result<Vec<Page>, Box<dyn Error>> {
    let memory = File::open(format!("/proc/{process}/mem"))?;
    let mut pages = Vec::new();
    for line in fs::read_to_string(format!("/proc/{process}/maps"))?.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (range, name) = (fields[0], fields.get(5).copied().unwrap_or("[heap]"));
        if !fields[1].starts_with("rw-p") || name != "[heap]" && !name.starts_with("[anon") {
            continue;
        }
        let (start, end) = range.split_once('-').ok_or("no range")?;
        let (start, end) = (u64::from_str_radix(start, 16)?, u64::from_str_radix(end, 16)?);
        for address in (start..end).step_by(PAGE_SIZE as usize) {
            let mut page = [0; PAGE_SIZE as usize];
            // Memory that was never touched reads as zeros, and is not what would be evicted.
            if memory.read_exact_at(&mut page, address).is_ok() && page != [0; PAGE_SIZE as usize] {
                pages.push(page);
            }
            if pages.len() == MOST_PAGES {
                return Ok(pages);
            }
        }
    }
    Ok(pages)
}

/// The processor time of this thread in nanoseconds.
fn processor_time() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
