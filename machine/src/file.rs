//! Host files as [`Backing`].

use crate::store::{Backing, IoError, PageBytes};
use crate::{PAGE_SHIFT, PAGE_SIZE};
use std::fs::File;
use std::io::{Error, ErrorKind};
use std::os::unix::fs::FileExt;

/// A host file. Read access suffices for private mappings.
///
/// It must not be opened for appending: Linux then writes every page at the end of the file.
impl Backing for File {
    fn read(&self, index: u64, page: &mut PageBytes) -> Result<(), IoError> {
        let (mut at, mut rest) = (index << PAGE_SHIFT, &mut page[..]);
        while !rest.is_empty() {
            match self.read_at(rest, at) {
                Ok(0) => break,
                Ok(read) => {
                    at += read as u64;
                    rest = &mut rest[read..];
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(io_error(&error)),
            }
        }
        Ok(())
    }

    fn write(&self, index: u64, page: &[u8]) -> Result<(), IoError> {
        self.write_all_at(page, index * PAGE_SIZE).map_err(|error| io_error(&error))
    }

    fn len(&self) -> Result<u64, IoError> {
        self.metadata().map(|metadata| metadata.len()).map_err(|error| io_error(&error))
    }

    fn set_len(&self, bytes: u64) -> Result<(), IoError> {
        File::set_len(self, bytes).map_err(|error| io_error(&error))
    }

    fn sync(&self) -> Result<(), IoError> {
        self.sync_data().map_err(|error| io_error(&error))
    }
}

fn io_error(error: &Error) -> IoError {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            IoError::Full
        }
        ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied | ErrorKind::Unsupported => {
            IoError::Unsupported
        }
        _ => IoError::Device,
    }
}
