//! Kernel stacks, each with memory below it that is not mapped.
//!
//! They have a top-level entry of the addresses to themselves, which is there before the first
//! program's page table is made: the way into the kernel writes to a stack before anything could be
//! done about an entry that is missing. A stack is the upper half of an aligned block of addresses,
//! so that one bit of an address tells whether it is in the stack or past its end.
//!
//! A few unused stacks stay mapped for the next tasks. Of more than these the frames are given
//! back, when all processors have forgotten where they were.

use crate::frames::Frames;
use crate::layout::{STACK_BLOCK, STACKS};
use crate::lock::Mutex;
use crate::{kernel, process, shootdown, vmalloc};
use pagefault::machine::encode::x86_64::Bits;
use pagefault::machine::{Frame, OutOfFrames};

/// The pages of a kernel stack.
pub const PAGES: usize = (STACK_BLOCK / 2 / 4096) as usize;

/// The most stacks.
pub const MOST: usize = 8192;

/// How many unused stacks stay mapped.
const KEPT: usize = 16;
/// How many are unmapped at once, when there are more.
const BATCH: usize = 8;

/// The frames that are left to the kernel's heap, which cannot wait for others.
const LEFT: u32 = 40;

const WORDS: usize = MOST / 64;

/// A set of blocks, by number.
struct Blocks([u64; WORDS]);

impl Blocks {
    const fn add(&mut self, block: usize) {
        self.0[block / 64] |= 1 << (block % 64);
    }

    const fn remove(&mut self, block: usize) {
        self.0[block / 64] &= !(1 << (block % 64));
    }
}

/// Which blocks have a stack.
struct Pool {
    /// Those that a task uses, or that are being mapped or unmapped.
    used: Blocks,
    /// Those whose stack is mapped.
    mapped: Blocks,
    /// How many are mapped and not used.
    kept: usize,
}

static POOL: Mutex<Pool> =
    Mutex::new(Pool { used: Blocks([0; WORDS]), mapped: Blocks([0; WORDS]), kept: 0 });

impl Pool {
    /// Takes the first unused block with a stack.
    fn take_mapped(&mut self) -> Option<usize> {
        let block = self.take(|used, mapped| !used & mapped)?;
        self.kept -= 1;
        Some(block)
    }

    /// Takes the first unused block without a stack.
    fn take_empty(&mut self) -> Option<usize> {
        self.take(|used, mapped| !used & !mapped)
    }

    fn take(&mut self, fits: impl Fn(u64, u64) -> u64) -> Option<usize> {
        let fitting = |word: usize| fits(self.used.0[word], self.mapped.0[word]);
        let word = (0..WORDS).find(|word| fitting(*word) != 0)?;
        let block = word * 64 + fitting(word).trailing_zeros() as usize;
        self.used.add(block);
        Some(block)
    }
}

/// Makes room for stacks in the reference table, before another table is made from it.
pub fn start(frames: &Frames, reference: Frame) -> Result<(), OutOfFrames> {
    // The upper levels come with the first block.
    let block = map(frames, reference, 0)?;
    give_back(block);
    Ok(())
}

/// A kernel stack.
pub struct Stack {
    block: usize,
}

impl Stack {
    /// Takes an unused stack, or maps one.
    pub fn new(frames: &'static Frames, reference: Frame) -> Result<Self, OutOfFrames> {
        let kept = {
            let mut pool = POOL.lock();
            if pool.kept > 0 { pool.take_mapped() } else { None }
        };
        if let Some(block) = kept {
            return Ok(Self { block });
        }
        let block = POOL.lock().take_empty().ok_or(OutOfFrames)?;
        // A new stack may evict pages of programs.
        if !process::free_up(frames, LEFT + PAGES as u32) {
            POOL.lock().used.remove(block);
            return Err(OutOfFrames);
        }
        match map(frames, reference, block) {
            Ok(block) => Ok(Self { block }),
            Err(error) => {
                POOL.lock().used.remove(block);
                Err(error)
            }
        }
    }

    /// One past its highest byte.
    pub const fn top(&self) -> u64 {
        STACKS.start + (self.block as u64 + 1) * STACK_BLOCK
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        give_back(self.block);
    }
}

/// The lowest address of a block's stack.
const fn bottom(block: usize) -> u64 {
    STACKS.start + block as u64 * STACK_BLOCK + STACK_BLOCK / 2
}

/// Gives a block a stack.
fn map(frames: &Frames, reference: Frame, block: usize) -> Result<usize, OutOfFrames> {
    for page in 0..PAGES as u64 {
        let mapped = frames.allocate(0).and_then(|frame| {
            let at = bottom(block) + page * 4096;
            let rights = Bits::WRITE | Bits::NO_EXECUTE;
            vmalloc::enter(frames, reference, at, frame, rights)
                .inspect_err(|_| frames.free(frame, 0))
        });
        if let Err(error) = mapped {
            unmap(frames, reference, &[block]);
            return Err(error);
        }
    }
    POOL.lock().mapped.add(block);
    Ok(block)
}

/// Takes away the stacks of up to [`BATCH`] unused blocks.
fn unmap(frames: &Frames, reference: Frame, blocks: &[usize]) {
    let mut taken = [None; BATCH * PAGES];
    let pages = blocks.iter().flat_map(|block| {
        let bottom = bottom(*block);
        (0..PAGES as u64).map(move |page| bottom + page * 4096)
    });
    for (slot, address) in taken.iter_mut().zip(pages.clone()) {
        *slot = vmalloc::remove(reference, address);
    }
    // A stack that another task gets there must be that one on every processor.
    shootdown::forget(pages);
    for frame in taken.into_iter().flatten() {
        frames.free(frame, 0);
    }
}

/// Keeps a stack for the next task, or takes it and some of those that are kept away.
fn give_back(block: usize) {
    let mut blocks = [block; BATCH];
    let mut count = 1;
    {
        let mut pool = POOL.lock();
        if pool.kept < KEPT {
            pool.used.remove(block);
            pool.kept += 1;
            return;
        }
        while count < BATCH
            && let Some(other) = pool.take_mapped()
        {
            blocks[count] = other;
            count += 1;
        }
    }
    let kernel = kernel();
    unmap(kernel.frames, kernel.manager.machine().reference(), &blocks[..count]);
    let mut pool = POOL.lock();
    for block in &blocks[..count] {
        pool.mapped.remove(*block);
        pool.used.remove(*block);
    }
}
