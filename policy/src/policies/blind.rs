//! Policies without accessed bits. Those with *standby* unmap a page some time before it leaves. A
//! use meanwhile faults and so shows that the page is used, at the price of a fault that moves
//! nothing.

use super::{Fifo, Ghosts, Links, Origin, Policy, Touch};

/// The page that came first leaves first.
pub struct Plain {
    queue: Fifo,
    links: Links,
}

impl Plain {
    pub fn new(pages: usize) -> Self {
        Self { queue: Fifo::new(), links: Links::new(pages) }
    }
}

impl Policy for Plain {
    fn insert(&mut self, page: u32, _: Origin, _: u32) {
        self.queue.push(&mut self.links, page);
    }

    fn touch(&mut self, _: u32, _: u32) -> Touch {
        Touch::Free
    }

    fn evict(&mut self) -> Option<u32> {
        self.queue.pop(&mut self.links)
    }

    fn remove(&mut self, page: u32) {
        self.queue.remove(&mut self.links, page);
    }
}

/// The queue of a page in memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Small,
    Main,
    Standby,
}

/// Turner and Levy's segmented FIFO, as in VMS: pages from a FIFO of mapped pages pass through a
/// second one of unmapped pages, and return to the first when they are used.
pub struct Segmented {
    mapped: Fifo,
    standby: Fifo,
    links: Links,
    place: Vec<Place>,
    share: usize,
    /// How many rounds each page stays mapped without a check.
    rounds: Vec<u8>,
    trust: u8,
}

impl Segmented {
    pub fn new(pages: usize, share: usize) -> Self {
        Self {
            mapped: Fifo::new(),
            standby: Fifo::new(),
            links: Links::new(pages),
            place: vec![Place::Main; pages],
            share,
            rounds: vec![0; pages],
            trust: 0,
        }
    }

    /// A queue with this many rounds for a page that was used on standby.
    pub fn with_trust(self, trust: u8) -> Self {
        Self { trust, ..self }
    }

    fn map(&mut self, page: u32) {
        self.place[page as usize] = Place::Main;
        self.mapped.push(&mut self.links, page);
    }
}

impl Policy for Segmented {
    fn insert(&mut self, page: u32, _: Origin, _: u32) {
        self.rounds[page as usize] = 0;
        self.map(page);
    }

    fn touch(&mut self, page: u32, _: u32) -> Touch {
        if self.place[page as usize] != Place::Standby {
            return Touch::Free;
        }
        self.standby.remove(&mut self.links, page);
        self.rounds[page as usize] = self.trust;
        self.map(page);
        Touch::Rescue
    }

    fn evict(&mut self) -> Option<u32> {
        while self.standby.len() <= self.share {
            let Some(page) = self.mapped.pop(&mut self.links) else { break };
            if self.rounds[page as usize] > 0 {
                self.rounds[page as usize] -= 1;
                self.map(page);
                continue;
            }
            self.place[page as usize] = Place::Standby;
            self.standby.push(&mut self.links, page);
        }
        self.standby.pop(&mut self.links)
    }

    fn remove(&mut self, page: u32) {
        let standby = self.place[page as usize] == Place::Standby;
        let queue = if standby { &mut self.standby } else { &mut self.mapped };
        queue.remove(&mut self.links, page);
    }
}

/// S3-FIFO: new pages in a small queue, a tenth of memory; used ones in a main queue.
pub struct S3Fifo {
    small: Fifo,
    main: Fifo,
    standby: Fifo,
    links: Links,
    place: Vec<Place>,
    used: Vec<bool>,
    ghosts: Ghosts,
    sees_use: bool,
    share: usize,
}

impl S3Fifo {
    /// Without accessed bits, remembering the last `ghosts` pages that left.
    pub fn blind(pages: usize, ghosts: usize) -> Self {
        Self {
            small: Fifo::new(),
            main: Fifo::new(),
            standby: Fifo::new(),
            links: Links::new(pages),
            place: vec![Place::Small; pages],
            used: vec![false; pages],
            ghosts: Ghosts::new(pages, ghosts),
            sees_use: false,
            share: 0,
        }
    }

    pub fn with_bits(pages: usize, ghosts: usize) -> Self {
        Self { sees_use: true, ..Self::blind(pages, ghosts) }
    }

    /// A queue with this many pages unmapped before they leave.
    pub fn with_standby(self, share: usize) -> Self {
        Self { share, ..self }
    }

    fn push(&mut self, page: u32, place: Place) {
        self.place[page as usize] = place;
        let queue = match place {
            Place::Small => &mut self.small,
            Place::Main => &mut self.main,
            Place::Standby => &mut self.standby,
        };
        queue.push(&mut self.links, page);
    }

    /// The next page that is due and has shown no use.
    fn due(&mut self) -> Option<u32> {
        loop {
            let small = self.small.len() * 9 >= self.main.len() && !self.small.is_empty();
            let queue =
                if small || self.main.is_empty() { &mut self.small } else { &mut self.main };
            let page = queue.pop(&mut self.links)?;
            if !self.sees_use || !std::mem::take(&mut self.used[page as usize]) {
                return Some(page);
            }
            self.push(page, Place::Main);
        }
    }
}

impl Policy for S3Fifo {
    fn insert(&mut self, page: u32, _: Origin, _: u32) {
        self.used[page as usize] = false;
        let place = if self.ghosts.recall(page) { Place::Main } else { Place::Small };
        self.push(page, place);
    }

    fn touch(&mut self, page: u32, _: u32) -> Touch {
        self.used[page as usize] = true;
        if self.place[page as usize] != Place::Standby {
            return Touch::Free;
        }
        self.standby.remove(&mut self.links, page);
        self.push(page, Place::Main);
        Touch::Rescue
    }

    fn evict(&mut self) -> Option<u32> {
        while self.standby.len() <= self.share {
            let Some(page) = self.due() else { break };
            self.push(page, Place::Standby);
        }
        let page = self.standby.pop(&mut self.links)?;
        self.ghosts.remember(page);
        Some(page)
    }

    fn remove(&mut self, page: u32) {
        let queue = match self.place[page as usize] {
            Place::Small => &mut self.small,
            Place::Main => &mut self.main,
            Place::Standby => &mut self.standby,
        };
        queue.remove(&mut self.links, page);
    }
}
