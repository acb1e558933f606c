//! The corpus and random scripts on the machines of ours.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use pagefault_script::corpus::load;
use pagefault_script::diff::{compare, texts};
use pagefault_script::machine::{Catalogue, Entry, Failures, StartError};
use pagefault_script::parse::parse;
use pagefault_script::{managed, random, runner};

fn catalogue() -> Catalogue {
    let mut catalogue = Catalogue::new();
    managed::add_to(&mut catalogue);
    catalogue
}

/// Each script of the corpus on a machine; the answers are those that it tells.
#[track_caller]
fn answers_as_recorded(name: &str) {
    let catalogue = catalogue();
    let entry = catalogue.find(name).expect("a machine of ours");
    for example in load().expect("the corpus") {
        let script = parse(&example.text).unwrap_or_else(|e| panic!("{}: {e}", example.name));
        if script.injects_failures() && entry.failures == Failures::Refused {
            continue;
        }
        let mut machine = match (entry.start)(&runner::setup(&script, 7)) {
            Err(StartError::Machine(error)) => {
                eprintln!("skipped: {error}");
                return;
            }
            machine => machine.expect("a machine"),
        };
        let answers = texts(&script, &mut *machine);
        let numbers = script.lines.iter().map(|line| line.number);
        let got: Vec<(usize, &str)> = numbers.zip(answers.iter().map(String::as_str)).collect();
        let expected: Vec<(usize, &str)> = example.expected().collect();
        assert_eq!(got, expected, "{} on {name}", example.name);
    }
}

#[test]
fn the_simulated_computer_answers_as_recorded() {
    answers_as_recorded("sim");
}

#[test]
fn a_processor_that_helps_little_answers_as_recorded() {
    answers_as_recorded("sim-bare");
}

#[test]
fn the_linux_process_answers_as_recorded() {
    answers_as_recorded("linux");
}

#[test]
fn random_scripts_answer_alike_on_all() {
    let catalogue = catalogue();
    let find = |name| catalogue.find(name).expect("a machine");
    let mut entries: Vec<&Entry> = ["sim", "sim-bare", "linux", "kernel"].map(find).to_vec();
    for seed in 0..6 {
        let script = random::script(1500, seed);
        let comparison = match compare(&script, &entries, seed) {
            Err(StartError::Machine(error)) => {
                eprintln!("left out: {error}");
                entries.retain(|entry| entry.name != "linux");
                compare(&script, &entries, seed)
            }
            comparison => comparison,
        };
        let comparison = comparison.expect("machines");
        assert_eq!(comparison.differences(), 0, "seed {seed}\n{comparison}");
    }
}
