//! Calls that the host makes as they are.

use super::{Call, Outcome};
use crate::entry;
use crate::memory::Pins;
use pagefault_machine::Access;

impl Call<'_> {
    pub(super) fn pass(&mut self) -> Outcome {
        Outcome::Raw(self.make_pinned(self.args))
    }

    /// Makes the call with other arguments, the pages that it names kept resident.
    pub(super) fn make_pinned(&mut self, args: [u64; 6]) -> i64 {
        let mut pins = Pins::new();
        for i in 0..6 {
            let len = if i < 5 && args[i + 1] < 1 << 20 { args[i + 1].max(256) } else { 256 };
            if args[i] > 0x10000 && args[i] < crate::user::END {
                pins.add(args[i], len, Access::Write);
            }
        }
        // SAFETY: the program asks for it, of its own memory.
        unsafe { entry::call(self.number, &args, self.thread) }
    }
}
