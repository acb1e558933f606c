//! One plain sentence for each step of a fault.

use super::decision::{Facts, Origin, Outcome, code};
use super::state::slot_name;
use super::{Story, Watched, words};
use crate::model::{self, Action, Phase, State, Tlb};
use pagefault::entry::{Oops, Signal, Verdict};
use pagefault::machine::{Entry, Frame, Mode, PAGE_SIZE, PageFault};
use pagefault::{Correction, Mm, VmaFlags, Watermarks};
use pagefault_sim::Architecture;
use std::sync::Arc;

type Told = (String, Vec<&'static str>);

/// An access that faulted.
pub(super) fn hardware<A: Architecture>(
    seen: &model::Access,
    facts: &Facts,
) -> (String, &'static [&'static str]) {
    let who = who(seen);
    let code = seen.fault.as_ref().map_or("", |fault| &fault.code);
    let why = match seen.tlb {
        Tlb::Forbids => "its TLB has the page but forbids the access".into(),
        _ => format!("TLB miss, and {}", walk_end::<A>(seen, facts)),
    };
    (format!("{who}: {why}. Page fault, error code {code}."), &["A1", "A2"])
}

fn walk_end<A: Architecture>(seen: &model::Access, facts: &Facts) -> String {
    let Some(last) = seen.walk.last() else { return "no table covers the address".into() };
    let name = words::level_name::<A>(last.level);
    match facts.entry {
        _ if last.level > 1 => {
            format!("the walk ends at the {name}, whose entry {} is empty", last.index)
        }
        Entry::Present { .. } => "the page's entry forbids it".into(),
        Entry::None => "the page's entry is empty".into(),
        _ => format!("the page's entry is not present ({})", last.entry.says),
    }
}

/// An access that succeeded.
pub(super) fn access(
    phase: Phase,
    seen: &model::Access,
    entry: Entry,
) -> (String, &'static [&'static str]) {
    let again = match phase {
        Phase::Again => "The instruction runs again: ",
        _ => "",
    };
    if seen.kind == "prefetch" && !matches!(entry, Entry::Present { .. }) {
        return (
            format!("{again}{}: the page is not mapped, and nothing happens.", who(seen)),
            &["A24"],
        );
    }
    let frame =
        entry.frame().map_or_else(|| "the page".into(), |frame| format!("frame {}", frame.0));
    let how = match seen.tlb {
        Tlb::Hit => format!("the TLB has {frame}"),
        Tlb::Clean => {
            let word = seen.walk.last().map_or("", |last| &last.entry.word);
            format!(
                "the translation is not marked dirty; a walk sets the entry's dirty bit, {word}"
            )
        }
        _ => format!("the walk finds {frame}; the TLB keeps the translation"),
    };
    let spec: &[&str] = match (phase, seen.tlb) {
        (Phase::Again, _) => &["A19"],
        (_, Tlb::Clean) => &["G5"],
        _ => &[],
    };
    (
        format!("{again}{} to {}: {how}.", subject(seen), seen.place).replacen(
            " to ",
            preposition(seen),
            1,
        ),
        spec,
    )
}

fn preposition(seen: &model::Access) -> &'static str {
    match seen.kind.as_str() {
        "store" => " to ",
        _ => " from ",
    }
}

fn subject(seen: &model::Access) -> String {
    let verb = match seen.kind.as_str() {
        "store" => "stores",
        "load" => "loads",
        "prefetch" => "prefetches",
        _ => "fetches",
    };
    let kernel = if seen.mode == "kernel" { ", in the kernel," } else { "" };
    format!("CPU {}{kernel} {verb}", seen.cpu)
}

fn who(seen: &model::Access) -> String {
    format!("{}{}{}", subject(seen), preposition(seen), seen.place)
}

/// How a fault ended.
pub(super) fn outcome<A: Architecture>(
    story: &Story<A>,
    mm: &Arc<Mm<Watched<A>>>,
    fault: &PageFault,
    facts: &Facts,
    outcome: &Outcome,
    after: &State,
) -> Told {
    let place = story.names.place(story.process(), fault.address.value());
    let new = super::decision::entry_of(mm, fault.address);
    match (outcome.verdict, outcome.correction) {
        (Verdict::Resume, Some(correction)) => {
            corrected(story, fault, facts, (correction, outcome, new), after)
        }
        (Verdict::Resume, None) if outcome.erratum.is_some() => (
            format!("The instruction at {} is a prefetch, and a prefetch must not fault: this one is an erratum of the processor. Nothing is corrected, nobody gets a signal, and the instruction runs again.", story.names.place(story.process(), fault.ip.value())),
            vec!["A24"],
        ),
        (Verdict::Resume, None) => (
            "The root's entry is copied from the reference table. No counter, lock or signal is touched."
                .into(),
            vec!["A5", "A6", "A7"],
        ),
        (Verdict::Signal(Signal::Segv(why)), _) => (
            format!("{} gets SIGSEGV, {}, for {place}; it can neither block nor ignore it.", story.process(), code(why)),
            vec!["A20"],
        ),
        (Verdict::Signal(Signal::Illegal), _) => (
            format!("The fault stands for an illegal instruction: {} gets SIGILL.", story.process()),
            vec!["A24"],
        ),
        (Verdict::Signal(Signal::Bus), _) => (
            format!("The page at {place} is past the end of its file, or cannot be read: {} gets SIGBUS, ADRERR.", story.process()),
            vec!["A23", "D2"],
        ),
        (Verdict::Fixup(to), _) => (
            format!("The exception table lists the kernel's instruction: the kernel continues at its fixup, {:#x}, and the call returns EFAULT or what it copied.", to.value()),
            vec!["A21", "H1", "H3"],
        ),
        (Verdict::Oops(oops), _) => (
            format!("Nothing expected this fault: the kernel reports {} at {:#x} and kills {}.", oops_words(oops), fault.address.value(), story.process()),
            vec!["A21"],
        ),
        (Verdict::OutOfMemory, _) => (
            format!("No frame is free for {}, and reclaim freed none: a process must be killed.", story.process()),
            vec!["A22", "F23"],
        ),
        (Verdict::Corrupt, _) => (
            format!("The table is reported as corrupt, and {} is killed.", story.process()),
            vec!["A10"],
        ),
    }
}

const fn oops_words(oops: Oops) -> &'static str {
    match oops {
        Oops::NullPointer => "a NULL pointer",
        Oops::PagingRequest => "a paging request that it cannot handle",
        Oops::OutOfMemory => "that it is out of memory",
    }
}

fn corrected<A: Architecture>(
    story: &Story<A>,
    fault: &PageFault,
    facts: &Facts,
    (correction, outcome, new): (Correction, &Outcome, Entry),
    after: &State,
) -> Told {
    let frame = new.frame().map_or(0, |frame| frame.0);
    let file = || {
        let used = after.frames.iter().find(|used| used.frame == frame);
        used.map_or_else(String::new, |used| used.owner.clone())
    };
    let (ahead, by_ahead): (String, &[&'static str]) = match outcome.ahead {
        0 => (String::new(), &[]),
        1 => (" One more page is read ahead.".into(), &["D3", "D4"]),
        more => (format!(" {more} more pages are read ahead."), &["D3", "D4"]),
    };
    match correction {
        Correction::Anonymous | Correction::Zero => fresh(story, correction, frame),
        Correction::File => (
            format!("{}, and the entry maps it.{ahead}", found(&file(), frame, outcome)),
            [&["B9", "B10", "D2"], by_ahead].concat(),
        ),
        Correction::Nonlinear => (
            format!(
                "The entry itself names the page. {}, and the entry maps it out of order.",
                found(&file(), frame, outcome)
            ),
            vec!["B12"],
        ),
        Correction::Device => (
            format!(
                "The driver names {}: frame {frame} is entered as it is. The memory manager does not own it, so it counts no reference, no reverse mapping and no resident page.",
                story.device_page(frame).unwrap_or("nothing yet")
            ),
            vec!["B13"],
        ),
        Correction::SwapIn => swapped(facts, outcome.major, new),
        Correction::CopyOnWrite => copied(story, facts, new, after),
        Correction::Reuse => reused(story, frame, after),
        Correction::Standby => (
            format!(
                "Reclaim had taken the entry's rights, to see whether the page is used before it leaves. It is: the entry allows the {} again, and the page stays.",
                words::kind(fault.access())
            ),
            vec!["B5", "F18"],
        ),
        Correction::Spurious => {
            let cpu = story.cpu;
            (
                format!(
                    "The entry allows the {} by now; only CPU {cpu}'s TLB was out of date. It forgets the page, and nothing else changes.",
                    words::kind(fault.access())
                ),
                vec!["B5", "G1"],
            )
        }
    }
}

/// A page that nothing was in before.
fn fresh<A: Architecture>(story: &Story<A>, correction: Correction, frame: u32) -> Told {
    match correction {
        Correction::Zero if story.sim_zero() == Some(frame) => (
            "Fresh memory is only read: the entry gets the shared frame of zeros, read-only and uncounted. A store will put a page in its place.".into(),
            vec!["B8"],
        ),
        Correction::Zero => (
            format!("Fresh memory is only read: frame {frame} is taken and filled with zeros; the first store is awaited."),
            vec!["B8"],
        ),
        _ => (
            format!("Fresh memory is stored to: frame {frame} is taken, filled with zeros and entered, writable and dirty."),
            vec!["B7"],
        ),
    }
}

/// A page whose entry becomes writable.
fn reused<A: Architecture>(story: &Story<A>, frame: u32, after: &State) -> Told {
    let used = after.frames.iter().find(|used| used.frame == frame && used.kind == "file");
    match used {
        _ if story.device_page(frame).is_some() => (
            format!(
                "The region is shared, and a store to a device needs no bookkeeping: the entry of frame {frame} becomes writable."
            ),
            vec!["B13", "B16"],
        ),
        Some(page) => (
            format!(
                "This is the first store to {} since it was last clean: the page is marked dirty, and the entry becomes writable.",
                page.owner
            ),
            vec!["B16", "B17", "D7"],
        ),
        None => (
            format!(
                "Frame {frame} has no other owner any more: nothing is copied, and the entry becomes writable."
            ),
            vec!["B15", "B16", "B17"],
        ),
    }
}

/// How a page of a file or object came into a frame.
fn found(page: &str, frame: u32, outcome: &Outcome) -> String {
    match outcome.origin(Frame(frame)) {
        Origin::Cache => format!("The page cache has {page} in frame {frame}"),
        Origin::File => {
            format!(
                "The page cache lacks {page}: the page is read from its file into frame {frame}"
            )
        }
        Origin::Zeros => {
            format!(
                "Neither the page cache nor a slot has {page}: it becomes a page of zeros in frame {frame}"
            )
        }
        Origin::Slot(slot) => format!(
            "The page cache lacks {page}: the page is read back from slot {} into frame {frame}",
            slot_name(slot)
        ),
    }
}

fn swapped(facts: &Facts, major: bool, new: Entry) -> Told {
    let slot = words::entry_says(facts.entry);
    let frame = new.frame().map_or(0, |frame| frame.0);
    let how = match major {
        true => format!("{slot} is read into frame {frame} (a major fault)"),
        false => format!("the swap cache still has the page of {slot}, frame {frame}"),
    };
    let then = match new.is_writable() {
        true => "no other entry names the slot, so the entry is writable at once",
        false => "the entry is read-only; the slot keeps its copy as long as the page stays clean",
    };
    let how = format!("{}{}", how[..1].to_uppercase(), &how[1..]);
    (format!("{how}, and {then}."), vec!["B14", "B15"])
}

fn copied<A: Architecture>(story: &Story<A>, facts: &Facts, new: Entry, after: &State) -> Told {
    let frame = new.frame().map_or(0, |frame| frame.0);
    let was_file = |old| after.frames.iter().any(|used| used.frame == old && used.kind == "file");
    match facts.entry {
        Entry::Present { frame: old, .. } if story.sim_zero() == Some(old.0) => (
            format!(
                "A copy of the frame of zeros is a fresh frame of zeros: frame {frame} takes its place."
            ),
            vec!["B8", "B18"],
        ),
        Entry::Present { frame: old, .. } if story.device_page(old.0).is_some() => (
            format!(
                "Frame {} is the device's: it is copied to frame {frame}, a page of the process's own, and the old translation is flushed. The device sees nothing of the store.",
                old.0
            ),
            vec!["B13", "B18"],
        ),
        Entry::None
            if facts
                .region
                .as_ref()
                .is_some_and(|region| region.flags.contains(VmaFlags::PFNMAP)) =>
        {
            (
                format!(
                    "A private store to a page of a device: its frame is entered read-only, then copied to frame {frame}, a page of the process's own. The device sees nothing of the store."
                ),
                vec!["B13", "B18"],
            )
        }
        Entry::Present { frame: old, .. } if was_file(old.0) => (
            format!(
                "Frame {} is the file's own page: it is copied to frame {frame}, the process's own, and the old translation is flushed.",
                old.0
            ),
            vec!["B16", "B18", "D6"],
        ),
        Entry::Present { frame: old, .. } => (
            format!(
                "Others may still read frame {}, so it is copied to frame {frame}; the old translation is flushed before the store.",
                old.0
            ),
            vec!["B16", "B18", "G1"],
        ),
        _ => (
            format!(
                "A private store to a page of a file: the page is copied to frame {frame} at once, and the file's own page stays as it is."
            ),
            vec!["B10", "D6"],
        ),
    }
}

/// Why a correction flushed no TLB.
pub(super) fn why_no_flush(facts: &Facts, outcome: &Outcome, actions: &[Action]) -> Option<Action> {
    let note = |text: &str, spec: &str| {
        Some(Action {
            kind: "note".into(),
            text: text.into(),
            spec: spec.into(),
            frame: None,
            before: None,
            after: None,
        })
    };
    if outcome.correction.is_none() || actions.iter().any(|action| action.kind == "flush") {
        return None;
    }
    match facts.entry {
        Entry::Present { .. } => note(
            "No TLB is flushed: the entry allows more than before, and a CPU with the old translation \
             faults spuriously.",
            "G1",
        ),
        _ => note("No TLB is flushed: the entry was not present, so no TLB has it.", "G1"),
    }
}

impl<A: Architecture> Story<A> {
    fn sim_zero(&self) -> Option<u32> {
        pagefault::machine::Machine::zero_frame(&self.sim).map(|frame| frame.0)
    }
}

/// The background thread has run.
pub(super) fn background(marks: Watermarks, free: u32, freed: usize) -> String {
    let found = match free {
        0 => "No frame is".to_owned(),
        1 => "1 frame is".to_owned(),
        n => format!("{n} frames are"),
    };
    let woken = format!(
        "{found} free, fewer than the low watermark, {}: the background thread was woken, and gets the CPU now.",
        marks.low
    );
    match freed {
        0 => format!("{woken} It finds no page that may leave, and sleeps."),
        _ => format!(
            "{woken} It evicts batches until the high watermark, {}, is reached: {freed} pages leave, and it sleeps.",
            marks.high
        ),
    }
}

/// A length in pages if it is whole pages, else in bytes.
pub(super) fn size(bytes: u64) -> String {
    match (bytes / PAGE_SIZE, bytes % PAGE_SIZE) {
        (1, 0) => "1 page".into(),
        (pages, 0) if pages > 0 => format!("{pages} pages"),
        _ => format!("{bytes} bytes"),
    }
}

/// The mode whose accesses an entry at an address serves.
pub(super) fn mode<A: Architecture>(address: u64) -> Mode {
    A::mode(pagefault::machine::VirtAddr(address))
}
