//! The page: the assets in `page/`, and the data as JSON. It needs no network and no other file.

use pagefault_explain::html::{escape, filled};
use serde_json::Value;

const PAGE: &str = include_str!("page/page.html");
const STYLES: [&str; 2] = [include_str!("page/uplot/uPlot.min.css"), include_str!("page/page.css")];
const SCRIPTS: [&str; 3] =
    [include_str!("page/draw.js"), include_str!("page/charts.js"), include_str!("page/page.js")];
const UPLOT: &str = include_str!("page/uplot/uPlot.iife.min.js");
const UPLOT_LICENCE: &str = include_str!("page/uplot/LICENSE");

/// The page, whole.
pub fn page(title: &str, data: &Value) -> String {
    // Within a script element only its end tag, and what looks like the start of a comment, mean
    // anything; in JSON a `<` can only be in a string, where it may be written otherwise.
    let data = data.to_string().replace('<', "\\u003c");
    let parts = [
        ("title", escape(title)),
        ("style", STYLES.concat()),
        ("licence", UPLOT_LICENCE.to_owned()),
        ("uplot", UPLOT.to_owned()),
        ("script", SCRIPTS.concat()),
        ("data", data),
    ];
    filled(PAGE, &parts)
}
