//! Where in the address space pages come and go over time.
//!
//! A map has blocks of addresses and columns of time. Both double in size when there are too many, so
//! that a map's size is bounded for any run and any program.

use pagefault_control::{Happening, Kind};

/// The smallest block, as a power of two: 64 KiB.
const BLOCK_SHIFT: u32 = 16;
/// Its pages.
const BLOCK_PAGES: u64 = (1 << BLOCK_SHIFT) / Happening::PAGE;
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
/// Nearly all events belong to the newest column. It is kept apart, so that counting an event touches little memory.
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
    /// The older columns: empty without events, and short where blocks appeared later.
    before: Vec<Vec<Cell>>,
    /// The number of events, and of those in older columns.
    pub events: u64,
    events_before: u64,
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
            events_before: 0,
        }
    }
}

impl Cell {
    /// So many pages, if pages come or go by such an event.
    fn of(kind: Kind, pages: u32) -> Option<Self> {
        let cell = Self::default();
        match kind {
            Kind::Anonymous | Kind::Zero | Kind::PopulatedAhead => {
                Some(Self { fresh: pages, ..cell })
            }
            Kind::SwapIn | Kind::ReadAhead => Some(Self { back: pages, ..cell }),
            Kind::Evicted => Some(Self { out: pages, ..cell }),
            _ => None,
        }
    }
}

impl Heat {
    /// Whether a map shows events of this kind.
    pub fn shows(kind: Kind) -> bool {
        Cell::of(kind, 1).is_some()
    }

    /// Notes an event that concerns so many pages of the page's block.
    pub fn add(&mut self, kind: Kind, page: u64, column: usize, pages: u32) {
        let Some(cell) = Cell::of(kind, pages) else { return };
        // Events of several threads are slightly out of order.
        if column > self.column {
            self.begin(column);
        }
        let row = self.row(page >> self.shift);
        self.newest[row].add(cell);
        self.events += 1;
        if self.numbers.len() > MOST_BLOCKS {
            self.coarsen();
        }
    }

    /// Notes that pages moved.
    pub fn add_moves(&mut self, event: &Happening, column: usize) {
        // A block of the map holds a part of the event's pages, or all of them.
        for first in (0..Happening::BLOCK).step_by(BLOCK_PAGES as usize) {
            let pages = (event.pages >> first & ((1 << BLOCK_PAGES) - 1)).count_ones();
            if pages > 0 {
                self.add(event.kind, event.page + first * Happening::PAGE, column, pages);
            }
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
            self.numbers.len() - 1
        });
        self.found[hint] = row as u32;
        row
    }

    /// Begins a column.
    fn begin(&mut self, column: usize) {
        if self.events > self.events_before {
            if self.before.len() <= self.column {
                self.before.resize_with(self.column + 1, Vec::new);
            }
            let empty = vec![Cell::default(); self.newest.len()];
            merge(&mut self.before[self.column], std::mem::replace(&mut self.newest, empty));
            self.events_before = self.events;
        }
        self.column = column;
    }

    /// Merges pairs of columns.
    pub fn widen(&mut self) {
        self.begin(self.column);
        let mut columns = std::mem::take(&mut self.before).into_iter();
        while let Some(mut column) = columns.next() {
            merge(&mut column, columns.next().unwrap_or_default());
            self.before.push(column);
        }
        self.column /= 2;
    }

    /// Merges pairs of blocks.
    fn coarsen(&mut self) {
        self.begin(self.column);
        self.shift += 1;
        self.newest.clear();
        let numbers = std::mem::take(&mut self.numbers);
        let rows: Vec<usize> = numbers.into_iter().map(|number| self.row(number / 2)).collect();
        for column in &mut self.before {
            let mut coarse = vec![Cell::default(); self.newest.len()];
            column.iter().zip(&rows).for_each(|(cell, row)| coarse[*row].add(*cell));
            *column = coarse;
        }
    }

    /// The blocks in ascending order: start, end and columns of each.
    pub fn blocks(&self) -> impl Iterator<Item = (u64, u64, Vec<Cell>)> {
        let mut rows: Vec<usize> = (0..self.numbers.len()).collect();
        rows.sort_unstable_by_key(|row| self.numbers[*row]);
        rows.into_iter().map(|row| {
            let number = self.numbers[row];
            (number << self.shift, (number + 1) << self.shift, self.columns(row))
        })
    }

    /// The columns of a block, up to the last with an event.
    fn columns(&self, row: usize) -> Vec<Cell> {
        let of = |column: &Vec<Cell>| column.get(row).copied().unwrap_or_default();
        let mut cells: Vec<Cell> = self.before.iter().map(of).collect();
        if self.newest[row] != Cell::default() {
            let reached = cells.len().max(self.column + 1);
            cells.resize(reached, Cell::default());
            cells[self.column].add(self.newest[row]);
        }
        let last = cells.iter().rposition(|cell| *cell != Cell::default());
        cells.truncate(last.map_or(0, |last| last + 1));
        cells
    }
}

/// Adds cells to others, place by place.
pub fn merge(to: &mut Vec<Cell>, from: Vec<Cell>) {
    if to.is_empty() {
        *to = from;
        return;
    }
    if to.len() < from.len() {
        to.resize(from.len(), Cell::default());
    }
    to.iter_mut().zip(from).for_each(|(to, from)| to.add(from));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(cells: &[Cell]) -> Cell {
        let mut all = Cell::default();
        cells.iter().for_each(|cell| all.add(*cell));
        all
    }

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
            heat.add(kind, n << BLOCK_SHIFT, column, 1);
        }
        assert_eq!(all(&heat), Cell { fresh: 20_000, back: 20_000, out: 20_000 });
        assert!(heat.blocks().count() <= MOST_BLOCKS);
        assert!(heat.blocks().all(|(start, end, row)| start < end && row.len() <= MOST_COLUMNS));
        // A minute in at most 160 columns of 20 ms times a power of two.
        assert_eq!(columns.width(), 640_000_000);
    }

    #[test]
    fn an_event_stays_in_its_column_and_its_block() {
        let mut heat = Heat::default();
        heat.add(Kind::Anonymous, 0x1_0000, 0, 1);
        heat.add(Kind::Evicted, 0x2_0000, 3, 1);
        // Late by a thread's delay.
        heat.add(Kind::Evicted, 0x1_0000, 2, 1);
        heat.add(Kind::SwapIn, 0x1_0000, 5, 1);
        let cell = |fresh, back, out| Cell { fresh, back, out };
        let rows = |heat: &Heat| heat.blocks().map(|(.., row)| row).collect::<Vec<_>>();
        let none = Cell::default();
        let first = vec![cell(1, 0, 0), none, none, cell(0, 0, 1), none, cell(0, 1, 0)];
        assert_eq!(rows(&heat), [first, vec![none, none, none, cell(0, 0, 1)]]);
        heat.widen();
        let first = vec![cell(1, 0, 0), cell(0, 0, 1), cell(0, 1, 0)];
        assert_eq!(rows(&heat), [first, vec![none, cell(0, 0, 1)]]);
        heat.coarsen();
        heat.add(Kind::SwapIn, 0x3_0000, 2, 1);
        let joined = vec![none, cell(0, 0, 1), cell(0, 1, 0)];
        assert_eq!(rows(&heat), [vec![cell(1, 0, 0), cell(0, 0, 1), cell(0, 1, 0)], joined]);
    }

    #[test]
    fn each_page_of_a_move_is_counted_in_its_block() {
        let mut heat = Heat::default();
        let moves = Happening {
            kind: Kind::Evicted,
            write: false,
            major: false,
            in_call: false,
            time: 0,
            took: 0,
            page: 0x4_0000,
            pages: 0b101 | 1 << 15 | 1 << 16 | 1 << 63,
            ip: 0,
            process: 1,
            thread: 1,
        };
        heat.add_moves(&moves, 0);
        let out: Vec<(u64, u32)> =
            heat.blocks().map(|(start, _, row)| (start, sum(&row).out)).collect();
        assert_eq!(out, [(0x4_0000, 3), (0x5_0000, 1), (0x7_0000, 1)]);
        assert_eq!(moves.moved().count(), 5);
    }

    #[test]
    fn what_neither_comes_nor_goes_is_not_on_the_map() {
        let mut heat = Heat::default();
        heat.add(Kind::Spurious, 0x1000, 3, 1);
        assert_eq!(heat.blocks().count(), 0);
    }
}
