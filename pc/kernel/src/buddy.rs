//! A buddy allocator for frames.
//!
//! Free memory is kept in blocks of 2^order frames, each aligned to its own size. A request takes
//! the smallest block that will do and gives the halves that are too much back; a block that comes
//! back joins its buddy, the other half of the next larger block, if that is free as a whole. The
//! lists are threaded through an array with one element a frame, so that nothing is written into
//! free memory itself.

/// The number of orders: the largest block has 2^(ORDERS − 1) frames (4 MiB).
pub const ORDERS: usize = 11;

const NONE: u32 = u32::MAX;
const NOT_FREE: u32 = u32::MAX;

/// One frame's place in the lists.
#[derive(Clone, Copy)]
pub struct Link {
    next: u32,
    previous: u32,
    /// The order of the free block that starts here.
    order: u32,
}

impl Link {
    /// A frame that is not free.
    pub const USED: Self = Self { next: NONE, previous: NONE, order: NOT_FREE };
}

/// The free frames.
pub struct Buddy<'a> {
    links: &'a mut [Link],
    heads: [u32; ORDERS],
    free: u32,
}

impl<'a> Buddy<'a> {
    /// No frame is free yet; `links` has an element for each, all [`Link::USED`].
    pub const fn new(links: &'a mut [Link]) -> Self {
        Self { links, heads: [NONE; ORDERS], free: 0 }
    }

    /// The number of free frames.
    pub const fn free_frames(&self) -> u32 {
        self.free
    }

    /// Takes 2^`order` frames and returns the first, aligned to the size.
    pub fn allocate(&mut self, order: usize) -> Option<u32> {
        let larger = (order..ORDERS).find(|&larger| self.heads[larger] != NONE)?;
        let frame = self.heads[larger];
        self.unlink(frame, larger);
        for half in (order..larger).rev() {
            self.link(frame + (1 << half), half);
        }
        self.free -= 1 << order;
        Some(frame)
    }

    /// Gives 2^`order` frames back, which join their buddies as far as those are free.
    pub fn free(&mut self, frame: u32, order: usize) {
        self.free += 1 << order;
        let (mut frame, mut order) = (frame, order);
        while order + 1 < ORDERS {
            let buddy = frame ^ (1 << order);
            match self.links.get(buddy as usize) {
                Some(link) if link.order == order as u32 => self.unlink(buddy, order),
                _ => break,
            }
            frame = frame.min(buddy);
            order += 1;
        }
        self.link(frame, order);
    }

    fn link(&mut self, frame: u32, order: usize) {
        let next = self.heads[order];
        if let Some(link) = self.links.get_mut(next as usize) {
            link.previous = frame;
        }
        self.links[frame as usize] = Link { next, previous: NONE, order: order as u32 };
        self.heads[order] = frame;
    }

    fn unlink(&mut self, frame: u32, order: usize) {
        let Link { next, previous, .. } = self.links[frame as usize];
        self.links[frame as usize] = Link::USED;
        if let Some(link) = self.links.get_mut(next as usize) {
            link.previous = previous;
        }
        match self.links.get_mut(previous as usize) {
            Some(link) => link.next = next,
            None => self.heads[order] = next,
        }
    }
}
