//! The keeper's side: what a process that is gone held of the tree's memory is given back.

use crate::offload::{Charge, Desk};
use crate::pool::{Left, SPAN, Spans};
use crate::{Control, Plan, Shares};
use core::ops::Range;
use core::ptr::NonNull;
use core::sync::atomic::AtomicU32;
use rustix::fd::OwnedFd;
use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};
use std::vec;

/// Frames and spans of the tree, as the keeper lets them go.
pub struct Departed {
    file: OwnedFd,
    plan: Plan,
    shares: Words,
    spans: Words,
}

impl Departed {
    /// Maps the words of all shares and of all spans.
    pub fn new(file: OwnedFd, plan: Plan) -> Result<Self, Errno> {
        let shares = Words::map(&file, plan.shares().start, plan.frames() as usize + 1)?;
        let spans = Words::map(&file, plan.span_words().start, plan.spans() as usize)?;
        Ok(Self { file, plan, shares, spans })
    }

    /// The shared file.
    pub const fn file(&self) -> &OwnedFd {
        &self.file
    }

    /// Leaves every share of a process that is gone, and lets every span go that it held.
    pub fn leave_all(&self, control: &Control, slot: u32) -> Result<(), Errno> {
        let shares = Shares::new(self.shares.all());
        self.take_column(self.plan.column(slot), |_, word| {
            if word != 0 && shares.leave(word) {
                control.slots.end_share();
            }
        })?;
        self.clear_desk(control, slot)?;
        let spans = Spans::new(self.spans.all());
        self.take_column(self.plan.span_column(slot), |number, word| {
            for bit in (0..32).filter(|bit| word & 1 << bit != 0) {
                let span = number * 32 + bit;
                if let Left::ToNobody { area } = spans.leave(span) {
                    let start = self.plan.pool().start + u64::from(span) * SPAN;
                    // Memory that the host does not take back serves the next holder.
                    let _ = self.punch(start..start + SPAN);
                    control.pool.uncharge(area);
                    spans.end(span);
                }
            }
        })
    }

    /// Gives the memory of a process's desk back, if it had one. A compressor that is at work there
    /// finds its turn gone.
    fn clear_desk(&self, control: &Control, slot: u32) -> Result<(), Errno> {
        let desk = self.plan.desk(slot);
        let mut bytes = [0; size_of::<Charge>()];
        let at = desk.start + Desk::CHARGE as u64;
        if rustix::io::pread(&self.file, &mut bytes, at)? < bytes.len() {
            return Ok(());
        }
        let Some((area, bytes)) = Charge::from_bytes(bytes) else { return Ok(()) };
        self.punch(desk)?;
        // Memory that the host does not take back serves the next process of the slot.
        let _ = self.punch(self.plan.desk_pages(slot));
        control.offload.uncharge_desk(&control.pool, area, bytes.into());
        Ok(())
    }

    /// Takes each word of a column with its number, and empties the column.
    fn take_column(&self, column: Range<u64>, mut take: impl FnMut(u32, u32)) -> Result<(), Errno> {
        let mut at = column.start;
        let mut bytes = vec![0; 64 << 10];
        // Most of a column was never used.
        while let Ok(data) = rustix::fs::seek(&self.file, SeekFrom::Data(at)) {
            if data >= column.end {
                break;
            }
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
        if column.is_empty() { Ok(()) } else { self.punch(column) }
    }

    fn punch(&self, range: Range<u64>) -> Result<(), Errno> {
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&self.file, hole, range.start, range.end - range.start)
    }
}

/// Words of the shared file, mapped.
struct Words {
    start: NonNull<AtomicU32>,
    count: usize,
}

impl Words {
    fn map(file: &OwnedFd, offset: u64, count: usize) -> Result<Self, Errno> {
        if count == 0 {
            return Ok(Self { start: NonNull::dangling(), count });
        }
        let (len, prot) = (count * size_of::<AtomicU32>(), ProtFlags::READ | ProtFlags::WRITE);
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address of the host's choice aliases nothing.
        let start =
            unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, prot, flags, file, offset)? };
        Ok(Self { start: NonNull::new(start.cast()).ok_or(Errno::FAULT)?, count })
    }

    fn all(&self) -> &[AtomicU32] {
        // SAFETY: the mapping has so many words, and is never unmapped; without words the pointer is
        // aligned, which is all that is asked of it.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.count) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Calls, Config, Delivery, Storage, SwapSpec};

    /// What the spans of a process are, and what it stored in them, as a runtime has it.
    struct Holder<'a> {
        control: &'a Control,
        file: &'a OwnedFd,
        slot: u32,
    }

    impl Holder<'_> {
        fn write(&self, at: u64, bytes: &[u8]) {
            assert_eq!(rustix::io::pwrite(self.file, bytes, at), Ok(bytes.len()));
        }

        fn hold(&self, span: u32) {
            let column = self.control.plan().span_column(self.slot).start;
            let (at, mut byte) = (column + u64::from(span / 8), [0]);
            rustix::io::pread(self.file, &mut byte, at).unwrap();
            self.write(at, &[byte[0] | 1 << (span % 8)]);
        }
    }

    #[test]
    fn what_a_dead_process_held_alone_is_free_and_the_rest_is_left_to_others() {
        let ram = SwapSpec { storage: Storage::Ram, bytes: Some(4 << 20) };
        let config = Config {
            limit_bytes: 8 << 20,
            most_bytes: 8 << 20,
            delivery: Delivery::Inline,
            calls: Calls::Rewritten,
            swap: vec![ram; 2],
        };
        let (file, control) = Control::create(config.plan()).unwrap();
        control.publish(&config).unwrap();
        let plan = control.plan();
        assert_eq!(plan, config.plan());
        assert_eq!(plan.spans(), 256);

        let departed = Departed::new(rustix::io::dup(&file).unwrap(), plan).unwrap();
        let (spans, hint) = (Spans::new(departed.spans.all()), AtomicU32::new(100));
        let parent = Holder { control: &control, file: &file, slot: 4 };
        let child = Holder { control: &control, file: &file, slot: 9 };
        for expected in 100..103 {
            assert!(control.pool.charge(1, 4 << 20));
            assert_eq!(spans.take(1, &hint), Some(expected));
            parent.write(plan.pool().start + u64::from(expected) * SPAN, &[7]);
            parent.hold(expected);
        }
        spans.join(101);
        child.hold(101);

        departed.leave_all(&control, 4).unwrap();
        assert_eq!(control.pool.used(1), SPAN);
        assert!(spans.is_sole(101));
        let held = |span: u64| {
            let mut byte = [1];
            rustix::io::pread(&file, &mut byte, plan.pool().start + span * SPAN).unwrap();
            byte[0]
        };
        assert_eq!([held(100), held(101), held(102)], [0, 7, 0]);
        // Nothing is let go twice.
        departed.leave_all(&control, 4).unwrap();
        assert_eq!(control.pool.used(1), SPAN);
        departed.leave_all(&control, 9).unwrap();
        assert_eq!(control.pool.used(1), 0);
        assert_eq!(control.pool.peak(), 3 * SPAN);
    }
}
