//! Whatever the arguments are and the memory holds, a visit ends and names sound areas.

use pagefault_calls::{AREAS, Area, Arg, NUMBERS, Reader, USER_END, describe, visit};
use proptest::prelude::*;
use std::ops::ControlFlow;

/// Memory that holds a repeating pattern wherever it can be read; some of its pages cannot.
struct Garbage {
    pattern: Vec<u64>,
    /// One page in so many is missing.
    holes: u64,
    reads: u64,
}

impl Reader for Garbage {
    fn read(&mut self, address: u64, into: &mut [u8]) -> Option<()> {
        self.reads += 1;
        assert!(address + into.len() as u64 <= USER_END);
        if self.holes != 0 && (address >> 12).is_multiple_of(self.holes) {
            return None;
        }
        for (i, byte) in into.iter_mut().enumerate() {
            let at = address + i as u64;
            let word = self.pattern[(at / 8) as usize % self.pattern.len()];
            *byte = word.to_ne_bytes()[(at % 8) as usize];
        }
        Some(())
    }
}

/// Numbers that calls, counts, commands and pointers like to be, and any others.
fn word() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        0..64u64,
        0..0x1_0000u64,
        Just(u64::MAX),
        (0..4096u64).prop_map(|below| USER_END.wrapping_add(2048) - below),
        (0..64u64).prop_map(|below| u64::MAX - below),
        0x1_0000..USER_END,
        any::<u32>().prop_map(u64::from),
        any::<u64>(),
    ]
}

fn check(nr: u32, args: [u64; 6], garbage: &mut Garbage) {
    let mut areas = 0u32;
    let flow = visit(nr, &args, garbage, &mut |area: Area| {
        areas += 1;
        assert!(area.len > 0 && area.start > 0 && area.end() <= USER_END, "{area:?}");
        ControlFlow::Continue(())
    });
    assert!(flow.is_continue());
    assert!(areas <= AREAS, "{areas} areas");
    // Each area takes a few reads to find; strings are read in pieces of 64 bytes.
    assert!(garbage.reads <= 8 * u64::from(AREAS), "{} reads", garbage.reads);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn every_call_survives_garbage(
        nr in 0..NUMBERS + 8,
        args in prop::array::uniform6(word()),
        pattern in prop::collection::vec(word(), 1..24),
        holes in prop_oneof![Just(0), 1..9u64],
    ) {
        check(nr, args, &mut Garbage { pattern, holes, reads: 0 });
    }

    #[test]
    fn every_ioctl_survives_garbage(
        number in prop_oneof![any::<u32>(), 0..0x1_0000u32, (0x40..0xffffu32).prop_map(|n| n | 3 << 30)],
        pattern in prop::collection::vec(word(), 1..24),
        start in word(),
    ) {
        check(16, [0, number.into(), start, 0, 0, 0], &mut Garbage { pattern, holes: 0, reads: 0 });
    }

    #[test]
    fn a_visit_stops_when_it_is_told(
        nr in 0..NUMBERS + 8,
        args in prop::array::uniform6(word()),
        pattern in prop::collection::vec(word(), 1..24),
        after in 0..9u32,
    ) {
        let mut seen = 0;
        let mut garbage = Garbage { pattern, holes: 0, reads: 0 };
        let flow = visit(nr, &args, &mut garbage, &mut |_| {
            seen += 1;
            if seen > after { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        prop_assert!(seen <= after + 1);
        prop_assert_eq!(flow.is_break(), seen == after + 1);
    }
}

/// The same word everywhere: every pointer leads on, no string ends, counts are as large as they can be.
#[test]
fn every_command_of_every_call_ends() {
    for call in (0..NUMBERS).filter_map(describe) {
        let decoded = call.args.iter().any(|arg| matches!(arg, Arg::By(_)));
        let commands = if decoded { 40 } else { 1 };
        for word in [0x0000_4141_4141_4141, 0x0000_0400_0000_0400] {
            for command in 0..commands {
                let at = [command, command, command, 0x5_0000, 0x6_0000, command];
                check(call.nr, at, &mut Garbage { pattern: vec![word], holes: 0, reads: 0 });
                let at = [0x5_0000, command, 0x6_0000, 0x7_0000, 4, 4];
                check(call.nr, at, &mut Garbage { pattern: vec![word], holes: 0, reads: 0 });
            }
        }
    }
}

#[test]
fn an_unknown_call_has_its_pointers_guessed() {
    let mut areas = Vec::new();
    let mut memory = Garbage { pattern: vec![0x7000_0000], holes: 0, reads: 0 };
    let _ = visit(9999, &[3, 0x1234_5678, 0, u64::MAX, 0, 0], &mut memory, &mut |area| {
        areas.push((area.start, area.len, area.kind));
        ControlFlow::Continue(())
    });
    assert_eq!(areas[0], (0x1234_5678, 4096, pagefault_calls::Kind::Guess));
    assert!(areas[1..].iter().all(|area| area.0 == 0x7000_0000));
    assert_eq!(areas.len(), 17);
}
