//! FIFO queues of pages, with removal from the middle.

const NONE: u32 = u32::MAX;

/// The neighbours of each page in its queue; a page is in at most one.
pub struct Links(Vec<(u32, u32)>);

/// A queue. All queues of a policy share one [`Links`].
pub struct Fifo {
    newest: u32,
    oldest: u32,
    len: usize,
}

impl Links {
    pub fn new(pages: usize) -> Self {
        Self(vec![(NONE, NONE); pages])
    }
}

impl Fifo {
    pub const fn new() -> Self {
        Self { newest: NONE, oldest: NONE, len: 0 }
    }

    pub const fn len(&self) -> usize {
        self.len
    }

    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn push(&mut self, links: &mut Links, page: u32) {
        links.0[page as usize] = (NONE, self.newest);
        match self.newest {
            NONE => self.oldest = page,
            newest => links.0[newest as usize].0 = page,
        }
        self.newest = page;
        self.len += 1;
    }

    pub fn pop(&mut self, links: &mut Links) -> Option<u32> {
        let oldest = self.oldest;
        if oldest == NONE {
            return None;
        }
        self.remove(links, oldest);
        Some(oldest)
    }

    pub fn remove(&mut self, links: &mut Links, page: u32) {
        let (newer, older) = links.0[page as usize];
        match newer {
            NONE => self.newest = older,
            newer => links.0[newer as usize].1 = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => links.0[older as usize].0 = newer,
        }
        self.len -= 1;
    }
}
