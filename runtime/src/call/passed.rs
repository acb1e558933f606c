//! Calls that the host makes as they are.

use super::{Call, Outcome};
use crate::entry;

impl Call<'_> {
    pub(super) fn pass(&mut self) -> Outcome {
        Outcome::Raw(self.make_pinned(self.args))
    }

    /// Makes the call with other arguments, the pages that it names kept resident.
    pub(super) fn make_pinned(&mut self, args: [u64; 6]) -> i64 {
        // SAFETY: the program asks for it, of its own memory.
        unsafe { entry::call(self.number, &args, self.thread) }
    }
}
