use super::*;
use crate::machine::Catalogue;

#[test]
fn a_third_of_the_scripts_have_few_frames() {
    let hunt = Hunt { lines: 1, seed: 0, scripts: 0, cpus: 2 };
    let frames: Vec<u64> = (0..9).map(|seed| hunt.script(seed).sizes.frames).collect();
    assert_eq!(frames, [512, 4096, 4096, 513, 4096, 4096, 514, 4096, 4096]);
    assert_eq!(hunt.script(5).sizes.cpus, 2);
}

#[test]
fn a_hunt_stops_at_the_first_difference() {
    let mut catalogue = Catalogue::new();
    crate::managed::add_to(&mut catalogue);
    crate::shrink::tests::add_liar(&mut catalogue);
    let machines = ["sim", "liar"].map(|name| catalogue.find(name).expect("a machine"));
    let hunt = Hunt { lines: 200, seed: 40, scripts: 30, cpus: 1 };
    let mut equal = Vec::new();
    let found = hunt.run(&machines, |script| equal.push(script.clone())).expect("machines");
    let Found::Difference { seed, frames, minimal: Some(minimal), .. } = found else {
        panic!("{found:?}");
    };
    assert_eq!(equal.len() as u64, seed - 40);
    assert_eq!(frames, hunt.script(seed).sizes.frames);
    assert!(minimal.operations <= 7, "{}", minimal.text);
    // The same machine twice has no difference.
    let hunt = Hunt { scripts: 3, ..hunt };
    assert_eq!(hunt.run(&[machines[0], machines[0]], |_| ()).expect("machines"), Found::Nothing);
}

/// A race may not happen again; its difference is reported nevertheless.
#[test]
fn a_difference_that_does_not_come_back_is_told() {
    let mut catalogue = Catalogue::new();
    crate::managed::add_to(&mut catalogue);
    let mut others = Catalogue::new();
    crate::shrink::tests::add_liar(&mut others);
    crate::managed::add_to(&mut others);
    let sim = catalogue.find("sim").expect("a machine");
    let (failures, simulates) = (sim.failures, sim.simulates);
    let starts = std::sync::atomic::AtomicUsize::new(0);
    // Lies until the first hunt has found it in its first script.
    let start = Box::new(move |setup: &crate::machine::Setup| {
        let first = starts.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
        (others.find(if first { "liar" } else { "sim" }).expect("a machine").start)(setup)
    });
    catalogue.add(crate::machine::Entry { name: "once", failures, simulates, start });
    let machines = ["sim", "once"].map(|name| catalogue.find(name).expect("a machine"));
    let hunt = Hunt { lines: 2000, seed: 40, scripts: 1, cpus: 1 };
    let found = hunt.run(&machines, |_| ()).expect("machines");
    let Found::Difference { seen, minimal: None, .. } = found else { panic!("{found:?}") };
    assert!(seen.starts_with("first difference: line ") && seen.contains("\n  once  "), "{seen}");
}
