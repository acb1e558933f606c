//! Read-ahead by runs of misses, as the memory manager does it.

/// How much is read ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ahead {
    /// Nothing.
    Nothing,
    /// A run's window doubles up to this many pages.
    Runs(u32),
}

#[derive(Clone, Copy, Default)]
struct Run {
    last: u64,
    direction: i64,
    window: u32,
}

/// The runs, at most one for each block of addresses.
pub struct Runs {
    most: u32,
    runs: [Run; 64],
}

impl Runs {
    pub fn new(ahead: Ahead) -> Self {
        let most = match ahead {
            Ahead::Nothing => 0,
            Ahead::Runs(most) => most,
        };
        Self { most, runs: [Run::default(); 64] }
    }

    /// Notes a miss. Returns the direction and the number of pages to read ahead.
    pub fn advance(&mut self, page: u64) -> Option<(i64, u32)> {
        if self.most == 0 {
            return None;
        }
        let run = self.of(page);
        let distance = page.wrapping_sub(run.last).cast_signed();
        let ahead = distance * run.direction;
        let short = -ahead;
        let inside = run.window > 0 && (0..i64::from(run.window)).contains(&short);
        let direction = match run.window {
            0 if distance.abs() == 1 => distance,
            0 => 0,
            _ if inside || (1..=4).contains(&ahead) => run.direction,
            _ => 0,
        };
        if direction == 0 {
            match run.window / 2 {
                0 => *run = Run { last: page, direction: 1, window: 0 },
                window => run.window = window,
            }
            return None;
        }
        let window = if inside { run.window / 2 } else { run.window.saturating_mul(2) };
        Some((direction, window.max(2).min(self.most)))
    }

    /// Notes how many pages were read ahead of a miss.
    pub fn brought(&mut self, page: u64, direction: i64, window: u32, pages: i64) {
        let last = page.wrapping_add_signed(pages * direction);
        let run = Run { last, direction, window };
        *self.of(page) = run;
        *self.of(last.wrapping_add_signed(direction)) = run;
    }

    fn of(&mut self, page: u64) -> &mut Run {
        &mut self.runs[(page / 512) as usize % 64]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_without_a_bound_stops_growing() {
        let mut runs = Runs::new(Ahead::Runs(u32::MAX));
        runs.brought(10, 1, u32::MAX, 3);
        assert_eq!(runs.advance(14), Some((1, u32::MAX)));
    }
}
