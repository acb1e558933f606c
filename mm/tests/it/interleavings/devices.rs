//! Faults on memory of a device against each other, a fork, and the device itself (spec B13, B21).

use crate::common::at;
use crate::interleavings::scene::{Scene, file_source, for_seeds_on};
use pagefault::machine::Machine;
use pagefault::{File, Sharing};
use pagefault_sim::{Config, Sim, SimDevice, Task};
use std::sync::Arc;

fn with_device(name: &str, f: impl Fn(&Scene, &SimDevice, File<Sim>, u64)) {
    let machine = Config { frames: 96, device_frames: 4, ..Config::default() };
    for_seeds_on(name, machine, |scene, seed| {
        let device = scene.world.sim.device(4).unwrap();
        device.set_latency(seed % 4);
        for (number, frame) in (1..).zip(device.frames()) {
            scene.world.sim.write(frame, 0, &[number]);
        }
        let file = File::device(&scene.world.manager, Arc::new(device.clone()));
        f(scene, &device, file, seed);
    });
}

#[test]
fn two_faults_on_one_page_of_a_device() {
    with_device("two faults on a device", |scene, _, file, seed| {
        scene.map(0, 2, Sharing::Shared, file_source(&file));
        scene.map(8, 2, Sharing::Private, file_source(&file));
        let task = |cpu: u32| -> Task<'_> {
            Box::new(move || {
                for page in [0, 8] {
                    let byte = at(page) + u64::from(cpu) + 1;
                    scene.store(cpu, byte, cpu as u8 + 7).unwrap();
                    assert_eq!(scene.load(cpu, byte), Ok(cpu as u8 + 7));
                }
            })
        };
        scene.explore(seed, vec![task(0), task(1)]);
        scene.world.check();
        for page in [0, 8] {
            let loaded = [0, 1, 2].map(|byte| scene.load(2, at(page) + byte));
            assert_eq!(loaded, [Ok(1), Ok(7), Ok(8)], "page {page}");
        }
        assert_eq!(scene.mapped(), 1, "one copy, and no page of the device's");
    });
}

/// Once a device has taken a page back, nothing reaches the old frame: no fault that asked before, no entry
/// that a fork copied, no copy in progress.
#[test]
fn faults_and_forks_against_a_device_that_takes_pages_back() {
    with_device("a device takes pages back", |scene, device, file, seed| {
        scene.map(0, 2, Sharing::Shared, file_source(&file));
        scene.map(8, 2, Sharing::Private, file_source(&file));
        let children = std::sync::Mutex::new(Vec::new());
        let touch = |cpu: u32| -> Task<'_> {
            Box::new(move || {
                for page in [0, 8, 1, 9] {
                    let seen = scene.load(cpu, at(page)).unwrap();
                    assert!((1..=4).contains(&seen), "{seen}");
                }
                scene.store(cpu, at(9) + u64::from(cpu), 50).unwrap();
            })
        };
        let switch: Task<'_> = Box::new(|| {
            device.exchange(0, 2);
            device.exchange(1, 3);
            file.revoke(0..2);
            // The old banks are the device's again.
            for frame in &device.frames()[2..] {
                scene.world.sim.write(*frame, 0, &[99]);
            }
        });
        let fork: Task<'_> = Box::new(|| {
            children.lock().unwrap().push(scene.space.fork().unwrap());
        });
        scene.explore(seed, vec![touch(1), switch, fork]);
        scene.world.check();
        for page in [0, 8, 1] {
            let shown = if page == 1 { 4 } else { 3 };
            assert_eq!(scene.load(2, at(page)), Ok(shown), "page {page}");
            for child in &*children.lock().unwrap() {
                let shows = scene.world.load_byte(child.mm(), 2, at(page));
                assert_eq!(shows, Ok(shown), "page {page} of the child");
            }
        }
        // The copy has what one bank or the other had, and not what came after.
        let copied = scene.load(2, at(9)).unwrap();
        assert!(copied == 2 || copied == 4, "{copied}");
        assert_eq!(scene.load(2, at(9) + 1), Ok(50));
    });
}
