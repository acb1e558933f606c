//! Numbers for threads of control.

use core::cell::RefCell;
use pagefault_machine::ContextId;
use parking_lot::Mutex;

/// The numbers in use, as a set of bits.
static USED: Mutex<[bool; ContextId::LIMIT as usize]> =
    Mutex::new([false; ContextId::LIMIT as usize]);

/// Leases of the tasks of one exploration begin at a multiple of this, so that what is chosen by
/// the number's low bits repeats.
const ALIGNMENT: usize = 16;

thread_local! {
    static CONTEXT: RefCell<Option<Numbers>> = const { RefCell::new(None) };
}

/// Consecutive numbers, given back when they are dropped.
pub(crate) struct Numbers {
    first: u32,
    /// How many of them will be given back.
    leased: u32,
}

impl Numbers {
    /// One of the numbers.
    pub(crate) fn number(&self, index: u32) -> ContextId {
        ContextId(self.first + index)
    }
}

impl Drop for Numbers {
    fn drop(&mut self) {
        if self.leased == 0 {
            return;
        }
        let first = self.first as usize;
        USED.lock()[first..first + self.leased as usize].fill(false);
    }
}

/// The calling thread's number: the lowest free one at the first call, until the thread ends.
pub(crate) fn current() -> ContextId {
    let number = CONTEXT
        .try_with(|context| context.borrow_mut().get_or_insert_with(|| lease_at(1, 1)).number(0));
    // A thread that is past its end has none.
    number.unwrap_or(ContextId(ContextId::LIMIT))
}

/// Takes consecutive free numbers for the tasks of one exploration.
pub(crate) fn lease(count: u32) -> Numbers {
    lease_at(count, ALIGNMENT)
}

/// Makes a number that is leased elsewhere the calling thread's own.
pub(crate) fn adopt(number: ContextId) {
    CONTEXT.set(Some(Numbers { first: number.0, leased: 0 }));
}

fn lease_at(count: u32, alignment: usize) -> Numbers {
    let mut used = USED.lock();
    let length = count as usize;
    let is_free = |first: &usize| {
        used[*first..].len() >= length && used[*first..first + length].iter().all(|used| !used)
    };
    let free = (0..used.len()).step_by(alignment).find(is_free);
    match free {
        Some(first) => {
            used[first..first + length].fill(true);
            Numbers { first: first as u32, leased: count }
        }
        // Numbers from the limit on are allowed and not checked for anything.
        None => Numbers { first: ContextId::LIMIT, leased: 0 },
    }
}
