//! What a file holds: its pages, as far as anything was written to them.

use pagefault_machine::PAGE_SIZE;
use pagefault_machine::machine::Page;
use std::collections::BTreeMap;

/// The bytes of a sparse file. A page that nothing was written to takes no memory and reads as
/// zeros.
#[derive(Debug, Default)]
pub(crate) struct Content {
    length: u64,
    pages: BTreeMap<u64, Box<Page>>,
}

impl Content {
    pub(crate) fn zeros(length: u64) -> Self {
        Self { length, pages: BTreeMap::new() }
    }

    pub(crate) fn new(bytes: &[u8]) -> Self {
        let mut content = Self::zeros(bytes.len() as u64);
        content.write(0, bytes);
        content
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Reads the page at `index`, and leaves what lies beyond the length as it is.
    pub(crate) fn read(&self, index: u64, page: &mut Page) {
        let rest = self.length.saturating_sub(index.saturating_mul(PAGE_SIZE));
        let length = rest.min(PAGE_SIZE) as usize;
        match self.pages.get(&index) {
            Some(content) => page[..length].copy_from_slice(&content[..length]),
            None => page[..length].fill(0),
        }
    }

    /// Drops what lies beyond the length.
    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let room = self.length.saturating_sub(offset);
        let mut rest = &bytes[..room.min(bytes.len() as u64) as usize];
        let mut at = offset;
        while !rest.is_empty() {
            let start = (at % PAGE_SIZE) as usize;
            let length = rest.len().min(PAGE_SIZE as usize - start);
            let (now, later) = rest.split_at(length);
            let page = self.pages.entry(at / PAGE_SIZE);
            page.or_insert_with(|| Box::new([0; PAGE_SIZE as usize]))[start..start + length]
                .copy_from_slice(now);
            at += length as u64;
            rest = later;
        }
    }

    /// What a shorter file loses is zeros when the file grows again.
    pub(crate) fn set_length(&mut self, length: u64) {
        self.length = length;
        self.pages.split_off(&length.div_ceil(PAGE_SIZE));
        if let Some(page) = self.pages.get_mut(&(length / PAGE_SIZE)) {
            page[(length % PAGE_SIZE) as usize..].fill(0);
        }
    }

    /// All bytes, holes as zeros.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.length as usize];
        for (index, page) in &self.pages {
            let rest = &mut bytes[(index * PAGE_SIZE) as usize..];
            let length = rest.len().min(page.len());
            rest[..length].copy_from_slice(&page[..length]);
        }
        bytes
    }
}
