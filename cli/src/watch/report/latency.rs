//! How long faults took, by correction, and which took longest.

use pagefault_control::{Happening, Histogram, Kind};

/// How many of the longest faults are kept.
const WORST: usize = 10;

/// The durations of a run so far.
pub struct Latency {
    by_kind: [Histogram; Kind::ALL.len()],
    worst: Vec<Long>,
}

/// A long fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Long {
    pub member: usize,
    pub event: Happening,
}

impl Default for Latency {
    fn default() -> Self {
        Self { by_kind: std::array::from_fn(|_| Histogram::new()), worst: Vec::new() }
    }
}

impl Latency {
    /// Counts a fault.
    pub fn add(&mut self, member: usize, event: &Happening) {
        self.by_kind[event.kind as usize].record(event.took);
        if self.worst.len() < WORST
            || self.worst.last().is_some_and(|last| event.took > last.event.took)
        {
            let place = self.worst.partition_point(|long| long.event.took >= event.took);
            self.worst.insert(place, Long { member, event: *event });
            self.worst.truncate(WORST);
        }
    }

    /// The durations of one correction.
    pub const fn of(&self, kind: Kind) -> &Histogram {
        &self.by_kind[kind as usize]
    }

    /// The longest faults, the worst first.
    pub fn worst(&self) -> &[Long] {
        &self.worst
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_are_kept_in_order() {
        let mut latency = Latency::default();
        for n in 0..1000_u64 {
            let event = Happening {
                kind: Kind::SwapIn,
                write: false,
                major: true,
                in_call: false,
                time: n,
                took: n * 7919 % 1000,
                page: 0,
                pages: 0,
                ip: 0,
                process: 1,
                thread: 1,
            };
            latency.add(3, &event);
        }
        let took: Vec<u64> = latency.worst().iter().map(|long| long.event.took).collect();
        assert_eq!(took, (990..1000).rev().collect::<Vec<_>>());
        assert_eq!(latency.of(Kind::SwapIn).count(), 1000);
        assert_eq!(latency.of(Kind::Zero).count(), 0);
    }
}
