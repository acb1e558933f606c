//! The words of a program to execute, in more pages than one call may keep resident: the kernel takes them from a copy
//! of the runtime's, which goes with the old program.

use super::Call;
use crate::sys::{Errno, Result};
use crate::user;
use alloc::vec::Vec;
use linux_raw_sys::general as nr;

/// The most bytes of words and pointers that the kernel takes.
const MOST: usize = 6 << 20;
/// The most bytes of a word (`MAX_ARG_STRLEN`).
const MOST_OF_WORD: usize = 1 << 17;
/// A word is read in pieces that stay within a page.
const PIECE: u64 = 64;

/// Copies of an array of pointers to strings, and of the strings.
pub(super) struct Words {
    bytes: Vec<u8>,
    pointers: Vec<u64>,
}

impl Words {
    /// Copies an array.
    ///
    /// `EFAULT`: a part of it cannot be read. `E2BIG`: it is longer than the kernel takes.
    fn read(array: u64) -> Result<Self> {
        let mut words = Self { bytes: Vec::new(), pointers: Vec::new() };
        // As for the kernel, no array has no words.
        if array != 0 {
            words.read_each(array)?;
        }
        // From now on the bytes stay where they are.
        let start = words.bytes.as_ptr() as u64;
        words.pointers.iter_mut().for_each(|pointer| *pointer += start);
        words.pointers.push(0);
        Ok(words)
    }

    /// Copies the strings, and notes where each begins among the bytes.
    fn read_each(&mut self, array: u64) -> Result<()> {
        loop {
            let at = array.wrapping_add((self.pointers.len() * size_of::<u64>()) as u64);
            let word: u64 = user::read(at)?;
            if word == 0 {
                return Ok(());
            }
            self.pointers.push(self.bytes.len() as u64);
            self.append(word)?;
            if self.bytes.len() + self.pointers.len() * size_of::<u64>() > MOST {
                return Err(Errno::E2BIG);
            }
        }
    }

    fn append(&mut self, mut word: u64) -> Result<()> {
        let begin = self.bytes.len();
        loop {
            let mut piece = [0; PIECE as usize];
            let piece = &mut piece[..(PIECE - word % PIECE) as usize];
            user::read_bytes(word, piece)?;
            let len = piece.iter().position(|byte| *byte == 0);
            self.bytes.extend_from_slice(&piece[..len.map_or(piece.len(), |len| len + 1)]);
            if self.bytes.len() - begin > MOST_OF_WORD {
                return Err(Errno::E2BIG);
            }
            if len.is_some() {
                return Ok(());
            }
            word += piece.len() as u64;
        }
    }

    fn address(&self) -> u64 {
        self.pointers.as_ptr() as u64
    }
}

impl Call<'_> {
    /// Puts copies of its arguments and its environment in their place.
    pub(super) fn copy_words(&mut self) -> Result<[Words; 2]> {
        let first = if self.number == nr::__NR_execve { 1 } else { 2 };
        let words = [Words::read(self.args[first])?, Words::read(self.args[first + 1])?];
        self.args[first] = words[0].address();
        self.args[first + 1] = words[1].address();
        Ok(words)
    }
}
