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

/// The style that all our pages share: type, and colours for light and dark.
pub const BASE_STYLE: &str = include_str!("page/base.css");
/// The start of the script of all our pages.
pub const BASE_SCRIPT: &str = include_str!("page/base.js");

/// The whole page.
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

/// Replaces each `{name}` in a template by its part. One pass, so that a part may contain `{name}` itself.
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

/// JSON that is safe in a script element, where only `</script` and `<!--` have a meaning. In JSON a `<` is
/// always in a string, which can escape it.
pub fn embedded(json: &str) -> String {
    json.replace('<', "\\u003c")
}

/// Text, escaped for HTML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
