//! The explanation as one page that steps through it.
//!
//! The page is made of the assets in `page/` and the model as JSON; it needs no network and no other
//! file. Its last part, `#check`, is for the tests.

use crate::model::Explanation;

const PAGE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPTS: [&str; 3] =
    [include_str!("page/draw.js"), include_str!("page/state.js"), include_str!("page/step.js")];

/// The page, whole.
pub fn page(explanation: &Explanation) -> Result<String, serde_json::Error> {
    // Within a script element only its end tag, and what looks like the start of a comment, mean
    // anything; in JSON a `<` can only be in a string, where it may be written otherwise.
    let data = serde_json::to_string(explanation)?.replace('<', "\\u003c");
    let parts = [
        ("title", escape(&explanation.title)),
        ("style", STYLE.to_owned()),
        ("script", SCRIPTS.concat()),
        ("data", data),
    ];
    Ok(filled(PAGE, &parts))
}

/// Puts each part in its place in a template, `{name}`. One pass, so that a part may contain what looks like a place.
pub fn filled(template: &str, parts: &[(&str, String)]) -> String {
    let mut page = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        page.push_str(before);
        let part = after.split_once('}').and_then(|(name, behind)| {
            let (_, text) = parts.iter().find(|(known, _)| *known == name)?;
            Some((text, behind))
        });
        match part {
            Some((text, behind)) => {
                page.push_str(text);
                rest = behind;
            }
            None => {
                page.push('{');
                rest = after;
            }
        }
    }
    page + rest
}

/// Text as HTML shows it.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
