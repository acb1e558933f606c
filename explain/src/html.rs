//! The explanation as one page that steps through it.
//!
//! The page is made of the assets in `page/` and the model as JSON; it needs no network and no other
//! file. Its last part, `#check`, is for the tests.

use crate::model::Explanation;

const PAGE: &str = include_str!("page/page.html");
const STYLES: [&str; 2] = [BASE_STYLE, include_str!("page/page.css")];
const SCRIPTS: [&str; 4] = [
    BASE_SCRIPT,
    include_str!("page/draw.js"),
    include_str!("page/state.js"),
    include_str!("page/step.js"),
];

/// What every page of ours looks like: colours by light and dark, and type.
pub const BASE_STYLE: &str = include_str!("page/base.css");
/// What the script of every page of ours begins with.
pub const BASE_SCRIPT: &str = include_str!("page/base.js");

/// The page, whole.
pub fn page(explanation: &Explanation) -> Result<String, serde_json::Error> {
    let data = embedded(&serde_json::to_string(explanation)?);
    let parts = [
        ("title", escape(&explanation.title)),
        ("style", STYLES.concat()),
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

/// JSON as it may stand in a script element: only the element's end tag, and what looks like the start of a
/// comment, mean anything there. In JSON a `<` can only be in a string, where it may be written otherwise.
pub fn embedded(json: &str) -> String {
    json.replace('<', "\\u003c")
}

/// Text as HTML shows it.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
