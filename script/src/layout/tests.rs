use super::*;

const WINDOW: Window = Window::of(Arch::X86_64);
const TABLE: u64 = WINDOW.table;

#[test]
fn mappings_are_far_apart_and_cross_a_table_boundary() {
    let mut layout = Layout::over(WINDOW);
    let mut before = WINDOW_START;
    for length in [1, PAGE, 9 * PAGE, 3 * TABLE + 5, 7] {
        let Placed::At(start) = layout.place(length) else {
            panic!("the window is empty");
        };
        assert!(start >= before + 1024 * PAGE, "{start:#x} after {before:#x}");
        assert_eq!(start % TABLE, TABLE - BELOW * PAGE);
        before = start + length;
    }
}

#[test]
fn what_the_script_places_itself_is_kept_clear_of() {
    let mut layout = Layout::over(WINDOW);
    layout.used(WINDOW_START + (1 << 30), 5 * PAGE);
    let Placed::At(start) = layout.place(PAGE) else {
        panic!("there is room");
    };
    assert!(start >= WINDOW_START + (1 << 30) + (5 + 1024) * PAGE);
    // Ranges that were never mapped do not count.
    layout.used(WINDOW_START + (2 << 30), u64::MAX);
    let Placed::At(next) = layout.place(PAGE) else {
        panic!("there is room");
    };
    assert!(next < WINDOW_START + (2 << 30));
}

#[test]
fn a_full_window_has_no_room() {
    let mut layout = Layout::over(WINDOW);
    assert!(matches!(layout.place(63 << 30), Placed::At(_)));
    assert!(matches!(layout.place(2 << 30), Placed::NoRoom(_)));
    assert!(matches!(layout.place(PAGE), Placed::At(_)));
    layout.used(WINDOW_END - PAGE, PAGE);
    assert!(matches!(layout.place(PAGE), Placed::NoRoom(_)));
}

#[test]
fn ranges_and_the_window() {
    for (start, length, fit) in [
        (WINDOW_START, 64 << 30, Fit::Inside),
        (WINDOW_START, (64 << 30) + 1, Fit::Outside),
        (WINDOW_START, USER_END - WINDOW_START, Fit::Outside),
        (WINDOW_START, USER_END - WINDOW_START + 1, Fit::Invalid),
        (WINDOW_START, u64::MAX, Fit::Invalid),
        (WINDOW_START, 1 << 63, Fit::Invalid),
        (WINDOW_START - 1, 1, Fit::Outside),
        (WINDOW_END, 0, Fit::Outside),
        (WINDOW_END - PAGE, PAGE, Fit::Inside),
    ] {
        assert_eq!(WINDOW.fits(start, length), fit, "{start:#x} {length:#x}");
    }
}
