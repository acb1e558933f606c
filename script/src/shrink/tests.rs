use super::*;
use crate::ast::Sharing;
use crate::machine::{Action, Call, Catalogue, Machine, Process};
use crate::outcome::{Bytes, Outcome};
use crate::random;

/// The simulated computer with a bug: a child does not see earlier stores to shared anonymous
/// memory. Nor can its devices fail.
struct Liar {
    honest: Box<dyn Machine>,
    shared: bool,
    stored: bool,
}

impl Machine for Liar {
    fn perform(&mut self, process: Process, call: &Call<'_>) -> Outcome {
        let outcome = self.honest.perform(process, call);
        match call {
            Call::Mmap(mmap) => {
                self.shared |= mmap.sharing == Sharing::Shared && mmap.file.is_none();
            }
            Call::Store { bytes, .. } => self.stored |= self.shared && !bytes.is_empty(),
            Call::Load { length: 1.., .. } if self.stored && process != Process::FIRST => {
                if let Outcome::Bytes(_) = outcome {
                    return Outcome::Bytes(Bytes::new(b"wrong"));
                }
            }
            _ => {}
        }
        outcome
    }

    fn act(&mut self, action: &Action<'_>) -> Outcome {
        match action {
            Action::Fail { .. } => Outcome::Ok,
            action => self.honest.act(action),
        }
    }

    fn stats(&mut self) -> Vec<(&'static str, u64)> {
        self.honest.stats()
    }
}

/// Adds the machine with the bug, as `liar`.
pub(crate) fn add_liar(catalogue: &mut Catalogue) {
    let mut honest = Catalogue::default();
    crate::managed::add_to(&mut honest);
    let sim = honest.find("sim").expect("it was added");
    let (failures, simulates) = (sim.failures, sim.simulates);
    let start = Box::new(move |setup: &crate::machine::Setup| {
        let honest = (honest.find("sim").expect("it was added").start)(setup)?;
        Ok(Box::new(Liar { honest, shared: false, stored: false }) as Box<dyn Machine>)
    });
    catalogue.add(Entry { name: "liar", failures, simulates, start });
}

fn minimal(text: &str, names: [&str; 2]) -> Option<Minimal> {
    let mut catalogue = Catalogue::default();
    crate::managed::add_to(&mut catalogue);
    add_liar(&mut catalogue);
    let machines = names.map(|name| catalogue.find(name).expect("a machine"));
    shrink(&parse(text).expect("a script"), &machines, 0).expect("machines")
}

#[test]
fn a_bug_in_the_middle_of_a_long_script_takes_four_lines() {
    let before = random::script(60, 3).to_string();
    let text = before
        + "p0: mmap S 9p rw shared anon\nmmap T 3p rw private anon\nfill T 2p 7\n\
           write S+2p+17 \"hello\"\nfork c\nc: read T 40\n"
        + "c: read S+2p 5\nmunmap T 3p\n";
    let text = text.replace("S+2p+17", "S+0x2011");
    let minimal = minimal(&text, ["sim", "liar"]).expect("they differ");
    assert!(minimal.operations <= 5, "{}", minimal.text);
    // Every answer to the last line follows it.
    let comments: Vec<&str> = minimal.text.lines().filter(|line| line.starts_with('#')).collect();
    assert_eq!(comments.len(), 2, "{}", minimal.text);
    assert_eq!(comments[1], "# liar  77726f6e67");
    // No line can be removed.
    let lines: Vec<&str> = minimal.text.lines().filter(|line| !line.starts_with('#')).collect();
    for left_out in 0..lines.len() {
        let rest: String = (0..lines.len())
            .filter(|&line| line != left_out)
            .map(|line| format!("{}\n", lines[line]))
            .collect();
        if let Ok(script) = parse(&rest) {
            let mut catalogue = Catalogue::default();
            crate::managed::add_to(&mut catalogue);
            add_liar(&mut catalogue);
            let machines = ["sim", "liar"].map(|name| catalogue.find(name).expect("a machine"));
            let comparison = compare(&script, &machines, 0).expect("machines");
            assert_eq!(comparison.differences(), 0, "{rest}");
        }
    }
}

#[test]
fn a_planted_failure_is_found_by_what_it_does() {
    let text = "frames 64\nfile f 4p seed=1\nmmap B 20p rw private anon\nfill B 3p 1\n\
                mmap A 4p r private file=f\nmaps A\nfail read 1\nread B 5\nread A+1p 9\n\
                check\nread B+2p 8\n";
    assert_eq!(minimal(text, ["sim", "sim"]), None);
    let minimal = minimal(text, ["sim", "liar"]).expect("the liar's devices do not fail");
    // The sizes stay, and the lines that the failure needs: a file, a mapping of it, a load.
    assert!(minimal.text.starts_with("frames 64\np0: file f "), "{}", minimal.text);
    assert!(minimal.text.contains("p0: fail read 1\np0: read A 1\n"), "{}", minimal.text);
    assert_eq!(minimal.operations, 4, "{}", minimal.text);
}

#[test]
fn another_sort_of_difference_does_not_count() {
    assert_eq!(sort_of("SIGSEGV MAPERR A+0x1000"), "SIGSEGV MAPERR");
    assert_eq!(sort_of("SIGKILL"), "SIGKILL");
    assert_eq!(sort_of("ENOMEM"), "ENOMEM");
    assert_eq!(sort_of("ok"), "ok");
    assert_eq!(sort_of("00ff"), sort_of("64:12345678"));
    assert_eq!(sort_of("+0x0 +0x1000 rw- p"), sort_of("none"));
}
