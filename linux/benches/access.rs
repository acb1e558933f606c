//! Memory with a limit beside the kernel's own: random and sequential access with half of the data
//! resident. The kernel does it with zram in a memory cgroup, which needs root, a free `/dev/zram0`
//! and version 1 of memory cgroups; without them its column is left out. zram's own memory is not
//! charged to the cgroup, so only the resident limits are the same.
//!
//! `cargo bench -p pagefault-linux --bench access -- [MIB] [ROUNDS]`

#[path = "access/kernel.rs"]
mod kernel;

use pagefault_linux::Memory;
use std::process::Command;
use std::time::Instant;

const PAGE: usize = 4096;
const WORDS: usize = PAGE / 8;

/// What one run took, in nanoseconds.
#[derive(Clone, Copy, Default)]
struct Run {
    /// Per random access, of which half miss.
    random: f64,
    /// Per page of a pass over all data.
    sequential: f64,
}

/// One of the figures of a run.
type Part = fn(&Run) -> f64;

/// The data: about 2.5 : 1 for LZ4, every page different.
fn fill(data: &mut [u64]) {
    for (page, words) in data.chunks_mut(WORDS).enumerate() {
        for (at, word) in words.iter_mut().enumerate() {
            let noise = (page as u64).wrapping_mul(2_654_435_761) + at as u64 * 40_503;
            *word = if at % 4 == 0 { noise } else { page as u64 };
        }
    }
}

/// Reads a word of a random page and writes another, so many times.
fn random(data: &mut [u64], accesses: usize) -> f64 {
    let pages = (data.len() / WORDS) as u64;
    let (mut state, mut sum) = (88_172_645_463_325_252_u64, 0_u64);
    let start = Instant::now();
    for _ in 0..accesses {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let page = (state % pages) as usize * WORDS;
        sum = sum.wrapping_mul(31).wrapping_add(data[page + (state >> 55) as usize]);
        data[page + 1] = data[page + 1].wrapping_add(1);
    }
    std::hint::black_box(sum);
    start.elapsed().as_nanos() as f64 / accesses as f64
}

fn sequential(data: &mut [u64]) -> f64 {
    let start = Instant::now();
    let mut sum = 0_u64;
    for words in data.chunks_mut(WORDS) {
        sum = sum.wrapping_add(words[3]);
        words[1] = words[1].wrapping_add(1);
    }
    std::hint::black_box(sum);
    start.elapsed().as_nanos() as f64 / (data.len() / WORDS) as f64
}

fn measure(data: &mut [u64]) -> Run {
    fill(data);
    let accesses = data.len() / WORDS;
    random(data, accesses);
    Run { random: random(data, accesses), sequential: sequential(data) }
}

/// One run under our limit, of half the data.
fn ours(mib: usize) -> Run {
    let bytes = mib << 20;
    let memory = Memory::with_limit(bytes as u64 / 2).expect("memory with a limit");
    let mut region = memory.map(bytes).expect("a region");
    // SAFETY: the region is page-aligned, so also aligned for words, and any bytes are words.
    let (_, words, _) = unsafe { region.align_to_mut::<u64>() };
    measure(words)
}

/// One run in memory that the kernel limits, or nobody.
fn plain(mib: usize) -> Run {
    measure(&mut vec![0; (mib << 20) / 8])
}

/// Runs this program again for one measurement, which leaves no state behind.
fn run_apart(place: &str, mib: usize, group: Option<&kernel::Limit>) -> Option<Run> {
    let program = std::env::current_exe().ok()?;
    let mut command = match group {
        Some(limit) => limit.command(&program),
        None => Command::new(program),
    };
    let output = command.args(["--run", place, &mib.to_string()]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut numbers = text.split_whitespace().filter_map(|word| word.parse().ok());
    Some(Run { random: numbers.next()?, sequential: numbers.next()? })
}

fn median(mut runs: Vec<f64>) -> Option<f64> {
    runs.sort_by(f64::total_cmp);
    runs.get(runs.len() / 2).copied()
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let number = |at: usize, or| args.get(at).and_then(|arg| arg.parse().ok()).unwrap_or(or);
    if args.first().is_some_and(|arg| arg == "--run") {
        let run = if args[1] == "ours" { ours(number(2, 64)) } else { plain(number(2, 64)) };
        println!("{} {}", run.random, run.sequential);
        return;
    }
    let (mib, rounds): (usize, usize) = (number(0, 256), number(1, 5));
    let limit = kernel::Limit::new((mib as u64) << 19);
    let (mut us, mut kernels) = (Vec::new(), Vec::new());
    // Taking turns, so that what else the machine does falls on both alike.
    for _ in 0..rounds {
        us.extend(run_apart("ours", mib, None));
        if let Ok(limit) = &limit {
            kernels.extend(run_apart("plain", mib, Some(limit)));
        }
    }
    println!("{mib} MiB of data, half of it resident; medians of {rounds} runs, ns");
    println!("| | ours | the kernel with zram | ratio |\n|---|---|---|---|");
    let rows: [(&str, Part); 2] =
        [("random access", |run| run.random), ("sequential pass, per page", |run| run.sequential)];
    for (name, part) in rows {
        let ours = median(us.iter().map(part).collect());
        let kernel = median(kernels.iter().map(part).collect());
        let show = |value: Option<f64>| value.map_or("–".into(), |value| format!("{value:.0}"));
        let ratio = ours.zip(kernel).map(|(ours, kernel)| ours / kernel);
        let ratio = ratio.map_or("–".into(), |ratio| format!("{ratio:.2}"));
        println!("| {name} | {} | {} | {ratio} |", show(ours), show(kernel));
    }
    println!("runs that finished: {} of ours, {} of the kernel's", us.len(), kernels.len());
    if let Err(reason) = limit {
        println!("the kernel's own was left out: {reason}");
    }
}
