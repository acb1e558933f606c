//! Many small buffers in more pages than one call may keep resident: the transfer goes through one buffer of the
//! runtime's, so that a message stays whole and a write to a pipe stays atomic.

use super::Call;
use super::passed::Vectors;
use crate::memory::PAGE;
use crate::sys::Errno;
use crate::user;
use alloc::vec;
use pagefault_calls::Pieces;

/// The most bytes that go through a buffer of the runtime's.
const MOST: u64 = 1 << 16;

impl Call<'_> {
    /// Makes the call with one buffer in place of scattered ones; `None` if they are not, or cannot be read.
    pub(super) fn make_gathered(&self, pieces: &Pieces, args: &[u64; 6]) -> Option<i64> {
        let vectors = Vectors::of_call(pieces.shape, args)?;
        if !vectors.are_scattered() || vectors.total > MOST {
            return None;
        }
        // Direct I/O wants alignment.
        let mut room = vec![0_u8; vectors.total as usize + PAGE as usize];
        let start = room.as_ptr().align_offset(PAGE as usize);
        let bytes = &mut room[start..][..vectors.total as usize];
        if !pieces.input && copy_each(&vectors, bytes, user::read_bytes).is_err() {
            return None;
        }
        let one = [bytes.as_mut_ptr() as u64, vectors.total];
        let raw = self.make_with_vectors(pieces, args, &[one], 0);
        // MSG_TRUNC returns the length of all that was there.
        let received = if pieces.input { bytes.len().min(raw.max(0) as usize) } else { 0 };
        let scattered = copy_each(&vectors, &mut bytes[..received], |address, part| {
            user::write_bytes(address, part)
        });
        Some(match scattered {
            Ok(()) => raw,
            Err(0) => -i64::from(Errno::EFAULT.0),
            Err(done) => done as i64,
        })
    }
}

/// Copies bytes to or from buffers, in order; the error is how many were copied.
fn copy_each(
    vectors: &Vectors,
    bytes: &mut [u8],
    copy: impl Fn(u64, &mut [u8]) -> crate::sys::Result<()>,
) -> Result<(), usize> {
    let mut done = 0;
    for [base, len] in vectors.each() {
        let part = (len as usize).min(bytes.len() - done);
        copy(base, &mut bytes[done..done + part]).map_err(|_| done)?;
        done += part;
    }
    if done == bytes.len() { Ok(()) } else { Err(done) }
}
