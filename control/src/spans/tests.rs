use super::stepped::{Actor, Order, explore};
use super::*;
use std::collections::HashSet;
use std::sync::Mutex;

fn words<const N: usize>() -> [Word; N] {
    [const { Word::new(0) }; N]
}

#[test]
fn a_span_is_free_again_when_the_last_holder_has_let_it_go() {
    let (words, hint) = (words::<3>(), AtomicU32::new(0));
    let spans = Spans::new(&words);
    let all: [_; 3] = core::array::from_fn(|area| spans.take(area, &hint).unwrap());
    assert_eq!(spans.take(0, &hint), None);
    assert!(spans.is_sole(all[2]));

    spans.join(all[2]);
    assert!(!spans.is_sole(all[2]));
    assert_eq!(spans.leave(all[2]), Left::ToOthers);
    assert!(spans.is_sole(all[2]));
    assert_eq!(spans.leave(all[2]), Left::ToNobody { area: 2 });
    // Until its memory is given back, no process may have it.
    assert_eq!(spans.take(0, &hint), None);
    spans.end(all[2]);
    assert_eq!(spans.take(1, &hint), Some(all[2]));
}

#[test]
fn who_was_killed_while_giving_memory_back_is_followed_by_another() {
    let (words, hint) = (words::<1>(), AtomicU32::new(0));
    let spans = Spans::new(&words);
    spans.take(5, &hint).unwrap();
    assert_eq!(spans.leave(0), Left::ToNobody { area: 5 });
    assert_eq!(spans.leave(0), Left::ToNobody { area: 5 });
    spans.end(0);
    // One release too many takes nothing from any process.
    assert_eq!(spans.leave(0), Left::ToOthers);
    assert_eq!(spans.take(0, &hint), Some(0));
}

/// Three processes, each with the spans that it believes to hold, and the spans that they share.
struct Tree {
    words: [Word; 2],
    columns: [[Bits; 1]; 3],
    hint: AtomicU32,
    beliefs: Mutex<[HashSet<u32>; 3]>,
}

impl Tree {
    fn new() -> Self {
        Self {
            words: words(),
            columns: [const { [Bits::new(0)] }; 3],
            hint: AtomicU32::new(0),
            beliefs: Mutex::default(),
        }
    }

    fn holder(&self, process: usize) -> Holder<'_> {
        Holder::new(Spans::new(&self.words), &self.columns[process])
    }

    fn believe(&self, process: usize, span: u32) {
        assert!(self.beliefs.lock().unwrap()[process].insert(span));
    }

    fn take(&self, process: usize) -> Option<u32> {
        let span = self.holder(process).take(0, &self.hint)?;
        self.believe(process, span);
        self.write(process, span);
        Some(span)
    }

    /// Takes free spans and releases them again.
    fn take_all(&self, process: usize) {
        let spans = [self.take(process), self.take(process)];
        spans.into_iter().flatten().for_each(|span| self.leave(process, span));
    }

    /// The check of a process that may write to a span: no other may hold it.
    fn write(&self, process: usize, span: u32) {
        let beliefs = self.beliefs.lock().unwrap();
        for (other, held) in beliefs.iter().enumerate() {
            assert!(
                other == process || !held.contains(&span),
                "{process} writes to span {span} that {other} holds"
            );
        }
    }

    fn write_if_sole(&self, process: usize, span: u32) {
        if self.holder(process).is_sole(span) {
            self.write(process, span);
        }
    }

    fn leave(&self, process: usize, span: u32) {
        assert!(self.beliefs.lock().unwrap()[process].remove(&span));
        self.holder(process).leave(span, || self.give_back(span));
    }

    fn give_back(&self, span: u32) {
        let beliefs = self.beliefs.lock().unwrap();
        assert!(beliefs.iter().all(|held| !held.contains(&span)), "span {span} is still held");
    }

    /// The supervisor's work for an ended process.
    fn bury(&self, process: usize) {
        self.beliefs.lock().unwrap()[process].clear();
        let bits = &self.columns[process][0];
        for span in spans_of(0, bits.load(Relaxed)) {
            Spans::new(&self.words).let_go(span, || self.give_back(span));
        }
        bits.store(0, Relaxed);
    }

    fn actor<'a>(&'a self, process: usize, run: impl FnOnce() + Send + 'a) -> Actor<'a> {
        Actor { run: Box::new(run), bury: Box::new(move || self.bury(process)) }
    }

    /// At the end no process holds anything. Without a kill every span is free.
    fn is_empty(&self) -> bool {
        assert!(self.columns.iter().all(|column| column[0].load(Relaxed) == 0));
        self.words.iter().all(|word| word.load(Relaxed) == 0)
    }
}

/// Tries the orders of a scenario; a killed actor may leave spans behind, another may not.
fn check(switches: usize, scenario: impl Fn(&Tree, &mut Order)) {
    let orders = explore(switches, |order| {
        let tree = Tree::new();
        scenario(&tree, order);
        assert!(order.was_killed() || tree.is_empty());
        // No process gets a span that was left behind.
        while let Some(span) = tree.take(0) {
            tree.write(0, span);
        }
    });
    assert!(orders > 100, "{orders} orders are too few");
}

#[test]
fn two_that_want_a_span_never_have_the_same() {
    check(3, |tree, order| {
        let once = |process| {
            move || {
                if let Some(span) = tree.take(process) {
                    tree.write_if_sole(process, span);
                    tree.leave(process, span);
                }
            }
        };
        order.run([0, 1].map(|process| tree.actor(process, once(process))));
    });
}

#[test]
fn a_child_and_its_parent_leave_while_another_takes() {
    check(2, |tree, order| {
        let span = tree.take(0).unwrap();
        tree.holder(0).share_with(&tree.columns[1]);
        tree.believe(1, span);
        let leave = |process| {
            move || {
                tree.write_if_sole(process, span);
                tree.leave(process, span);
            }
        };
        let third = tree.actor(2, || tree.take_all(2));
        order.run([tree.actor(0, leave(0)), tree.actor(1, leave(1)), third]);
    });
}

#[test]
fn a_fork_that_is_made_or_undone_shares_nothing_with_a_third() {
    check(2, |tree, order| {
        let span = tree.take(0).unwrap();
        let fork = || {
            tree.holder(0).share_with(&tree.columns[1]);
            tree.write_if_sole(0, span);
            tree.holder(0).take_from(&tree.columns[1]);
            tree.write_if_sole(0, span);
            tree.leave(0, span);
        };
        // The supervisor finds the child's slot with the notes made so far.
        let bury = || {
            tree.bury(0);
            tree.bury(1);
        };
        let parent = Actor { run: Box::new(fork), bury: Box::new(bury) };
        order.run([parent, tree.actor(2, || tree.take_all(2))]);
    });
}
