//! exec
use super::{Call, Outcome};
impl Call<'_> {
    pub(super) fn exec(&mut self) -> Outcome {
        self.pass()
    }
}
