//! One measurement, in its own process, so that no state remains.

use super::place::{Area, Place};
use super::workload::{Order, Workload};
use clap::ValueEnum;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::io;
use std::time::Instant;

pub const PAGE: usize = 4096;
pub const WORDS: usize = PAGE / 8;

/// An access that takes longer is counted as a miss, in nanoseconds.
const MISS: u64 = 1000;

/// The measurement.
#[derive(Clone, Debug, PartialEq, clap::Args)]
pub struct Arguments {
    /// The memory to access
    #[arg(long, value_enum)]
    pub place: Place,
    /// The order of accesses
    #[arg(long, value_enum)]
    pub workload: Workload,
    /// The data, in MiB
    #[arg(long)]
    pub mib: usize,
    /// The resident limit, in MiB
    #[arg(long)]
    pub resident: usize,
    /// The number of threads; each accesses its own part
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// The compression ratio of the data
    #[arg(long, default_value_t = 2)]
    pub content: usize,
    /// The number of regions
    #[arg(long, default_value_t = 1)]
    pub regions: usize,
    /// The seed of random choices
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

impl Arguments {
    /// The arguments of a command that measures this.
    pub fn words(&self) -> Vec<String> {
        let mut words = vec!["worker".to_owned()];
        let mut add = |name: &str, value: String| words.extend([format!("--{name}"), value]);
        add("place", value_name(&self.place));
        add("workload", value_name(&self.workload));
        add("mib", self.mib.to_string());
        add("resident", self.resident.to_string());
        add("threads", self.threads.to_string());
        add("content", self.content.to_string());
        add("regions", self.regions.to_string());
        add("seed", self.seed.to_string());
        words
    }
}

/// A value as the command line spells it.
fn value_name(value: &impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// The figures of a measurement; times are in nanoseconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Figures {
    /// The mean of an access.
    pub mean: f64,
    /// Accesses that took longer than a microsecond.
    pub misses: u64,
    /// The median of a miss.
    pub miss_p50: u64,
    /// The 99th percentile of a miss.
    pub miss_p99: u64,
    /// The longest access.
    pub max: u64,
    /// Pages brought in over the whole process.
    pub pages_in: u64,
    /// Pages taken out.
    pub pages_out: u64,
    /// The peak of resident memory in bytes; 0 if it is not counted.
    pub peak: u64,
    /// Processor time of all processes involved, in seconds.
    pub cpu: f64,
}

/// Measures once and prints the figures as JSON.
pub fn run(arguments: &Arguments) -> io::Result<bool> {
    let figures = measure(arguments)?;
    println!("{}", serde_json::to_string(&figures)?);
    Ok(true)
}

fn measure(arguments: &Arguments) -> io::Result<Figures> {
    let pages = arguments.mib << 20 >> 12;
    if arguments.threads == 0 || arguments.regions == 0 || pages < arguments.regions {
        return Err(io::Error::other(
            "at least one thread, one region, and a page for each region",
        ));
    }
    let mut area = Area::new(arguments)?;
    let mut list: Vec<&mut [u64]> =
        area.regions().into_iter().flat_map(|region| region.chunks_exact_mut(WORDS)).collect();
    if arguments.workload.is_filled() {
        fill(&mut list, arguments.content);
    }
    let taken = match arguments.workload {
        Workload::ForkAndWrite => super::place::in_a_child(|| pass(arguments, &mut list, false))?,
        _ => in_threads(arguments, &mut list)?,
    };
    let mut figures = figures(&taken)?;
    area.complete(&mut figures);
    Ok(figures)
}

/// The data: each page starts with its number, and has as much noise as gives a compression ratio
/// of `content`.
fn fill(pages: &mut [&mut [u64]], content: usize) {
    let noisy = WORDS / content.max(1);
    for (number, page) in pages.iter_mut().enumerate() {
        let mut noise = fastrand::Rng::with_seed(number as u64);
        for (at, word) in page.iter_mut().enumerate() {
            *word = if at < noisy { noise.u64(..) } else { number as u64 };
        }
        page[0] = number as u64;
        page[1] = 0;
    }
}

/// A thread's result: the time of each access, and the sum.
#[derive(Serialize, Deserialize)]
pub struct Taken {
    /// The times, as a histogram in nanoseconds.
    times: Vec<(u64, u64)>,
    nanoseconds: u64,
    accesses: u64,
}

/// Every thread accesses its own part.
fn in_threads(arguments: &Arguments, pages: &mut [&mut [u64]]) -> io::Result<Vec<Taken>> {
    let part = pages.len().div_ceil(arguments.threads);
    let warm = arguments.workload.has_warm_up();
    std::thread::scope(|scope| {
        let threads: Vec<_> = pages
            .chunks_mut(part)
            .map(|part| {
                scope.spawn(move || {
                    if warm {
                        pass(arguments, part, true)?;
                    }
                    pass(arguments, part, false)
                })
            })
            .collect();
        let joined = threads.into_iter().map(|thread| {
            thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
        });
        joined.collect()
    })
}

/// As many accesses as there are pages, each a load and a store.
fn pass(arguments: &Arguments, pages: &mut [&mut [u64]], is_warm_up: bool) -> io::Result<Taken> {
    let resident = (arguments.resident << 20 >> 12) / arguments.threads;
    let seed = arguments.seed * 2 + u64::from(is_warm_up);
    let count = pages.len();
    let checked = arguments.workload.is_filled() && arguments.place.keeps_data();
    let base = pages.first().map_or(0, |page| if checked { page[0] } else { 0 });
    let mut times = new_histogram();
    let start = Instant::now();
    let mut before = start;
    for at in Order::new(arguments.workload, count, resident, seed).take(count) {
        let page = &mut *pages[at];
        if checked && page[0] != base + at as u64 {
            return Err(io::Error::other(format!("page {at} has another page's content")));
        }
        page[1] = page[1].wrapping_add(1);
        let now = Instant::now();
        times.saturating_record((now - before).as_nanos() as u64);
        before = now;
    }
    let counts =
        times.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value()));
    Ok(Taken {
        times: counts.collect(),
        nanoseconds: (before - start).as_nanos() as u64,
        accesses: count as u64,
    })
}

/// Up to ten minutes, three digits.
fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000_000, 3).expect("bounds that hdrhistogram allows")
}

/// The figures of all threads together. The mean is a thread's time for an access divided by the number of
/// threads: the cost of an access to the whole process.
fn figures(taken: &[Taken]) -> io::Result<Figures> {
    let mut misses = new_histogram();
    let mut max = 0;
    for &(time, count) in taken.iter().flat_map(|taken| &taken.times) {
        max = max.max(time);
        if time > MISS {
            misses.record_n(time, count).map_err(io::Error::other)?;
        }
    }
    let longest = taken.iter().map(|taken| taken.nanoseconds).max().unwrap_or(0);
    let accesses: u64 = taken.iter().map(|taken| taken.accesses).sum();
    Ok(Figures {
        mean: longest as f64 / accesses.max(1) as f64,
        misses: misses.len(),
        miss_p50: misses.value_at_quantile(0.5),
        miss_p99: misses.value_at_quantile(0.99),
        max,
        ..Figures::default()
    })
}
