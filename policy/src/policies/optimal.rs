//! Belady's policy: the page with the latest next use leaves. No policy moves fewer pages in.

use super::{Origin, Policy, Touch};
use std::collections::BinaryHeap;

pub struct Optimal {
    /// Pages by their next use; entries whose use differs from `next` are out of date.
    heap: BinaryHeap<(u32, u32)>,
    /// `None`: not in memory.
    next: Vec<Option<u32>>,
}

impl Optimal {
    pub fn new(pages: usize) -> Self {
        Self { heap: BinaryHeap::new(), next: vec![None; pages] }
    }
}

impl Policy for Optimal {
    fn insert(&mut self, page: u32, _: Origin, next: u32) {
        self.touch(page, next);
    }

    fn touch(&mut self, page: u32, next: u32) -> Touch {
        if self.next[page as usize] != Some(next) {
            self.next[page as usize] = Some(next);
            self.heap.push((next, page));
        }
        Touch::Free
    }

    fn evict(&mut self) -> Option<u32> {
        while let Some((next, page)) = self.heap.pop() {
            if self.next[page as usize] == Some(next) {
                self.next[page as usize] = None;
                return Some(page);
            }
        }
        None
    }

    fn remove(&mut self, page: u32) {
        self.next[page as usize] = None;
    }
}
