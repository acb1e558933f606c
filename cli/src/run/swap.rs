//! Swap areas on the command line.

use crate::complain;
use crate::size::{Size, SizeError};
use pagefault_control::{Storage, SwapSpec};
use pagefault_linux::store::{OpenError, Opened};
use pagefault_machine::IoError;
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A swap area as on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Area {
    place: Place,
    size: Option<Size>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Ram,
    File(PathBuf),
    Temporary,
}

/// Why a text names no swap area.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AreaError {
    /// The first word is unknown.
    #[error("a swap area is ram, ram:SIZE, file:PATH, file:PATH:SIZE or file")]
    Form,
    /// The size is invalid.
    #[error(transparent)]
    Size(#[from] SizeError),
}

/// A swap area that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("swap file {}: no space left on the device", .0.display())]
    Full(PathBuf),
    #[error("swap file {}: cannot be written", .0.display())]
    Device(PathBuf),
    #[error("--swap ram:{0}: too small to hold a page; give at least 64K")]
    RamTooSmall(Size),
}

impl Error {
    /// Whether the disk has no room.
    fn is_full(&self) -> bool {
        matches!(self, Self::Full(_))
    }
}

impl FromStr for Area {
    type Err = AreaError;

    fn from_str(text: &str) -> Result<Self, AreaError> {
        match text.split_once(':').unwrap_or((text, "")) {
            ("ram", "") => Ok(Self::RAM),
            ("ram", size) => Ok(Self { place: Place::Ram, size: Some(size.parse()?) }),
            ("file", "") => Ok(Self::TEMPORARY),
            ("file", rest) => file(rest),
            _ => Err(AreaError::Form),
        }
    }
}

/// Parses `PATH`, `PATH:SIZE` or `:SIZE`. A path may contain colons; the text after the last one is
/// a size if it parses as one.
fn file(text: &str) -> Result<Area, AreaError> {
    let (path, size) = match text.rsplit_once(':') {
        Some((path, size)) if size.starts_with(|c: char| c.is_ascii_digit()) => {
            (path, Some(size.parse()?))
        }
        _ => (text, None),
    };
    let place = if path.is_empty() { Place::Temporary } else { Place::File(path.into()) };
    Ok(Area { place, size })
}

/// The directory for temporary files, and a second one where that cannot be written to.
const DIRECTORY: &str = "/var/tmp";
const OTHER_DIRECTORY: &str = "/tmp";

/// A smaller area holds no page besides its tables.
const LEAST_RAM: Size = Size(64 << 10);

/// The most compressed RAM of all areas together. Each process reserves addresses for it, and the program
/// needs the rest of the 128 TiB, which lies in two parts around the program.
pub const MOST_RAM: Size = Size(16 << 40);

impl Area {
    /// Compressed RAM of the default size.
    pub const RAM: Self = Self { place: Place::Ram, size: None };
    /// A temporary file of the default size.
    pub const TEMPORARY: Self = Self { place: Place::Temporary, size: None };

    /// Opens it for the whole tree. Returns its specification, with the size filled in and the path absolute,
    /// and its file, which is tested by writing a page.
    pub fn open(&self, memory: Size) -> Result<OpenArea, Error> {
        let bytes = self.size.map(|size| size.0);
        match &self.place {
            Place::Ram => {
                let half = (memory.0 / 2).clamp(LEAST_RAM.0, MOST_RAM.0);
                let size = self.size.unwrap_or(Size(half));
                if size < LEAST_RAM {
                    return Err(Error::RamTooSmall(size));
                }
                let spec = SwapSpec { storage: Storage::Ram, bytes: Some(size.0), pages: 0 };
                Ok(OpenArea { spec, file: None })
            }
            Place::File(path) => {
                // The directory for a second file.
                let file = Opened::named(&c_path(path), &c_path(&directory()), bytes)?;
                probe(&file, path)?;
                // It exists now, so it has an absolute path for messages.
                let path = path.canonicalize().unwrap_or_else(|_| path.clone());
                Ok(OpenArea::of(Storage::File(path.into_os_string().into_vec()), file))
            }
            Place::Temporary => {
                let directory = canonical_directory();
                let file = Opened::temporary(&c_path(&directory), bytes)?;
                probe(&file, &directory)?;
                Ok(OpenArea::of(temporary(directory), file))
            }
        }
    }
}

/// An open swap area.
#[derive(Debug)]
pub struct OpenArea {
    pub spec: SwapSpec,
    /// Its file, if it has one that could be created.
    pub file: Option<OwnedFd>,
}

impl OpenArea {
    fn of(storage: Storage, file: Opened) -> Self {
        let spec = SwapSpec { storage, bytes: file.bytes(), pages: file.pages() };
        Self { spec, file: Some(file.into_file()) }
    }
}

/// The default areas: compressed RAM, then a temporary file. On a full disk, or if none of the usual
/// directories takes a file, the program starts with RAM alone, and fails only if that is not enough.
pub fn default_areas(memory: Size) -> Result<Vec<OpenArea>, Error> {
    let ram = Area::RAM.open(memory)?;
    let asked = std::env::var_os("TMPDIR").is_some();
    match default_file(canonical_directory()) {
        Ok(file) => Ok(vec![ram, file]),
        Err(error) if asked => Err(error),
        Err(error) => match default_file(OTHER_DIRECTORY.into()) {
            Ok(file) => Ok(vec![ram, file]),
            Err(_) => {
                complain!("{error}; compressed RAM alone takes what is evicted");
                Ok(vec![ram])
            }
        },
    }
}

/// An area that may grow as far as the disk has room, which may be none yet.
fn default_file(directory: PathBuf) -> Result<OpenArea, Error> {
    match Opened::temporary(&c_path(&directory), None) {
        Ok(file) => match probe(&file, &directory) {
            // The disk may have room later.
            Err(error) if !error.is_full() => Err(error),
            _ => Ok(OpenArea::of(temporary(directory), file)),
        },
        Err(error) if error.is_full() => {
            let spec = SwapSpec { storage: temporary(directory), bytes: None, pages: 0 };
            Ok(OpenArea { spec, file: None })
        }
        Err(error) => Err(error.into()),
    }
}

fn temporary(directory: PathBuf) -> Storage {
    Storage::Temporary(directory.into_os_string().into_vec())
}

fn canonical_directory() -> PathBuf {
    let directory = directory();
    directory.canonicalize().unwrap_or(directory)
}

/// A path from the command line or the environment, which contains no zero byte.
fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap_or_default()
}

/// The directory for temporary files.
pub fn directory() -> PathBuf {
    std::env::var_os("TMPDIR").map_or(DIRECTORY.into(), PathBuf::from)
}

/// Writes a page to a file and removes it again.
fn probe(file: &Opened, path: &Path) -> Result<(), Error> {
    file.probe().map_err(|error| match error {
        IoError::Full => Error::Full(path.to_owned()),
        IoError::Device | IoError::Unsupported => Error::Device(path.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_are_read() {
        let area = |place, size: Option<u64>| Ok(Area { place, size: size.map(Size) });
        let file = |path: &str| Place::File(path.into());
        let cases = [
            ("ram", area(Place::Ram, None)),
            ("ram:64M", area(Place::Ram, Some(64 << 20))),
            ("file", area(Place::Temporary, None)),
            ("file::2G", area(Place::Temporary, Some(2 << 30))),
            ("file:/a/b", area(file("/a/b"), None)),
            ("file:/a/b:5K", area(file("/a/b"), Some(5 << 10))),
            ("file:a:b", area(file("a:b"), None)),
            ("file:a:b:1", area(file("a:b"), Some(1))),
            ("disk", Err(AreaError::Form)),
            ("ram:x", Err(AreaError::Size(SizeError::Form))),
            ("file:x:5Q", Err(AreaError::Size(SizeError::Form))),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<Area>(), expected, "{text}");
        }
    }
}
