//! Fuzzes parsers of foreign input with corrupted valid input: none panics or loops forever.
//!
//! Each test makes a few thousand inputs, always the same ones. `PAGEFAULT_LONG=1` takes seeds from the
//! clock instead and runs for `PAGEFAULT_SECONDS`, an hour by default.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

extern crate alloc;

#[path = "../../pc/kernel/src/acpi.rs"]
#[allow(dead_code, reason = "the kernel uses all of it")]
mod acpi;
#[path = "../../runtime/src/seccomp/bpf.rs"]
#[allow(dead_code, reason = "the runtime uses all of it")]
mod bpf;
#[path = "../../runtime/src/site/shape.rs"]
#[allow(dead_code, reason = "the runtime uses all of it")]
mod shape;

/// The runtime's facts about its filters.
mod sys {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[allow(clippy::upper_case_acronyms, reason = "the name is that of errno(3)")]
    pub enum Errno {
        EINVAL,
    }
}

use fastrand::Rng;
use pagefault::machine::PAGE_SIZE;
use pagefault::swap::header::Header;
use pagefault_control::{Control, MOST_AREAS, MappedRing, Next, Plan, RECORDS};
use pagefault_script::ast::Script;
use pagefault_script::corpus;
use pagefault_script::diff::texts;
use pagefault_script::machine::{Catalogue, Entry, StartError};
use pagefault_script::parse::parse;
use pagefault_script::{managed, random, runner};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant, SystemTime};

/// Calls `f` with random numbers for each input, and names the seed of one that panics.
fn each_input(what: &str, few: u64, mut f: impl FnMut(&mut Rng)) {
    let long = std::env::var_os("PAGEFAULT_LONG").is_some_and(|value| value == "1");
    let seconds = std::env::var("PAGEFAULT_SECONDS").ok().and_then(|text| text.parse().ok());
    let clock = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos() as u64);
    let first = if long { clock } else { 0 };
    let end = Instant::now() + Duration::from_secs(seconds.unwrap_or(3600));
    for seed in first.. {
        let _named = Named { what, seed };
        f(&mut Rng::with_seed(seed));
        let tried = seed - first + 1;
        if if long { Instant::now() >= end } else { tried == few } {
            println!("{what}: {tried} inputs from seed {first} on");
            return;
        }
    }
}

struct Named<'a> {
    what: &'a str,
    seed: u64,
}

impl Drop for Named<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}: seed {}", self.what, self.seed);
        }
    }
}

/// Corrupts bytes: a few are changed, removed, doubled, or become edge cases of numbers.
fn spoil(rng: &mut Rng, bytes: &mut Vec<u8>) {
    const EDGES: [u64; 10] = [
        0,
        1,
        0x7f,
        0xff,
        0xffff,
        0x7fff_ffff,
        0xffff_ffff,
        i64::MAX as u64,
        u64::MAX - 4095,
        u64::MAX,
    ];
    for _ in 0..rng.usize(1..=6) {
        if bytes.is_empty() {
            return;
        }
        let at = rng.usize(..bytes.len());
        let length = rng.usize(1..=16).min(bytes.len() - at);
        match rng.u8(..6) {
            0 => bytes[at] = rng.u8(..),
            1 => bytes[at] ^= 1 << rng.u8(..8),
            2 => drop(bytes.drain(at..at + length)),
            3 => bytes.truncate(at),
            4 => {
                let piece = bytes[at..at + length].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => {
                let edge = rng.choice(EDGES).unwrap_or(0).to_le_bytes();
                let width = *rng.choice(&[2, 4, 8]).unwrap_or(&4);
                let width = width.min(bytes.len() - at);
                bytes[at..at + width].copy_from_slice(&edge[..width]);
            }
        }
    }
}

/// Corrupts a text word by word.
fn spoil_words(rng: &mut Rng, text: &str) -> String {
    const WORDS: [&str; 22] = [
        "0",
        "1",
        "1p",
        "-1",
        "0xffffffffffffffff",
        "0xfffffffffffff000p",
        "18446744073709551616",
        "at=",
        "at=A",
        "A+1p",
        "A+0xffffffffffffffff",
        "rwx",
        "-",
        "anon",
        "file=F",
        "off=1",
        "\"\\x\"",
        "\"",
        "p0:",
        "fork",
        "frames",
        "as",
    ];
    let mut lines: Vec<Vec<String>> =
        text.lines().map(|line| line.split(' ').map(String::from).collect()).collect();
    for _ in 0..rng.usize(1..=8) {
        let (from, to) = (rng.usize(..lines.len()), rng.usize(..lines.len()));
        match rng.u8(..6) {
            0 => lines.swap(from, to),
            1 => lines[to] = lines[from].clone(),
            _ => {
                let at = rng.usize(..lines[to].len());
                let other = lines[from][rng.usize(..lines[from].len())].clone();
                let word = if rng.bool() { other } else { rng.choice(WORDS).unwrap_or("").into() };
                match rng.u8(..3) {
                    0 => lines[to].insert(at, word),
                    1 => lines[to][at] = word,
                    _ => lines[to][at].push_str(&word),
                }
            }
        }
    }
    lines.iter().map(|words| words.join(" ") + "\n").collect()
}

/// A parsed script prints as a text that parses to the same script, and a machine answers all of
/// it.
#[test]
fn scripts() {
    let corpus = corpus::load().expect("the corpus");
    let mut catalogue = Catalogue::new();
    managed::add_to(&mut catalogue);
    let sim = catalogue.find("sim").expect("the simulated computer");
    each_input("scripts", 400, |rng| {
        let mut text = match rng.u8(..4) {
            0 => random::script(30, rng.u64(..)).to_string(),
            _ => corpus[rng.usize(..corpus.len())].text.clone(),
        };
        text = spoil_words(rng, &text);
        if rng.u8(..4) == 0 {
            let mut bytes = text.into_bytes();
            spoil(rng, &mut bytes);
            text = String::from_utf8_lossy(&bytes).into_owned();
        }
        if let Ok(script) = parse(&text) {
            let printed = script.to_string();
            let again = parse(&printed).expect("what was printed parses");
            assert_eq!(printed, again.to_string(), "{text}");
            answered(script, sim);
        }
    });
}

fn answered(mut script: Script, machine: &Entry) {
    script.sizes.frames = script.sizes.frames.min(4096);
    script.sizes.swap = script.sizes.swap.min(16384);
    script.sizes.cpus = script.sizes.cpus.min(8);
    match (machine.start)(&runner::setup(&script, 0)) {
        Ok(mut machine) => {
            let answers = texts(&script, &mut *machine);
            let broken = answers.iter().find(|text| text.starts_with("I") && text.contains(':'));
            assert_eq!(broken, None, "{script}");
        }
        Err(StartError::Sizes | StartError::PageSize) => {}
        Err(error) => panic!("{error}\n{script}"),
    }
}

/// The firmware's tables, as the kernel of the PC reads them.
#[test]
fn acpi_tables() {
    each_input("ACPI", 20_000, |rng| {
        let mut memory = acpi_memory(rng);
        spoil(rng, &mut memory);
        if rng.bool() {
            // A correct checksum lets the corrupted table through.
            for at in [0x100, 0x200] {
                mend(&mut memory, at);
            }
        }
        let read = |at: u64, bytes: usize| memory.get(usize::try_from(at).ok()?..)?.get(..bytes);
        let found = acpi::Tables { read: &read, pointer: 16 }.processors(64);
        assert!(found.len() <= 64);
    });
}

/// A root pointer at 16, its table at 0x100, and a list of processors at 0x200.
fn acpi_memory(rng: &mut Rng) -> Vec<u8> {
    let mut memory = vec![0; 0x400];
    memory[16..24].copy_from_slice(b"RSD PTR ");
    memory[31] = rng.u8(..3);
    memory[32..36].copy_from_slice(&0x100_u32.to_le_bytes());
    memory[40..48].copy_from_slice(&0x100_u64.to_le_bytes());
    memory[0x100..0x104].copy_from_slice(b"XSDT");
    memory[0x104..0x108].copy_from_slice(&44_u32.to_le_bytes());
    memory[0x124..0x12c].copy_from_slice(&0x200_u64.to_le_bytes());
    memory[0x200..0x204].copy_from_slice(b"APIC");
    let mut at = 0x22c;
    for identity in 0..rng.u8(1..=20) {
        let entry = [0, 8, identity, identity, rng.u8(..2), 0, 0, 0];
        memory[at..at + 8].copy_from_slice(&entry);
        at += 8;
    }
    memory[0x204..0x208].copy_from_slice(&((at - 0x200) as u32).to_le_bytes());
    mend(&mut memory, 0x100);
    mend(&mut memory, 0x200);
    memory
}

/// Corrects the checksum of the table at an address, if its length is valid.
fn mend(memory: &mut [u8], at: usize) {
    let Some(length) = memory.get(at + 4..at + 8) else { return };
    let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize;
    let Some(table) = memory.get_mut(at..at.saturating_add(length)) else { return };
    if table.len() > 9 {
        table[9] = 0;
        table[9] = table.iter().fold(0, |sum: u8, byte| sum.wrapping_sub(*byte));
    }
}

/// The archive of files that the loader leaves in the PC's memory.
#[test]
fn archives() {
    each_input("archives", 20_000, |rng| {
        let mut bytes = archive(rng);
        spoil(rng, &mut bytes);
        let mut content = 0;
        for entry in cpio_reader::iter_files(&bytes) {
            content += entry.name().len() + entry.file().len();
        }
        assert!(content <= bytes.len());
    });
}

fn archive(rng: &mut Rng) -> Vec<u8> {
    let mut bytes = Vec::new();
    for inode in 1..=rng.u32(1..=4) {
        let name = format!("directory/{inode}");
        let content = vec![b'x'; rng.usize(..40)];
        let builder = cpio::NewcBuilder::new(&name).ino(inode).mode(0o100_644).nlink(1);
        let mut writer = builder.write(&mut bytes, content.len() as u32);
        writer.write_all(&content).expect("memory");
        writer.finish().expect("memory");
    }
    cpio::newc::trailer(&mut bytes).expect("memory");
    bytes
}

/// A program's headers, as the loader of the PC reads them.
#[test]
fn elf_headers() {
    let own = std::fs::read("/proc/self/exe").expect("this program");
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("program");
    each_input("ELF", 3_000, |rng| {
        let mut bytes = own[..own.len().min(0x1000)].to_vec();
        let mut headers = bytes[..0x400].to_vec();
        spoil(rng, &mut headers);
        bytes.splice(..0x400, headers);
        std::fs::write(&path, &bytes).expect("a file");
        if let Ok(stripped) = pagefault_pc::host::stripped(&path) {
            assert!(stripped.len() <= bytes.len().max(64));
        }
    });
}

/// The first page of a foreign swap area.
#[test]
fn swap_headers() {
    each_input("swap headers", 20_000, |rng| {
        let mut page = [0; PAGE_SIZE as usize];
        let last_page = rng.u32(2..1000);
        let bad = (0..rng.usize(..40)).map(|_| rng.u32(1..last_page)).collect();
        let header = Header { last_page, bad };
        header.write(&mut page).expect("a header that is right");
        assert_eq!(Header::parse(&page), Ok(header));
        let mut bytes = page[1024..1024 + 200].to_vec();
        spoil(rng, &mut bytes);
        bytes.resize(200, 0);
        page[1024..1024 + 200].copy_from_slice(&bytes);
        if let Ok(header) = Header::parse(&page) {
            let mut again = [0; PAGE_SIZE as usize];
            header.write(&mut again).expect("what was read is written");
            assert_eq!(Header::parse(&again), Ok(header));
        }
    });
}

/// Filters that a program installs (seccomp): one that is accepted ends at every call.
#[test]
fn filters() {
    // Typical instructions of filters, so that some are accepted.
    const CODES: [u16; 20] = [
        0x20, 0x00, 0x60, 0x80, 0x01, 0x61, 0x02, 0x03, 0x04, 0x14, 0x3c, 0x64, 0x84, 0x05, 0x15,
        0x25, 0x45, 0x07, 0x87, 0x06,
    ];
    let mut accepted = 0_u64;
    each_input("filters", 20_000, |rng| {
        let mut code: Vec<bpf::Instruction> = (0..rng.usize(..12))
            .map(|_| bpf::Instruction {
                code: if rng.u8(..20) == 0 { rng.u16(..) } else { CODES[rng.usize(..CODES.len())] },
                if_true: rng.u8(..4),
                if_false: rng.u8(..4),
                k: if rng.u8(..8) == 0 { rng.u32(..) } else { rng.u32(..18) },
            })
            .collect();
        code.push(bpf::Instruction { code: 0x06, if_true: 0, if_false: 0, k: rng.u32(..) });
        if let Ok(program) = bpf::Program::new(code) {
            accepted += 1;
            program.run(&bpf::Data {
                number: rng.u32(..),
                architecture: rng.u32(..),
                ip: rng.u64(..),
                args: std::array::from_fn(|_| rng.u64(..)),
            });
        }
    });
    assert!(accepted > 0, "no filter was accepted");
}

/// Code after a system call, as it is examined before the call is rewritten.
#[test]
fn code_behind_calls() {
    let own = std::fs::read("/proc/self/exe").expect("this program");
    each_input("code", 200_000, |rng| {
        let at = rng.usize(..own.len() - 64);
        let mut code = shape::SYSCALL.to_vec();
        code.extend_from_slice(&own[at..at + shape::LONGEST]);
        if rng.bool() {
            spoil(rng, &mut code);
        }
        let place = 0x7fff_ffff_e000 + rng.u64(..64);
        if let Some(shape) = shape::Shape::of(place, &code) {
            assert!(shape.moved <= shape::MOST_MOVED && shape.moved + 2 <= code.len());
        }
    });
}

/// The ring of events that a program shares with the reader of its trace or report.
#[test]
fn rings() {
    let plan = Plan::new(1 << 20, 1 << 20, [0; MOST_AREAS]);
    let (file, _control) = Control::create_observed(plan).expect("the memory of a tree");
    let ring = MappedRing::new(&file, plan, 3).expect("a ring");
    let file = File::from(file);
    let place = plan.ring(3);
    each_input("rings", 200, |rng| {
        let words: Vec<u64> =
            (0..64).map(|_| if rng.bool() { rng.u64(..200) } else { rng.u64(..) }).collect();
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        // The head of the ring, and any of its records.
        let at = if rng.bool() { 0 } else { rng.u64(..(place.end - place.start) / 8 - 64) * 8 };
        file.write_all_at(&bytes, place.start + at).expect("memory");
        for _ in 0..4 * RECORDS {
            match ring.read() {
                Next::Nothing => break,
                Next::Unfinished => ring.skip(),
                Next::Event(_) => {}
            }
        }
    });
}
