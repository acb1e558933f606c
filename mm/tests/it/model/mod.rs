//! Random operations of several processes against a model in plain bytes (spec I18), on machines
//! of every kind, with memories so small that most pages are in swap at any time. After each
//! operation all invariants are walked and all TLBs looked into.

mod oracle;
mod run;
mod verbs;

use crate::common::{Label, long};
use pagefault::{Config, NonlinearPolicy, Overcommit, ZeroPolicy};
use pagefault_sim::{Alpha, Architecture, Config as Machine, Hazards, Ia32, Pae, X86_64};
use run::{Run, Shape};

const HAZARDS: Hazards = Hazards { evictions: 60, prefetches: 60 };

/// A machine of this many frames with every hazard on.
fn machine(frames: u32, cpus: u32) -> Machine {
    Machine { frames, cpus, hazards: HAZARDS, ..Machine::default() }
}

fn shape(processes: usize) -> Shape {
    let steps = if long() { 3000 } else { 700 };
    let verify_always = std::env::var_os("PAGEFAULT_VERIFY").is_some();
    Shape { processes, steps, disk_slots: 2048, check_every: 1, verify_always }
}

fn run<A: Architecture>(name: &str, machine: Machine, config: fn() -> Config, shape: Shape) {
    let first = std::env::var("PAGEFAULT_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = match first {
        Some(seed) => seed..seed + 1,
        None => 0..if long() { 300 } else { 8 },
    };
    for seed in seeds {
        let mut label = Label { what: format!("{name}, seed {seed}"), step: 0 };
        Run::<A>::new(Machine { seed, ..machine }, config(), shape, seed).go(&mut label);
    }
}

fn default() -> Config {
    Config {
        nonlinear: NonlinearPolicy::Regions,
        overcommit: Overcommit::Always,
        ..Config::default()
    }
}

#[test]
fn with_room_for_all() {
    run::<X86_64>("200 frames", machine(200, 1), default, shape(4));
}

#[test]
fn with_constant_swapping() {
    run::<X86_64>("48 frames", machine(48, 2), default, shape(4));
}

#[test]
fn with_hardly_any_memory() {
    run::<X86_64>("26 frames", machine(26, 1), default, shape(2));
}

#[test]
fn with_four_cpus() {
    run::<X86_64>("4 CPUs", machine(96, 4), default, shape(4));
}

#[test]
fn with_fresh_zeros_and_single_slots() {
    let config = || Config { zero: ZeroPolicy::Fresh, ..default() };
    let machine = Machine { zero_frame: false, ..machine(64, 2) };
    run::<X86_64>("no zero frame", machine, config, shape(3));
}

#[test]
fn without_accessed_bits() {
    let machine = Machine { accessed_bits: false, ..machine(64, 2) };
    run::<X86_64>("no accessed bits", machine, default, shape(3));
}

#[test]
fn without_dirty_bits() {
    let machine = Machine { dirty_bits: false, ..machine(64, 2) };
    run::<X86_64>("no dirty bits", machine, default, shape(3));
}

#[test]
fn without_any_bits() {
    let machine =
        Machine { accessed_bits: false, dirty_bits: false, zero_frame: false, ..machine(64, 2) };
    run::<X86_64>("no bits", machine, default, shape(3));
}

#[test]
fn of_a_user_who_is_alone() {
    run::<X86_64>("alone", Machine { alone: true, ..machine(48, 1) }, default, shape(4));
}

#[test]
fn of_a_user_who_is_alone_without_any_bits() {
    let bits = Machine { accessed_bits: false, dirty_bits: false, ..machine(48, 1) };
    let machine = Machine { alone: true, zero_frame: false, ..bits };
    run::<X86_64>("alone, no bits", machine, default, shape(3));
}

#[test]
fn on_ia32() {
    run::<Ia32>("IA-32", machine(64, 2), default, shape(4));
}

#[test]
fn on_pae() {
    run::<Pae>("PAE", machine(64, 2), default, shape(4));
}

#[test]
fn on_alpha() {
    run::<Alpha>("Alpha", machine(64, 2), default, shape(3));
}

#[test]
fn with_nonlinear_entries() {
    let config = || Config { nonlinear: NonlinearPolicy::Entries, ..default() };
    run::<X86_64>("entries", machine(80, 2), config, shape(3));
}

#[test]
fn with_nonlinear_entries_on_ia32() {
    let config = || Config { nonlinear: NonlinearPolicy::Entries, ..default() };
    run::<Ia32>("entries, IA-32", machine(56, 2), config, shape(3));
}
