//! Simpler lines: smaller numbers, shorter strings, no offsets.

use std::ops::Range;

/// Makes lines simpler while `still` finds the difference.
pub(super) fn simpler(
    mut lines: Vec<String>,
    mut still: impl FnMut(Vec<String>) -> Option<Vec<String>>,
) -> Vec<String> {
    let mut index = 0;
    while index < lines.len() {
        let simpler = candidates(&lines[index]).into_iter().find_map(|line| {
            let mut candidate = lines.clone();
            candidate[index] = line;
            let length = candidate.len();
            // The search in `lines` removes lines.
            still(candidate).filter(|kept| kept.len() == length)
        });
        match simpler {
            Some(kept) => lines = kept,
            None => index += 1,
        }
    }
    lines
}

/// Every line that is one step simpler, the simplest first.
fn candidates(line: &str) -> Vec<String> {
    let mut all = fewer_words(line);
    let mut put = |range: &Range<usize>, text: &str| {
        all.push([&line[..range.start], text, &line[range.end..]].concat());
    };
    for piece in pieces(line) {
        let text = &line[piece.clone()];
        if let Some(inner) = text.strip_prefix('"') {
            // Escapes need no care: a string that is cut within one does not parse.
            if inner.len() > 2 {
                put(&piece, &format!("\"{}\"", &inner[..1]));
            }
            continue;
        }
        if line[..piece.start].ends_with('+') {
            put(&(piece.start - 1..piece.end), "");
        }
        let Some(number) = Number::read(text) else { continue };
        for value in number.smaller() {
            put(&piece, &value.to_string());
        }
    }
    all
}

/// The line without a word or two after the operation: an option, `as NAME`.
fn fewer_words(line: &str) -> Vec<String> {
    let words: Vec<&str> = line.split(' ').collect();
    let without = |start: usize, end: usize| [&words[..start], &words[end..]].concat().join(" ");
    (2..words.len())
        .flat_map(|start| [start + 2, start + 1].map(|end| (start, end)))
        .filter(|&(_, end)| end <= words.len())
        .map(|(start, end)| without(start, end))
        .collect()
}

/// The numbers and strings of a line. Digits within a name are not a number.
fn pieces(line: &str) -> Vec<Range<usize>> {
    let bytes = line.as_bytes();
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        if bytes[at] == b'"' {
            at += 1;
            while at < bytes.len() && bytes[at] != b'"' {
                at += if bytes[at] == b'\\' { 2 } else { 1 };
            }
            at = (at + 1).min(bytes.len());
            pieces.push(start..at);
        } else if bytes[at].is_ascii_alphanumeric() || bytes[at] == b'_' {
            while at < bytes.len() && (bytes[at].is_ascii_alphanumeric() || bytes[at] == b'_') {
                at += 1;
            }
            if bytes[start].is_ascii_digit() {
                pieces.push(start..at);
            }
        } else {
            at += 1;
        }
    }
    // A string of non-ASCII characters could be cut within one.
    pieces.retain(|piece| line.is_char_boundary(piece.start) && line.is_char_boundary(piece.end));
    pieces
}

/// A number as scripts write it: decimal or hexadecimal, in bytes or in pages.
#[derive(Clone, Copy)]
struct Number {
    value: u64,
    in_pages: bool,
}

impl Number {
    fn read(text: &str) -> Option<Self> {
        let (digits, in_pages) = match text.strip_suffix('p') {
            Some(digits) => (digits, true),
            None => (text, false),
        };
        let value = match digits.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16),
            None => digits.parse(),
        };
        value.ok().map(|value| Self { value, in_pages })
    }

    /// Zero, one, half, then ever closer to the number, so that few tries lead from 2^63 to the smallest. A number of
    /// bytes that is not whole pages is rounded; one page is simpler than none.
    fn smaller(self) -> Vec<Self> {
        let Self { value, in_pages } = self;
        let mut values = vec![0, 1];
        values.extend((1..64).map(|halvings| value - (value >> halvings)));
        values.dedup();
        values.retain(|&smaller| smaller < value && smaller >= u64::from(in_pages));
        let mut numbers: Vec<Self> =
            values.into_iter().map(|value| Self { value, in_pages }).collect();
        let pages = value >> 12;
        if !in_pages && pages > 0 && value & 0xfff != 0 {
            numbers.insert(0, Self { value: pages, in_pages: true });
        }
        numbers
    }
}

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.value, if self.in_pages { "p" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_strings_are_found_and_names_are_not() {
        let line = r#"p0: write A1+0x20 "x 1\" y""#;
        let found: Vec<&str> = pieces(line).into_iter().map(|piece| &line[piece]).collect();
        assert_eq!(found, ["0x20", r#""x 1\" y""#]);
    }

    #[test]
    fn a_huge_number_is_soon_as_small_as_it_may_be() {
        let mut tried = 0;
        let simple = simpler(vec!["p0: fill A 34359738367p 1".to_owned()], |lines| {
            tried += 1;
            let length = lines[0].split(' ').nth(3)?.strip_suffix('p')?.parse::<u64>().ok()?;
            (length >= 20_000_000_001 && lines[0].ends_with(" 1")).then_some(lines)
        });
        assert_eq!(simple, ["p0: fill A 20000000001p 1"]);
        assert!(tried < 3000, "{tried}");
    }

    #[test]
    fn a_line_becomes_as_simple_as_the_difference_allows() {
        let lines = vec!["p0: mmap A 37p rw private anon".to_owned(), "p0: read A+0x3001 9".into()];
        let simple = simpler(lines, |lines| {
            let length = lines[0].split(' ').nth(3)?.strip_suffix('p')?.parse::<u64>().ok()?;
            let parsed = crate::parse::parse(&lines.join("\n")).is_ok();
            (parsed && length >= 4 && lines[1].contains("A+")).then_some(lines)
        });
        assert_eq!(simple, ["p0: mmap A 4p rw private anon", "p0: read A+1p 0"]);
    }
}
