//! Requirements of the specification, one by one, on the simulated computer.

mod backings;
mod bounds;
mod children;
mod decision;
mod faults;
mod files;
mod swap;
mod verbs;

use crate::common::{PAGE, World, at, world_with};
use pagefault::{AddressSpace, Config, File, FileAccess, MapRequest, Placement, Sharing, Source};
use pagefault_sim::{Sim, X86_64};

pub(super) fn world(frames: u32) -> World<X86_64> {
    world_with(frames, Config::default())
}

pub(super) fn map_file(
    space: &AddressSpace<Sim>,
    file: &File<Sim>,
    first: u64,
    pages: u64,
    how: Sharing,
) {
    let access = FileAccess::READ | FileAccess::WRITE;
    let request = MapRequest {
        placement: Placement::Fixed(at(first)),
        sharing: how,
        source: Source::File { file, offset: 0, access },
        ..MapRequest::anonymous(pages * PAGE)
    };
    space.mm().mmap(&request).unwrap();
}
