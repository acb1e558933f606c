//! One plain sentence for each call of a script.

use super::sentences::size;
use crate::model::{Process, State};
use pagefault_script::ast::{Advice, Content, Line, MapFlags, Op, Sharing, SyncFlag};

/// Tells what a line did, other than an access.
pub(super) fn tell(
    line: &Line,
    answer: &str,
    before: &State,
    after: &State,
) -> (String, Vec<&'static str>) {
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

fn told(line: &Line, before: &State, after: &State) -> (String, Vec<&'static str>) {
    let who = &line.process;
    match &line.op {
        Op::Mmap(mmap) => {
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
        Op::Munmap(range) => (
            format!(
                "{who} unmaps {} from {}: the region goes, every entry is taken out, and no frame is reused before the TLBs are flushed.",
                size(range.length),
                range.address
            ),
            vec!["C11", "E5", "G4"],
        ),
        Op::Mprotect(range, protection, _) => (
            format!(
                "{who} sets {} on {} from {}: a region with these rights replaces the old one, and each present entry is rewritten.",
                match protection.is_empty() {
                    true => "no access".into(),
                    false => protection.to_string(),
                },
                size(range.length),
                range.address
            ),
            vec!["C12"],
        ),
        Op::Mremap(mremap) => (
            format!(
                "{who} moves or resizes the mapping at {}: entries go along, pages are not copied.",
                mremap.address
            ),
            vec!["C13", "C14"],
        ),
        Op::Madvise(range, advice) => {
            (advised(who, &range.address.to_string(), *advice), vec!["C16"])
        }
        Op::Msync(range, SyncFlag::Sync) => (
            format!(
                "{who} has the dirty pages of the file behind {} written, and waits for it.",
                range.address
            ),
            vec!["C18", "D8"],
        ),
        Op::Msync(range, _) => (
            format!("{who} asks for the pages of {} to be written eventually.", range.address),
            vec!["C18"],
        ),
        Op::Mlock(range) => (
            format!("{who} keeps {} from {} in memory.", size(range.length), range.address),
            vec!["C17"],
        ),
        Op::Munlock(range) => (
            format!("{who} lets {} from {} leave memory again.", size(range.length), range.address),
            vec!["C17"],
        ),
        Op::RemapFilePages(range, page) => (
            format!(
                "{who} maps the object's pages from page {page} on at {}: the entries name them out of order, and the region is nonlinear from now on.",
                range.address
            ),
            vec!["C19", "B12"],
        ),
        Op::Brk(..) => (format!("{who} moves its break."), vec!["C15"]),
        Op::Poke(address, _) => (
            format!(
                "A debugger stores into {who}'s memory at {address}: the forced access needs only rights that mprotect could give. {}",
                match after.free < before.free {
                    true => "The page is copied first, and its entry stays read-only.",
                    false => "The page is the process's own already, and its entry stays as it is.",
                }
            ),
            vec!["H6", "B20"],
        ),
        Op::Peek(range) => (
            format!(
                "A debugger reads {who}'s memory at {}: the forced access needs only rights that mprotect could give.",
                range.address
            ),
            vec!["H6", "B20"],
        ),
        Op::Fork(child) => forked(who, child, after),
        Op::Exit => (
            format!(
                "{who} ends: every entry is taken out, references are dropped, and its tables are freed."
            ),
            vec!["E5", "E6", "E7"],
        ),
        Op::Reclaim(pages) => reclaimed(*pages, before, after),
        Op::File { name, length, .. } => (
            format!("A file {name} of {} is made. None of it is in memory.", size(*length)),
            vec!["D1"],
        ),
        Op::Device { name, length, .. } => (
            format!(
                "A device {name} appears with {} of its own memory. Its frame numbers belong to no page of RAM.",
                size(*length)
            ),
            vec!["B13"],
        ),
        Op::Truncate(name, length) => (
            format!(
                "File {name} is cut to {length} bytes: pages past its end are unmapped and leave the cache."
            ),
            vec!["D10"],
        ),
        Op::Pwrite(name, offset, bytes) => (
            format!(
                "{} bytes are written to file {name} at {offset}, through the page cache.",
                bytes.len()
            ),
            vec!["D6"],
        ),
        Op::Pread(name, offset, length) => (
            format!(
                "{length} bytes are read from file {name} at {offset}, through the page cache."
            ),
            vec!["D2"],
        ),
        Op::Fsync(name) => {
            (format!("The dirty pages of file {name} are written to it."), vec!["D8"])
        }
        Op::KernelMap(name, length) => (
            format!(
                "The kernel maps {} for itself at {name}, in the reference table alone: no process's table has it yet.",
                size(*length)
            ),
            vec!["A4"],
        ),
        Op::Cpu(number) => (format!("From here on, CPU {number} makes the accesses."), Vec::new()),
        Op::Maps(name) => (format!("{who} asks for its mappings in {name}."), Vec::new()),
        Op::SwapOn(area) => (
            format!(
                "A swap area of {} pages is added. Its first page is the header; the others are slots, {}.",
                area.pages,
                match area.bad.len() {
                    0 => "all of them good".into(),
                    1 => "except one that the header marks bad".into(),
                    bad => format!("except {bad} that the header marks bad"),
                }
            ),
            vec!["F1", "F2"],
        ),
        Op::SwapOff(area) => (
            format!("Swap area {area} is removed; its pages come back to memory first."),
            vec!["F12"],
        ),
        Op::Check => ("Every invariant is checked.".into(), vec!["I1", "I21"]),
        Op::Fail { what, nth } => (format!("From here on, {what} number {nth} fails."), Vec::new()),
        Op::Mincore(range) => {
            (format!("{who} asks which pages of {} are in memory.", range.address), vec!["C18"])
        }
        Op::Write(..) | Op::Fill(..) | Op::Read(..) | Op::Exec(..) | Op::Prefetch { .. } => {
            ("The access is outside the addresses that a script may touch.".into(), Vec::new())
        }
        Op::ToUser(..) | Op::FromUser(..) => (
            "The range is empty, or not entirely in user addresses: the kernel touches no memory."
                .into(),
            vec!["H2"],
        ),
        Op::KernelRead(..) | Op::KernelWrite(..) => {
            ("The kernel moves no byte.".into(), Vec::new())
        }
    }
}

/// A call of `brk`: the answer is the break afterwards.
fn moved_break(who: &str, name: &str, length: u64, answer: &str) -> (String, Vec<&'static str>) {
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
        Advice::DontNeed => "its entries are dropped, and private content is lost",
        Advice::Free => "its pages may be dropped until they are stored to again",
        Advice::Cold => "its pages leave before others",
        Advice::PageOut => "its pages are pushed out now",
        Advice::WillNeed => "its pages are brought in ahead of need",
        Advice::Remove => "a hole is made in the object",
        Advice::PopulateRead | Advice::PopulateWrite => "its pages are faulted in at once",
        Advice::DontFork => "a child will not inherit it",
        Advice::DoFork => "a child will inherit it again",
        Advice::Normal | Advice::Random | Advice::Sequential => {
            "the region notes how it will be read"
        }
    };
    format!("{who} advises {advice} for {place}: {what}.")
}

fn forked(who: &str, child: &str, after: &State) -> (String, Vec<&'static str>) {
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

fn reclaimed(asked: u64, before: &State, after: &State) -> (String, Vec<&'static str>) {
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
