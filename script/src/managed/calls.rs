//! The calls that the memory manager answers alone.

use super::{answer, protection};
use crate::ast::{self, Advice, Begin, Locking, SyncFlag};
use crate::machine::{Call, Target};
use crate::outcome::{Errno, Mapping, Outcome};
use pagefault::machine::{self as waist, VirtAddr};
use pagefault::{LockAll, Mm, Move, Placement, RemapRequest, SyncMode};
use std::sync::Arc;

/// Answers such a call for a process.
pub(super) fn manage<M: waist::Machine>(mm: &Arc<Mm<M>>, call: &Call<'_>) -> Outcome {
    let at = VirtAddr;
    match *call {
        Call::BeginHeap { address } => {
            mm.begin_heap(at(address), 0);
            Outcome::Ok
        }
        Call::Brk { address } => {
            Outcome::Break(mm.brk(at(address), pagefault::MapOptions::empty()).value())
        }
        Call::Munmap { address, length } => answer(mm.munmap(at(address), length), |e| e.errno()),
        Call::Mprotect { address, length, protection: p, begin } => {
            let (address, p) = (at(address), protection(p));
            let done = match begin {
                Begin::Address => mm.mprotect(address, length, p),
                Begin::Stack => mm.mprotect_stack(address, length, p),
            };
            answer(done, |e| e.errno())
        }
        Call::Msync { address, length, sync } => {
            answer(mm.msync(at(address), length, sync_mode(sync)), |e| e.errno())
        }
        Call::Mlock { address, length, locking } => {
            let done = match locking {
                Locking::AtOnce => mm.mlock(at(address), length),
                Locking::OnFault => mm.mlock_on_fault(at(address), length),
            };
            answer(done, |e| e.errno())
        }
        Call::MlockAll { what } => {
            answer(mm.mlockall(LockAll::from_bits_truncate(what.bits())), |e| e.errno())
        }
        Call::MunlockAll => {
            mm.munlockall();
            Outcome::Ok
        }
        Call::Mseal { address, length } => answer(mm.seal(at(address), length), |e| e.errno()),
        Call::Munlock { address, length } => answer(mm.munlock(at(address), length), |e| e.errno()),
        Call::Mremap { address, old, new, target } => {
            let movement = match target {
                Target::Stay => Move::Never,
                Target::Fixed(target) => Move::To(at(target)),
                Target::Leaving(target) => Move::Leaving(Placement::Hint(at(target))),
                Target::LeavingFixed(target) => Move::Leaving(Placement::Fixed(at(target))),
                Target::FixedButStay(_) => return Outcome::Errno(Errno::EINVAL),
            };
            let address = at(address);
            let request = RemapRequest { address, old_length: old, new_length: new, movement };
            answer(mm.mremap(&request), |e| e.errno())
        }
        Call::Madvise { address, length, advice: a } => {
            answer(mm.madvise(at(address), length, advice(a)), |e| e.errno())
        }
        Call::RemapFilePages { address, length, page } => {
            answer(mm.remap_file_pages(at(address), length, page), |e| e.errno())
        }
        Call::Mincore { address, length } => {
            answer(mm.mincore(at(address), length, |_, _| ()), |e| e.errno())
        }
        Call::Maps { start, end } => maps(mm, start, end),
        // The machine has answered the other calls.
        _ => Outcome::Errno(Errno::ENOSYS),
    }
}

fn maps<M: waist::Machine>(mm: &Arc<Mm<M>>, start: u64, end: u64) -> Outcome {
    let regions = mm.maps(VirtAddr(start)..VirtAddr(end));
    let cut = regions.iter().map(|region| Mapping {
        start: region.range.start.value().max(start),
        end: region.range.end.value().min(end),
        protection: ast::Protection::from_bits_truncate(region.protection.bits()),
        sharing: if region.shared { ast::Sharing::Shared } else { ast::Sharing::Private },
    });
    Outcome::Maps(cut.collect())
}

fn sync_mode(flag: SyncFlag) -> SyncMode {
    match flag {
        SyncFlag::Sync => SyncMode::Sync,
        SyncFlag::Async => SyncMode::Async,
        SyncFlag::Invalidate => SyncMode::Invalidate,
    }
}

fn advice(advice: Advice) -> pagefault::Advice {
    match advice {
        Advice::Normal => pagefault::Advice::Normal,
        Advice::Random => pagefault::Advice::Random,
        Advice::Sequential => pagefault::Advice::Sequential,
        Advice::WillNeed => pagefault::Advice::WillNeed,
        Advice::DontNeed => pagefault::Advice::DontNeed,
        Advice::Free => pagefault::Advice::Free,
        Advice::Remove => pagefault::Advice::Remove,
        Advice::DontFork => pagefault::Advice::DontFork,
        Advice::DoFork => pagefault::Advice::DoFork,
        Advice::Cold => pagefault::Advice::Cold,
        Advice::PageOut => pagefault::Advice::PageOut,
        Advice::PopulateRead => pagefault::Advice::PopulateRead,
        Advice::PopulateWrite => pagefault::Advice::PopulateWrite,
        Advice::DontNeedLocked => pagefault::Advice::DontNeedLocked,
        Advice::WipeOnFork => pagefault::Advice::WipeOnFork,
        Advice::KeepOnFork => pagefault::Advice::KeepOnFork,
        Advice::DontDump => pagefault::Advice::DontDump,
        Advice::DoDump => pagefault::Advice::DoDump,
        Advice::GuardInstall => pagefault::Advice::GuardInstall,
        Advice::GuardRemove => pagefault::Advice::GuardRemove,
    }
}
