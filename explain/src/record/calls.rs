//! One plain sentence for each call of a script.

use super::sentences::size;
use crate::model::{Process, State};
use pagefault_script::ast::{
    Address, Advice, Content, Line, LockAll, Locking, MapFlags, Mmap, Moving, Mremap, Op,
    Protection, Range, Sharing, SwapOn, SyncFlag,
};

/// A sentence, and the numbers of the specification behind it.
type Told = (String, Vec<&'static str>);

/// Tells what a line did, other than an access.
pub(super) fn tell(line: &Line, answer: &str, before: &State, after: &State) -> Told {
    let who = &line.process;
    let refused = answer.starts_with('E')
        && answer.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit());
    if let Op::Brk(name, length) = &line.op {
        return moved_break(who, name, *length, answer);
    }
    let (done, spec) = told(line, before, after);
    if refused {
        let rest = match before == after {
            true => "Nothing has changed.",
            false => "The part before the failure is done.",
        };
        return (format!("{who}'s call is refused: {answer}. {rest}"), spec);
    }
    (done, spec)
}

fn told(line: &Line, before: &State, after: &State) -> Told {
    let who = &line.process;
    let touches_nothing = |text: &str| (text.into(), Vec::new());
    match &line.op {
        Op::Mmap(mmap) => mapped(who, mmap),
        Op::Munmap(range) => unmapped(who, range),
        Op::Mprotect(range, protection, _) => protected(who, range, *protection),
        Op::Mremap(mremap) => remapped(who, mremap),
        Op::Madvise(range, Advice::PageOut) => pushed_out(who, range, before, after),
        Op::Madvise(range, advice) => {
            (advised(who, &range.address.to_string(), *advice), vec!["C16"])
        }
        Op::Msync(range, sync) => synced(who, range, *sync),
        Op::Mlock(..) | Op::Munlock(_) | Op::MlockAll(_) | Op::MunlockAll => locked(who, &line.op),
        Op::Mseal(range) => sealed(who, range),
        Op::RemapFilePages(range, page) => rearranged(who, range, *page),
        Op::Brk(..) => (format!("{who} moves its break."), vec!["C15"]),
        Op::Poke(address, _) => poked(who, address, before, after),
        Op::Peek(range) => peeked(who, range),
        Op::Fork(child) => forked(who, child, after),
        Op::Exit => ended(who),
        Op::Reclaim(pages) => reclaimed(*pages, before, after),
        Op::File { name, length, .. } => made_file(name, *length),
        Op::Device { name, length, .. } => made_device(name, *length),
        Op::Truncate(name, length) => truncated(name, *length),
        Op::Pwrite(name, offset, bytes) => written(name, *offset, bytes.len()),
        Op::Pread(name, offset, length) => read(name, *offset, *length),
        Op::Fsync(name) => {
            (format!("The dirty pages of file {name} are written to it."), vec!["D8"])
        }
        Op::KernelMap(name, length) => mapped_by_kernel(name, *length),
        Op::Cpu(number) => (format!("From here on, CPU {number} makes the accesses."), Vec::new()),
        Op::Maps(name) => (format!("{who} asks for its mappings in {name}."), Vec::new()),
        Op::SwapOn(area) => swap_added(area),
        Op::SwapOff(area) => swap_removed(*area),
        Op::Check => ("Every invariant is checked.".into(), vec!["I1", "I21"]),
        Op::Fail { what, nth } => (format!("From here on, {what} number {nth} fails."), Vec::new()),
        Op::Mincore(range) => {
            (format!("{who} asks which pages of {} are in memory.", range.address), vec!["C18"])
        }
        Op::Write(..) | Op::Fill(..) | Op::Read(..) | Op::Exec(..) | Op::Prefetch { .. } => {
            touches_nothing("The access is outside the addresses that a script may touch.")
        }
        Op::ToUser(..) | Op::FromUser(..) => moved_nothing(),
        Op::KernelRead(..) | Op::KernelWrite(..) => touches_nothing("The kernel moves no byte."),
    }
}

fn mapped(who: &str, mmap: &Mmap) -> Told {
    let sharing = match mmap.sharing {
        Sharing::Private => "private",
        Sharing::Shared => "shared",
    };
    let content = match &mmap.content {
        Content::Anonymous => format!("{sharing} anonymous memory"),
        Content::File { name, offset } => {
            format!(
                "{sharing} memory of {name} from page {}",
                offset / pagefault::machine::PAGE_SIZE
            )
        }
    };
    let kind = match mmap.flags.contains(MapFlags::GROWSDOWN) {
        true => ", which grows down like a stack",
        false => "",
    };
    let then = match mmap.flags.contains(MapFlags::POPULATE) {
        true => "its pages are faulted in at once",
        false => "pages and tables are made when they are touched",
    };
    let name = &mmap.name;
    let text = format!(
        "{who} maps {} at {name}: {content}{kind}. A region is inserted; {then}.",
        size(mmap.length)
    );
    (text, vec!["C7", "C10"])
}

fn unmapped(who: &str, range: &Range) -> Told {
    let text = format!(
        "{who} unmaps {} from {}: the region goes, every entry is taken out, and no frame is reused before the TLBs are flushed.",
        size(range.length),
        range.address
    );
    (text, vec!["C11", "E5", "G4"])
}

fn protected(who: &str, range: &Range, protection: Protection) -> Told {
    let text = format!(
        "{who} sets {} on {} from {}: a region with these rights replaces the old one, and each present entry is rewritten.",
        match protection.is_empty() {
            true => "no access".into(),
            false => protection.to_string(),
        },
        size(range.length),
        range.address
    );
    (text, vec!["C12"])
}

fn remapped(who: &str, mremap: &Mremap) -> Told {
    let place = &mremap.address;
    let text = match mremap.moving {
        Moving::Leaving => format!(
            "{who} moves the pages of the mapping at {place}: entries go, pages are not copied, and the mapping stays, as one that was never touched."
        ),
        _ => format!(
            "{who} moves or resizes the mapping at {place}: entries go along, pages are not copied."
        ),
    };
    (text, vec!["C13", "C14"])
}

fn synced(who: &str, range: &Range, sync: SyncFlag) -> Told {
    let place = &range.address;
    match sync {
        SyncFlag::Sync => (
            format!(
                "{who} has the dirty pages of the file behind {place} written, and waits for it."
            ),
            vec!["C18", "D8"],
        ),
        _ => {
            (format!("{who} asks for the pages of {place} to be written eventually."), vec!["C18"])
        }
    }
}

fn locked(who: &str, op: &Op) -> Told {
    let of = |range: &Range| format!("{} from {}", size(range.length), range.address);
    let text = match op {
        Op::Mlock(range, Locking::AtOnce) => format!("{who} keeps {} in memory.", of(range)),
        Op::Mlock(range, Locking::OnFault) => {
            format!("{who} keeps {} in memory, each page from its first touch on.", of(range))
        }
        Op::Munlock(range) => format!("{who} lets {} leave memory again.", of(range)),
        Op::MlockAll(what) => {
            let which = match (what.contains(LockAll::CURRENT), what.contains(LockAll::FUTURE)) {
                (true, true) => "all mappings, and those to come,",
                (false, true) => "mappings to come",
                _ => "all mappings",
            };
            format!("{who} keeps {which} in memory.")
        }
        _ => format!("{who} lets all its pages leave memory again."),
    };
    (text, vec!["C17"])
}

fn sealed(who: &str, range: &Range) -> Told {
    let text = format!(
        "{who} seals {} from {}: nothing unmaps, moves or changes the mapping any more.",
        size(range.length),
        range.address
    );
    (text, vec!["J12"])
}

fn rearranged(who: &str, range: &Range, page: u64) -> Told {
    let text = format!(
        "{who} maps the object's pages from page {page} on at {}: the entries name them out of order, and the region is nonlinear from now on.",
        range.address
    );
    (text, vec!["C19", "B12"])
}

fn poked(who: &str, address: &Address, before: &State, after: &State) -> Told {
    let text = format!(
        "A debugger stores into {who}'s memory at {address}: the forced access needs only rights that mprotect could give. {}",
        match after.free < before.free {
            true => "The page is copied first, and its entry stays read-only.",
            false => "The page is the process's own already, and its entry stays as it is.",
        }
    );
    (text, vec!["H6", "B20"])
}

fn peeked(who: &str, range: &Range) -> Told {
    let text = format!(
        "A debugger reads {who}'s memory at {}: the forced access needs only rights that mprotect could give.",
        range.address
    );
    (text, vec!["H6", "B20"])
}

fn ended(who: &str) -> Told {
    let text = format!(
        "{who} ends: every entry is taken out, references are dropped, and its tables are freed."
    );
    (text, vec!["E5", "E6", "E7"])
}

fn made_file(name: &str, length: u64) -> Told {
    let text = format!("A file {name} of {} is made. None of it is in memory.", size(length));
    (text, vec!["D1"])
}

fn made_device(name: &str, length: u64) -> Told {
    let text = format!(
        "A device {name} appears with {} of its own memory. Its frame numbers belong to no page of RAM.",
        size(length)
    );
    (text, vec!["B13"])
}

fn truncated(name: &str, length: u64) -> Told {
    let text = format!(
        "File {name} is cut to {length} bytes: pages past its end are unmapped and leave the cache."
    );
    (text, vec!["D10"])
}

fn written(name: &str, offset: u64, bytes: usize) -> Told {
    let text =
        format!("{bytes} bytes are written to file {name} at {offset}, through the page cache.");
    (text, vec!["D6"])
}

fn read(name: &str, offset: u64, length: u64) -> Told {
    let text =
        format!("{length} bytes are read from file {name} at {offset}, through the page cache.");
    (text, vec!["D2"])
}

fn mapped_by_kernel(name: &str, length: u64) -> Told {
    let text = format!(
        "The kernel maps {} for itself at {name}, in the reference table alone: no process's table has it yet.",
        size(length)
    );
    (text, vec!["A4"])
}

fn swap_added(area: &SwapOn) -> Told {
    let text = format!(
        "A swap area of {} pages is added. Its first page is the header, and its last is not used; the others are slots, {}.",
        area.pages,
        match area.bad.len() {
            0 => "all of them good".into(),
            1 => "except one that the header marks bad".into(),
            bad => format!("except {bad} that the header marks bad"),
        }
    );
    (text, vec!["F1", "F2"])
}

fn swap_removed(area: u64) -> Told {
    (format!("Swap area {area} is removed; its pages come back to memory first."), vec!["F12"])
}

fn moved_nothing() -> Told {
    let text =
        "The range is empty, or not entirely in user addresses: the kernel touches no memory.";
    (text.into(), vec!["H2"])
}

/// A call of `brk`: the answer is the break afterwards.
fn moved_break(who: &str, name: &str, length: u64, answer: &str) -> Told {
    let text = match answer == format!("{name}+{length:#x}") {
        true => format!(
            "{who}'s break is {} above {name} now: the heap is one private region that ends there. Growing makes no pages; shrinking unmaps what is above.",
            size(length)
        ),
        false => format!(
            "{who} asks for a break {} above {name}, but growth would meet another mapping: the break stays at {answer}.",
            size(length)
        ),
    };
    (text, vec!["C15"])
}

fn advised(who: &str, place: &str, advice: Advice) -> String {
    let what = match advice {
        Advice::DontNeed | Advice::DontNeedLocked => {
            "its entries are dropped, and private content is lost"
        }
        Advice::Free => "its pages may be dropped until they are stored to again",
        Advice::Cold => "its pages leave before others",
        Advice::PageOut => "its pages leave memory, used or not",
        Advice::WillNeed => "its pages are brought in ahead of need",
        Advice::Remove => "a hole is made in the object",
        Advice::PopulateRead | Advice::PopulateWrite => "its pages are faulted in at once",
        Advice::DontFork => "a child will not inherit it",
        Advice::DoFork => "a child will inherit it again",
        Advice::WipeOnFork => "a child will find zeros there",
        Advice::KeepOnFork => "a child will find its content there again",
        Advice::DontDump => "a core dump will leave it out",
        Advice::DoDump => "a core dump will have it again",
        Advice::GuardInstall => "each page becomes a guard, and an access raises SIGSEGV",
        Advice::GuardRemove => "guards become ordinary pages",
        Advice::Normal | Advice::Random | Advice::Sequential => {
            "the region notes how it will be read"
        }
    };
    format!("{who} advises {advice} for {place}: {what}.")
}

fn forked(who: &str, child: &str, after: &State) -> Told {
    let pages = |process: &&Process| process.pages.len();
    let copied =
        after.processes.iter().find(|process| process.name == *child).as_ref().map_or(0, pages);
    let copied = match copied {
        0 => "no entry needs a copy".into(),
        1 => "so is 1 entry".into(),
        n => format!("so are {n} entries"),
    };
    (
        format!(
            "{who} forks {child}: the regions are copied, and {copied}. Private pages are counted once more and read-only in both; where the parent loses the right to store, its translations are flushed."
        ),
        vec!["E1", "E2", "E3"],
    )
}

fn pushed_out(who: &str, range: &Range, before: &State, after: &State) -> Told {
    let left = match after.free.saturating_sub(before.free) {
        0 => "no page leaves".to_owned(),
        1 => "one page leaves".to_owned(),
        freed => format!("{freed} pages leave"),
    };
    let text = format!("{who} advises pageout for {}: {left} memory, used or not.", range.address);
    (text, vec!["C16", "F19", "F21"])
}

fn reclaimed(asked: u64, before: &State, after: &State) -> Told {
    let freed = after.free.saturating_sub(before.free);
    let pages = if asked == 1 { "page" } else { "pages" };
    let text = match freed {
        0 => format!("Reclaim is asked for {asked} {pages}, and frees none."),
        freed => format!("Reclaim is asked for {asked} {pages}, and frees {freed}."),
    };
    (
        format!(
            "{text} A page that leaves is write-protected, written if its slot or file lacks the content, unmapped through the reverse map, and freed after a flush."
        ),
        vec!["F18", "F19", "F20", "F21"],
    )
}
