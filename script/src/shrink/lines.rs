//! Fewer lines: delta debugging (Zeller and Hildebrandt, 2002).

/// Removes lines while `still` finds the difference in the rest.
///
/// `still` returns the part of the candidate that it kept. At the end no single line can be
/// removed.
pub(super) fn fewer(
    mut lines: Vec<String>,
    mut still: impl FnMut(Vec<String>) -> Option<Vec<String>>,
) -> Vec<String> {
    let mut piece = lines.len().div_ceil(2).max(1);
    loop {
        let before = lines.len();
        // From the end: later lines have fewer dependents.
        let mut end = lines.len();
        while end > 0 {
            let start = end.saturating_sub(piece);
            let rest = [&lines[..start], &lines[end..]].concat();
            if !rest.is_empty()
                && let Some(kept) = still(rest)
            {
                lines = kept;
            }
            end = start.min(lines.len());
        }
        if piece > 1 {
            piece /= 2;
        } else if lines.len() == before {
            return lines;
        }
    }
}
