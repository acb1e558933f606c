//! The corpus and random scripts on our machines.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use pagefault_script::corpus::{WrongError, load, wrong};
use pagefault_script::diff::compare;
use pagefault_script::machine::{Catalogue, Entry, StartError};
use pagefault_script::{managed, random};

fn catalogue() -> Catalogue {
    let mut catalogue = Catalogue::new();
    managed::add_to(&mut catalogue);
    catalogue
}

/// Each script of the corpus on a machine: the answers are the script's.
#[track_caller]
fn answers_as_recorded(name: &str) {
    let catalogue = catalogue();
    let entry = catalogue.find(name).expect("a machine of ours");
    for example in load().expect("the corpus") {
        match wrong(&example, entry, 7) {
            Err(WrongError::Start(StartError::Machine(error))) => {
                eprintln!("skipped: {error}");
                return;
            }
            wrong => assert_eq!(wrong.expect("a machine"), [], "{} on {name}", example.name),
        }
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
