//! A page in a real browser.

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};

const BROWSERS: [&str; 2] = ["chromium", "chromium-browser"];

/// A browser, if one is installed. Prints a note if not, because the test then proves nothing.
pub fn find() -> Option<&'static str> {
    let starts = |name: &&str| {
        let version = Command::new(name).arg("--version").stderr(Stdio::null()).output();
        version.is_ok_and(|output| output.status.success())
    };
    let found = BROWSERS.into_iter().find(starts);
    if found.is_none() {
        eprintln!("skipped: no chromium is installed (Debian: apt-get install chromium)");
    }
    found
}

/// The result of a page's own check, at `#check`. The console must stay empty.
pub fn checked(browser: &str, page: &Path, profile: &Path) -> Value {
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--enable-logging=stderr", "--log-level=0"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg("--dump-dom")
        .arg("--timeout=60000")
        .arg(format!("file://{}#check", page.display()))
        .output()
        .expect("the browser runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (page, console) = (text(&output.stdout), text(&output.stderr));
    assert!(!console.contains("CONSOLE"), "{console}");
    let left = page.split_once("id=\"checked\">").and_then(|(_, rest)| rest.split_once("</pre>"));
    let (left, _) = left.unwrap_or_else(|| panic!("no check: {console}\n{page}"));
    let left = left.replace("&lt;", "<").replace("&gt;", ">").replace("&nbsp;", "\u{a0}");
    serde_json::from_str(&left.replace("&amp;", "&")).expect("what the page left is JSON")
}
