//! Pages that a helper compresses: they wait uncompressed, and may be read or given up meanwhile.

use super::Mutex;
use pagefault_machine::store::PageBytes;

/// The most places: a bit each in a word.
pub const MOST: usize = u64::BITS as usize;

/// After a look that found no result, this many pages are handed over before the next look.
const PAUSE: u8 = 7;

/// A helper that compresses pages, and the places where they wait.
///
/// # Safety
/// [`Offload::page`] and [`Offload::result`] return the address of a page for every place, valid as
/// long as this value lives. No other thread writes the page. No thread writes the result after
/// [`Offload::finished`] has returned a length, until the place is handed over again.
pub unsafe trait Offload: Send + Sync {
    /// The number of places, at most [`MOST`]; 0 without a helper.
    fn places(&self) -> usize;
    /// The address of a place's page.
    fn page(&self, place: usize) -> *mut PageBytes;
    /// The address of the result.
    fn result(&self, place: usize) -> *const u8;
    /// Hands the page at a place to the helper.
    fn hand_over(&self, place: usize);
    /// Gives up a place's page, in any state.
    fn take_back(&self, place: usize);
    /// The length of the result, once it is finished; a page's length if the page does not
    /// compress.
    fn finished(&self, place: usize) -> Option<usize>;
}

/// No helper.
pub struct Nobody;

// SAFETY: there are no places.
unsafe impl Offload for Nobody {
    fn places(&self) -> usize {
        0
    }

    fn page(&self, _: usize) -> *mut PageBytes {
        core::ptr::null_mut()
    }

    fn result(&self, _: usize) -> *const u8 {
        core::ptr::null()
    }

    fn hand_over(&self, _: usize) {}

    fn take_back(&self, _: usize) {}

    fn finished(&self, _: usize) -> Option<usize> {
        None
    }
}

/// The slot whose page waits at each place.
pub(super) struct Waiting {
    /// One bit for each place that is taken.
    taken: u64,
    slots: [u32; MOST],
    /// How many more times not to look for results: the last look found none.
    pause: u8,
}

impl Waiting {
    pub(super) const fn new() -> Mutex<Self> {
        Mutex::new(Self { taken: 0, slots: [0; MOST], pause: 0 })
    }

    /// Takes a place for the page of a slot.
    pub(super) fn take(&mut self, slot: u32, places: usize) -> Option<usize> {
        let free = (!self.taken).trailing_zeros() as usize;
        if free >= places.min(MOST) {
            return None;
        }
        self.taken |= 1 << free;
        self.slots[free] = slot;
        Some(free)
    }

    /// Whether a place has the page of a slot.
    pub(super) const fn has(&self, place: usize, slot: u32) -> bool {
        place < MOST && self.taken & 1 << place != 0 && self.slots[place] == slot
    }

    pub(super) const fn give(&mut self, place: usize) {
        self.taken &= !(1 << place);
    }

    /// The places that are taken, with their slots.
    pub(super) fn all(&self) -> impl Iterator<Item = (usize, u32)> + use<> {
        let Self { taken, slots, .. } = *self;
        (0..MOST)
            .filter(move |place| taken & 1 << place != 0)
            .map(move |place| (place, slots[place]))
    }

    /// Whether to look for results: enough places are taken, and no look has just found nothing. A look
    /// reads one of the helper's cache lines for each place.
    pub(super) const fn is_worth_a_look(&mut self, places: usize) -> bool {
        if self.pause > 0 {
            self.pause -= 1;
            return false;
        }
        self.taken.count_ones() as usize * 2 >= places
    }

    /// Notes how many results a look found.
    pub(super) const fn note_look(&mut self, found: u64) {
        self.pause = if found > 0 { 0 } else { PAUSE };
    }
}
