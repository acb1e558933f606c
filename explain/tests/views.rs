//! The terminal's lines and the form of the JSON.

mod common;

use common::{PROCESSORS, lesson};
use pagefault_explain::html;
use pagefault_explain::lessons::{self, Lesson};
use pagefault_explain::model::{Explanation, FORMAT};
use pagefault_explain::text::{Colour, Detail, Lines};
use pagefault_script::ast::Arch;
use serde_json::Value;
use std::collections::BTreeSet;

#[test]
fn every_lesson_is_told_on_every_processor() {
    for example in lessons::ALL {
        assert!(!example.title().is_empty() && example.text().len() > 200, "{}", example.name);
        for arch in PROCESSORS {
            let explanation = &lesson(example, arch);
            for detail in [Detail::Short, Detail::All] {
                let text = Lines { explanation, detail, colour: Colour::Off }.to_string();
                assert!(!text.contains('\x1b'));
                for step in &explanation.steps {
                    assert!(text.contains(&format!("{:>6} ", step.id)), "{}", step.id);
                }
            }
            let coloured = Lines { explanation, detail: Detail::Short, colour: Colour::On };
            assert!(coloured.to_string().contains("\x1b["));
        }
    }
}

#[test]
fn the_walk_has_the_levels_of_the_processor() {
    let example = Lesson::named("demand-zero").expect("a lesson");
    for (arch, levels, digits) in
        [(Arch::X86_64, 4, 16), (Arch::Ia32, 2, 8), (Arch::Pae, 3, 16), (Arch::Alpha, 3, 16)]
    {
        let told = lesson(example, arch);
        let longest = told.steps.iter().filter_map(|step| step.access.as_ref());
        let longest = longest.max_by_key(|access| access.walk.len()).expect("an access");
        assert_eq!(longest.walk.len(), levels, "{}", arch.name());
        let leaf = longest.walk.last().expect("a leaf");
        assert_eq!(leaf.entry.word.len(), 2 + digits);
        // The fields are the bits of the word.
        let word = u64::from_str_radix(&leaf.entry.word[2..], 16).expect("a word");
        for field in &leaf.entry.fields {
            assert_eq!(word >> field.low & (u64::MAX >> (64 - field.bits)), field.value);
        }
    }
}

#[test]
fn a_script_keeps_its_line_numbers_on_another_processor() {
    let example = Lesson::named("swap").expect("a lesson");
    let lines =
        |told: Explanation| told.operations.into_iter().map(|done| done.line).collect::<Vec<_>>();
    assert_eq!(lines(lesson(example, Arch::Ia32)), lines(lesson(example, Arch::X86_64)));
}

/// The paths and types of all fields, as docs/explain.md documents them. A difference here is a change of the
/// form: see [`FORMAT`].
#[test]
fn the_form_of_the_json_is_the_documented_one() {
    let mut form = BTreeSet::new();
    for example in lessons::ALL {
        let told = lesson(example, Arch::X86_64);
        let value = serde_json::to_value(&told).expect("it can be written");
        assert_eq!(value["format"], FORMAT);
        let back: Explanation = serde_json::from_value(value.clone()).expect("it can be read");
        assert_eq!(back, told);
        paths("", &value, &mut form);
    }
    let form: String = form.into_iter().map(|line| line + "\n").collect();
    let recorded = include_str!("form.txt");
    assert_eq!(
        form, recorded,
        "the form of the JSON has changed; if it was meant to, write the left \
                                side to explain/tests/form.txt and docs/explain.md, and raise FORMAT"
    );
}

fn paths(at: &str, value: &Value, form: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                paths(&format!("{at}.{name}"), value, form);
            }
        }
        Value::Array(items) => {
            form.insert(format!("{at}: list"));
            items.iter().for_each(|item| paths(&format!("{at}[]"), item, form));
        }
        Value::String(_) => drop(form.insert(format!("{at}: string"))),
        Value::Number(_) => drop(form.insert(format!("{at}: number"))),
        Value::Bool(_) => drop(form.insert(format!("{at}: boolean"))),
        Value::Null => drop(form.insert(format!("{at}: null"))),
    }
}

#[test]
fn the_document_names_every_field() {
    let document = include_str!("../../docs/explain.md");
    for line in include_str!("form.txt").lines() {
        let path = line.split(':').next().unwrap_or("");
        let name = path.rsplit('.').next().unwrap_or("").trim_end_matches("[]");
        assert!(document.contains(&format!("`{name}`")), "{name} is not documented");
    }
}

#[test]
fn pages_are_small_and_ask_for_nothing() {
    for example in lessons::ALL {
        let page = html::page(&lesson(example, Arch::X86_64)).expect("a page");
        assert!(page.len() < 2 << 20, "{}: {} bytes", example.name, page.len());
        for foreign in ["http:", "https:", "src=", "@import", "url("] {
            assert!(!page.contains(foreign), "{foreign} in {}", example.name);
        }
    }
}
