//! The cells that are measured.

use super::workload::Workload;
use serde::Serialize;
use std::fmt;

/// A workload with its size.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Cell {
    pub workload: Workload,
    /// The data, in MiB.
    pub mib: usize,
    /// How much of the data may be resident, in hundredths.
    pub resident_percent: usize,
    pub threads: usize,
    /// The compression ratio of the data.
    pub content: usize,
    pub regions: usize,
}

/// How much to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Scope {
    /// Half resident, one thread: each workload once; a minute or two
    Quick,
    /// Shares of memory, content, threads and regions besides; about a quarter of an hour
    Usual,
    /// 1 and 4 GiB and sixteen threads besides; hours
    Full,
}

const HALF: Cell = Cell {
    workload: Workload::Uniform,
    mib: 256,
    resident_percent: 50,
    threads: 1,
    content: 2,
    regions: 1,
};

/// The number of regions that a picture shows. The kernel allows 65,530 in a process by default.
const REGIONS: [usize; 5] = [10, 100, 1_000, 10_000, 100_000];

/// The cells of a scope whose workload's name contains `only`.
pub fn cells(scope: Scope, only: Option<&str>) -> Vec<Cell> {
    let mut cells = vec![
        Cell { workload: Workload::FirstTouch, resident_percent: 100, ..HALF },
        HALF,
        Cell { workload: Workload::Zipfian, ..HALF },
        Cell { workload: Workload::Sequential, ..HALF },
        Cell { workload: Workload::Strided, ..HALF },
        Cell { workload: Workload::ScanPastHotSet, ..HALF },
        Cell { workload: Workload::ForkAndWrite, resident_percent: 100, ..HALF },
    ];
    if scope != Scope::Quick {
        cells.extend([25, 75, 100].map(|resident_percent| Cell { resident_percent, ..HALF }));
        cells.extend([1, 4].map(|content| Cell { content, ..HALF }));
        cells.push(Cell { workload: Workload::FirstTouch, ..HALF });
        cells.push(Cell { threads: 2, ..HALF });
        cells.extend(REGIONS.map(|regions| Cell { mib: 400, regions, ..HALF }));
    }
    if scope == Scope::Full {
        for mib in [1024, 4096] {
            cells.push(Cell { mib, ..HALF });
            cells.push(Cell { workload: Workload::Zipfian, mib, ..HALF });
            cells.push(Cell { workload: Workload::Sequential, mib, ..HALF });
        }
        cells.extend([4, 8, 16].map(|threads| Cell { threads, ..HALF }));
    }
    cells.retain(|cell| only.is_none_or(|only| cell.workload.name().contains(only)));
    cells
}

impl Cell {
    /// The resident limit, in MiB.
    pub const fn resident(&self) -> usize {
        self.mib * self.resident_percent / 100
    }

    /// Whether two cells differ at most in what `same` makes equal.
    pub fn is_like(&self, other: &Self, same: impl Fn(&mut Self)) -> bool {
        let (mut one, mut two) = (*self, *other);
        same(&mut one);
        same(&mut two);
        one == two
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} MiB, {} %", self.workload.name(), self.mib, self.resident_percent)?;
        if self.threads > 1 {
            write!(f, ", {} threads", self.threads)?;
        }
        if self.content != HALF.content {
            write!(f, ", {} : 1", self.content)?;
        }
        if self.regions > 1 {
            write!(f, ", {} regions", self.regions)?;
        }
        Ok(())
    }
}
