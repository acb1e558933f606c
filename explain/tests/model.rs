//! The model says what the script answers, and its parts agree with each other.

mod common;

use common::{PROCESSORS, lesson};
use pagefault_explain::lessons;
use pagefault_explain::model::{Explanation, Phase, Step};
use pagefault_explain::record::{Request, record};
use pagefault_script::ast::{Arch, Op};
use pagefault_script::corpus;
use pagefault_script::machine::Catalogue;
use pagefault_script::parse::parse;
use pagefault_script::runner::{Run, setup};
use std::collections::HashSet;

fn answers(explanation: &Explanation) -> Vec<(usize, &str)> {
    explanation.operations.iter().map(|done| (done.line, done.answer.as_str())).collect()
}

/// The answers of a machine without an observer.
fn plain(source: &str, machine: &str, arch: Arch) -> Vec<(usize, String)> {
    let mut script = parse(source).expect("a good script");
    script.sizes.arch = arch;
    let mut catalogue = Catalogue::new();
    pagefault_script::managed::add_to(&mut catalogue);
    let entry = catalogue.find(machine).expect("a machine");
    let mut machine = (entry.start)(&setup(&script, 0)).expect("it starts");
    Run::new(&script, &mut *machine).map(|answer| (answer.number, answer.text)).collect()
}

#[test]
fn lessons_answer_as_scripts_do() {
    for example in lessons::ALL {
        for arch in PROCESSORS.into_iter().filter(|arch| *arch != Arch::Alpha) {
            let told = lesson(example, arch);
            let wanted = plain(example.script, "sim", arch);
            let wanted: Vec<(usize, &str)> =
                wanted.iter().map(|(line, text)| (*line, text.as_str())).collect();
            assert_eq!(answers(&told), wanted, "{} on {}", example.name, arch.name());
        }
    }
}

#[test]
fn lessons_mean_what_the_host_means() {
    for example in lessons::ALL {
        let script = parse(example.script).expect("a good script");
        // The host has more frames, and kills no process for a lesson.
        if script.needs_simulation() || ["out-of-memory", "victim"].contains(&example.name) {
            continue;
        }
        let told = lesson(example, Arch::X86_64);
        let wanted = plain(example.script, "kernel", Arch::X86_64);
        // For pages out of order Linux has regions, and the lesson has entries; after DONTNEED both show
        // the same page again.
        let wanted: Vec<(usize, &str)> =
            wanted.iter().map(|(line, text)| (*line, text.as_str())).collect();
        assert_eq!(answers(&told), wanted, "{}", example.name);
    }
}

#[test]
fn the_corpus_is_told_with_its_answers() {
    let mut told = 0;
    for example in corpus::load().expect("the corpus") {
        let script = parse(&example.text).expect("a good script");
        // `remap_file_pages` keeps one region here, as in Linux 2.6.24, and `maps` shows that. Long
        // transfers would make a step for each page.
        let pieces = script.lines.iter().any(|line| matches!(line.op, Op::RemapFilePages(..)));
        if pieces || example.name == "h03-long-transfers" {
            continue;
        }
        let request = Request {
            title: example.name.clone(),
            source: example.text.clone(),
            ..Request::default()
        };
        let explanation = record(&request).expect("it runs");
        let expected: Vec<(usize, &str)> = example.expected().collect();
        assert_eq!(answers(&explanation), expected, "{}", example.name);
        consistent(&explanation);
        told += 1;
    }
    assert!(told >= 50, "{told}");
}

#[test]
fn the_background_thread_runs_between_the_watermarks_and_a_faster_fault_reclaims_itself() {
    let example = lessons::Lesson::named("background-reclaim").expect("a lesson");
    for arch in PROCESSORS {
        let told = lesson(example, arch);
        let (low, high) = (told.computer.low, told.computer.high);
        let free = |step: &Step| told.states[step.state].free;
        let waits = |step: &Step| step.actions.iter().any(|done| done.spec == "F23");
        let ran = told.steps.iter().position(|step| step.phase == Phase::Background);
        let ran = ran.expect("the thread runs");
        assert!(free(&told.steps[ran - 1]) < low && free(&told.steps[ran]) >= high);
        assert!(told.steps[ran].actions.iter().any(|done| done.kind == "evict"));
        // Until the thread has run no fault waits, and a faster program waits in its fault.
        assert!(!told.steps[..ran].iter().any(waits), "{}", arch.name());
        let direct = |step: &Step| step.phase == Phase::Correction && waits(step);
        assert!(told.steps[ran..].iter().any(direct), "{}", arch.name());
        let woken = told.steps[..ran].iter().filter(|step| free(step) < low);
        assert!(woken.count() <= 3, "{}: it runs when its line is done", arch.name());
    }
}

#[test]
fn steps_agree_with_each_other() {
    for example in lessons::ALL {
        for arch in PROCESSORS {
            consistent(&lesson(example, arch));
        }
    }
}

/// Checks what must hold in every explanation.
fn consistent(told: &Explanation) {
    let mut ids = HashSet::new();
    let mut next = 0;
    for operation in &told.operations {
        assert_eq!(operation.first, next, "{}", told.title);
        assert!(operation.count > 0);
        next += operation.count;
    }
    assert_eq!(next, told.steps.len());
    for step in &told.steps {
        assert!(ids.insert(&step.id), "{} twice in {}", step.id, told.title);
        assert!(step.state < told.states.len());
        assert!(step.sentence.ends_with('.'), "{}", step.sentence);
        decided(told, step);
    }
    faults_are_numbered(told);
}

/// The path that `decision` recomputes ends where the memory manager ended.
fn decided(told: &Explanation, step: &Step) {
    let at = format!("{} of {}", step.id, told.title);
    let lit = |node: &str| step.way.iter().any(|lit| lit == node);
    let answered = |node: &str| {
        let mut of_node = step.questions.iter().filter(|question| question.node == node);
        of_node.next_back().map(|question| question.answer.as_str())
    };
    match step.phase {
        Phase::Decision => {
            let refused = lit_next(told, step, "badarea");
            let no = answered("region") == Some("no")
                || answered("access") == Some("no")
                || (answered("kernel") == Some("no") && answered("region").is_none())
                || answered("sleep") == Some("no")
                || answered("entry") == Some("a guard page");
            assert_eq!(refused, no, "{at}: {:?}", step.questions);
        }
        Phase::Correction => {
            let without = if lit("erratum") { "erratum" } else { "sync" };
            let name = step.correction.as_deref().unwrap_or(without);
            assert!(lit(name), "{at}: {:?}", step.way);
            fits(step, name, &at);
        }
        Phase::Refusal => assert!(step.correction.is_none(), "{at}"),
        _ => assert!(step.questions.is_empty(), "{at}"),
    }
}

/// Whether a box is lit in the step after.
fn lit_next(told: &Explanation, step: &Step, node: &str) -> bool {
    let at = told.steps.iter().position(|other| std::ptr::eq(other, step)).expect("it is one");
    told.steps[at + 1].way.iter().any(|lit| lit == node)
}

/// Whether a correction suits the entry before it (spec B4).
fn fits(step: &Step, name: &str, at: &str) {
    let (Some(before), Some(after)) = (&step.before, &step.after) else {
        assert!(["sync", "erratum"].contains(&name), "{at}: {name}");
        return;
    };
    let says = before.says.as_str();
    let good = match name {
        "anonymous" | "zero" | "file" | "device" => says == "empty",
        "nonlinear" => says.contains("of the file"),
        "swap_in" => says.starts_with("slot"),
        "copy_on_write" => {
            says == "empty" || says.starts_with("frame") || says.contains("of the file")
        }
        "reuse" => says.starts_with("frame") && after.says.contains('w'),
        "spurious" | "standby" => says.starts_with("frame"),
        _ => false,
    };
    assert!(good, "{at}: {name} of {says}");
    assert!(after.says.starts_with("frame"), "{at}: {}", after.says);
}

fn faults_are_numbered(told: &Explanation) {
    let faults = told.steps.iter().filter(|step| step.phase == Phase::Hardware);
    let numbers = faults.filter_map(|step| Some(step.access.as_ref()?.fault.as_ref()?.number));
    for (wanted, number) in (1..).zip(numbers) {
        assert_eq!(number, wanted, "{}", told.title);
    }
}

#[test]
fn every_correction_and_every_refusal_is_in_some_lesson() {
    let mut seen = HashSet::new();
    for example in lessons::ALL {
        let told = lesson(example, Arch::X86_64);
        for step in told.steps {
            seen.extend(step.way);
        }
    }
    let wanted = [
        "anonymous",
        "zero",
        "file",
        "nonlinear",
        "swap_in",
        "copy_on_write",
        "reuse",
        "spurious",
        "sync",
        "erratum",
        "segv",
        "fixup",
        "oops",
        "oom",
    ];
    for node in wanted {
        assert!(seen.contains(node), "{node}");
    }
}

#[test]
fn counts_are_those_of_the_states() {
    for example in lessons::ALL {
        let told = lesson(example, Arch::X86_64);
        for pair in told.steps.windows(2) {
            let (was, is) = (&told.states[pair[0].state], &told.states[pair[1].state]);
            for count in pair[1].counts.iter().filter(|count| count.what == "free frames") {
                let states = (was.free.into(), is.free.into());
                assert_eq!((count.before, count.after), states, "{} {}", told.title, pair[1].id);
            }
            // Every frame of memory is either free or in use; a device's frames are not memory.
            let of_memory = is.frames.iter().filter(|frame| frame.kind != "device").count();
            assert_eq!(
                is.free as usize + of_memory,
                told.computer.frames as usize,
                "{}",
                pair[1].id
            );
            for frame in is.frames.iter().filter(|f| matches!(&*f.kind, "anonymous" | "file")) {
                assert_eq!(frame.maps as usize, frame.mapped_by.len(), "{}", pair[1].id);
            }
        }
    }
}

#[test]
fn what_is_told_as_spared_stays() {
    let source =
        "frames 64\nswap 16\nmmap A 2p rw private anon\nfill A 2p 7\nmadvise A 2p pageout\n";
    let request =
        Request { title: "paged out".into(), source: source.into(), ..Request::default() };
    let pushed = record(&request).expect("it is told");
    let last = pushed.steps.last().expect("a step");
    assert!(last.sentence.contains("2 pages leave"), "{}", last.sentence);
    let mut spared = 0;
    let lessons = lessons::ALL.iter().map(|example| lesson(example, Arch::X86_64));
    for told in lessons.chain([pushed]) {
        for step in &told.steps {
            for (at, action) in step.actions.iter().enumerate() {
                if !action.text.ends_with("it is spared.") {
                    continue;
                }
                spared += 1;
                let mut later = step.actions[at + 1..].iter().filter(|a| a.frame == action.frame);
                let next = later.find(|action| matches!(&*action.kind, "young" | "evict"));
                let leaves = next.is_some_and(|next| next.kind == "evict");
                assert!(!leaves, "{} {}: {}", told.title, step.id, action.text);
            }
        }
    }
    assert!(spared > 0);
}

#[test]
fn a_process_that_lives_on_is_not_told_as_gone() {
    for example in lessons::ALL {
        let told = lesson(example, Arch::X86_64);
        for step in told.steps.iter().filter(|step| step.sentence.contains(" is gone")) {
            let lives = |name: &str| {
                told.states[step.state].processes.iter().any(|process| process.name == name)
            };
            let gone = step.sentence.split(' ').next().expect("a name");
            assert!(!lives(gone), "{} {}: {}", example.name, step.id, step.sentence);
        }
    }
}

#[test]
fn names_of_the_kernels_memory_are_known_to_every_process() {
    let source = "mmap A 1p rw private anon\nfork p1\nkernel_map K 2p\np1: kernel_read K+1p 1\n";
    let request = Request {
        title: "names".into(),
        prose: String::new(),
        source: source.into(),
        arch: None,
        cpus: None,
    };
    let told = record(&request).expect("it is told");
    let read = told.steps.iter().rev().find_map(|step| step.access.as_ref()).expect("an access");
    assert_eq!(read.place, "K+1p");
}

#[test]
fn the_kernels_table_is_brought_up_to_date_on_every_processor() {
    let example = lessons::Lesson::named("kernel-table").expect("a lesson");
    for arch in PROCESSORS {
        let told = lesson(example, arch);
        let killed = told.operations.iter().filter(|done| done.answer.starts_with("oops"));
        // Only the last access has nothing in the reference table.
        let killed: Vec<usize> = killed.map(|done| done.line).collect();
        let last = told.operations.last().expect("a line").line;
        assert_eq!(killed, [last], "on {}", arch.name());
    }
}

#[test]
fn a_page_of_an_object_says_where_it_comes_from() {
    let source = "frames 64\nswap 16\nfile F 1p seed=3\nmmap P 1p r shared file=F off=0\nmmap O 1p rw shared anon\nread P 4\nwrite O \"new\"\nfork p1\np1: read O 3\nreclaim 32\nread O 3\n";
    let request = Request { title: "origins".into(), source: source.into(), ..Request::default() };
    let told = record(&request).expect("it is told");
    let said: Vec<&str> = told
        .steps
        .iter()
        .filter(|step| step.phase == Phase::Correction)
        .map(|step| step.sentence.as_str())
        .collect();
    let wanted = [
        "read from its file into frame",
        "Neither the page cache nor a slot has",
        "The page cache has",
        "read back from slot",
    ];
    assert_eq!(said.len(), wanted.len(), "{said:?}");
    for (said, wanted) in said.iter().zip(wanted) {
        assert!(said.contains(wanted), "{said}");
    }
}
