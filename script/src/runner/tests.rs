use super::*;
use crate::layout::{USER_END, WINDOW_START};
use crate::machine::Catalogue;
use crate::parse::parse;
use std::collections::VecDeque;

/// A machine that records its calls, and gives prepared answers, then `ok`.
#[derive(Default)]
struct Recorder {
    calls: Vec<String>,
    answers: VecDeque<Outcome>,
}

impl Recorder {
    fn answer(&mut self, who: String, what: impl std::fmt::Debug) -> Outcome {
        self.calls.push(format!("{who} {what:?}"));
        self.answers.pop_front().unwrap_or(Outcome::Ok)
    }
}

impl Machine for Recorder {
    fn perform(&mut self, process: Process, call: &Call<'_>) -> Outcome {
        self.answer(process.0.to_string(), call)
    }

    fn act(&mut self, action: &Action<'_>) -> Outcome {
        self.answer("-".to_owned(), action)
    }

    fn stats(&mut self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}

/// The output of `text` and the machine's calls, with prepared answers.
fn run(text: &str, answers: impl IntoIterator<Item = Outcome>) -> (Vec<String>, Vec<String>) {
    let script = parse(text).expect("a good script");
    let mut machine = Recorder { calls: Vec::new(), answers: answers.into_iter().collect() };
    let texts = Run::new(&script, &mut machine)
        .map(|answer| format!("{}: {}", answer.number, answer.text))
        .collect();
    (texts, machine.calls)
}

#[test]
fn a_move_is_tried_in_place_first() {
    let map = "mmap A 2p rw private anon\nmremap A 2p 4p maymove as B\nread B+1 1\n";
    let (_, calls) = run(map, [Outcome::Ok, Outcome::Ok]);
    assert!(calls[1].ends_with("target: Stay }"), "{}", calls[1]);
    assert_eq!(calls.len(), 3);

    let (texts, calls) = run(map, [Outcome::Ok, Outcome::Errno(Errno::ENOMEM)]);
    assert!(calls[2].contains("target: Fixed("), "{}", calls[2]);
    let target = calls[2].split("Fixed(").nth(1).and_then(|rest| rest.split(')').next());
    let target: u64 = target.and_then(|at| at.parse().ok()).expect("a target");
    assert!(calls[3].contains(&format!("address: {}", target + 1)), "{}", calls[3]);
    assert_eq!(texts[1], "2: ok");

    // Any other refusal is the answer, and the name keeps the old range.
    let (texts, calls) = run(map, [Outcome::Ok, Outcome::Errno(Errno::EFAULT)]);
    assert_eq!((texts[1].as_str(), calls.len()), ("2: EFAULT", 3));
    let old = calls[0].split("address: ").nth(1).and_then(|rest| rest.split(',').next());
    let old: u64 = old.and_then(|at| at.parse().ok()).expect("an address");
    assert!(calls[2].contains(&format!("address: {}", old + 1)), "{}", calls[2]);
}

#[test]
fn nothing_that_a_kernel_could_do_outside_the_window_is_asked_for() {
    let text = "mmap A 1p rw private anon\n\
        munmap A 0x2000000000\nmunmap A+0x1000000000 1p\nmunmap A 0x7fffffffffff\n\
        madvise A 0x8000000000000000 dontneed\nmadvise A 0xffffffffffffffff dontneed\n\
        mmap B 0x2000000000 rw private anon\nmmap C 0x7ffffffff000 rw private anon\n\
        mmap D 1p rw private anon at=A+0x4fffffffff\nwrite A+0x700000000000 \"x\"\n\
        mremap A 1p 1p maymove at=A+0x5000000000\nmremap A 0x1000000000 1p\nread B 1\n";
    let (texts, calls) = run(text, []);
    let words: Vec<&str> = texts.iter().map(|t| t.split(": ").nth(1).unwrap_or("")).collect();
    let wanted = [
        "ok", "outside", "outside", "ok", "outside", "ok", "outside", "ok", "outside", "outside",
        "outside", "outside", "ok",
    ];
    assert_eq!(words, wanted);
    assert_eq!(calls.len(), 5);
}

#[test]
fn a_fork_that_failed_leaves_no_process() {
    let text =
        "mmap A 1p rw private anon\nfork p1\np1: read A 1\nfile F 1p\np0: fork p2\np2: exit\n";
    let (texts, calls) = run(text, [Outcome::Ok, Outcome::Errno(Errno::ENOMEM)]);
    assert_eq!(texts[1..3], ["2: ENOMEM", "3: ESRCH"]);
    // The next child has the number that the failed one would have had.
    assert_eq!(calls.last().map(String::as_str), Some("1 Exit"));
}

#[test]
fn a_killed_process_stays_dead() {
    let text = "mmap A 1p rw private anon\nwrite A \"x\"\nread A 1\nread A 1\n";
    let (texts, calls) = run(text, [Outcome::Ok, Outcome::Killed]);
    assert_eq!(texts[1..], ["2: SIGKILL", "3: ESRCH", "4: ESRCH"]);
    assert_eq!(calls.len(), 2);
}

#[test]
fn names_are_bound_whether_or_not_the_call_succeeds() {
    let fail = Outcome::Errno(Errno::ENOMEM);
    let text =
        "mmap A 0x7ffffffff000 rw private anon\nmmap B 1p rw private anon\nmaps A\nread A 1\n";
    let (_, calls) = run(text, [fail]);
    assert!(calls[2].contains("Maps"), "{}", calls[2]);
    let address = |call: &str| -> u64 {
        let digits = call.split("address: ").nth(1).and_then(|rest| rest.split(',').next());
        digits.and_then(|digits| digits.parse().ok()).expect("an address")
    };
    assert!((WINDOW_START..USER_END).contains(&address(&calls[3])));
    // A name is rebound, and a child keeps what it had.
    let text =
        "mmap A 1p rw private anon\nfork p1\nmmap A 1p rw private anon\nread A 1\np1: read A 1\n";
    let (_, calls) = run(text, []);
    assert_eq!(address(&calls[3]), address(&calls[2]));
    assert_eq!(address(&calls[4]), address(&calls[0]));
}

/// No machine makes room for what it cannot load or store.
#[test]
fn absurd_lengths_are_answered() {
    let script = parse(
        "mmap A 1p rw private anon\nfill A 0xffffffffffffffff 7\nread A 0xffffffffffffffff\n\
         from_user A+1 0xffffffffffffffff\nfile F 0xffffffffffffffff\n\
         mmap B 1p rw shared file=F\nread B 1\npread F 0 1p\ntruncate F 0xffffffffffffffff\n\
         pwrite F 0x7ffffffffffffff0 \"x\"\n",
    )
    .expect("a script");
    let mut catalogue = Catalogue::new();
    crate::managed::add_to(&mut catalogue);
    let sim = catalogue.find("sim").expect("the simulated computer");
    let mut machine = (sim.start)(&setup(&script, 0)).expect("a machine");
    let answers: Vec<String> = Run::new(&script, &mut *machine).map(|a| a.text).collect();
    let fault = "SIGSEGV MAPERR A+0x1000";
    assert_eq!(answers[..3], ["ok", fault, fault]);
    assert_eq!((&*answers[3], &*answers[4]), ("EFAULT", "EINVAL"));
    // The file is there, and empty.
    assert_eq!((&*answers[5], &*answers[6]), ("ok", "SIGBUS ADRERR B+0x0"));
    assert_eq!(answers[7..], ["0:00000000", "EINVAL", "ok"]);
}
