//! Names of files, for messages, and text in a buffer without a heap.

use alloc::ffi::CString;
use core::ffi::CStr;
use core::fmt;

/// A file's name as given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileName(CString);

impl FileName {
    /// The name for the host.
    pub fn as_c_str(&self) -> &CStr {
        &self.0
    }
}

impl From<&CStr> for FileName {
    fn from(name: &CStr) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_string_lossy())
    }
}

/// A short string that the host can be given.
pub(super) struct Short {
    bytes: [u8; 64],
    len: usize,
}

impl Short {
    /// The text of `arguments`, cut off where it is longer than 63 bytes.
    pub fn of(arguments: fmt::Arguments<'_>) -> Self {
        let mut short = Self { bytes: [0; 64], len: 0 };
        // The only error is that the text is too long.
        let _ = fmt::Write::write_fmt(&mut short, arguments);
        short
    }

    pub fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or(c"")
    }
}

impl fmt::Write for Short {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // The last byte stays zero.
        let room = &mut self.bytes[self.len..63];
        let n = text.len().min(room.len());
        room[..n].copy_from_slice(&text.as_bytes()[..n]);
        self.len += n;
        if n == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}
