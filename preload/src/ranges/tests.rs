use super::*;

/// Does the same to a set and to a table of bits, and compares.
#[test]
fn ranges_keep_what_a_table_of_bits_keeps() {
    const LEN: usize = 200;
    let mut random = fastrand::Rng::with_seed(5);
    let mut ranges = Ranges::new();
    let mut bits = [false; LEN];
    for _ in 0..20_000 {
        let (a, b) = (random.usize(..LEN), random.usize(..LEN));
        let range = a.min(b)..a.max(b);
        match random.u8(..3) {
            0 => {
                ranges.insert(range.clone());
                bits[range.clone()].fill(true);
            }
            1 => {
                ranges.remove(range.clone());
                bits[range.clone()].fill(false);
            }
            _ => {
                let mut found = [false; LEN];
                for part in ranges.within(range.clone()) {
                    assert!(part.start >= range.start && part.end <= range.end);
                    found[part].fill(true);
                }
                assert_eq!(found[range.clone()], bits[range.clone()]);
            }
        }
        assert_eq!(ranges.covers(a..a + 1), bits[a]);
        let covered = bits[range.clone()].iter().all(|bit| *bit);
        assert_eq!(!range.is_empty() && ranges.covers(range.clone()), !range.is_empty() && covered);
        for ((_, end), (start, _)) in ranges.0.iter().zip(ranges.0.iter().skip(1)) {
            assert!(end < start, "neighbours are one range");
        }
    }
}
