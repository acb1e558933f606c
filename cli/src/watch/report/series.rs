//! The counters over time, thinned out as the run goes on.

use crate::watch::sample::Sample;
use std::time::Duration;

/// The most samples that are kept.
const MOST: usize = 480;
/// The minimum interval.
const PERIOD: Duration = Duration::from_millis(50);

/// Samples at equal intervals, which double when there are too many. Counters are sums, so nothing
/// between two samples is lost.
pub struct Series {
    samples: Vec<Sample>,
    period: Duration,
}

impl Default for Series {
    fn default() -> Self {
        Self { samples: Vec::new(), period: PERIOD }
    }
}

impl Series {
    /// Keeps a sample.
    pub fn add(&mut self, sample: Sample) {
        self.samples.push(sample);
        if self.samples.len() > MOST {
            let mut number = 0;
            self.samples.retain(|_| {
                number += 1;
                number % 2 == 1
            });
            self.period *= 2;
        }
    }

    /// The interval between samples.
    pub const fn period(&self) -> Duration {
        self.period
    }

    /// The samples, the oldest first.
    pub fn all(&self) -> &[Sample] {
        &self.samples
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_as_many_samples_as_a_minute_and_keeps_its_ends() {
        let mut series = Series::default();
        let (mut time, mut last) = (Duration::ZERO, 0);
        while time < Duration::from_secs(3600) {
            last = time.as_nanos() as u64;
            series.add(Sample { time: last, ..Sample::default() });
            time += series.period();
        }
        let all = series.all();
        assert!((MOST / 2..=MOST).contains(&all.len()), "{}", all.len());
        assert_eq!((all[0].time, all[all.len() - 1].time), (0, last));
        let steps: Vec<u64> = all.windows(2).map(|pair| pair[1].time - pair[0].time).collect();
        assert!(steps.iter().all(|step| *step <= 2 * series.period().as_nanos() as u64));
    }
}
