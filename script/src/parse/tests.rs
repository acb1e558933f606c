use super::*;
use proptest::prelude::*;

/// The line, the word and the expectation in the error of a bad script.
fn error(text: &str) -> (usize, String, Expected) {
    let error = parse(text).expect_err(text);
    (error.line, error.word, error.expected)
}

#[test]
fn a_bad_line_is_told_by_number_word_and_expectation() {
    let before = "file F 1p\nmmap A 1p rw private anon\n";
    for (line, word, expected) in [
        ("mmop B 1p", "mmop", Expected::Operation),
        ("p0:", "", Expected::Operation),
        ("p9: exit", "p9", Expected::LiveProcess),
        ("mmap 3B 1p rw private anon", "3B", Expected::Name),
        ("mmap B 1q rw private anon", "1q", Expected::Number),
        ("mmap B 0x rw private anon", "0x", Expected::Number),
        ("mmap B p rw private anon", "p", Expected::Number),
        ("mmap B 1p rr private anon", "rr", Expected::Protection),
        ("mmap B 1p rw own anon", "own", Expected::Sharing),
        ("mmap B 1p rw private zero", "zero", Expected::Content),
        ("mmap B 1p rw private file=G", "G", Expected::KnownFile),
        ("mmap B 1p rw private anon off=0", "off=0", Expected::MapFlag),
        ("mmap B 1p rw private file=F off=0 off=0", "off=0", Expected::MapFlag),
        ("mmap B 1p rw private anon populate populate", "populate", Expected::MapFlag),
        ("mmap B 1p rw private anon at=C", "C", Expected::BoundName),
        ("mremap A 1p 2p at=A maymove", "maymove", Expected::RemapWord),
        ("mremap A 1p 2p as", "", Expected::Name),
        ("munmap B 1p", "B", Expected::BoundName),
        ("munmap A", "", Expected::Number),
        ("munmap A 1p 2p", "2p", Expected::End),
        ("read A+0xffffffffffffffff+1 1", "A+0xffffffffffffffff+1", Expected::Number),
        ("read A+-1 1", "-1", Expected::Number),
        ("read A 0x10000000000000p", "0x10000000000000p", Expected::Number),
        ("fill A 1p 256", "256", Expected::Byte),
        ("write A 7", "7", Expected::String),
        ("write A \"a\\q\"", "\\q\"", Expected::Escape),
        ("write A \"a\\x4\"", "\\x4\"", Expected::Escape),
        ("write A \"\\x+1\"", "\\x+1\"", Expected::Escape),
        ("write A \"open # not a comment", "\"open # not a comment", Expected::ClosingQuote),
        ("madvise A 1p soon", "soon", Expected::Advice),
        ("msync A 1p now", "now", Expected::Sync),
        ("fork p0", "p0", Expected::NewProcess),
        ("file F 1", "F", Expected::NewFile),
        ("file G 1 5", "5", Expected::Seed),
        ("file G 0x40000001 seed=1", "0x40000001", Expected::SeededLength),
        ("fail frame 0", "0", Expected::Positive),
        ("fail disk 1", "disk", Expected::Failing),
        ("frames 4", "frames", Expected::Operation),
        ("check \"x\"", "\"x\"", Expected::End),
    ] {
        let text = format!("{before}{line}\ncheck\n");
        assert_eq!(error(&text), (3, word.to_owned(), expected), "{line}");
    }
    let message = parse("mmap A 1p rw private\n").expect_err("no content").to_string();
    assert_eq!(message, "line 1: the line ends where anon or file= should stand");
    let message = parse("\n# c\nexec 7\n").expect_err("no name").to_string();
    assert!(message.starts_with("line 3: \"7\" where NAME"), "{message}");
}

#[test]
fn names_belong_to_processes() {
    let fork = "mmap A 1p rw private anon\nfork p1\nmmap B 1p rw private anon\n";
    assert!(parse(&format!("{fork}p1: read A 1\n")).is_ok());
    let (line, word, expected) = error(&format!("{fork}p1: read B 1\n"));
    assert_eq!((line, &*word, expected), (4, "B", Expected::BoundName));
    let (line, word, expected) = error("exit\ncheck\n");
    assert_eq!((line, &*word, expected), (2, "check", Expected::LiveProcess));
    // The name of an ended process may be reused; the new child inherits afresh.
    let again = format!("{fork}p1: exit\np0: fork p1\np1: read B 1\n");
    assert!(parse(&again).is_ok());
    let forks: String = (1..=64).map(|n| format!("fork q{n}\n")).collect();
    assert_eq!(error(&forks).2, Expected::FewerProcesses);
    let long = format!("{fork}write A \"{}\"\n", "x".repeat(65537));
    assert_eq!(error(&long).2, Expected::ShortString);
}

#[test]
fn numbers_sizes_and_strings() {
    let script = parse(
        "frames 64 # pages\nswap 0\ncpus 2\n\nfile F 0x10 seed=3\n\
         p0: mmap A 2p xr shared file=F noreserve off=3p # \"no string\"\n\
         write A+1p+0x10+2 \"a\\n\\t\\\\\\\"\\x00\\xFF#é\" # b\n",
    )
    .expect("a good script");
    let sizes = Sizes { frames: 64, swap: 0, cpus: 2, ..Sizes::default() };
    assert_eq!(script.sizes, sizes);
    assert_eq!(script.files().collect::<Vec<_>>(), ["F"]);
    assert_eq!(script.lines[1].number, 6);
    let Op::Mmap(mmap) = &script.lines[1].op else {
        panic!("{:?}", script.lines[1]);
    };
    assert_eq!(mmap.length, 8192);
    assert_eq!(mmap.protection, Protection::READ | Protection::EXEC);
    assert_eq!(mmap.flags, MapFlags::NORESERVE);
    let Op::Write(address, bytes) = &script.lines[2].op else {
        panic!("{:?}", script.lines[2]);
    };
    assert_eq!(address.offset, 4096 + 18);
    assert_eq!(bytes, b"a\n\t\\\"\x00\xff#\xc3\xa9");
}

#[test]
fn the_corpus_is_printed_back() {
    for example in crate::corpus::load().expect("the corpus") {
        let script = parse(&example.text).unwrap_or_else(|e| panic!("{}: {e}", example.name));
        let printed = script.to_string();
        let again = parse(&printed).unwrap_or_else(|e| panic!("{}: {e}", example.name));
        let ops = |script: &Script| -> Vec<(String, Op)> {
            let lines = script.lines.iter();
            lines.map(|l| (l.process.clone(), l.op.clone())).collect()
        };
        assert_eq!(ops(&script), ops(&again), "{}", example.name);
        assert_eq!(printed, again.to_string());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_printed_is_read_back(seed: u64, lines in 0_usize..200) {
        let script = crate::random::script(lines, seed);
        prop_assert_eq!(parse(&script.to_string()).expect("printed"), script);
    }

    #[test]
    fn any_bytes_any_numbers(
        bytes in proptest::collection::vec(any::<u8>(), 0..80),
        length: u64,
        offset: u64,
        frames in 1_u64..,
        byte: u8,
    ) {
        let mut script = crate::random::script(8, 0);
        script.sizes.frames = frames;
        let number = |n| if frames == 4096 { n } else { n + 1 };
        for line in &mut script.lines {
            line.number = number(line.number);
        }
        let address = Address { name: "m1".to_owned(), offset };
        let range = Range { address: address.clone(), length };
        for op in [Op::Write(address, bytes), Op::Fill(range, byte)] {
            script.lines.push(Line { number: number(script.lines.len() + 1), process: "p0".into(), op });
        }
        prop_assert_eq!(parse(&script.to_string()).expect("printed"), script);
    }

    #[test]
    fn garbage_is_refused_or_read_but_never_a_panic(text in "[ -~\n]{0,200}") {
        let _ = parse(&text);
    }

    #[test]
    fn mangled_scripts_are_refused_or_read_but_never_a_panic(
        seed: u64,
        at in 0_usize..2000,
        with in "[ -~é\n]{0,3}",
    ) {
        let mut text = crate::random::script(40, seed).to_string();
        let at = at.min(text.len());
        text.replace_range(at..(at + 1).min(text.len()), &with);
        if let Err(error) = parse(&text) {
            prop_assert!(error.line <= text.lines().count());
        }
    }
}
