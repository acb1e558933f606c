use super::*;
use trace::Deed;

/// Stores once to each fresh page, and between any two to the next page of a hot set.
fn scan_past_a_hot_set(hot: u64, scan: u64) -> Trace {
    let mut steps: Vec<(u64, Deed)> = (0..hot).map(|page| (page, Deed::FirstStore)).collect();
    for turn in 0..scan {
        steps.push((hot + turn, Deed::FirstStore));
        steps.push((turn % hot, Deed::Store));
    }
    Trace::new(&steps)
}

fn run(trace: &Trace, frames: usize, ahead: Ahead, name: &str) -> Counts {
    let (_, make) = policies::ALL.iter().find(|(other, _)| *other == name).unwrap();
    let mut policy = make(trace.pages(), frames);
    memory::replay(trace, &trace.next_uses(), frames, ahead, &mut *policy)
}

#[test]
fn nothing_moves_fewer_pages_in_than_the_bound() {
    let trace = scan_past_a_hot_set(64, 1000);
    let bound = run(&trace, 200, Ahead::Nothing, "OPT (bound)").pages_in;
    for (name, _) in policies::ALL {
        let counts = run(&trace, 200, Ahead::Nothing, name);
        assert!(counts.pages_in >= bound, "{name}: {} < {bound}", counts.pages_in);
    }
}

#[test]
fn a_scan_drives_a_hot_set_out_of_a_fifo_and_not_past_standby() {
    let trace = scan_past_a_hot_set(16, 1000);
    assert_eq!(run(&trace, 256, Ahead::Nothing, "LRU, every use seen").pages_in, 0);
    assert!(run(&trace, 256, Ahead::Nothing, "FIFO").pages_in > 40);
    let standby = run(&trace, 256, Ahead::Nothing, "FIFO, standby 10 %, trust 3");
    assert!(standby.rescues > 0);
    // When memory is full for the first time, nothing is on standby, so the oldest pages leave
    // unchecked.
    assert!(standby.pages_in <= 16, "{}", standby.pages_in);
}

#[test]
fn all_fits_where_there_are_frames_for_all() {
    let trace = scan_past_a_hot_set(8, 100);
    for (name, _) in policies::ALL {
        let counts = run(&trace, trace.pages(), Ahead::Nothing, name);
        assert_eq!((counts.pages_in, counts.pages_out), (0, 0), "{name}");
    }
}

#[test]
fn a_pass_in_order_is_read_ahead_and_used() {
    let mut steps: Vec<(u64, Deed)> = (0..200).map(|page| (page, Deed::FirstStore)).collect();
    steps.extend((0..200).map(|page| (page, Deed::Load)));
    let trace = Trace::new(&steps);
    let plain = run(&trace, 100, Ahead::Nothing, "FIFO");
    let ahead = run(&trace, 100, Ahead::Runs(16), "FIFO");
    assert_eq!((plain.misses, plain.pages_in), (200, 200));
    assert!(ahead.misses < 30, "{} misses", ahead.misses);
    assert_eq!((ahead.pages_in, ahead.wasted), (200, 0));
}

#[test]
fn pages_that_are_given_up_are_neither_stored_nor_brought_back() {
    let mut steps: Vec<(u64, Deed)> = (0..100).map(|page| (page, Deed::FirstStore)).collect();
    steps.extend((0..100).map(|page| (page, Deed::Discard)));
    steps.extend((0..100).map(|page| (page, Deed::FirstStore)));
    let trace = Trace::new(&steps);
    for (name, _) in policies::ALL {
        let counts = run(&trace, 100, Ahead::Nothing, name);
        assert_eq!(counts, Counts::default(), "{name}");
    }
}
