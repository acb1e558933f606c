//! Lines of the host's list of mappings (`/proc/self/maps`).

use crate::files::{read, with_file};
use alloc::vec::Vec;
use core::ops::Range;

/// A mapping as the host shows it.
pub struct Line<'a> {
    /// Its addresses.
    pub range: Range<u64>,
    /// Its rights, and whether it is private, such as `rw-p`.
    pub rights: &'a [u8],
    /// Whether it is of a file.
    pub is_file: bool,
    /// Whether it has a name: a path, or a purpose.
    pub has_name: bool,
}

impl<'a> Line<'a> {
    /// Reads a line; `None` if it is malformed.
    pub fn of(line: &'a [u8]) -> Option<Self> {
        let mut words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
        let (addresses, rights) = (words.next()?, words.next()?);
        let is_file = words.nth(2)? != b"0";
        let mut bounds = addresses.split(|byte| *byte == b'-');
        let range = number(bounds.next()?)?..number(bounds.next()?)?;
        Some(Self { range, rights, is_file, has_name: words.next().is_some() })
    }
}

/// Calls `f` with every line that `read` puts into a buffer piece by piece. Long ones, which have names, lack their
/// middle.
pub fn each_line(mut read: impl FnMut(&mut [u8]) -> usize, mut f: impl FnMut(&[u8])) {
    /// Small: a page of a stack that is not touched costs nothing.
    const PIECE: usize = 2 << 10;
    let (mut text, mut held) = ([0_u8; PIECE], 0);
    loop {
        let len = read(&mut text[held..]);
        if len == 0 {
            return;
        }
        held += len;
        let mut start = 0;
        while let Some(end) = text[start..held].iter().position(|byte| *byte == b'\n') {
            f(&text[start..start + end]);
            start += end + 1;
        }
        text.copy_within(start..held, 0);
        held = (held - start).min(PIECE / 2);
    }
}

/// Calls `f` with every line of this process's list; `None` if the host does not give the whole list.
pub fn each_own_line(mut f: impl FnMut(&[u8])) -> Option<()> {
    with_file(c"/proc/self/maps", |file| {
        let mut is_whole = true;
        let piece = |text: &mut [u8]| {
            read(file, text).unwrap_or_else(|| {
                is_whole = false;
                0
            })
        };
        each_line(piece, &mut f);
        is_whole.then_some(())
    })
}

/// The parts of a range that the host has mapped, from the lowest up; `None` if it does not tell all.
pub fn within(range: &Range<u64>) -> Option<Vec<Range<u64>>> {
    let mut parts = Vec::new();
    each_own_line(|line| {
        let Some(mapping) = Line::of(line).map(|line| line.range) else { return };
        let part = mapping.start.max(range.start)..mapping.end.min(range.end);
        if !part.is_empty() {
            parts.push(part);
        }
    })?;
    Some(parts)
}

/// A hexadecimal number.
fn number(digits: &[u8]) -> Option<u64> {
    u64::from_str_radix(core::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_put_together_again() {
        let long = [b'x'; 5000];
        let whole = [b"one\n\nthree\nlong", &long[..], b"\nlast\nunfinished"].concat();
        for piece in [1, 2, 3, 700, 9000] {
            let (mut rest, mut lines) = (&whole[..], alloc::vec::Vec::new());
            each_line(
                |to| {
                    let len = rest.len().min(to.len()).min(piece);
                    to[..len].copy_from_slice(&rest[..len]);
                    rest = &rest[len..];
                    len
                },
                |line| lines.push(line.to_vec()),
            );
            let long = lines.remove(3);
            assert!(long.starts_with(b"longx") && long.ends_with(b"x"), "{piece}");
            assert_eq!(lines, [&b"one"[..], b"", b"three", b"last"], "{piece}");
        }
    }

    #[test]
    fn a_line_says_where_what_and_of_which_file() {
        let of = |line: &'static str| {
            Line::of(line.as_bytes())
                .map(|line| (line.range, line.rights, line.is_file, line.has_name))
        };
        let heap = (0x1000..0x3000, &b"rw-p"[..], false, false);
        assert_eq!(of("1000-3000 rw-p 00000000 00:00 0 "), Some(heap));
        let code = (0x1000..0x3000, &b"r-xp"[..], true, true);
        assert_eq!(of("1000-3000 r-xp 00001000 08:01 7      /a file"), Some(code));
        for other in ["", "garbage", "1000 rw-p 0 0 0", "x-y rw-p 0 0 0", "1000-3000 rw-p"] {
            assert!(of(other).is_none(), "{other}");
        }
    }
}
