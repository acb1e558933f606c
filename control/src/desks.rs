//! The compressor's side: the desks of all processes, mapped.

use crate::Plan;
use crate::offload::{Desk, Job, PLACE};
use core::ptr::NonNull;
use rustix::fd::AsFd;
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};

const PAGE: usize = 4096;

/// The desks of all slots.
pub struct Desks {
    /// The first desk.
    start: NonNull<u8>,
    plan: Plan,
}

// SAFETY: the memory is shared by processes anyway; desks consist of atomics, and the pages are only
// copied.
unsafe impl Send for Desks {}

impl Desks {
    /// Maps the desks and their pages, for as long as the process lives.
    pub fn new(file: impl AsFd, plan: Plan) -> Result<Self, Errno> {
        let range = plan.desk(0).start..plan.file_len();
        let (len, prot) = ((range.end - range.start) as usize, ProtFlags::READ | ProtFlags::WRITE);
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address of the host's choice aliases nothing.
        let start =
            unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, prot, flags, file, range.start)? };
        Ok(Self { start: NonNull::new(start.cast()).ok_or(Errno::FAULT)?, plan })
    }

    /// Compresses every page that waits on the desk of a slot, and leaves the results on the desk.
    /// Returns how many pages there were.
    ///
    /// `compress` puts the result into the second page and returns its length; a page's length
    /// means that the page does not compress.
    pub fn serve(
        &self,
        slot: u32,
        mut compress: impl FnMut(&[u8; PAGE], &mut [u8; PAGE]) -> usize,
    ) -> usize {
        let Some(desk) = self.desk(slot) else { return 0 };
        let (mut page, mut result) = ([0; PAGE], [0; PAGE]);
        let (mut done, mut from) = (0, 0);
        while let Some(job) = desk.begin(from) {
            let place = self.place(slot, job);
            // SAFETY: a place has two pages. The first may be written meanwhile by a process that has
            // taken it back; whatever was copied then is dropped.
            unsafe { place.copy_to_nonoverlapping(page.as_mut_ptr(), PAGE) };
            let len = compress(&page, &mut result).min(PAGE);
            if len < PAGE {
                // SAFETY: as above; nobody reads a result that was not announced.
                unsafe { place.add(PAGE).copy_from_nonoverlapping(result.as_ptr(), len) };
            }
            desk.finish(job, len);
            from = job.place() + 1;
            done += 1;
        }
        done
    }

    fn desk(&self, slot: u32) -> Option<&Desk> {
        if slot as usize >= crate::MOST_PROCESSES {
            return None;
        }
        let at = self.plan.desk(slot).start - self.plan.desk(0).start;
        // SAFETY: the mapping has a desk for each slot, page-aligned, and is never unmapped; all bytes are
        // values of its atomics.
        Some(unsafe { self.start.add(at as usize).cast().as_ref() })
    }

    fn place(&self, slot: u32, job: Job) -> *mut u8 {
        let at = self.plan.desk_pages(slot).start - self.plan.desk(0).start;
        let at = at + job.place() as u64 * PLACE;
        self.start.as_ptr().wrapping_add(at as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Control;

    #[test]
    fn pages_of_a_desk_are_compressed_and_results_lie_beside_them() {
        let plan = Plan::new(8 << 20, 1 << 20, [0; crate::MOST_AREAS]);
        let (file, _control) = Control::create(plan).unwrap();
        let desks = Desks::new(&file, plan).unwrap();
        let owner = Desks::new(&file, plan).unwrap();
        let desk = owner.desk(4095).unwrap();
        let at = plan.desk_pages(4095).start + 63 * PLACE;
        rustix::io::pwrite(&file, &[7; PAGE], at).unwrap();
        desk.hand_over(63);
        desk.hand_over(2);
        let mut seen = Vec::new();
        let served = desks.serve(4095, |page, result| {
            seen.push(page[PAGE - 1]);
            result[..5].copy_from_slice(b"short");
            5
        });
        assert_eq!((served, seen), (2, vec![0, 7]));
        assert_eq!((desk.result(63), desk.result(2), desk.result(1)), (Some(5), Some(5), None));
        let mut result = [0; 5];
        rustix::io::pread(&file, &mut result, at + PAGE as u64).unwrap();
        assert_eq!(&result, b"short");
        assert_eq!(desks.serve(4096, |_, _| 0), 0);
    }
}
