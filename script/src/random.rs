//! Random scripts, legal and illegal, the same for a seed on every computer.
//!
//! A script must print the same on any Linux 6.x at any time, so it never contains:
//!
//! - A load of a page after `madvise free` and before it is stored to again: it may be old or
//!   zero. The generator writes `free` with the stores around it, on memory of one process.
//! - A store past the end of a file into its last page and then a longer file: kernels differ on
//!   whether the bytes appear. Files end at a page, except for a few lines that only load.
//! - Anything that depends on how much memory there is: a process maps at most a few
//!   hundred pages, there are few processes and small files, and lengths are either small or
//!   beyond user space.
//! - A `remap_file_pages` over several mappings, some of which have had a guard: Linux 6.18 marks the
//!   mapping of a guard for good, and takes two mappings for different ones if one has the mark.

mod access;
mod mapping;
mod world;

use crate::ast::{Line, Op, Script, Sizes};
use world::World;

/// A script of exactly `lines` lines.
pub fn script(lines: usize, seed: u64) -> Script {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut writer = Writer {
        has_guards: rng.bool(),
        rng,
        world: World::new(),
        lines: Vec::with_capacity(lines),
    };
    writer.begin();
    while writer.lines.len() < lines {
        writer.step();
    }
    writer.lines.truncate(lines);
    Script { sizes: Sizes::default(), lines: writer.lines }
}

/// A script being written.
struct Writer {
    has_guards: bool,
    rng: fastrand::Rng,
    world: World,
    lines: Vec<Line>,
}

impl Writer {
    /// Files and a first mapping, so that the steps find something.
    fn begin(&mut self) {
        for _ in 0..world::FILES {
            let op = self.new_file();
            self.line(op);
        }
        self.map();
    }

    fn step(&mut self) {
        if self.rng.u8(..) < 40 {
            self.world.switch(&mut self.rng);
        }
        match self.rng.u32(..1000) {
            0..90 => self.map(),
            90..130 => self.map_over(),
            130..150 => self.stack(),
            150..190 => self.unmap(),
            190..260 => self.protect(),
            260..330 => self.remap(),
            330..410 => self.advise(),
            410..425 => self.lazily_freed(),
            425..455 => self.lock(),
            455..480 => self.sync(),
            480..505 => self.remap_file_pages(),
            505..515 => self.mincore(),
            515..540 => self.file_write(),
            540..560 => self.file_read(),
            560..575 => self.file_length(),
            575..590 => self.uneven_file(),
            590..700 => self.store(),
            700..850 => self.load(),
            850..870 => self.execute(),
            870..895 => self.kernel_access(),
            895..910 => self.forced_access(),
            910..925 => self.fork(),
            925..937 => self.exit(),
            937..960 => self.reclaim(),
            960..992 => self.maps(),
            _ => self.line(Op::Check),
        }
        if self.world.is_crowded() {
            self.make_room();
        }
    }

    fn line(&mut self, op: Op) {
        self.lines.push(Line {
            number: self.lines.len() + 1,
            process: self.world.current().name.clone(),
            op,
        });
    }

    /// One chance in `n`.
    fn rarely(&mut self, n: u32) -> bool {
        self.rng.u32(..n) == 0
    }

    fn choose<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.rng.usize(..from.len())].clone()
    }

    fn fork(&mut self) {
        if let Some(child) = self.world.fork() {
            self.line(Op::Fork(child));
        }
    }

    fn exit(&mut self) {
        if self.world.may_exit() {
            self.line(Op::Exit);
            self.world.exit(&mut self.rng);
        }
    }

    fn reclaim(&mut self) {
        let pages = self.rng.u64(1..200);
        self.line(Op::Reclaim(pages));
    }

    fn maps(&mut self) {
        let name = self.region().name;
        self.line(Op::Maps(name));
    }
}

#[cfg(test)]
mod tests;
