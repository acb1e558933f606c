//! A queue against a list of numbers, by random operations.

use super::{List, TURNS};
use crate::machine::Frame;
use crate::page::{NO_FRAME, PageFlags, Pages};
use crate::word::Sole;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use proptest::prelude::*;

const FRAMES: u32 = 80;

/// An operation on the queue.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Puts in a page that is in no queue; it stays for this many rounds.
    Push(u32, u8),
    /// Takes a page out, wherever it is.
    Unlink(u32),
    Pop(usize),
    Turn,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..FRAMES, 0..=3_u8).prop_map(|(frame, rounds)| Step::Push(frame, rounds)),
        2 => (0..FRAMES).prop_map(Step::Unlink),
        1 => (0..=4_usize).prop_map(Step::Pop),
        2 => Just(Step::Turn),
    ]
}

/// Whether the queue's user is one of many contexts or the only one.
struct Who(bool);

impl Sole for Who {
    fn is_sole(&self) -> bool {
        self.0
    }
}

/// The queue, and beside it each page's number and rounds, the oldest first.
struct Both {
    who: Who,
    pages: Pages,
    list: List,
    expected: VecDeque<(u32, u8)>,
}

impl Both {
    fn new(who: Who) -> Self {
        let list = List { newest: NO_FRAME, oldest: NO_FRAME, len: 0 };
        Self { who, pages: Pages::new(FRAMES), list, expected: VecDeque::new() }
    }

    fn pop(&mut self, most: usize) -> Vec<Frame> {
        let mut popped = Vec::new();
        let count = self.list.pop(&self.who, &self.pages, most, |frame| popped.push(frame));
        assert_eq!(count, popped.len());
        popped
    }

    fn perform(&mut self, step: Step) {
        match step {
            Step::Push(frame, rounds) => self.push(frame, rounds),
            Step::Unlink(frame) => {
                if let Some(at) = self.expected.iter().position(|(here, _)| *here == frame) {
                    self.expected.remove(at);
                    self.list.unlink(&self.pages, Frame(frame));
                }
            }
            Step::Pop(most) => {
                let there = most.min(self.expected.len());
                let oldest: Vec<_> =
                    self.expected.drain(..there).map(|(at, _)| Frame(at)).collect();
                assert_eq!(self.pop(most), oldest);
            }
            Step::Turn => {
                self.list.turn(&self.who, &self.pages);
                self.turn();
            }
        }
        assert_eq!(self.list.len as usize, self.expected.len());
    }

    fn push(&mut self, frame: u32, rounds: u8) {
        if self.expected.iter().any(|(here, _)| *here == frame) {
            return;
        }
        let page = self.pages.of(Frame(frame));
        page.refs.store(1, Ordering::Relaxed);
        page.clear(&self.who, PageFlags::ROUNDS);
        let rounds_left = u32::from(rounds) * (PageFlags::ROUNDS.bits() / 3);
        page.set(&self.who, PageFlags::from_bits_retain(rounds_left));
        self.list.push(&self.pages, Frame(frame));
        self.expected.push_back((frame, rounds));
    }

    /// Moves the pages at the old end that stay behind the others, one by one.
    fn turn(&mut self) {
        let staying = |(_, rounds): &&(u32, u8)| *rounds > 0;
        let run = self.expected.iter().take(TURNS).take_while(staying).count();
        for (_, rounds) in self.expected.range_mut(..run) {
            *rounds -= 1;
        }
        self.expected.rotate_left(run);
    }

    /// Walks the links in both directions.
    fn check(&self) {
        let follow = |from: u32, towards: fn(&crate::page::Page) -> u32| -> Vec<u32> {
            let is_page = |at: &u32| *at != NO_FRAME;
            let next = |at: &u32| Some(towards(self.pages.of(Frame(*at)))).filter(is_page);
            let walk = core::iter::successors(Some(from).filter(is_page), next);
            walk.take(FRAMES as usize + 1).collect()
        };
        let expected: Vec<u32> = self.expected.iter().map(|(frame, _)| *frame).collect();
        let newer = follow(self.list.oldest, |page| page.newer.load(Ordering::Relaxed));
        assert_eq!(newer, expected);
        let mut older = follow(self.list.newest, |page| page.older.load(Ordering::Relaxed));
        older.reverse();
        assert_eq!(older, expected);
    }
}

proptest! {
    #[test]
    fn a_queue_is_a_list(is_sole: bool, steps in prop::collection::vec(step(), 0..300)) {
        let mut both = Both::new(Who(is_sole));
        for step in steps {
            both.perform(step);
            both.check();
        }
    }
}

#[test]
fn a_turn_ends_with_the_first_page_that_goes() {
    let mut both = Both::new(Who(false));
    for (frame, rounds) in [(7, 1), (3, 2), (5, 0), (9, 3)] {
        both.perform(Step::Push(frame, rounds));
    }
    both.perform(Step::Turn);
    both.check();
    assert_eq!(both.expected, [(5, 0), (9, 3), (7, 0), (3, 1)]);
    assert_eq!(both.pop(1), [Frame(5)]);
}

#[test]
fn a_turn_moves_a_few_pages_at_most() {
    let mut both = Both::new(Who(false));
    for frame in 0..FRAMES {
        both.perform(Step::Push(frame, 1));
    }
    both.perform(Step::Turn);
    both.check();
    assert_eq!(both.list.oldest as usize, TURNS);
}
