//! process
use super::{Call, Outcome};
impl Call<'_> {
    pub(super) fn process(&mut self) -> Outcome {
        self.pass()
    }
}
