//! The supervisor's side: gives back the tree's memory that an ended process held.

use crate::offload::{Charge, Mailbox};
use crate::pool::SPAN;
use crate::spans::{Spans, Word};
use crate::{Control, EXTENT, MOST_AREAS, Plan, Shares};
use core::marker::PhantomData;
use core::ops::Range;
use core::ptr::NonNull;
use core::sync::atomic::AtomicU32;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};
use std::vec::Vec;

/// Frames and spans of the tree, as the supervisor releases them.
pub struct Departed {
    file: OwnedFd,
    plan: Plan,
    shares: Words<AtomicU32>,
    spans: Words<Word>,
    files: Vec<SwapFile>,
    punch_extent: PunchExtent,
}

/// Gives the blocks of an extent back to the file system of a swap file with this many pages.
pub type PunchExtent = fn(BorrowedFd<'_>, u32, u32);

/// A swap file of the tree.
struct SwapFile {
    area: usize,
    file: OwnedFd,
    words: Words<Word>,
}

impl Departed {
    /// Maps the words of all shares and of all spans. `files` are the swap files, in the order of their areas.
    pub fn new(
        file: OwnedFd,
        plan: Plan,
        files: Vec<OwnedFd>,
        punch_extent: PunchExtent,
    ) -> Result<Self, Errno> {
        let shares = Words::map(&file, plan.shares().start, plan.frames() as usize + 1)?;
        let spans = Words::map(&file, plan.span_words().start, plan.spans() as usize)?;
        let areas = (0..MOST_AREAS).filter(|area| plan.files().pages(*area) > 0);
        let map = |(area, swap)| {
            let extents = plan.files().extents(area) as usize;
            let words = Words::map(&file, plan.files().words(area).start, extents)?;
            Ok(SwapFile { area, file: swap, words })
        };
        let files = areas.zip(files).map(map).collect::<Result<_, Errno>>()?;
        Ok(Self { file, plan, shares, spans, files, punch_extent })
    }

    /// The shared file.
    pub const fn file(&self) -> &OwnedFd {
        &self.file
    }

    /// Leaves every share of an ended process, and releases every span that it held.
    pub fn leave_all(&self, control: &Control, slot: u32) -> Result<(), Errno> {
        let shares = Shares::new(self.shares.all());
        self.take_column(self.plan.column(slot), |_, word| {
            if word != 0 && shares.leave(word) {
                control.slots.end_share();
            }
        })?;
        self.clear_mailbox(control, slot)?;
        let spans = Spans::new(self.spans.all());
        self.take_spans(self.plan.span_column(slot), |span| {
            let start = self.plan.pool().start + u64::from(span) * SPAN;
            // If the host does not take the memory back, the next holder uses it.
            let give_back = || _ = punch(&self.file, start..start + SPAN);
            if let Some(area) = spans.let_go(span, give_back) {
                control.pool.uncharge(area);
            }
        })?;
        self.files.iter().try_for_each(|swap| {
            let extents = Spans::new(swap.words.all());
            let pages = self.plan.files().pages(swap.area);
            self.take_spans(self.plan.files().column(swap.area, slot), |extent| {
                if let Some(area) =
                    extents.let_go(extent, || (self.punch_extent)(swap.file.as_fd(), extent, pages))
                {
                    control.files.uncharge_bytes(area, EXTENT);
                }
            })
        })
    }

    /// Takes each span of a column of bits, and empties the column.
    fn take_spans(&self, column: Range<u64>, mut take: impl FnMut(u32)) -> Result<(), Errno> {
        self.take_column(column, |number, word| {
            (0..32).filter(|bit| word & 1 << bit != 0).for_each(|bit| take(number * 32 + bit));
        })
    }

    /// Gives the memory of a process's mailbox back, if it had one. A compressor at work there finds
    /// that its turn has ended.
    fn clear_mailbox(&self, control: &Control, slot: u32) -> Result<(), Errno> {
        let mailbox = self.plan.mailbox(slot);
        let mut bytes = [0; size_of::<Charge>()];
        let at = mailbox.start + Mailbox::CHARGE as u64;
        if rustix::io::pread(&self.file, &mut bytes, at)? < bytes.len() {
            return Ok(());
        }
        let Some((area, bytes)) = Charge::from_bytes(bytes) else { return Ok(()) };
        punch(&self.file, mailbox)?;
        // If the host does not take the memory back, the slot's next process uses it.
        let _ = punch(&self.file, self.plan.mailbox_pages(slot));
        control.offload.uncharge_mailbox(&control.pool, area, bytes.into());
        Ok(())
    }

    /// Takes each word of a column with its number, and empties the column.
    fn take_column(&self, column: Range<u64>, mut take: impl FnMut(u32, u32)) -> Result<(), Errno> {
        let mut at = column.start;
        let mut bytes = Vec::new();
        // Most words of a column, and most columns, were never used.
        loop {
            let data = match rustix::fs::seek(&self.file, SeekFrom::Data(at)) {
                Ok(data) if data < column.end => data,
                Ok(_) | Err(Errno::NXIO) if at == column.start => return Ok(()),
                _ => break,
            };
            bytes.resize(64 << 10, 0);
            let len = bytes.len().min((column.end - data) as usize);
            let read = rustix::io::pread(&self.file, &mut bytes[..len], data)?;
            if read == 0 {
                break;
            }
            let first = ((data - column.start) / 4) as u32;
            for (number, word) in (first..).zip(bytes[..read].as_chunks::<4>().0) {
                take(number, u32::from_ne_bytes(*word));
            }
            at = data + read as u64;
        }
        punch(&self.file, column)
    }
}

fn punch(file: &OwnedFd, range: Range<u64>) -> Result<(), Errno> {
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(file, hole, range.start, range.end - range.start)
}

/// Words of the shared file, mapped: atomics of 32 bits.
struct Words<T> {
    start: NonNull<T>,
    count: usize,
    words: PhantomData<T>,
}

/// Atomics of 32 bits.
///
/// # Safety
/// All bytes of memory that others change are values of the type.
unsafe trait Atomic {}

// SAFETY: an atomic.
unsafe impl Atomic for AtomicU32 {}
#[cfg(test)]
// SAFETY: a transparent wrapper around an atomic.
unsafe impl Atomic for Word {}

impl<T: Atomic> Words<T> {
    fn map(file: &OwnedFd, offset: u64, count: usize) -> Result<Self, Errno> {
        if count == 0 {
            return Ok(Self { start: NonNull::dangling(), count, words: PhantomData });
        }
        let (len, prot) = (count * size_of::<T>(), ProtFlags::READ | ProtFlags::WRITE);
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address of the host's choice aliases nothing.
        let start =
            unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, prot, flags, file, offset)? };
        let start = NonNull::new(start.cast()).ok_or(Errno::FAULT)?;
        Ok(Self { start, count, words: PhantomData })
    }

    fn all(&self) -> &[T] {
        // SAFETY: the mapping has so many words, and is never unmapped; without words the pointer is
        // aligned, which is all that is asked of it.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.count) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spans::Bits;
    use crate::{Calls, Config, Delivery, Holder, Mapped, Storage, SwapSpec};
    use pagefault_linux::store::extents;

    // SAFETY: a transparent wrapper around an atomic.
    unsafe impl Atomic for Bits {}

    const PAGE: u64 = 4096;

    /// A tree with two areas of 4 MiB of memory and a file of 130 pages.
    fn tree() -> (OwnedFd, Mapped, Departed, OwnedFd) {
        let ram = SwapSpec { storage: Storage::Ram, bytes: Some(4 << 20), pages: 0 };
        let file = Storage::Temporary("/tmp".into());
        let config = Config {
            limit_bytes: 8 << 20,
            most_bytes: 8 << 20,
            delivery: Delivery::Inline,
            calls: Calls::Rewritten,
            room_bytes: 0,
            swap: vec![ram.clone(), ram, SwapSpec { storage: file, bytes: None, pages: 130 }],
        };
        let (file, control) = Control::create(config.plan()).unwrap();
        control.publish(&config).unwrap();
        let plan = control.plan();
        assert_eq!(plan, config.plan());
        let swap = rustix::fs::memfd_create("swap", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let dup = |file: &OwnedFd| rustix::io::dup(file).unwrap();
        let departed = Departed::new(dup(&file), plan, vec![dup(&swap)], extents::punch).unwrap();
        (file, control, departed, swap)
    }

    fn write(file: &OwnedFd, at: u64, bytes: &[u8]) {
        assert_eq!(rustix::io::pwrite(file, bytes, at), Ok(bytes.len()));
    }

    fn read(file: &OwnedFd, at: u64) -> u8 {
        let mut byte = [1];
        rustix::io::pread(file, &mut byte, at).unwrap();
        byte[0]
    }

    fn column(file: &OwnedFd, range: Range<u64>) -> Words<Bits> {
        Words::map(file, range.start, (range.end - range.start) as usize / 8).unwrap()
    }

    #[test]
    fn what_a_dead_process_held_alone_is_free_and_the_rest_is_left_to_others() {
        let (file, control, departed, _) = tree();
        let plan = control.plan();
        assert_eq!(plan.spans(), 256);
        let (spans, hint) = (Spans::new(departed.spans.all()), AtomicU32::new(100));
        let columns = [4, 9].map(|slot| column(&file, plan.span_column(slot)));
        let [parent, child] = [0, 1].map(|which| Holder::new(spans, columns[which].all()));
        let memory = |span: u32| plan.pool().start + u64::from(span) * SPAN;
        let take = |expected| {
            assert!(control.pool.charge(1, 4 << 20));
            assert_eq!(parent.take(1, &hint), Some(expected));
            write(&file, memory(expected), &[7]);
        };
        take(100);
        parent.share_with(columns[1].all());
        (101..103).for_each(take);

        departed.leave_all(&control, 4).unwrap();
        assert_eq!(control.pool.used(1), SPAN);
        assert!(child.is_sole(100));
        assert_eq!([100, 101, 102].map(|span| read(&file, memory(span))), [7, 0, 0]);
        // Nothing is released twice.
        departed.leave_all(&control, 4).unwrap();
        assert_eq!(control.pool.used(1), SPAN);
        departed.leave_all(&control, 9).unwrap();
        assert_eq!(control.pool.used(1), 0);
        assert_eq!(control.pool.peak(), 3 * SPAN);
    }

    #[test]
    fn extents_of_a_swap_file_are_punched_out_when_their_last_holder_has_died() {
        let (file, control, departed, swap) = tree();
        let files = control.plan().files();
        let (extents, hint) = (Spans::new(departed.files[0].words.all()), AtomicU32::new(0));
        let columns = [4, 9].map(|slot| column(&file, files.column(2, slot)));
        let parent = Holder::new(extents, columns[0].all());
        // The last extent has two pages.
        write(&swap, 0, &[7; 130 * PAGE as usize]);
        assert_eq!([0; 4].map(|_| parent.take(2, &hint)), [Some(0), Some(1), Some(2), None]);
        let held = || [0, 1, 63, 64, 127, 128, 129].map(|page| read(&swap, page * PAGE));

        assert!(control.files.charge_bytes(2, 3 * EXTENT, u64::MAX));
        parent.share_with(columns[1].all());
        parent.leave(1, || ());
        departed.leave_all(&control, 4).unwrap();
        assert_eq!((held(), control.files.used(2)), ([7; 7], 3 * EXTENT));
        departed.leave_all(&control, 9).unwrap();
        assert_eq!(control.files.used(2), 0);
        // The signature is in page 0.
        assert_eq!(held(), [7, 0, 0, 0, 0, 0, 0]);
        assert_eq!(parent.take(2, &AtomicU32::new(1)), Some(1));
    }
}
