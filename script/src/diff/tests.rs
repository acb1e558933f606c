use super::*;
use crate::machine::{Action, Call, Failures, Process};
use crate::outcome::{Errno, Outcome};
use crate::parse::parse;

/// A machine that refuses the nth call.
struct Stubborn {
    left: u32,
}

impl Stubborn {
    fn answer(&mut self) -> Outcome {
        self.left = self.left.wrapping_sub(1);
        match self.left {
            0 => Outcome::Errno(Errno::EIO),
            _ => Outcome::Ok,
        }
    }
}

impl Machine for Stubborn {
    fn perform(&mut self, _: Process, _: &Call<'_>) -> Outcome {
        self.answer()
    }

    fn act(&mut self, _: &Action<'_>) -> Outcome {
        self.answer()
    }

    fn stats(&mut self) -> Vec<(&'static str, u64)> {
        vec![("left", u64::from(self.left))]
    }
}

fn entry(name: &'static str, left: u32) -> Entry {
    Entry {
        name,
        simulates: crate::machine::Simulates::Nothing,
        failures: Failures::Refused,
        start: Box::new(move |_| Ok(Box::new(Stubborn { left }))),
    }
}

#[test]
fn equal_answers_are_counted() {
    let script = parse("check\ncheck\n").expect("a good script");
    let (a, b) = (entry("one", 9), entry("two", 9));
    let comparison = compare(&script, &[&a, &b], 0).expect("both start");
    assert_eq!(comparison.differences(), 0);
    assert_eq!(comparison.to_string(), "one, two: 2 lines, all equal\n");
}

#[test]
fn differences_stand_side_by_side() {
    let script = parse("check\n# nothing\nreclaim 4\ncheck\n").expect("a good script");
    let machines = [entry("one", 9), entry("seven", 2), entry("two", 3)];
    let machines: Vec<&Entry> = machines.iter().collect();
    let comparison = compare(&script, &machines, 0).expect("all start");
    assert_eq!(comparison.differences(), 2);
    assert_eq!(
        comparison.to_string(),
        "first difference: line 3: p0: reclaim 4\n  one    ok\n  seven  EIO\n  two    ok\n\
         line 4: p0: check\n  one    ok\n  seven  ok\n  two    EIO\n\
         one, seven, two: 2 of 3 lines differ\n"
    );
}
