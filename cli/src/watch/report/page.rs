//! The page: the assets in `page/`, and the data as JSON. It needs no network and no other file.

use pagefault_explain::html::{BASE_SCRIPT, BASE_STYLE, embedded, escape, filled};
use serde_json::Value;

const PAGE: &str = include_str!("page/page.html");
const STYLES: [&str; 3] =
    [include_str!("page/uplot/uPlot.min.css"), BASE_STYLE, include_str!("page/page.css")];
const SCRIPTS: [&str; 4] = [
    BASE_SCRIPT,
    include_str!("page/draw.js"),
    include_str!("page/charts.js"),
    include_str!("page/page.js"),
];
const UPLOT: &str = include_str!("page/uplot/uPlot.iife.min.js");
const UPLOT_LICENCE: &str = include_str!("page/uplot/LICENSE");

/// The whole page.
pub fn page(title: &str, data: &Value) -> String {
    let data = embedded(&data.to_string());
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
