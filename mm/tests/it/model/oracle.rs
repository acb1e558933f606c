//! What memory should contain, in plain bytes (spec I18).

use crate::common::PAGE;
use pagefault::machine::Protection;
use std::rc::Rc;

pub type Bytes = [u8; PAGE as usize];

/// How many pages the window has in which everything happens.
pub const WINDOW: usize = 48;

/// The content of a page that is a process's own.
///
/// Advice may leave open which of several contents it is; a load decides.
#[derive(Clone)]
pub struct Content {
    /// The values that it may have.
    possible: Vec<Rc<Bytes>>,
    /// It may become zero at any moment (`MADV_FREE`, spec J9).
    lazy: bool,
}

impl Content {
    pub fn zero() -> Self {
        Self::of([0; PAGE as usize])
    }

    pub fn of(bytes: Bytes) -> Self {
        Self { possible: vec![Rc::new(bytes)], lazy: false }
    }

    /// One of the contents it may have.
    pub fn first(&self) -> Bytes {
        *self.possible[0]
    }

    /// Allows the page to become zero until it is written again.
    pub fn free_lazily(&mut self) {
        self.lazy = true;
        let zero = Rc::new([0; PAGE as usize]);
        if !self.possible.iter().any(|content| **content == *zero) {
            self.possible.push(zero);
        }
    }

    pub fn store(&mut self, offset: usize, bytes: &[u8]) {
        self.lazy = false;
        for content in &mut self.possible {
            Rc::make_mut(content)[offset..][..bytes.len()].copy_from_slice(bytes);
        }
    }

    /// Whether a load may see these bytes; it then rules out what it contradicts.
    pub fn load(&mut self, offset: usize, bytes: &[u8]) -> bool {
        let fits = |content: &Rc<Bytes>| content[offset..][..bytes.len()] == *bytes;
        if !self.possible.iter().any(fits) {
            return false;
        }
        let lazy = self.lazy;
        self.possible.retain(|content| fits(content) || (lazy && content.iter().all(|b| *b == 0)));
        true
    }
}

/// One page of the window in one process.
#[derive(Clone)]
pub struct Slot {
    pub protection: Protection,
    pub shared: bool,
    pub locked: bool,
    pub stays_at_fork: bool,
    /// The object's number in [`Objects`] and the page index, unless the memory is anonymous.
    pub object: Option<(usize, u64)>,
    /// The process's own content, if it has one.
    pub own: Option<Content>,
}

/// An object that is mapped: a file, or shared anonymous memory.
pub struct Object {
    pub bytes: Vec<u8>,
}

impl Object {
    pub fn pages(&self) -> u64 {
        (self.bytes.len() as u64).div_ceil(PAGE)
    }

    /// A page, zeros past the end.
    pub fn page(&self, index: u64) -> Bytes {
        let mut page = [0; PAGE as usize];
        let start = ((index * PAGE) as usize).min(self.bytes.len());
        let end = (start + PAGE as usize).min(self.bytes.len());
        page[..end - start].copy_from_slice(&self.bytes[start..end]);
        page
    }

    /// How many bytes of a page are before the end.
    pub fn valid(&self, index: u64) -> usize {
        (self.bytes.len() as u64).saturating_sub(index * PAGE).min(PAGE) as usize
    }
}

/// What an access should come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    Fine,
    NotMapped,
    Denied,
    PastTheEnd,
}

/// A process's window.
#[derive(Clone)]
pub struct Window(pub Vec<Option<Slot>>);

impl Window {
    pub fn new() -> Self {
        Self(vec![None; WINDOW])
    }

    pub fn expect(&self, page: usize, needed: Protection, objects: &[Object]) -> Expected {
        match &self.0[page] {
            None => Expected::NotMapped,
            Some(slot) if !slot.protection.intersects(needed) => Expected::Denied,
            Some(Slot { object: Some((object, index)), own: None, .. })
                if *index >= objects[*object].pages() =>
            {
                Expected::PastTheEnd
            }
            Some(_) => Expected::Fine,
        }
    }

    /// Stores into a page for which that is fine.
    pub fn store(&mut self, page: usize, offset: usize, bytes: &[u8], objects: &mut [Object]) {
        let Some(slot) = &mut self.0[page] else { unreachable!("a fine page is mapped") };
        match slot.object {
            Some((object, index)) if slot.shared => {
                let start = (index * PAGE) as usize + offset;
                objects[object].bytes[start..start + bytes.len()].copy_from_slice(bytes);
            }
            object => {
                let own = slot.own.get_or_insert_with(|| match object {
                    Some((object, index)) => Content::of(objects[object].page(index)),
                    None => Content::zero(),
                });
                own.store(offset, bytes);
            }
        }
    }

    /// Whether a load from a page for which that is fine may see these bytes.
    pub fn load(&mut self, page: usize, offset: usize, bytes: &[u8], objects: &[Object]) -> bool {
        let Some(slot) = &mut self.0[page] else { unreachable!("a fine page is mapped") };
        match (&mut slot.own, slot.object) {
            (Some(own), _) => own.load(offset, bytes),
            (None, Some((object, index))) => {
                objects[object].page(index)[offset..][..bytes.len()] == *bytes
            }
            (None, None) => bytes.iter().all(|byte| *byte == 0),
        }
    }

    /// The window of a forked child.
    pub fn fork(&self) -> Self {
        let mut child = self.clone();
        for slot in &mut child.0 {
            match slot {
                Some(Slot { stays_at_fork: true, .. }) => *slot = None,
                Some(slot) => slot.locked = false,
                None => {}
            }
        }
        child
    }

    /// How many own pages there may be at most, and how many are locked.
    pub fn locked(&self) -> usize {
        self.0.iter().flatten().filter(|slot| slot.locked).count()
    }
}
