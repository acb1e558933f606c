//! What became of pages that were brought before they were touched.

use std::collections::HashMap;

/// What a page was brought ahead for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Brought {
    /// It was in swap.
    FromSwap,
    /// It was never there.
    Fresh,
}

/// Pages brought ahead of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// How many were brought.
    pub brought: u64,
    /// Of these, how many were touched for certain: stored to for the first time, or passed by the run
    /// of faults that they were brought for.
    pub used: u64,
    /// How many were evicted without a sign of use.
    pub unused: u64,
}

/// The pages that were brought ahead and of which nothing is known yet.
#[derive(Default)]
pub struct Ahead {
    waiting: HashMap<(u32, u64), Brought>,
    pub from_swap: Count,
    pub fresh: Count,
}

impl Ahead {
    /// A page was brought ahead.
    pub fn brought(&mut self, process: u32, page: u64, how: Brought) {
        self.count(how).brought += 1;
        self.waiting.insert((process, number(page)), how);
    }

    /// A page had a fault: it was used, and so were those that the run went through to it.
    pub fn touched(&mut self, process: u32, page: u64) {
        let page = number(page);
        self.used(process, page);
        for step in [1, u64::MAX] {
            let mut next = page.wrapping_add(step);
            while self.used(process, next) {
                next = next.wrapping_add(step);
            }
        }
    }

    /// A page was evicted.
    pub fn evicted(&mut self, process: u32, page: u64) {
        if let Some(how) = self.waiting.remove(&(process, number(page))) {
            self.count(how).unused += 1;
        }
    }

    fn used(&mut self, process: u32, page: u64) -> bool {
        let Some(how) = self.waiting.remove(&(process, page)) else { return false };
        self.count(how).used += 1;
        true
    }

    const fn count(&mut self, how: Brought) -> &mut Count {
        match how {
            Brought::FromSwap => &mut self.from_swap,
            Brought::Fresh => &mut self.fresh,
        }
    }
}

const fn number(page: u64) -> u64 {
    page >> 12
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_goes_on_has_used_what_was_brought_for_it() {
        let mut ahead = Ahead::default();
        for page in 1..5 {
            ahead.brought(7, page << 12, Brought::FromSwap);
        }
        ahead.touched(7, 5 << 12);
        assert_eq!(ahead.from_swap, Count { brought: 4, used: 4, unused: 0 });
        // Nothing of another process.
        ahead.brought(8, 9 << 12, Brought::FromSwap);
        ahead.touched(7, 10 << 12);
        assert_eq!(ahead.from_swap, Count { brought: 5, used: 4, unused: 0 });
    }

    #[test]
    fn what_is_evicted_first_was_not_used() {
        let mut ahead = Ahead::default();
        ahead.brought(7, 0x1000, Brought::Fresh);
        ahead.evicted(7, 0x1000);
        ahead.touched(7, 0x2000);
        ahead.evicted(7, 0x5000);
        assert_eq!(ahead.fresh, Count { brought: 1, used: 0, unused: 1 });
        assert_eq!(ahead.from_swap, Count::default());
    }
}
