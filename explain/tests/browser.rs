//! Every lesson's page in a real browser: from the first step to the last and back.

mod common;

use common::lesson;
use pagefault_explain::html;
use pagefault_explain::lessons;
use pagefault_explain::model::{Explanation, Phase};
use pagefault_script::ast::Arch;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};

const BROWSERS: [&str; 2] = ["chromium", "chromium-browser"];

fn browser() -> Option<&'static str> {
    let starts = |name: &&str| {
        let version = Command::new(name).arg("--version").stderr(Stdio::null()).output();
        version.is_ok_and(|output| output.status.success())
    };
    BROWSERS.into_iter().find(starts)
}

#[test]
fn every_page_steps_to_its_end_and_back_on_x86_64() {
    step_through(Arch::X86_64);
}

#[test]
fn every_page_steps_to_its_end_and_back_on_ia32() {
    step_through(Arch::Ia32);
}

#[test]
fn every_page_steps_to_its_end_and_back_on_pae() {
    step_through(Arch::Pae);
}

#[test]
fn every_page_steps_to_its_end_and_back_on_alpha() {
    step_through(Arch::Alpha);
}

fn step_through(arch: Arch) {
    let Some(browser) = browser() else {
        eprintln!("skipped: no chromium is installed (Debian: apt-get install chromium)");
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let due = lessons::ALL.iter().filter(|example| is_due(example.name, arch));
    let told: Vec<_> = due.map(|example| (example.name, lesson(example, arch))).collect();
    for (name, told) in &told {
        let path = folder.path().join(name).with_extension("html");
        std::fs::write(path, html::page(told).expect("a page")).expect("it is written");
    }
    let all = folder.path().join("all.html");
    std::fs::write(&all, side_by_side(told.iter().map(|(name, _)| *name))).expect("it is written");
    let (page, console) = open(browser, &all, folder.path());
    assert!(!console.contains("CONSOLE"), "{console}");
    let seen = checked(&page).unwrap_or_else(|| panic!("{console}\n{page}"));
    for (name, told) in &told {
        let seen = &seen[name];
        assert_eq!(seen["errors"], Value::Array(Vec::new()), "{name}: {console}");
        compare(name, told, &seen["seen"]);
    }
}

/// A page with all lessons' pages in frames of their own, as a browser takes seconds to start. It is loaded when they
/// are, and then keeps what the check of each has left, by name.
fn side_by_side<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let frame = |name| {
        format!("<iframe id={name} src=\"{name}.html#check\" width=1280 height=800></iframe>\n")
    };
    let frames: String = names.map(frame).collect();
    let script = "
        addEventListener('load', () => {
            const left = (frame) => frame.contentDocument.getElementById('checked')?.textContent;
            const frames = [...document.querySelectorAll('iframe')];
            const found = frames.map((frame) => [frame.id, JSON.parse(left(frame) ?? 'null')]);
            const all = document.createElement('pre');
            all.id = 'checked';
            all.textContent = JSON.stringify(Object.fromEntries(found));
            document.body.append(all);
        });";
    format!("<!DOCTYPE html>\n<meta charset=utf-8>\n{frames}<script>{script}</script>\n")
}

/// Whether to open a lesson on a processor. Other processors differ from x86-64 only in walks and entries. So they get
/// the few lessons that show all of these, unless `PAGEFAULT_LONG=1` asks for all.
fn is_due(lesson: &str, arch: Arch) -> bool {
    let shows_entries = ["missing-table", "two-cpus", "copy-on-write", "swap"].contains(&lesson);
    let all = std::env::var_os("PAGEFAULT_LONG").is_some_and(|value| value == "1");
    arch == Arch::X86_64 || shows_entries || all
}

/// The page when it is loaded, and the browser's log.
fn open(browser: &str, path: &Path, folder: &Path) -> (String, String) {
    let profile = tempfile::tempdir_in(folder).expect("a folder");
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--enable-logging=stderr", "--log-level=0"])
        // The check steps faster than any reader, and each step changes the address.
        .arg("--disable-ipc-flooding-protection")
        // The page with the frames looks into them.
        .arg("--allow-file-access-from-files")
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg("--dump-dom")
        // The page of all lessons takes seconds, on a busy machine minutes.
        .arg("--timeout=3600000")
        .arg(format!("file://{}", path.display()))
        .output()
        .expect("the browser runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// The results that the checks left.
fn checked(page: &str) -> Option<Value> {
    let (_, rest) =
        page.split_once("<pre id=\"checked\">").or_else(|| page.split_once("id=\"checked\">"))?;
    let (text, _) = rest.split_once("</pre>")?;
    let text = text
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&nbsp;", "\u{a0}")
        .replace("&amp;", "&");
    serde_json::from_str(&text).ok()
}

/// The numbers on the page are those of the model.
fn compare(name: &str, told: &Explanation, seen: &Value) {
    let seen = seen.as_array().expect("a list");
    assert_eq!(seen.len(), told.steps.len(), "{name}");
    for (step, shown) in told.steps.iter().zip(seen) {
        let at = format!("{name} {}", step.id);
        let state = &told.states[step.state];
        let number = |field: &str| shown[field].as_u64().expect("a number") as usize;
        let text = |field: &str| shown[field].as_str().expect("a text");
        assert_eq!(text("id"), step.id);
        assert_eq!(text("sentence").replace('\u{2011}', "-"), step.sentence, "{at}");
        assert_eq!(number("frames"), state.frames.len(), "{at}");
        assert_eq!(
            text("free"),
            format!("{} of {} free", state.free, told.computer.frames),
            "{at}"
        );
        let translations: usize = state.tlbs.iter().map(|tlb| tlb.entries.len()).sum();
        assert_eq!(number("tlb"), translations, "{at}");
        assert_eq!(number("cached"), state.page_cache.len() + state.swap_cache.len(), "{at}");
        let regions: usize = state.processes.iter().map(|process| process.regions.len()).sum();
        assert_eq!(number("regions"), regions, "{at}");
        let present = state.processes.iter().flat_map(|process| &process.pages);
        assert_eq!(number("present"), present.filter(|page| page.frame.is_some()).count(), "{at}");
        let walks = matches!(step.phase, Phase::Hardware | Phase::Access | Phase::Again);
        let levels = step.access.as_ref().filter(|_| walks).map_or(0, |access| access.walk.len());
        assert_eq!(number("levels"), levels, "{at}");
        let counts = step.counts.iter().map(|count| format!("{} → {}", count.before, count.after));
        let shown_counts = shown["counts"].as_array().expect("a list");
        let shown_counts = shown_counts.iter().map(|count| count.as_str().unwrap_or("").to_owned());
        assert_eq!(shown_counts.collect::<Vec<_>>(), counts.collect::<Vec<_>>(), "{at}");
        if matches!(step.phase, Phase::Decision | Phase::Correction | Phase::Refusal) {
            assert!(
                number("lit") >= step.way.len(),
                "{at}: {} lit of {:?}",
                number("lit"),
                step.way
            );
        }
    }
}
