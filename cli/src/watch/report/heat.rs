//! Where in the address space pages come and go over time.
//!
//! A map has blocks of addresses and columns of time. Both double in size when there are too many, so
//! that a map's size is bounded for any run and any program.

use pagefault_control::Kind;

/// The smallest block, as a power of two: 64 KiB.
const BLOCK_SHIFT: u32 = 16;
/// The most blocks of a map.
const MOST_BLOCKS: usize = 4096;
/// The narrowest column, in nanoseconds.
const COLUMN: u64 = 20_000_000;
/// The most columns of a map.
const MOST_COLUMNS: usize = 160;

/// The events of a block's pages within a column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// They were touched for the first time, or populated ahead.
    pub fresh: u32,
    /// They came back from swap.
    pub back: u32,
    /// They were evicted.
    pub out: u32,
}

impl Cell {
    /// Adds the counts of another cell.
    pub const fn add(&mut self, other: Self) {
        self.fresh = self.fresh.saturating_add(other.fresh);
        self.back = self.back.saturating_add(other.back);
        self.out = self.out.saturating_add(other.out);
    }
}

/// The columns of time, common to all maps of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Columns {
    width: u64,
}

impl Columns {
    /// Columns of the minimum width.
    pub const fn new() -> Self {
        Self { width: COLUMN }
    }

    /// The width of a column in nanoseconds.
    pub const fn width(&self) -> u64 {
        self.width
    }

    /// The column of a moment. Doubles the columns until it is in range; returns how many times.
    pub const fn find(&mut self, time: u64) -> (usize, u32) {
        let mut doubled = 0;
        while time / self.width >= MOST_COLUMNS as u64 {
            self.width *= 2;
            doubled += 1;
        }
        ((time / self.width) as usize, doubled)
    }
}

/// The map of one process.
///
/// Nearly all events belong to the newest column. It is kept apart as a dense row of cells, so that
/// counting an event touches little memory.
pub struct Heat {
    /// The size of a block, as a power of two.
    shift: u32,
    /// The blocks' numbers, in order of appearance.
    numbers: Vec<u64>,
    /// A hint to the index of a block, by the low bits of its number.
    found: Vec<u32>,
    /// The newest column, with a cell for each block.
    column: usize,
    newest: Vec<Cell>,
    /// The older columns of each block.
    before: Vec<Vec<Cell>>,
    /// The number of events.
    pub events: u64,
}

impl Default for Heat {
    fn default() -> Self {
        Self {
            shift: BLOCK_SHIFT,
            numbers: Vec::new(),
            found: vec![0; MOST_BLOCKS],
            column: 0,
            newest: Vec::new(),
            before: Vec::new(),
            events: 0,
        }
    }
}

impl Heat {
    /// Notes an event.
    pub fn add(&mut self, kind: Kind, page: u64, column: usize) {
        let cell = match kind {
            Kind::Anonymous | Kind::Zero | Kind::PopulatedAhead => {
                Cell { fresh: 1, ..Cell::default() }
            }
            Kind::SwapIn | Kind::ReadAhead => Cell { back: 1, ..Cell::default() },
            Kind::Evicted => Cell { out: 1, ..Cell::default() },
            _ => return,
        };
        self.events += 1;
        // Events of several threads are slightly out of order.
        if column > self.column {
            self.begin(column);
        }
        let row = self.row(page >> self.shift);
        self.newest[row].add(cell);
        if self.numbers.len() > MOST_BLOCKS {
            self.coarsen();
        }
    }

    /// The row of a block.
    fn row(&mut self, number: u64) -> usize {
        let hint = number as usize % MOST_BLOCKS;
        let row = self.found[hint] as usize;
        if self.numbers.get(row) == Some(&number) {
            return row;
        }
        // Blocks that share a hint are far apart, and a program seldom alternates between them.
        let row = self.numbers.iter().position(|known| *known == number).unwrap_or_else(|| {
            self.numbers.push(number);
            self.newest.push(Cell::default());
            self.before.push(Vec::new());
            self.numbers.len() - 1
        });
        self.found[hint] = row as u32;
        row
    }

    /// Begins a column.
    fn begin(&mut self, column: usize) {
        for (newest, before) in self.newest.iter_mut().zip(&mut self.before) {
            if *newest != Cell::default() {
                put(before, self.column, std::mem::take(newest));
            }
        }
        self.column = column;
    }

    /// Merges pairs of columns.
    pub fn widen(&mut self) {
        self.begin(self.column);
        for row in &mut self.before {
            *row = row.chunks(2).map(sum).collect();
        }
        self.column /= 2;
    }

    /// Merges pairs of blocks.
    fn coarsen(&mut self) {
        self.begin(self.column);
        self.shift += 1;
        let numbers = std::mem::take(&mut self.numbers);
        let rows = std::mem::take(&mut self.before);
        self.newest.clear();
        for (number, cells) in numbers.into_iter().zip(rows) {
            let row = self.row(number / 2);
            merge(&mut self.before[row], &cells);
        }
    }

    /// The blocks in ascending order: start, end and columns of each.
    pub fn blocks(&self) -> impl Iterator<Item = (u64, u64, Vec<Cell>)> {
        let mut rows: Vec<usize> = (0..self.numbers.len()).collect();
        rows.sort_unstable_by_key(|row| self.numbers[*row]);
        rows.into_iter().map(|row| {
            let (number, mut cells) = (self.numbers[row], self.before[row].clone());
            if self.newest[row] != Cell::default() {
                put(&mut cells, self.column, self.newest[row]);
            }
            (number << self.shift, (number + 1) << self.shift, cells)
        })
    }
}

/// Adds a cell to a column of a row.
fn put(row: &mut Vec<Cell>, column: usize, cell: Cell) {
    if row.len() <= column {
        row.resize(column + 1, Cell::default());
    }
    row[column].add(cell);
}

fn sum(cells: &[Cell]) -> Cell {
    let mut all = Cell::default();
    cells.iter().for_each(|cell| all.add(*cell));
    all
}

/// Adds a row to another.
pub fn merge(to: &mut Vec<Cell>, from: &[Cell]) {
    if to.len() < from.len() {
        to.resize(from.len(), Cell::default());
    }
    to.iter_mut().zip(from).for_each(|(to, from)| to.add(*from));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(heat: &Heat) -> Cell {
        let rows = heat.blocks().map(|(_, _, row)| sum(&row));
        rows.fold(Cell::default(), |mut all, row| {
            all.add(row);
            all
        })
    }

    #[test]
    fn a_map_stays_small_and_loses_no_event() {
        let (mut heat, mut columns) = (Heat::default(), Columns::new());
        for n in 0..60_000_u64 {
            let (column, doubled) = columns.find(n * 1_000_000);
            (0..doubled).for_each(|_| heat.widen());
            let kind = [Kind::Anonymous, Kind::SwapIn, Kind::Evicted][n as usize % 3];
            heat.add(kind, n << BLOCK_SHIFT, column);
        }
        assert_eq!(all(&heat), Cell { fresh: 20_000, back: 20_000, out: 20_000 });
        assert!(heat.blocks().count() <= MOST_BLOCKS);
        assert!(heat.blocks().all(|(start, end, row)| start < end && row.len() <= MOST_COLUMNS));
        // A minute in at most 160 columns of 20 ms times a power of two.
        assert_eq!(columns.width(), 640_000_000);
    }

    #[test]
    fn what_neither_comes_nor_goes_is_not_on_the_map() {
        let mut heat = Heat::default();
        heat.add(Kind::Spurious, 0x1000, 3);
        assert_eq!(heat.blocks().count(), 0);
    }
}
