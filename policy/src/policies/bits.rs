//! Policies that see every use, or an accessed bit.

use super::{Fifo, Ghosts, Links, Origin, Policy, Touch};

/// LRU: the least recently used page leaves.
pub struct Lru {
    queue: Fifo,
    links: Links,
}

impl Lru {
    pub fn new(pages: usize) -> Self {
        Self { queue: Fifo::new(), links: Links::new(pages) }
    }
}

impl Policy for Lru {
    fn insert(&mut self, page: u32, _: Origin, _: u32) {
        self.queue.push(&mut self.links, page);
    }

    fn touch(&mut self, page: u32, _: u32) -> Touch {
        self.queue.remove(&mut self.links, page);
        self.queue.push(&mut self.links, page);
        Touch::Free
    }

    fn evict(&mut self) -> Option<u32> {
        self.queue.pop(&mut self.links)
    }

    fn remove(&mut self, page: u32) {
        self.queue.remove(&mut self.links, page);
    }
}

/// CLOCK: a FIFO in which a page that was used since gets another round.
pub struct Clock {
    queue: Fifo,
    links: Links,
    used: Vec<bool>,
}

impl Clock {
    pub fn new(pages: usize) -> Self {
        Self { queue: Fifo::new(), links: Links::new(pages), used: vec![false; pages] }
    }
}

impl Policy for Clock {
    fn insert(&mut self, page: u32, origin: Origin, _: u32) {
        self.used[page as usize] = origin != Origin::Guess;
        self.queue.push(&mut self.links, page);
    }

    fn touch(&mut self, page: u32, _: u32) -> Touch {
        self.used[page as usize] = true;
        Touch::Free
    }

    fn evict(&mut self) -> Option<u32> {
        loop {
            let page = self.queue.pop(&mut self.links)?;
            if !std::mem::take(&mut self.used[page as usize]) {
                return Some(page);
            }
            self.queue.push(&mut self.links, page);
        }
    }

    fn remove(&mut self, page: u32) {
        self.queue.remove(&mut self.links, page);
    }
}

/// Johnson and Shasha's 2Q: new pages in a FIFO of a quarter of memory, pages that return soon in
/// an LRU.
pub struct TwoQueues {
    newcomers: Fifo,
    proven: Fifo,
    links: Links,
    is_proven: Vec<bool>,
    ghosts: Ghosts,
    quarter: usize,
}

impl TwoQueues {
    pub fn new(pages: usize, frames: usize) -> Self {
        Self {
            newcomers: Fifo::new(),
            proven: Fifo::new(),
            links: Links::new(pages),
            is_proven: vec![false; pages],
            ghosts: Ghosts::new(pages, frames / 2),
            quarter: frames / 4,
        }
    }

    fn queue(&mut self, page: u32) -> &mut Fifo {
        if self.is_proven[page as usize] { &mut self.proven } else { &mut self.newcomers }
    }
}

impl Policy for TwoQueues {
    fn insert(&mut self, page: u32, _: Origin, _: u32) {
        self.is_proven[page as usize] = self.ghosts.recall(page);
        let Self { newcomers, proven, links, is_proven, .. } = self;
        let queue = if is_proven[page as usize] { proven } else { newcomers };
        queue.push(links, page);
    }

    fn touch(&mut self, page: u32, _: u32) -> Touch {
        if self.is_proven[page as usize] {
            self.proven.remove(&mut self.links, page);
            self.proven.push(&mut self.links, page);
        }
        Touch::Free
    }

    fn evict(&mut self) -> Option<u32> {
        if self.newcomers.len() > self.quarter || self.proven.is_empty() {
            let page = self.newcomers.pop(&mut self.links)?;
            self.ghosts.remember(page);
            return Some(page);
        }
        self.proven.pop(&mut self.links)
    }

    fn remove(&mut self, page: u32) {
        let mut links = std::mem::replace(&mut self.links, Links::new(0));
        self.queue(page).remove(&mut links, page);
        self.links = links;
    }
}
