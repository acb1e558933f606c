//! Brings a page back from swap past the swap cache.
//!
//! In the swap cache the users of a slot meet, and a page keeps its slot until the first store. A page
//! that is stored to at once, and that only one entry names, needs neither. Linux does the same for
//! devices that answer at once (`SWP_SYNCHRONOUS_IO` in `do_swap_page`).
//!
//! The fault *claims* the slot: it takes a second reference. A second thread that faults on the entry
//! meanwhile finds two references, and goes through the swap cache. A slot can be claimed only once its
//! content is written. Nobody is its only user while the claim lasts, so it neither gets new content nor
//! holds another page. An entry that names it when the fault commits names the content that was read.

use crate::cache::Key;
use crate::error::Refusal;
use crate::event::{Ahead, Correction, Weight};
use crate::fault::{Fault, Purpose, Step, page_range};
use crate::machine::{Cursor, Entry, Frame, Machine};
use crate::mm::{Kind, Mm};
use crate::page::{Owner, PageFlags};
use crate::swap::area::Claim;
use crate::vma::Vma;
use alloc::sync::Arc;

/// Whether a claimed slot could be read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Content {
    Read,
    Unreadable,
}

impl<M: Machine> Mm<M> {
    /// Reads a claimed slot and maps its page writable, if its entry is still the slot's only user.
    pub(super) fn swap_in_alone(
        self: &Arc<Self>,
        vma: &Arc<Vma<M>>,
        fault: &mut Fault<M>,
        claim: Claim<M::Mutex>,
    ) -> Result<Step, Refusal> {
        let manager = &self.manager;
        let slot = claim.slot();
        let frame = match manager.allocate() {
            Ok(frame) => frame,
            Err(error) => {
                manager.release_and_free(slot);
                return Err(error.into());
            }
        };
        claim.prefetch();
        let content = match manager.read_slot(frame, slot, |bytes| claim.read(bytes)) {
            Ok(()) => {
                fault.weight = Weight::Major;
                manager.page(frame).set(&*manager.machine, PageFlags::UPTODATE);
                if fault.purpose == Purpose::Guess {
                    manager.mark_guessed(frame, Ahead::Swapped);
                }
                // Queued before it is mapped: afterwards another thread may free it at any moment.
                manager.enqueue(frame, Some(Key::Swap(slot).hash()));
                Content::Read
            }
            Err(_) => Content::Unreadable,
        };
        // Processors may still read the frame that was evicted.
        self.await_flushes_of(fault.page);
        let step = self.map_claimed(vma, fault, claim, frame, content);
        if step != Ok(Step::Done(Correction::SwapIn)) {
            manager.put(frame);
            manager.release_and_free(slot);
        }
        step
    }

    /// Replaces the entry that names a claimed slot. The caller's reference to the page becomes the
    /// entry's, and the slot is the fault's to free. If it is not replaced, the claim is the caller's to
    /// release.
    fn map_claimed(
        &self,
        vma: &Arc<Vma<M>>,
        fault: &mut Fault<M>,
        claim: Claim<M::Mutex>,
        frame: Frame,
        content: Content,
    ) -> Result<Step, Refusal> {
        let Some(mut cursor) = self.existing_entries(page_range(fault.page)) else {
            return Ok(Step::Again);
        };
        if !vma.is_alive() || cursor.entry(fault.page) != Entry::Swap(claim.slot()) {
            return Ok(Step::Again);
        }
        if content == Content::Unreadable {
            return Err(Refusal::Bus);
        }
        let Some(family) = &vma.anon else { return Ok(Step::Again) };
        // A relative came to share the slot meanwhile: the page belongs into the swap cache.
        let Ok(unused) = claim.take() else { return Ok(Step::Again) };
        let manager = &self.manager;
        let page = manager.page(frame);
        page.set_owner(Owner::Anon(family.id), vma.index_of(fault.page));
        manager.count_mapping(page);
        self.count_rss(Kind::Anon, 1);
        let protection = vma.written_protection();
        let accessed = fault.purpose == Purpose::Access;
        cursor.replace(fault.page, Entry::Present { frame, protection, accessed, dirty: true });
        fault.unused = Some(unused);
        Ok(Step::Done(Correction::SwapIn))
    }
}
