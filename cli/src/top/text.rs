//! One snapshot as a table.

use super::model::View;
use crate::size::about;
use std::fmt::Write;

/// The trees as lines of text.
pub fn table(views: &[View]) -> String {
    if views.is_empty() {
        return "no managed tree is running\n".to_owned();
    }
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "{:>7} {:>8} {:>8} {:>8} {:>9} {:>8} {:>8} {:>5}  PROGRAM",
        "PID", "LIMIT", "RESIDENT", "SWAP", "FAULTS/s", "IN/s", "OUT/s", "MISS"
    );
    for view in views {
        let _ = writeln!(
            text,
            "{:>7} {:>8} {:>8} {:>8} {:>9.0} {:>8.0} {:>8.0} {:>4.0}%  {}",
            view.pid,
            about(view.limit_bytes),
            about(view.resident_bytes),
            about(view.swapped_bytes),
            view.fault_rate(),
            view.swap_rate(|area| area.back),
            view.swap_rate(|area| area.out),
            view.misses * 100.0,
            view.program
        );
    }
    text
}
