//! Buffers for compression, one for each thread that compresses at the same time.

use super::Mutex;
use super::arena::class_of;
use crate::context;
use crate::reserve::{ReserveError, Table, Zeroed};
use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use lz4_flex::block::{CompressTable, compress_into_with_table, get_maximum_output_size};
use pagefault_machine::PAGE_SIZE;
use pagefault_machine::store::PageBytes;

/// The size of the buffer that LZ4 asks for to compress a page.
const BUFFER: usize = get_maximum_output_size(PAGE_SIZE as usize);

/// How many threads can compress at once; another thread waits.
const COUNT: usize = 8;

/// The buffers of one thread.
pub struct Scratch {
    /// LZ4's hash table.
    table: CompressTable,
    /// The result.
    buffer: [u8; BUFFER],
}

impl Scratch {
    /// Buffers for one compression.
    #[expect(clippy::new_without_default, reason = "of some kilobytes, not to be made in passing")]
    pub fn new() -> Self {
        Self { table: CompressTable::small(), buffer: [0; BUFFER] }
    }

    /// A page compressed with LZ4; `None` if it is better stored uncompressed, since decompression
    /// would cost time and save nothing.
    pub fn compress(&mut self, page: &PageBytes) -> Option<&[u8]> {
        match compress_into_with_table(page, &mut self.buffer, &mut self.table) {
            Ok(len) if class_of(len) != class_of(page.len()) => Some(&self.buffer[..len]),
            _ => None,
        }
    }
}

/// Several such buffers, for threads that take turns. Each costs only addresses until it is used:
/// most stores are never written, or by one thread.
pub struct Scratches {
    /// Whether the buffers with the same number were written.
    locks: [Mutex<bool>; COUNT],
    rooms: Table<Room>,
}

struct Room(UnsafeCell<MaybeUninit<Scratch>>);

const _: () = assert!(!core::mem::needs_drop::<Scratch>());

// SAFETY: no byte has to have a value.
unsafe impl Zeroed for Room {}
// SAFETY: a room is touched only under the lock of its number.
unsafe impl Sync for Room {}
// SAFETY: no part is bound to a thread.
unsafe impl Send for Room {}

impl Scratches {
    /// As many as threads may compress at once.
    pub fn new() -> Result<Self, ReserveError> {
        Ok(Self { locks: [const { Mutex::new(false) }; COUNT], rooms: Table::new(COUNT)? })
    }

    /// Lends one: the calling thread's usual one, or any free one.
    pub fn with<R>(&self, use_it: impl FnOnce(&mut Scratch) -> R) -> R {
        let usual = context::current() as usize;
        let free = (0..COUNT).find_map(|step| {
            let number = (usual + step) % COUNT;
            self.locks[number].try_lock().map(|lock| (number, lock))
        });
        let (number, mut is_made) = free.unwrap_or_else(|| {
            let number = usual % COUNT;
            (number, self.locks[number].lock())
        });
        let room = self.rooms[number].0.get();
        // SAFETY: the lock makes the room this thread's, and says whether it was written. It is never
        // dropped, and has nothing to drop.
        let scratch = unsafe {
            if !core::mem::replace(&mut *is_made, true) {
                (*room).write(Scratch::new());
            }
            (*room).assume_init_mut()
        };
        use_it(scratch)
    }
}
