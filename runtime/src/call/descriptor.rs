//! descriptor
use super::{Call, Outcome};
impl Call<'_> {
    pub(super) fn descriptor(&mut self) -> Outcome {
        self.pass()
    }
}
