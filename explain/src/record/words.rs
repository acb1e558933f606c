//! Entries and error codes in words.

use crate::model;
use pagefault::GUARD;
use pagefault::machine::{Access, Entry, ErrorCode, Mode, Protection};
use pagefault_sim::{Architecture, Rights, WalkStep};

/// A word of a level in words.
pub(super) fn word<A: Architecture>(raw: u64, level: u32) -> model::Entry {
    let fields = A::fields(raw, level).into_iter().map(|field| model::Field {
        name: field.name.into(),
        low: field.low,
        bits: field.bits,
        value: field.value,
        meaning: field.meaning.into(),
    });
    model::Entry { word: hex::<A>(raw), says: says::<A>(raw, level), fields: fields.collect() }
}

/// A leaf entry as the processor's tables hold it.
pub(super) fn entry<A: Architecture>(entry: Entry, mode: Mode) -> model::Entry {
    word::<A>(raw::<A>(entry, mode), 1)
}

/// The word for a leaf entry.
pub(super) fn raw<A: Architecture>(entry: Entry, mode: Mode) -> u64 {
    // It was read from a table, so it fits.
    A::encode(entry, mode).unwrap_or(0)
}

pub(super) fn hex<A: Architecture>(raw: u64) -> String {
    format!("{raw:#0width$x}", width = 2 + 2 * A::ENTRY_BYTES)
}

fn says<A: Architecture>(raw: u64, level: u32) -> String {
    match level {
        1 => entry_says(A::decode(raw)),
        _ if A::is_present(raw) => format!("the table in frame {}", A::frame(raw).0),
        _ => "empty".into(),
    }
}

/// The entry of a guard page in words.
pub(super) const GUARD_PAGE: &str = "a guard page";

/// A leaf entry in words.
pub(super) fn entry_says(entry: Entry) -> String {
    match entry {
        Entry::None => "empty".into(),
        Entry::Swap(GUARD) => GUARD_PAGE.into(),
        Entry::Swap(slot) => format!("slot {} of swap area {}", slot.offset, slot.area),
        Entry::File(index) => format!("page {index} of the file"),
        Entry::Present { frame, protection, accessed, dirty } => {
            if protection.is_empty() {
                return format!("frame {}, no access", frame.0);
            }
            let accessed = if accessed { ", accessed" } else { "" };
            let dirty = if dirty { ", dirty" } else { "" };
            format!("frame {}, {}{accessed}{dirty}", frame.0, letters(protection))
        }
    }
}

/// `rwx`, with `-` for what is not allowed.
pub(super) fn letters(protection: Protection) -> String {
    let letters = [(Protection::READ, 'r'), (Protection::WRITE, 'w'), (Protection::EXECUTE, 'x')];
    letters
        .iter()
        .map(|(bit, letter)| if protection.contains(*bit) { *letter } else { '-' })
        .collect()
}

/// The rights of a translation.
pub(super) fn rights(rights: Rights) -> String {
    let letters =
        [(rights.read, 'r'), (rights.write, 'w'), (rights.execute, 'x'), (rights.user, 'u')];
    letters.iter().filter(|(has, _)| *has).map(|(_, letter)| *letter).collect()
}

pub(super) const fn kind(access: Access) -> &'static str {
    match access {
        Access::Read => "load",
        Access::Write => "store",
        Access::Execute => "fetch",
    }
}

pub(super) const fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::User => "user",
        Mode::Kernel => "kernel",
    }
}

/// The bits of an error code (spec A2).
pub(super) fn code(code: ErrorCode) -> Vec<model::Field> {
    let meaning = |bit: ErrorCode, yes: &str, no: &str| {
        String::from(if code.contains(bit) { yes } else { no })
    };
    let bits = [
        ("I", 4, ErrorCode::FETCH, "an instruction fetch", "no fetch, or not told"),
        (
            "RSVD",
            3,
            ErrorCode::RESERVED,
            "a reserved bit is set in a table",
            "the tables are sound",
        ),
        ("U", 2, ErrorCode::USER, "user mode", "kernel mode"),
        ("W", 1, ErrorCode::WRITE, "a store", "a load"),
        ("P", 0, ErrorCode::PROTECTION, "present, but forbidden", "not present"),
    ];
    bits.into_iter()
        .map(|(name, low, bit, yes, no)| model::Field {
            name: name.into(),
            low,
            bits: 1,
            value: u64::from(code.contains(bit)),
            meaning: meaning(bit, yes, no),
        })
        .collect()
}

/// The entries that a walk met.
pub(super) fn walk<A: Architecture>(steps: &[WalkStep]) -> Vec<model::Walked> {
    let walked = |step: &WalkStep| model::Walked {
        level: step.level,
        table: step.table.0,
        index: step.index,
        entry: word::<A>(step.raw, step.level),
    };
    steps.iter().map(walked).collect()
}

/// The levels of a processor's tables, the root first.
pub(super) fn levels<A: Architecture>() -> Vec<model::Level> {
    (1..=A::LEVELS)
        .rev()
        .map(|level| model::Level {
            level,
            name: level_name::<A>(level).into(),
            shift: A::shift(level),
            // Two bits are left for the four entries of the PAE root.
            bits: if A::NAME == "pae" && level == 3 { 2 } else { A::INDEX_BITS },
        })
        .collect()
}

/// The name of a level of tables.
pub(super) fn level_name<A: Architecture>(level: u32) -> &'static str {
    match (A::NAME, level) {
        ("alpha", 3) => "level 1",
        ("alpha", 2) => "level 2",
        ("alpha", 1) => "level 3",
        (_, 4) => "PML4",
        (_, 3) => "PDPT",
        (_, 2) => "PD",
        _ => "PT",
    }
}
