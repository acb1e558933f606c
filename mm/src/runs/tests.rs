use super::{Direction, Run, Runs, Window};

fn up(pages: u32) -> Option<Window> {
    Some(Window { direction: Direction::Up, pages })
}

/// A fault after which all planned pages are read.
fn advance(runs: &Runs, page: u64, most: u32) -> Option<Window> {
    let ahead = runs.advance(page, most, || true)?.ahead;
    runs.brought(page, ahead, ahead.pages);
    Some(ahead)
}

#[test]
fn a_run_upwards_doubles_its_window_up_to_the_most() {
    let runs = Runs::new();
    assert_eq!(advance(&runs, 100, 8), None);
    assert_eq!(advance(&runs, 101, 8), up(2));
    assert_eq!(advance(&runs, 104, 8), up(4));
    assert_eq!(advance(&runs, 109, 8), up(8));
    assert_eq!(advance(&runs, 118, 8), up(8));
}

#[test]
fn a_run_downwards_is_seen_too() {
    let runs = Runs::new();
    assert_eq!(advance(&runs, 300, 16), None);
    assert_eq!(advance(&runs, 299, 16), Some(Window { direction: Direction::Down, pages: 2 }));
    assert_eq!(advance(&runs, 296, 16), Some(Window { direction: Direction::Down, pages: 4 }));
}

#[test]
fn random_faults_read_nothing_ahead_and_end_a_run_by_and_by() {
    let runs = Runs::new();
    for page in [10, 400, 70, 200, 90] {
        assert_eq!(advance(&runs, page, 16), None);
    }
    let runs = Runs::new();
    advance(&runs, 100, 16);
    assert_eq!(advance(&runs, 101, 16), up(2));
    assert_eq!(advance(&runs, 104, 16), up(4));
    // One fault elsewhere costs half of the window, not the run.
    assert_eq!(advance(&runs, 300, 16), None);
    assert_eq!(advance(&runs, 109, 16), up(4));
    for page in [300, 350, 370] {
        assert_eq!(advance(&runs, page, 16), None);
    }
    assert_eq!(advance(&runs, 114, 16), None);
}

#[test]
fn a_run_that_outpaces_reclaim_narrows_its_window() {
    let runs = Runs::new();
    advance(&runs, 100, 16);
    assert_eq!(advance(&runs, 101, 16), up(2));
    assert_eq!(advance(&runs, 104, 16), up(4));
    assert_eq!(advance(&runs, 109, 16), up(8));
    // 110 to 117 should be read ahead, but 112 was not.
    assert_eq!(advance(&runs, 112, 16), up(4));
    assert_eq!(advance(&runs, 117, 16), up(8));
}

#[test]
fn a_run_goes_on_in_the_next_block() {
    let runs = Runs::new();
    advance(&runs, 509, 4);
    assert_eq!(advance(&runs, 510, 4), up(2));
    assert_eq!(advance(&runs, 513, 4), up(4));
}

#[test]
fn a_run_that_has_no_room_proves_itself_by_its_order() {
    let runs = Runs::new();
    for (page, ahead) in [(100, None), (101, up(2)), (102, up(4)), (105, up(8)), (106, up(16))] {
        assert_eq!(runs.advance(page, 16, || true).map(|advance| advance.ahead), ahead);
    }
    runs.brought(106, Window { direction: Direction::Up, pages: 16 }, 3);
    let advance = runs.advance(110, 16, || true).unwrap();
    assert_eq!(Some(advance.ahead), up(16));
    assert_eq!(advance.passed, (107, 110));
}

#[test]
fn what_a_run_has_passed_is_known_in_either_direction() {
    let passed = |pages: [u64; 3]| {
        let runs = Runs::new();
        advance(&runs, pages[0], 16);
        advance(&runs, pages[1], 16);
        runs.advance(pages[2], 16, || true).unwrap().passed
    };
    assert_eq!(passed([100, 101, 104]), (102, 104));
    assert_eq!(passed([100, 99, 96]), (97, 99));
    // A page that was read ahead and has left: the run knows nothing about it and the others.
    assert_eq!(passed([100, 101, 103]), (0, 0));
}

#[test]
fn a_run_that_may_not_begin_gets_nothing_and_one_that_began_goes_on() {
    let runs = Runs::new();
    for page in 100..110 {
        assert_eq!(runs.advance(page, 16, || false), None);
    }
    assert_eq!(advance(&runs, 110, 16), up(2));
    assert_eq!(runs.advance(113, 16, || false).map(|advance| advance.ahead), up(4));
}

#[test]
fn what_is_encoded_is_decoded() {
    for direction in [Direction::Up, Direction::Down] {
        let run = Run { last: (1 << 45) - 1, direction, window: 256, brought: 255 };
        assert_eq!(Run::decode(run.encode()), run);
    }
}
