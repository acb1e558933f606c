//! memory
use super::{Call, Outcome};
impl Call<'_> {
    pub(super) fn memory(&mut self) -> Outcome {
        self.pass()
    }
}
