//! The compressor's side: the mailboxes of all processes, mapped.

use crate::Plan;
use crate::offload::{Job, Mailbox, PLACE};
use core::ptr::NonNull;
use rustix::fd::AsFd;
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};

const PAGE: usize = 4096;

/// The mailboxes of all slots.
pub struct Mailboxes {
    /// The first mailbox.
    start: NonNull<u8>,
    plan: Plan,
}

// SAFETY: the memory is shared by processes anyway; mailboxes consist of atomics, and the pages are only
// copied.
unsafe impl Send for Mailboxes {}

impl Mailboxes {
    /// Maps the mailboxes and their pages, for as long as the process lives.
    pub fn new(file: impl AsFd, plan: Plan) -> Result<Self, Errno> {
        let range = plan.mailbox(0).start..plan.file_len();
        let (len, prot) = ((range.end - range.start) as usize, ProtFlags::READ | ProtFlags::WRITE);
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address of the host's choice aliases nothing.
        let start =
            unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, prot, flags, file, range.start)? };
        Ok(Self { start: NonNull::new(start.cast()).ok_or(Errno::FAULT)?, plan })
    }

    /// Compresses every page that waits on the mailbox of a slot, and leaves the results on the mailbox.
    /// Returns how many pages there were.
    ///
    /// `compress` puts the result into the second page and returns its length; a page's length
    /// means that the page does not compress.
    pub fn serve(
        &self,
        slot: u32,
        mut compress: impl FnMut(&[u8; PAGE], &mut [u8; PAGE]) -> usize,
    ) -> usize {
        let Some(mailbox) = self.mailbox(slot) else { return 0 };
        let (mut page, mut result) = ([0; PAGE], [0; PAGE]);
        let (mut done, mut from) = (0, 0);
        while let Some(job) = mailbox.begin(from) {
            let place = self.place(slot, job);
            // SAFETY: a place has two pages. The first may be written meanwhile by a process that has
            // taken it back; whatever was copied then is dropped.
            unsafe { place.copy_to_nonoverlapping(page.as_mut_ptr(), PAGE) };
            let len = compress(&page, &mut result).min(PAGE);
            if len < PAGE {
                // SAFETY: as above; nobody reads a result that was not announced.
                unsafe { place.add(PAGE).copy_from_nonoverlapping(result.as_ptr(), len) };
            }
            mailbox.finish(job, len);
            from = job.place() + 1;
            done += 1;
        }
        done
    }

    fn mailbox(&self, slot: u32) -> Option<&Mailbox> {
        if slot as usize >= crate::MOST_PROCESSES {
            return None;
        }
        let at = self.plan.mailbox(slot).start - self.plan.mailbox(0).start;
        // SAFETY: the mapping has a mailbox for each slot, page-aligned, and is never unmapped; all bytes are
        // values of its atomics.
        Some(unsafe { self.start.add(at as usize).cast().as_ref() })
    }

    fn place(&self, slot: u32, job: Job) -> *mut u8 {
        let at = self.plan.mailbox_pages(slot).start - self.plan.mailbox(0).start;
        let at = at + job.place() as u64 * PLACE;
        self.start.as_ptr().wrapping_add(at as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Control;

    #[test]
    fn pages_of_a_mailbox_are_compressed_and_results_lie_beside_them() {
        let plan = Plan::new(8 << 20, 1 << 20, [0; crate::MOST_AREAS]);
        let (file, _control) = Control::create(plan).unwrap();
        let mailboxes = Mailboxes::new(&file, plan).unwrap();
        let owner = Mailboxes::new(&file, plan).unwrap();
        let mailbox = owner.mailbox(4095).unwrap();
        let at = plan.mailbox_pages(4095).start + 63 * PLACE;
        rustix::io::pwrite(&file, &[7; PAGE], at).unwrap();
        mailbox.hand_over(63);
        mailbox.hand_over(2);
        let mut seen = Vec::new();
        let served = mailboxes.serve(4095, |page, result| {
            seen.push(page[PAGE - 1]);
            result[..5].copy_from_slice(b"short");
            5
        });
        assert_eq!((served, seen), (2, vec![0, 7]));
        assert_eq!(
            (mailbox.result(63), mailbox.result(2), mailbox.result(1)),
            (Some(5), Some(5), None)
        );
        let mut result = [0; 5];
        rustix::io::pread(&file, &mut result, at + PAGE as u64).unwrap();
        assert_eq!(&result, b"short");
        assert_eq!(mailboxes.serve(4096, |_, _| 0), 0);
    }
}
