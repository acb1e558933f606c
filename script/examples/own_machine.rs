//! Scripts on a machine of your own: the complete machine of `mm/examples/machine.rs` answers the corpus.
//!
//! A processor for scripts is three methods. Your machine then answers what Linux answers, line by line,
//! or this says where it does not.

use machine::{Board, Table};
use pagefault::machine::{Access, VirtAddr};
use pagefault::{Manager, Mm};
use pagefault_script::corpus;
use pagefault_script::machine::{Catalogue, Entry, Failures, Setup, Simulates, StartError};
use pagefault_script::managed::{Managed, Processor, Stopped, config, until_done};
use pagefault_script::{diff, random};
use std::sync::Arc;

#[allow(dead_code, reason = "its own main is not this one's")]
#[path = "../../mm/examples/machine.rs"]
mod machine;

/// The processor of the board.
struct Cpu;

impl Cpu {
    /// One byte, loaded or stored by `f`, however many faults that takes.
    fn byte<R>(
        mm: &Arc<Mm<Board>>,
        address: u64,
        access: Access,
        f: impl Fn(&mut u8) -> R,
    ) -> Result<R, Stopped> {
        let (board, table): (&Board, &Table) = (mm.manager().machine(), mm.space());
        until_done(mm, || board.access(table, VirtAddr(address), access, &f))
    }
}

impl Processor<Board> for Cpu {
    fn load(&mut self, mm: &Arc<Mm<Board>>, at: u64, bytes: &mut [u8]) -> Result<(), Stopped> {
        for (address, byte) in (at..).zip(bytes) {
            *byte = Self::byte(mm, address, Access::Read, |byte| *byte)?;
        }
        Ok(())
    }

    fn store(&mut self, mm: &Arc<Mm<Board>>, at: u64, bytes: &[u8]) -> Result<(), Stopped> {
        (at..).zip(bytes).try_for_each(|(address, new)| {
            Self::byte(mm, address, Access::Write, |byte| *byte = *new)
        })
    }

    fn fetch(&mut self, mm: &Arc<Mm<Board>>, address: u64) -> Result<(), Stopped> {
        Self::byte(mm, address, Access::Execute, |_| ())
    }
}

/// The board with as much memory as the script wants.
fn start(setup: &Setup) -> Result<Box<dyn pagefault_script::machine::Machine>, StartError> {
    let frames = u32::try_from(setup.sizes.frames).map_err(|_| StartError::Sizes)?;
    let manager = Manager::new(Arc::new(Board::new(frames)), config());
    Ok(Box::new(Managed::new(manager, Cpu, setup)?))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut catalogue = Catalogue::new();
    catalogue.add(Entry {
        name: "board",
        // It has no order to fail an allocation, and its kernel cannot be watched.
        failures: Failures::Refused,
        simulates: Simulates::Nothing,
        start: Box::new(start),
    });
    let board = catalogue.find("board").ok_or("no board")?;

    // The corpus: each script pins a requirement, with Linux's answers beside its lines.
    let examples = corpus::load()?;
    for example in &examples {
        let wrong = corpus::wrong(example, board, 0)?;
        if let Some(first) = wrong.first() {
            return Err(first.to_string().into());
        }
    }
    println!("{} scripts of the corpus: all answers are Linux's", examples.len());

    // Random scripts, with few frames: what Linux itself answers here and now.
    if let Some(kernel) = catalogue.find("kernel") {
        for seed in 0..4 {
            let mut script = random::script(500, seed);
            script.sizes.frames = 96;
            let comparison = diff::compare(&script, &[board, kernel], seed)?;
            print!("{comparison}");
            if comparison.differences() > 0 {
                return Err("the board differs from the host's kernel".into());
            }
        }
    }
    Ok(())
}
