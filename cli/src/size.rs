//! Sizes of memory as people write them.

use std::fmt;
use std::str::FromStr;

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// Why a text is not a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// It is not a number with an optional suffix.
    #[error("a size is a whole number of bytes, or one with a suffix K, M, G or T, as in 256M")]
    Form,
    /// It does not fit 64 bits.
    #[error("more than 2^64 bytes")]
    TooLarge,
}

impl FromStr for Size {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        // 256M, 256MB and 256MiB mean the same: powers of two, as usual for memory.
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, suffix) = text.split_at(digits);
        if number.is_empty() {
            return Err(SizeError::Form);
        }
        let shift = match suffix.to_ascii_uppercase().as_str() {
            "" | "B" => 0,
            "K" | "KB" | "KIB" => 10,
            "M" | "MB" | "MIB" => 20,
            "G" | "GB" | "GIB" => 30,
            "T" | "TB" | "TIB" => 40,
            _ => return Err(SizeError::Form),
        };
        let number = number.parse::<u64>().map_err(|_| SizeError::TooLarge)?;
        number.checked_mul(1 << shift).map(Self).ok_or(SizeError::TooLarge)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(40, "T"), (30, "G"), (20, "M"), (10, "K")];
        let exact =
            |(shift, _): &&(u32, _)| self.0 >> shift > 0 && self.0.is_multiple_of(1 << *shift);
        match units.iter().find(exact) {
            Some((shift, suffix)) => write!(f, "{}{suffix}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

/// A size for people: about three digits, in a suitable unit.
pub fn about(bytes: u64) -> String {
    let units = [(40, "T"), (30, "G"), (20, "M"), (10, "K")];
    match units.into_iter().find(|(shift, _)| bytes >> shift > 0) {
        Some((shift, unit)) if bytes.is_multiple_of(1 << shift) => {
            format!("{}{unit}", bytes >> shift)
        }
        Some((shift, unit)) => format!("{:.1}{unit}", bytes as f64 / (1_u64 << shift) as f64),
        None => bytes.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written() {
        let sizes =
            [("0", 0), ("4096", 4096), ("12k", 12 << 10), ("64MiB", 64 << 20), ("3GB", 3 << 30)];
        for (text, bytes) in sizes {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        let written = [4097, 12 << 10, 1536 << 20, 2 << 40].map(|bytes| Size(bytes).to_string());
        assert_eq!(written, ["4097", "12K", "1536M", "2T"]);
        assert_eq!(Size(0).to_string(), "0");
    }

    #[test]
    fn sizes_to_be_read_are_in_the_unit_that_suits_them() {
        let sizes = [0, 4096, 64 << 20, (64 << 20) + 512, 12_638_031_872, 3 << 40].map(about);
        assert_eq!(sizes, ["0", "4K", "64M", "64.0M", "11.8G", "3T"]);
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "M", "-1", "1.5G", "1 M", "1MX", "0x10"] {
            assert_eq!(text.parse::<Size>(), Err(SizeError::Form), "{text}");
        }
        for text in ["99999999999999999999", "16777216T"] {
            assert_eq!(text.parse::<Size>(), Err(SizeError::TooLarge), "{text}");
        }
    }
}
