use super::*;
use crate::ast::{Advice, PAGE};
use crate::parse::parse;
use std::collections::HashMap;

#[test]
fn a_seed_is_a_script() {
    assert_eq!(script(500, 3), script(500, 3));
    assert_ne!(script(500, 3), script(500, 4));
    for lines in [0, 1, 2, 77] {
        assert_eq!(script(lines, 1).lines.len(), lines);
    }
}

#[test]
fn every_operation_is_written() {
    // A seed that has guards.
    let script = script(5000, 6);
    let mut counts: HashMap<String, usize> = HashMap::new();
    for line in &script.lines {
        let text = line.op.to_string();
        let word = text.split(' ').next().unwrap_or_default().to_owned();
        *counts.entry(word).or_default() += 1;
    }
    for word in [
        "mmap",
        "munmap",
        "mprotect",
        "msync",
        "mlock",
        "munlock",
        "mlockall",
        "munlockall",
        "mseal",
        "mremap",
        "madvise",
        "remap_file_pages",
        "mincore",
        "file",
        "truncate",
        "pwrite",
        "fsync",
        "pread",
        "write",
        "fill",
        "read",
        "exec",
        "to_user",
        "from_user",
        "poke",
        "peek",
        "fork",
        "exit",
        "reclaim",
        "maps",
        "check",
    ] {
        assert!(counts.get(word).is_some_and(|count| *count > 0), "{word}: {counts:?}");
    }
    for advice in Advice::ALL {
        let there = |line: &Line| matches!(&line.op, Op::Madvise(_, given) if *given == advice);
        assert!(script.lines.iter().any(there), "{advice}");
    }
}

#[test]
fn no_load_sees_lazily_freed_memory() {
    for seed in 0..20 {
        let script = script(2000, seed);
        for (index, line) in script.lines.iter().enumerate() {
            let Op::Madvise(range, Advice::Free) = &line.op else {
                continue;
            };
            if range.address.offset % PAGE != 0 {
                continue; // refused for its address
            }
            let mut after = script.lines[index + 1..].iter().map(|line| &line.op);
            let next = after.find(|op| !matches!(op, Op::Reclaim(_)));
            let rewritten = match next {
                None => true,
                Some(Op::Fill(filled, _)) => filled == range,
                Some(_) => false,
            };
            assert!(rewritten, "seed {seed}: {next:?} after {line}");
        }
    }
}

#[test]
fn files_that_end_within_a_page_are_not_stored_to() {
    for seed in 0..20 {
        let mut uneven = 0_u32;
        for line in script(2000, seed).lines {
            match line.op {
                Op::Truncate(_, length) => {
                    uneven = u32::from(length % PAGE != 0 && length < 1 << 63)
                }
                Op::Write(..) | Op::Fill(..) | Op::ToUser(..) | Op::Poke(..) | Op::Exec(_) => {
                    assert_eq!(uneven, 0, "seed {seed}: {}", line.number);
                }
                _ => {}
            }
        }
    }
}

#[test]
fn few_processes_live() {
    let script = script(20_000, 5);
    assert!(parse(&script.to_string()).is_ok());
    let mut alive = 1;
    for line in &script.lines {
        match line.op {
            Op::Fork(_) => alive += 1,
            Op::Exit => alive -= 1,
            _ => {}
        }
        assert!((1..=6).contains(&alive));
    }
}
