//! The workloads: which page is accessed next.

use rand::SeedableRng;
use rand::distr::{Distribution, Uniform};
use rand::rngs::SmallRng;
use rand_distr::Zipf;
use serde::{Deserialize, Serialize};

/// The order of accesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// The first store to each page, in order.
    FirstTouch,
    /// Any page, with equal probability.
    Uniform,
    /// Few pages often, most seldom (Zipf, exponent 0.99), in no order of addresses.
    Zipfian,
    /// All pages in order, a second time after they were filled.
    Sequential,
    /// Every 17th page, until all were accessed.
    Strided,
    /// Four accesses of five in a hot set of half the resident pages, the fifth scans the rest.
    ScanPastHotSet,
    /// A forked child stores to every page that it shares with its parent, in order.
    ForkAndWrite,
}

impl Workload {
    /// Its name in the table.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FirstTouch => "first touch",
            Self::Uniform => "uniform",
            Self::Zipfian => "zipfian",
            Self::Sequential => "sequential",
            Self::Strided => "strided",
            Self::ScanPastHotSet => "scan past a hot set",
            Self::ForkAndWrite => "fork and write",
        }
    }

    /// Whether the pages hold data before the measurement.
    pub const fn is_filled(self) -> bool {
        !matches!(self, Self::FirstTouch)
    }

    /// Whether the order repeats, so that a round before the measured one brings memory into its
    /// steady state.
    pub const fn has_warm_up(self) -> bool {
        matches!(self, Self::Uniform | Self::Zipfian | Self::ScanPastHotSet)
    }
}

/// An endless sequence of the numbers of the pages to access.
pub struct Order {
    workload: Workload,
    pages: usize,
    /// The pages of the hot set.
    hot: usize,
    turn: usize,
    scan: usize,
    random: SmallRng,
    uniform: Uniform<usize>,
    zipf: Zipf<f64>,
}

/// The distance between accesses of a strided pass.
const STRIDE: usize = 17;

impl Order {
    /// An access order over a number of pages, some of which are resident. A seed determines the order.
    pub fn new(workload: Workload, pages: usize, resident: usize, seed: u64) -> Self {
        let pages = pages.max(1);
        // The arguments are in range: there is a page, and the exponent is positive.
        let uniform = Uniform::new(0, pages).expect("a range that is not empty");
        let zipf = Zipf::new(pages as f64, 0.99).expect("a positive exponent");
        let hot = (resident / 2).clamp(1, (pages - 1).max(1));
        let random = SmallRng::seed_from_u64(seed);
        Self { workload, pages, hot, turn: 0, scan: 0, random, uniform, zipf }
    }
}

impl Iterator for Order {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let turn = self.turn;
        self.turn += 1;
        Some(match self.workload {
            Workload::FirstTouch | Workload::Sequential | Workload::ForkAndWrite => {
                turn % self.pages
            }
            Workload::Uniform => self.uniform.sample(&mut self.random),
            Workload::Zipfian => {
                let rank = self.zipf.sample(&mut self.random) as usize - 1;
                // Popular pages are not neighbours.
                (rank as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) as usize % self.pages
            }
            Workload::Strided => {
                let turn = turn % self.pages;
                let columns = self.pages.div_ceil(STRIDE);
                (turn / columns + turn % columns * STRIDE) % self.pages
            }
            Workload::ScanPastHotSet if turn % 5 == 4 && self.hot < self.pages => {
                self.scan += 1;
                self.hot + self.scan % (self.pages - self.hot)
            }
            Workload::ScanPastHotSet => self.uniform.sample(&mut self.random) % self.hot,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn every_access_is_to_a_page_that_there_is() {
        for workload in Workload::value_variants() {
            for pages in [1, 2, 3, 17, 18, 100] {
                for resident in [0, 1, 50, 1000] {
                    let order = Order::new(*workload, pages, resident, 1);
                    assert!(order.take(1000).all(|at| at < pages), "{workload:?}, {pages} pages");
                }
            }
        }
    }
}
