//! What happened, as data: the one model that the terminal, the page and `--json` show.
//!
//! docs/explain.md documents the form that [`Explanation`] has as JSON. Words and addresses are
//! strings in hexadecimal, because they do not fit the numbers of every reader of JSON.

use serde::{Deserialize, Serialize};

/// The version of the form; raised when a field is removed or changes its meaning.
pub const FORMAT: u32 = 1;

/// A script, and what happened when it ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// [`FORMAT`].
    pub format: u32,
    /// The lesson's title, or the file's name.
    pub title: String,
    /// The text beside a lesson, in Markdown.
    pub prose: String,
    /// The computer that it ran on.
    pub computer: Computer,
    /// The script as it stands in its file, a string for each line.
    pub source: Vec<String>,
    /// The lines that ran, in order.
    pub operations: Vec<Operation>,
    /// Everything that happened, in order.
    pub steps: Vec<Step>,
    /// The states after the steps; several steps may share one.
    pub states: Vec<State>,
}

/// The computer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Computer {
    /// `x86-64`, `ia32`, `pae` or `alpha`.
    pub arch: String,
    /// Bytes of a page.
    pub page: u64,
    /// Bytes of an entry.
    pub entry_bytes: usize,
    /// The levels of tables, the root first.
    pub levels: Vec<Level>,
    /// Addresses from here on are the kernel's.
    pub task_size: String,
    /// Whether the processor sets accessed and dirty bits.
    pub sets_bits: bool,
    /// Frames.
    pub frames: u32,
    /// With fewer free frames than this, the background thread is woken.
    pub low: u32,
    /// It evicts pages until this many are free.
    pub high: u32,
    /// CPUs.
    pub cpus: u32,
}

/// One level of tables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Level {
    /// Its number, 1 for the leaves.
    pub level: u32,
    /// What the processor's manual or Linux calls it.
    pub name: String,
    /// The lowest bit of an address that selects one of its entries.
    pub shift: u32,
    /// How many bits do.
    pub bits: u32,
}

/// A line of the script that ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// The line's number.
    pub line: usize,
    /// The process that ran it.
    pub process: String,
    /// The operation as the language prints it.
    pub text: String,
    /// Its answer.
    pub answer: String,
    /// The index of its first step.
    pub first: usize,
    /// How many steps it has; at least 1.
    pub count: usize,
}

/// The kind of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// A call, or an action of no process, such as `reclaim`.
    Call,
    /// An access without a fault.
    Access,
    /// The processor could not translate an address.
    Hardware,
    /// The questions of the tree, in order.
    Decision,
    /// What corrected the fault.
    Correction,
    /// What the faulting code gets instead: a signal, a fixup, an oops.
    Refusal,
    /// The instruction runs again.
    Again,
    /// The background thread, woken by the line, makes room.
    Background,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// `LINE.N`, as links name it.
    pub id: String,
    /// The line of the script.
    pub line: usize,
    /// Its kind.
    pub phase: Phase,
    /// What happened, in one sentence.
    pub sentence: String,
    /// The requirements behind it: `B7`.
    pub spec: Vec<String>,
    /// The index of the state after it.
    pub state: usize,
    /// Its process.
    pub process: String,
    /// The access, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub access: Option<Access>,
    /// The questions and their answers.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub questions: Vec<Question>,
    /// The path through the decision figure: its lit boxes, in order.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub way: Vec<String>,
    /// The correction, by the name of its counter.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub correction: Option<String>,
    /// Whether the fault waited for a device.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub major: bool,
    /// The page's entry before.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub before: Option<Entry>,
    /// The page's entry after.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub after: Option<Entry>,
    /// What was done, in order.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub actions: Vec<Action>,
    /// The numbers that changed.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub counts: Vec<Count>,
}

/// An access of a CPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// The CPU.
    pub cpu: u32,
    /// `load`, `store` or `fetch`.
    pub kind: String,
    /// `user` or `kernel`.
    pub mode: String,
    /// The address.
    pub address: String,
    /// The address by the script's names.
    pub place: String,
    /// How many bytes.
    pub bytes: u64,
    /// What the TLB held.
    pub tlb: Tlb,
    /// The entries that the walk met, the root's first; empty after a hit.
    pub walk: Vec<Walked>,
    /// The fault, if it ended in one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fault: Option<Fault>,
}

/// What a TLB held for an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tlb {
    /// A translation that allows it.
    Hit,
    /// A translation whose entry is not marked dirty yet, so that a store walks the table.
    Clean,
    /// A translation that forbids it.
    Forbids,
    /// Nothing.
    Miss,
}

/// One entry that a walk met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Walked {
    /// The level of the table.
    pub level: u32,
    /// The frame that holds the table.
    pub table: u32,
    /// The index of the entry.
    pub index: usize,
    /// The entry.
    pub entry: Entry,
}

/// An entry of a page table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The word.
    pub word: String,
    /// Its meaning.
    pub says: String,
    /// Its parts, the highest bits first.
    pub fields: Vec<Field>,
}

/// A part of a word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// Its short name.
    pub name: String,
    /// The lowest bit.
    pub low: u32,
    /// How many bits.
    pub bits: u32,
    /// Their value.
    pub value: u64,
    /// What the value means.
    pub meaning: String,
}

/// A page fault as the processor reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The running number of the fault, from 1.
    pub number: usize,
    /// The faulting address (CR2).
    pub address: String,
    /// The error code.
    pub code: String,
    /// Its bits.
    pub bits: Vec<Field>,
}

/// A question of the decision figure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The box of the figure.
    pub node: String,
    /// The question.
    pub text: String,
    /// The answer.
    pub answer: String,
    /// The value that decided it.
    pub value: String,
    /// The requirement.
    pub spec: String,
}

/// One thing that was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// `allocate`, `free`, `zero`, `copy`, `read`, `write`, `entry`, `young`, `flush`, `table`,
    /// `prune`, `synchronise`, `evict` or `note`.
    pub kind: String,
    /// What was done, in words.
    pub text: String,
    /// The requirement that asks for it, if there is one.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub spec: String,
    /// The frame.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub frame: Option<u32>,
    /// The entry before.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub before: Option<Entry>,
    /// The entry after.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub after: Option<Entry>,
}

/// A number that changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// What it counts.
    pub what: String,
    /// Before the step.
    pub before: u64,
    /// After it.
    pub after: u64,
}

/// The computer at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The running processes.
    pub processes: Vec<Process>,
    /// The frames in use.
    pub frames: Vec<FrameUse>,
    /// How many are free.
    pub free: u32,
    /// The pages of files in memory.
    pub page_cache: Vec<Cached>,
    /// The swap cache: pages in memory whose content a slot has too, or is about to have.
    pub swap_cache: Vec<Cached>,
    /// The swap areas.
    pub swap: Vec<Area>,
    /// The TLBs, by CPU.
    pub tlbs: Vec<CpuTlb>,
    /// The small queue, of new pages; the page that leaves first is in front.
    pub small_queue: Vec<u32>,
    /// The main queue, of pages that were used again; likewise.
    pub main_queue: Vec<u32>,
    /// The memory manager's counters that are not 0, by name.
    pub counters: Vec<(String, u64)>,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its name.
    pub name: String,
    /// The number of its address space.
    pub space: u32,
    /// The frame of its root table (CR3).
    pub root: u32,
    /// Its regions in order.
    pub regions: Vec<Region>,
    /// Its entries that are not empty, in order.
    pub pages: Vec<PageEntry>,
    /// Frames that hold its page tables.
    pub tables: u32,
    /// Resident anonymous pages.
    pub anonymous: u64,
    /// Resident pages of files.
    pub file: u64,
    /// Faults without I/O.
    pub minor: u64,
    /// Faults with I/O.
    pub major: u64,
}

/// A region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Region {
    /// The first address.
    pub start: String,
    /// The address after the last.
    pub end: String,
    /// The start by the script's names.
    pub place: String,
    /// How many pages.
    pub pages: u64,
    /// `rwx`, with `-` for what is not allowed, and `p` or `s`.
    pub rights: String,
    /// `anonymous`, or the file's name.
    pub content: String,
    /// The page index of the start.
    pub index: u64,
    /// What else holds: `stack`, `locked`, `nonlinear`.
    pub marks: Vec<String>,
    /// The family of its anonymous pages, once there are any.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub family: Option<u64>,
}

/// An entry of a process's table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageEntry {
    /// The page's address.
    pub address: String,
    /// The same by the script's names.
    pub place: String,
    /// The word.
    pub word: String,
    /// What it says.
    pub says: String,
    /// The frame, if it is present.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub frame: Option<u32>,
    /// `present`, `none` (PROT_NONE), `swap` or `file`.
    pub kind: String,
    /// Whether it allows stores.
    pub writable: bool,
}

/// A frame in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameUse {
    /// Its number.
    pub frame: u32,
    /// `anonymous`, `file`, `device`, `table`, `zeros` or `kernel`.
    pub kind: String,
    /// Its owner and content.
    pub owner: String,
    /// References.
    pub refs: u32,
    /// Entries that name it.
    pub maps: u32,
    /// Whether its content differs from its store.
    pub dirty: bool,
    /// The addresses that map it, by the script's names: the reverse map.
    pub mapped_by: Vec<String>,
}

/// A page in a cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cached {
    /// The file's name and page, or the slot.
    pub key: String,
    /// The frame.
    pub frame: u32,
    /// Whether it must be written before it may leave.
    pub dirty: bool,
}

/// A swap area.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Area {
    /// Its number.
    pub area: u8,
    /// The number of usable slots.
    pub slots: u32,
    /// The used slots, each with its count of references (spec F4).
    pub used: Vec<(u32, u32)>,
}

/// A CPU and its TLB.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuTlb {
    /// The CPU.
    pub cpu: u32,
    /// The process whose table it has loaded; empty for the kernel's own.
    pub process: String,
    /// Its translations by address.
    pub entries: Vec<Translation>,
}

/// A translation that a TLB holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Translation {
    /// The page's address.
    pub address: String,
    /// The same by the script's names.
    pub place: String,
    /// The frame.
    pub frame: u32,
    /// `r`, `w`, `x`, `u`, `d` (known to be dirty) and `g` (global), those that apply.
    pub rights: String,
}
