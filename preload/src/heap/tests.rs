use super::*;

/// Opens the heap once for all tests of the process.
fn heap() {
    static OPEN: std::sync::Once = std::sync::Once::new();
    OPEN.call_once(|| reserve(2).unwrap());
}

struct Block {
    start: *mut u8,
    len: usize,
    tag: u8,
}

impl Block {
    fn check(&self) {
        // SAFETY: the block is live and `len` bytes of it were written.
        let bytes = unsafe { core::slice::from_raw_parts(self.start, self.len) };
        assert!(bytes.iter().all(|byte| *byte == self.tag));
        // SAFETY: the block is live.
        assert!(unsafe { usable_size(self.start) } >= self.len);
    }
}

/// Allocates, resizes and frees at random and checks that every block keeps its bytes.
fn churn(seed: u64, steps: u32) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut blocks = Vec::<Block>::new();
    let size = |random: &mut fastrand::Rng| match random.u8(..20) {
        0 => random.usize(..5 << 20),
        1..6 => random.usize(..100_000),
        _ => random.usize(..300),
    };
    for step in 0..steps {
        let (tag, len) = (step as u8, size(&mut random));
        match random.u8(..8) {
            0..3 => {
                let align = 1 << random.u32(4..16);
                let start = allocate(len, align, Source::Program);
                assert!(!start.is_null() && start.addr().is_multiple_of(align));
                // SAFETY: the block has `len` bytes.
                unsafe { start.write_bytes(tag, len) };
                blocks.push(Block { start, len, tag });
            }
            3 => {
                let start = allocate_zeroed(len, Source::Program);
                Block { start, len, tag: 0 }.check();
                // SAFETY: the block has `len` bytes.
                unsafe { start.write_bytes(tag, len) };
                blocks.push(Block { start, len, tag });
            }
            4 | 5 if !blocks.is_empty() => {
                let index = random.usize(..blocks.len());
                let block = &mut blocks[index];
                block.check();
                // SAFETY: the block is live; its new first bytes are the old ones.
                unsafe {
                    block.start = reallocate(block.start, len, Source::Program);
                    block.len = block.len.min(len);
                    block.check();
                    block.start.write_bytes(block.tag, len);
                }
                block.len = len;
            }
            _ if !blocks.is_empty() => {
                let block = blocks.swap_remove(random.usize(..blocks.len()));
                block.check();
                // SAFETY: the block is live and forgotten.
                unsafe { free(block.start) };
            }
            _ => {}
        }
    }
    for block in blocks {
        block.check();
        // SAFETY: the block is live and forgotten.
        unsafe { free(block.start) };
    }
}

#[test]
fn blocks_keep_their_bytes_in_one_thread() {
    heap();
    churn(1, 20_000);
}

#[test]
fn blocks_keep_their_bytes_in_four_threads() {
    heap();
    std::thread::scope(|scope| {
        for seed in 2..6 {
            scope.spawn(move || churn(seed, 5_000));
        }
    });
}

#[test]
fn a_large_block_grows_by_moving_its_pages() {
    heap();
    let len = 8 << 20;
    let block = allocate(len, ALIGN, Source::Program);
    assert!(!arena::holds(block) && !private::holds(block));
    // SAFETY: the block has `len` bytes, and keeps them when it grows.
    unsafe {
        block.write_bytes(7, len);
        let block = reallocate(block, 64 << 20, Source::Program);
        Block { start: block, len, tag: 7 }.check();
        assert!(usable_size(block) >= 64 << 20);
        let block = reallocate(block, 100, Source::Program);
        assert!(arena::holds(block));
        Block { start: block, len: 100, tag: 7 }.check();
        free(block);
    }
}

#[test]
fn what_cannot_be_had_is_null() {
    heap();
    assert!(allocate(usize::MAX, ALIGN, Source::Program).is_null());
    assert!(allocate(isize::MAX as usize, ALIGN, Source::Program).is_null());
    assert!(allocate(1, 1 << 62, Source::Program).is_null());
    let block = allocate(10, ALIGN, Source::Program);
    // SAFETY: the block is live, and stays so when it cannot grow.
    unsafe {
        assert!(reallocate(block, usize::MAX, Source::Program).is_null());
        assert!(reallocate(block, 1 << 50, Source::Program).is_null());
        free(block);
        free(ptr::null_mut());
        assert_eq!(usable_size(ptr::null()), 0);
    }
}

#[test]
fn inside_of_the_manager_blocks_are_private() {
    heap();
    let block = {
        let _inside = guard::enter();
        allocate(100, ALIGN, Source::Program)
    };
    assert!(private::holds(block));
    let managed = allocate(100, ALIGN, Source::Program);
    assert!(arena::holds(managed));
    // SAFETY: both are live; a private block that grows outside becomes the program's.
    unsafe {
        block.write_bytes(9, 100);
        let block = reallocate(block, 1000, Source::Program);
        assert!(arena::holds(block));
        Block { start: block, len: 100, tag: 9 }.check();
        free(block);
        free(managed);
    }
}
