//! Pages on their way into compressed memory, which the supervisor's compressor compresses.
//!
//! Each process has a *mailbox* of [`PLACES`] places behind [`Control`](crate::Control) in the shared
//! file. The owner copies a page to a place and hands it over. The tree's only compressor puts the
//! compressed bytes beside it. The owner takes them into its part of the pool. The owner never
//! waits: it may read the page, take it back, or hand over another one at any time, and it
//! compresses by itself if no place is free.
//!
//! A place's word has a *turn* beside its state. Every change by the owner begins a new turn, and
//! the compressor announces a result only in the turn in which it began. Since there is one
//! compressor, it overwrites the result of an old turn before it announces one of a later turn.

use crate::PoolUse;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use core::sync::atomic::{AtomicU32, AtomicU64};

/// The places of a mailbox.
pub const PLACES: usize = 64;
/// The bytes of a place: the page, and then its compressed form.
pub const PLACE: u64 = 2 * 4096;

/// All mailboxes together take at most this fraction of the pool.
const MAILBOXES: u64 = 8;

/// Empty, or a result that was taken.
const FREE: u64 = 0;
/// A page waits for the compressor.
const READY: u64 = 1;
/// The compressor is at work.
const BUSY: u64 = 2;
/// The result is there.
const DONE: u64 = 3;
const STATE: u64 = 3;
/// The shift and mask of the result's length in a place's word.
const LEN: u32 = 2;
const LEN_BITS: u64 = 0x3fff;
/// The shift of the turn.
const TURN: u32 = 16;

/// The states of a mailbox's places.
#[repr(C)]
pub struct Mailbox {
    words: [AtomicU64; PLACES],
    charge: Charge,
}

/// The owner's charge to the pool for a mailbox.
#[derive(Default)]
#[repr(C)]
pub(crate) struct Charge {
    /// [`USED`], the number of the area, and above it the bytes; 0 if the mailbox has no memory.
    word: AtomicU64,
}

const USED: u64 = 1 << 31;

impl Charge {
    fn word(area: usize, bytes: u32) -> u64 {
        u64::from(bytes) << 32 | USED | area as u64
    }

    /// The area and the bytes, from the bytes of a charge.
    #[cfg(feature = "std")]
    pub(crate) fn from_bytes(bytes: [u8; size_of::<Self>()]) -> Option<(usize, u32)> {
        let word = u64::from_ne_bytes(bytes);
        (word != 0).then_some(((word & (USED - 1)) as usize, (word >> 32) as u32))
    }
}

/// A page that the compressor has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    place: usize,
    word: u64,
}

impl Job {
    /// The number of the page's place.
    pub const fn place(&self) -> usize {
        self.place
    }
}

impl Mailbox {
    /// Makes every place free, before the owner uses the mailbox.
    pub fn clear(&self) {
        (0..PLACES).for_each(|place| self.take_back(place));
    }

    /// Hands the page at a place over to the compressor.
    pub fn hand_over(&self, place: usize) {
        self.begin_turn(place, READY);
    }

    /// Makes a place free, whatever its state.
    pub fn take_back(&self, place: usize) {
        self.begin_turn(place, FREE);
    }

    fn begin_turn(&self, place: usize, state: u64) {
        let Some(word) = self.words.get(place) else { return };
        let next = |word: u64| Some(((word >> TURN) + 1) << TURN | state);
        let _ = word.fetch_update(AcqRel, Relaxed, next);
    }

    /// The length of the result at a place, if it is there.
    pub fn result(&self, place: usize) -> Option<usize> {
        let word = self.words.get(place)?.load(Acquire);
        (word & STATE == DONE).then_some((word >> LEN & LEN_BITS) as usize)
    }

    /// The compressor begins a page that waits.
    pub fn begin(&self, from: usize) -> Option<Job> {
        (from..PLACES).find_map(|place| {
            let word = self.words[place].load(Relaxed);
            let begun = word & !STATE | BUSY;
            let is_mine = word & STATE == READY
                && self.words[place].compare_exchange(word, begun, Acquire, Relaxed).is_ok();
            is_mine.then_some(Job { place, word: begun })
        })
    }

    /// Announces a result of `len` bytes. Returns false if the owner no longer wants it.
    pub fn finish(&self, job: Job, len: usize) -> bool {
        let turn = job.word >> TURN << TURN;
        let done = turn | (len as u64 & LEN_BITS) << LEN | DONE;
        self.words[job.place].compare_exchange(job.word, done, Release, Relaxed).is_ok()
    }

    /// The offset of the charge in a mailbox.
    #[cfg(feature = "std")]
    pub(crate) const CHARGE: usize = core::mem::offset_of!(Self, charge);

    /// Notes that the mailbox has memory, and its charge to an area of the pool, so that the supervisor
    /// can take both back.
    pub fn note_charge(&self, area: usize, bytes: u32) {
        self.charge.word.store(Charge::word(area, bytes), Release);
    }
}

/// The meeting point of the tree's processes and the compressor.
#[repr(C)]
pub struct Offload {
    /// One of [`stage`].
    stage: AtomicU32,
    /// A futex: 1 while the compressor sleeps.
    asleep: AtomicU32,
    /// One bit for each slot whose mailbox may have a page that waits.
    waiting: [AtomicU64; crate::MOST_PROCESSES / 64],
    /// The bytes charged for mailboxes.
    mailboxes: AtomicU64,
}

/// The state of the compressor.
mod stage {
    /// No process has asked for it.
    pub const IDLE: u32 = 0;
    /// A process has asked for it.
    pub const ASKED: u32 = 1;
    /// It runs.
    pub const RUNS: u32 = 2;
    /// There is none on this machine.
    pub const NONE: u32 = 3;
}

impl Offload {
    /// Whether the compressor runs.
    pub fn runs(&self) -> bool {
        self.stage.load(Acquire) == stage::RUNS
    }

    /// Whether the caller is the first to need the compressor, and so must ask the supervisor for it.
    pub fn is_to_be_asked_for(&self) -> bool {
        self.stage.load(Relaxed) == stage::IDLE
            && self.stage.compare_exchange(stage::IDLE, stage::ASKED, Relaxed, Relaxed).is_ok()
    }

    /// Notes that the compressor runs.
    pub fn begin(&self) {
        self.stage.store(stage::RUNS, Release);
    }

    /// Notes that there is none and will be none.
    pub fn refuse(&self) {
        self.stage.store(stage::NONE, Release);
    }

    /// Charges a mailbox to an area of at most `limit` bytes. All mailboxes together get a part of the
    /// area, and compressed pages the rest.
    pub fn charge_mailbox(&self, pool: &PoolUse, area: usize, bytes: u64, limit: u64) -> bool {
        let more = |used: u64| Some(used + bytes).filter(|used| *used <= limit / MAILBOXES);
        if self.mailboxes.fetch_update(Relaxed, Relaxed, more).is_err() {
            return false;
        }
        let charged = pool.charge_bytes(area, bytes, limit);
        if !charged {
            self.mailboxes.fetch_sub(bytes, Relaxed);
        }
        charged
    }

    /// Takes back the charge for a mailbox.
    pub fn uncharge_mailbox(&self, pool: &PoolUse, area: usize, bytes: u64) {
        let less = |used: u64| used.checked_sub(bytes);
        let _ = self.mailboxes.fetch_update(Relaxed, Relaxed, less);
        pool.uncharge_bytes(area, bytes);
    }

    /// Notes that a page waits on the mailbox of a slot.
    pub fn announce(&self, slot: u32) {
        let (word, bit) =
            (&self.waiting[slot as usize / 64 % self.waiting.len()], 1 << (slot % 64));
        if word.load(Relaxed) & bit == 0 {
            word.fetch_or(bit, SeqCst);
        }
    }

    /// Whether the compressor sleeps, and the caller must wake it by the futex [`Offload::bell`].
    pub fn is_to_be_woken(&self) -> bool {
        self.asleep.load(SeqCst) == 1 && self.asleep.swap(0, SeqCst) == 1
    }

    /// The word that the compressor sleeps on.
    pub fn bell(&self) -> &AtomicU32 {
        &self.asleep
    }

    /// Notes that the compressor is about to sleep; it then looks for work once more.
    pub fn lie_down(&self) {
        self.asleep.store(1, SeqCst);
    }

    /// Notes that it is awake.
    pub fn get_up(&self) {
        self.asleep.store(0, SeqCst);
    }

    /// Takes the slots whose mailboxes may have work, one after the other.
    pub fn take_waiting(&self) -> impl Iterator<Item = u32> {
        (0_u32..).zip(&self.waiting).flat_map(|(number, word)| {
            let found = if word.load(SeqCst) == 0 { 0 } else { word.swap(0, SeqCst) };
            (0..64).filter(move |bit| found & 1 << bit != 0).map(move |bit| number * 64 + bit)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mailbox() -> Mailbox {
        let words = [const { AtomicU64::new(0) }; PLACES];
        Mailbox { words, charge: Charge::default() }
    }

    #[test]
    fn a_page_goes_to_the_compressor_and_its_result_comes_back() {
        let mailbox = mailbox();
        assert_eq!(mailbox.begin(0), None);
        mailbox.hand_over(5);
        assert_eq!(mailbox.result(5), None);
        let job = mailbox.begin(0).unwrap();
        assert_eq!((job.place(), mailbox.begin(0)), (5, None));
        assert!(mailbox.finish(job, 4096));
        assert_eq!(mailbox.result(5), Some(4096));
        mailbox.take_back(5);
        assert_eq!((mailbox.result(5), mailbox.begin(0)), (None, None));
    }

    #[test]
    fn a_result_that_comes_too_late_is_for_nobody() {
        let mailbox = mailbox();
        mailbox.hand_over(0);
        let late = mailbox.begin(0).unwrap();
        mailbox.take_back(0);
        assert!(!mailbox.finish(late, 100));
        mailbox.hand_over(0);
        assert!(!mailbox.finish(late, 100));
        let next = mailbox.begin(0).unwrap();
        assert!(!mailbox.finish(late, 100));
        assert!(mailbox.finish(next, 200));
        assert_eq!(mailbox.result(0), Some(200));
        assert!(!mailbox.finish(late, 100));
    }

    #[test]
    fn a_sleeping_compressor_is_woken_by_one() {
        // SAFETY: all zero is a value of atomics of integers.
        let offload: Offload = unsafe { core::mem::zeroed() };
        assert!(!offload.is_to_be_woken());
        offload.lie_down();
        offload.announce(77);
        assert!(offload.is_to_be_woken());
        assert!(!offload.is_to_be_woken());
        assert!(offload.take_waiting().eq([77]));
        assert_eq!(offload.take_waiting().next(), None);
        assert!(offload.is_to_be_asked_for());
        assert!(!offload.is_to_be_asked_for());
    }
}
