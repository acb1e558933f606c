//! Lines of the host's list of mappings (`/proc/self/maps`).

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

/// A hexadecimal number.
fn number(digits: &[u8]) -> Option<u64> {
    u64::from_str_radix(core::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

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
