//! Advice about memory: `madvise(2)` and its kin.

use super::manager::done;
use super::ranges::Ranges;
use super::{
    GATE, Manager, addresses, answer_unmapped, beyond_end, current, fork, guard, is_range,
    obeyed_below, pages, passive,
};
use crate::lock::Mutex;
use crate::process;
use crate::sys::{self, Errno, Result};
use core::ops::Range;
use linux_raw_sys::general as nr;
use pagefault::Advice;
use pagefault_machine::{Access, Protection, VirtAddr};

/// The meaning of advice for managed memory.
enum Meaning {
    /// The content goes, on the host and here.
    Drop,
    /// Only the memory manager acts.
    Ours(Advice),
    /// Bring the pages in, for such accesses.
    Populate(Advice, Access),
    /// Pages become guards, or are none any more.
    Guards(guard::Change),
    /// The host notes something about the mapping; the pages stay as they are.
    Noted,
}

fn meaning(advice: u32) -> Meaning {
    match advice {
        nr::MADV_DONTNEED | nr::MADV_DONTNEED_LOCKED => Meaning::Drop,
        nr::MADV_GUARD_INSTALL => Meaning::Guards(guard::Change::Install),
        nr::MADV_GUARD_REMOVE => Meaning::Guards(guard::Change::Remove),
        nr::MADV_FREE => Meaning::Ours(Advice::Free),
        nr::MADV_WILLNEED => Meaning::Ours(Advice::WillNeed),
        nr::MADV_COLD => Meaning::Ours(Advice::Cold),
        nr::MADV_PAGEOUT => Meaning::Ours(Advice::PageOut),
        nr::MADV_SEQUENTIAL => Meaning::Ours(Advice::Sequential),
        nr::MADV_RANDOM => Meaning::Ours(Advice::Random),
        nr::MADV_NORMAL => Meaning::Ours(Advice::Normal),
        nr::MADV_POPULATE_READ => Meaning::Populate(Advice::PopulateRead, Access::Read),
        nr::MADV_POPULATE_WRITE => Meaning::Populate(Advice::PopulateWrite, Access::Write),
        _ => Meaning::Noted,
    }
}

/// `madvise(2)`.
pub fn advise(start: u64, len: u64, advice: u32) -> Result {
    let call = |start: u64, len: u64| {
        // SAFETY: the program asks for it, and the runtime's own mappings are kept from it.
        unsafe { sys::call(nr::__NR_madvise, [start, len, advice.into()]) }
    };
    let host = |range: &Range<u64>| call(range.start, range.end - range.start);
    if is_range(start, len) && process::overlaps_runtime(start, len) {
        return answer_unmapped(nr::__NR_madvise, [advice.into(), 0]);
    }
    if let Some(len) = beyond_end(start, len) {
        return advise(start, len, advice).and(Err(Errno::ENOMEM));
    }
    let (Some(manager), Some(range)) = (current(), pages(start, len)) else {
        return call(start, len);
    };
    if let Meaning::Guards(change) = meaning(advice) {
        return guard::change(manager, &range, change, host);
    }
    if let Some(_gate) = passive::stay() {
        // The host may stop halfway, and has done then what comes before.
        manager.note_advice(&range, advice);
        let result = host(&range);
        note(&range, advice, &result, host);
        return result;
    }
    if !manager.manages_any(&range) {
        return call(start, len);
    }
    advise_managed(manager, &range, advice, host)
}

/// The same for a range with managed pages.
fn advise_managed(
    manager: &Manager,
    range: &Range<u64>,
    advice: u32,
    host: impl Fn(&Range<u64>) -> Result + Copy,
) -> Result {
    match meaning(advice) {
        Meaning::Drop => {
            let _gate = GATE.write();
            let result = host(range);
            let dropped = manager.parts(&(range.start..reached(range, &result, host)));
            dropped.iter().for_each(|(part, _)| manager.dropped(part));
            result
        }
        Meaning::Ours(advice) => in_pieces(range, manager, host, |part| {
            let _gate = GATE.read();
            let free = match advice {
                Advice::Free => sealed_below(manager, part),
                _ => part.end,
            };
            let (start, len) = (VirtAddr(part.start), free - part.start);
            done(manager.mm().madvise(start, len, advice))?;
            if free < part.end { Err(Errno::EPERM) } else { Ok(0) }
        }),
        Meaning::Populate(advice, access) => in_pieces(range, manager, host, |part| {
            let _gate = GATE.read();
            if guard::is_guard(part.start) {
                return host(part);
            }
            manager.populate(part, advice, access).map(|()| 0)
        }),
        Meaning::Noted | Meaning::Guards(_) => {
            // A fork comes before both or after both.
            let _gate = GATE.read();
            let result = host(range);
            note(range, advice, &result, host);
            result
        }
    }
}

/// Notes advice that a forked child needs, for as much of a range as the host obeyed.
fn note(range: &Range<u64>, advice: u32, result: &Result, host: impl Fn(&Range<u64>) -> Result) {
    if matches!(meaning(advice), Meaning::Noted) {
        fork::note(&(range.start..reached(range, result, host)), advice);
    }
}

/// The mappings that the program has sealed, for good.
static SEALED: Mutex<Ranges> = Mutex::new(Ranges::new());

/// `mseal(2)`.
pub fn seal(args: [u64; 6]) -> Result {
    let _gate = GATE.read();
    // SAFETY: the program asks for it; a sealed mapping keeps its content.
    let result = unsafe { sys::call(nr::__NR_mseal, args) }?;
    if let Some(range) = pages(args[0], args[1]) {
        SEALED.lock().insert(&range);
    }
    Ok(result)
}

/// Where the part of a region ends whose pages may go: those of a sealed mapping that cannot be stored to may not.
fn sealed_below(manager: &Manager, part: &Range<u64>) -> u64 {
    let is_fixed = |at: u64| {
        manager
            .parts(&(at..part.end))
            .first()
            .is_some_and(|(_, it)| !it.contains(Protection::WRITE))
    };
    let sealed = SEALED.lock().within(part);
    sealed.first().map(|it| it.start).filter(|at| is_fixed(*at)).unwrap_or(part.end)
}

/// How far the host has obeyed a call about a range that it may have refused halfway; what it has done it may
/// do once more.
pub(super) fn reached(
    range: &Range<u64>,
    result: &Result,
    host: impl Fn(&Range<u64>) -> Result,
) -> u64 {
    match result {
        // Pages that are locked, a mapping that is sealed.
        Err(Errno::EINVAL | Errno::EPERM) => {
            obeyed_below(range, |end| is_through(&host(&(range.start..end))))
        }
        result if is_through(result) => range.end,
        _ => range.start,
    }
}

/// Whether the host went through a whole range: it goes on behind a gap.
fn is_through(result: &Result) -> bool {
    matches!(result, Ok(_) | Err(Errno::ENOMEM))
}

/// Does something to each managed piece of a range, and the host's call to all others, from the
/// lowest up. As on the host, gaps are skipped and reported at the end, and others stop the walk.
fn in_pieces(
    range: &Range<u64>,
    manager: &Manager,
    host: impl Fn(&Range<u64>) -> Result,
    ours: impl Fn(&Range<u64>) -> Result,
) -> Result {
    let mut from = range.start;
    let mut result = Ok(0);
    let mut note = |answer: Result| match answer {
        Err(Errno::ENOMEM) => {
            result = answer;
            Ok(())
        }
        other => other.map(drop),
    };
    for (part, _) in manager.parts_now(range) {
        if from < part.start {
            note(host(&(from..part.start)))?;
        }
        from = part.end;
        note(ours(&part))?;
    }
    if from < range.end {
        note(host(&(from..range.end)))?;
    }
    result
}

impl Manager {
    /// Notes advice that the host obeys in a passive process, for the time after its takeover.
    fn note_advice(&self, range: &Range<u64>, advice: u32) {
        match meaning(advice) {
            Meaning::Ours(Advice::Free) => {
                for (part, _) in self.parts(range) {
                    self.bound.lock().freed.insert(&part);
                }
            }
            Meaning::Ours(advice @ (Advice::Sequential | Advice::Random | Advice::Normal)) => {
                for (part, _) in self.parts(range) {
                    let (start, len) = (VirtAddr(part.start), part.end - part.start);
                    // It only changes the speed.
                    let _ = self.mm().madvise(start, len, advice);
                }
            }
            _ => {}
        }
    }

    /// Follows the host, which has dropped the pages of a range.
    pub(super) fn dropped(&self, range: &Range<u64>) {
        if passive::is_passive() {
            return;
        }
        // SAFETY: the host has taken the pages away.
        unsafe { self.mm().space().forget(addresses(range)) };
        let (start, len) = (VirtAddr(range.start), range.end - range.start);
        // Locked regions refuse, if the host was told otherwise.
        let _ = self.mm().munlock(start, 0);
        let _ = self.mm().madvise(start, len, Advice::DontNeed);
    }

    /// Brings pages in, on the host too.
    pub(super) fn populate(
        &self,
        range: &Range<u64>,
        advice: Advice,
        access: Access,
    ) -> Result<()> {
        let (start, len) = (VirtAddr(range.start), range.end - range.start);
        done(self.mm().madvise(start, len, advice))?;
        let filled = self.mm().space().prefill(addresses(range), access);
        filled.map_err(|errno| Errno(errno.raw_os_error()))
    }
}
