//! The header of a swap area: what `mkswap` writes into its first page (spec F1).
//!
//! Words are in the byte order of the processor that wrote them; both orders are understood.

use super::area::{Priority, SwapOnError};
use crate::machine::store::PageBytes;
use crate::machine::{IoError, Machine, PAGE_SIZE, SwapDevice};
use crate::manager::Manager;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

/// At the end of the page.
const MAGIC: &[u8; 10] = b"SWAPSPACE2";
/// Where the words begin: version, last page, number of bad pages.
const WORDS: usize = 1024;
/// Where the list of bad pages begins, after the area's identity and label.
const BAD: usize = 1536;
const VERSION: u32 = 1;

/// The most bad pages that a header has room for: 637 in a page of 4 KiB.
pub const MOST_BAD: usize = (PAGE_SIZE as usize - MAGIC.len() - BAD) / 4;

/// The content of a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The number of the area's last page. Pages from 1 to the one before it are slots.
    pub last_page: u32,
    /// Pages that must not be used, at most [`MOST_BAD`].
    pub bad: Vec<u32>,
}

/// Why a page is not a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// The magic word is missing.
    NoMagic,
    /// A version other than 1.
    Version(u32),
    /// No page is left for a slot.
    Empty,
    /// More bad pages than a header has room for.
    TooManyBad(u32),
    /// A bad page outside the area.
    BadOutside(u32),
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMagic => f.write_str("the first page does not end in SWAPSPACE2"),
            Self::Version(version) => write!(f, "version {version} is not known"),
            Self::Empty => f.write_str("the area has no slots"),
            Self::TooManyBad(bad) => write!(f, "{bad} bad pages do not fit a header"),
            Self::BadOutside(page) => write!(f, "bad page {page} is outside of the area"),
        }
    }
}

impl core::error::Error for HeaderError {}

impl Header {
    /// Reads a header from the first page of an area.
    pub fn parse(page: &PageBytes) -> Result<Self, HeaderError> {
        if !page.ends_with(MAGIC) {
            return Err(HeaderError::NoMagic);
        }
        let native = word(page, WORDS);
        let swapped = native.swap_bytes() == VERSION;
        let read = |at| if swapped { word(page, at).swap_bytes() } else { word(page, at) };
        if read(WORDS) != VERSION {
            return Err(HeaderError::Version(native));
        }
        let (last_page, count) = (read(WORDS + 4), read(WORDS + 8));
        if count as usize > MOST_BAD {
            return Err(HeaderError::TooManyBad(count));
        }
        let bad: Vec<u32> = (0..count as usize).map(|number| read(BAD + number * 4)).collect();
        let header = Self { last_page, bad };
        header.check()?;
        Ok(header)
    }

    /// Writes the header as `mkswap` does, without an identity or a label. The rest of the page,
    /// such as a boot record, stays.
    pub fn write(&self, page: &mut PageBytes) -> Result<(), HeaderError> {
        self.check()?;
        let words = [VERSION, self.last_page, self.bad.len() as u32];
        let bad = self.bad.iter().copied().enumerate().map(|(number, bad)| (BAD + number * 4, bad));
        let words = words.into_iter().enumerate().map(|(number, word)| (WORDS + number * 4, word));
        for (at, word) in words.chain(bad) {
            page[at..at + 4].copy_from_slice(&word.to_ne_bytes());
        }
        let magic = page.len() - MAGIC.len();
        page[magic..].copy_from_slice(MAGIC);
        Ok(())
    }

    fn check(&self) -> Result<(), HeaderError> {
        if self.bad.len() > MOST_BAD {
            return Err(HeaderError::TooManyBad(self.bad.len() as u32));
        }
        if self.last_page < 2 {
            return Err(HeaderError::Empty);
        }
        let outside = self.bad.iter().find(|bad| **bad == 0 || **bad > self.last_page);
        outside.map_or(Ok(()), |bad| Err(HeaderError::BadOutside(*bad)))
    }
}

/// The medium of an area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    /// A disk, whose pages may be bad.
    Disk,
    /// A file, which the file system keeps off bad pages.
    File,
}

/// Why an area cannot be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormattedError {
    /// Its first page cannot be read.
    Unreadable(IoError),
    /// Its first page is not a header.
    Header(HeaderError),
    /// The device has fewer pages than the header says.
    Short,
    /// A file with a list of bad pages.
    BadOnFile,
    /// The area itself is refused.
    Refused(SwapOnError),
}

impl fmt::Display for FormattedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(error) => write!(f, "the header cannot be read: {error}"),
            Self::Header(error) => error.fmt(f),
            Self::Short => f.write_str("the device is shorter than its header says"),
            Self::BadOnFile => f.write_str("a file cannot have bad pages"),
            Self::Refused(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for FormattedError {}

impl<M: Machine> Manager<M> {
    /// Adds a swap area as its header describes it, and returns its number (`swapon`, spec F1, F2).
    pub fn swap_on_formatted(
        &self,
        device: Box<dyn SwapDevice>,
        medium: Medium,
        priority: Priority,
    ) -> Result<u8, FormattedError> {
        let mut page = Box::new([0; PAGE_SIZE as usize]);
        device.read(0, &mut page).map_err(FormattedError::Unreadable)?;
        let Header { last_page, bad } = Header::parse(&page).map_err(FormattedError::Header)?;
        if last_page >= device.slots() {
            return Err(FormattedError::Short);
        }
        if medium == Medium::File && !bad.is_empty() {
            return Err(FormattedError::BadOnFile);
        }
        let added = self.swap.add_with_bad(device, priority, last_page, &bad);
        added.map_err(FormattedError::Refused)
    }
}

fn word(page: &PageBytes, at: usize) -> u32 {
    u32::from_ne_bytes([page[at], page[at + 1], page[at + 2], page[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn page_of(header: &Header) -> PageBytes {
        let mut page = [0; PAGE_SIZE as usize];
        header.write(&mut page).unwrap();
        page
    }

    #[test]
    fn f1_what_is_written_is_read_in_either_byte_order() {
        let header = Header { last_page: 99, bad: vec![3, 98, 7] };
        let mut page = page_of(&header);
        assert_eq!(Header::parse(&page), Ok(header.clone()));
        for at in (WORDS..WORDS + 12).chain(BAD..BAD + 12).step_by(4) {
            page[at..at + 4].reverse();
        }
        assert_eq!(Header::parse(&page), Ok(header));
    }

    #[test]
    fn f1_what_is_no_header_is_refused() {
        let good = page_of(&Header { last_page: 9, bad: vec![1] });
        let spoilt = |at: usize, word: u32| {
            let mut page = good;
            page[at..at + 4].copy_from_slice(&word.to_ne_bytes());
            Header::parse(&page).unwrap_err()
        };
        assert_eq!(spoilt(PAGE_SIZE as usize - 4, 0), HeaderError::NoMagic);
        assert_eq!(spoilt(WORDS, 2), HeaderError::Version(2));
        assert_eq!(spoilt(WORDS + 4, 1), HeaderError::Empty);
        assert_eq!(
            spoilt(WORDS + 8, MOST_BAD as u32 + 1),
            HeaderError::TooManyBad(MOST_BAD as u32 + 1)
        );
        assert_eq!(spoilt(BAD, 10), HeaderError::BadOutside(10));
        assert_eq!(spoilt(BAD, 0), HeaderError::BadOutside(0));
        if PAGE_SIZE == 4096 {
            assert_eq!(MOST_BAD, 637);
        }
    }
}
