//! The corpus and random scripts on the host's kernel.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use pagefault_script::corpus::{load, wrong};
use pagefault_script::diff::compare;
use pagefault_script::machine::Catalogue;
use pagefault_script::random;

/// The host's answers are those of each script, which has an answer to every line.
#[test]
fn the_host_answers_as_recorded() {
    let catalogue = Catalogue::new();
    let kernel = catalogue.find("kernel").expect("the oracle");
    let examples = load().expect("the corpus");
    assert!(examples.len() >= 60);
    for example in examples {
        if !example.is_for_host() {
            continue;
        }
        let wrong = wrong(&example, kernel, 0).expect("a process");
        assert_eq!(wrong, [], "{}", example.name);
    }
}

/// The answers to a random script depend on the script alone.
#[test]
fn random_scripts_answer_alike_twice() {
    let catalogue = Catalogue::new();
    let kernel = catalogue.find("kernel").expect("the oracle");
    for seed in 1000..1004 {
        let script = random::script(1000, seed);
        let comparison = compare(&script, &[kernel, kernel], 0).expect("two processes");
        assert_eq!(comparison.differences(), 0, "seed {seed}\n{comparison}");
        // A script that hits no memory, or in which no call fails, tests nothing.
        let answers = &comparison.machines()[0].texts;
        let share = |wanted: &str| {
            let hits = answers.iter().filter(|text| text.starts_with(wanted));
            hits.count() as f64 / answers.len() as f64
        };
        assert!(share("ok") > 0.4, "ok {}", share("ok"));
        assert!(share("SIG") > 0.03, "signals {}", share("SIG"));
        assert!(share("E") > 0.05, "errors {}", share("E"));
    }
}
