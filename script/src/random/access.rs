//! Lines that load, store, and read and write files.

use super::Writer;
use super::world::{File, LONGEST_FILE};
use crate::ast::{Address, Op, PAGE, Range};

impl Writer {
    pub(super) fn new_file(&mut self) -> Op {
        let name = format!("f{}", self.world.files.len());
        let pages = self.rng.u64(1..24);
        self.world.files.push(File { name: name.clone(), pages });
        Op::File {
            name,
            length: pages * PAGE,
            seed: (!self.rarely(3)).then(|| self.rng.u64(..256)),
        }
    }

    pub(super) fn store(&mut self) {
        if self.rng.bool() {
            let address = self.byte();
            let bytes = self.bytes();
            self.line(Op::Write(address, bytes));
        } else {
            let range = self.bytes_range();
            let byte = self.rng.u8(..);
            self.line(Op::Fill(range, byte));
        }
    }

    pub(super) fn load(&mut self) {
        let range = self.bytes_range();
        self.line(Op::Read(range));
    }

    pub(super) fn execute(&mut self) {
        let address = self.byte();
        self.line(Op::Exec(address));
    }

    /// A debugger's access.
    pub(super) fn forced_access(&mut self) {
        if self.rng.bool() {
            let address = self.byte();
            let bytes = self.bytes();
            self.line(Op::Poke(address, bytes));
        } else {
            let range = self.bytes_range();
            self.line(Op::Peek(range));
        }
    }

    pub(super) fn kernel_access(&mut self) {
        if self.rng.bool() {
            let address = self.byte();
            let bytes = self.bytes();
            self.line(Op::ToUser(address, bytes));
        } else {
            let range = self.bytes_range();
            self.line(Op::FromUser(range));
        }
    }

    /// A store of one byte never makes a file longer.
    pub(super) fn file_write(&mut self) {
        let file = self.file();
        let length = self.world.files[file].pages * PAGE;
        let name = self.world.files[file].name.clone();
        if length < 64 || self.rarely(30) {
            let bytes = self.bytes();
            self.line(Op::Pwrite(name, 1 << 63, bytes));
            return;
        }
        let offset = self.rng.u64(..length - 48);
        let bytes = self.bytes();
        self.line(Op::Pwrite(name, offset, bytes));
    }

    pub(super) fn file_read(&mut self) {
        let file = self.file();
        let offset = self.rng.u64(..(self.world.files[file].pages + 1) * PAGE);
        let length = match self.rng.u32(..4) {
            0 => self.rng.u64(..5 * PAGE),
            _ => self.rng.u64(..40),
        };
        let name = self.world.files[file].name.clone();
        self.line(Op::Pread(name, offset, length));
    }

    /// A new length, in whole pages.
    pub(super) fn file_length(&mut self) {
        let file = self.file();
        let name = self.world.files[file].name.clone();
        if self.rarely(20) {
            self.line(Op::Truncate(name, 1 << 63));
            return;
        }
        if self.rarely(6) {
            self.line(Op::Fsync(name.clone()));
        }
        let most = if self.rarely(5) { LONGEST_FILE } else { 24 };
        self.truncate(file, most);
    }

    /// A file that ends within a page for a few lines, during which no line stores.
    pub(super) fn uneven_file(&mut self) {
        let file = self.file();
        let (name, pages) = {
            let file = &self.world.files[file];
            (file.name.clone(), file.pages)
        };
        let end = self.rng.u64(..(pages + 2) * PAGE);
        if self.rng.bool() {
            self.line(Op::Truncate(name.clone(), end));
        } else {
            let bytes = self.bytes();
            self.line(Op::Pwrite(name.clone(), pages * PAGE + end % PAGE, bytes));
        }
        for _ in 0..self.rng.u32(1..4) {
            self.world.switch(&mut self.rng);
            if self.rng.bool() {
                self.load();
            } else {
                self.line(Op::Pread(name.clone(), end.saturating_sub(8), 16));
            }
        }
        self.truncate(file, 24);
    }

    fn truncate(&mut self, file: usize, most: u64) {
        let pages = self.rng.u64(..=most);
        self.world.files[file].pages = pages;
        let name = self.world.files[file].name.clone();
        self.line(Op::Truncate(name, pages * PAGE));
    }

    fn file(&mut self) -> usize {
        self.rng.usize(..self.world.files.len())
    }

    /// Some bytes near a page's edge, or whole pages.
    fn bytes_range(&mut self) -> Range {
        if self.rarely(5) {
            return self.range();
        }
        Range {
            address: self.byte(),
            length: match self.rng.u32(..10) {
                0 => 0,
                1..4 => self.rng.u64(1..3 * PAGE),
                _ => self.rng.u64(1..40),
            },
        }
    }

    /// The address of a byte, often near a page's edge.
    fn byte(&mut self) -> Address {
        let mut address = self.range().address;
        address.offset += match self.rng.u32(..4) {
            0 => 0,
            1 => self.rng.u64(..PAGE),
            2 => PAGE - self.rng.u64(1..24),
            _ => self.rng.u64(..32),
        };
        address
    }

    /// A short string, sometimes empty.
    fn bytes(&mut self) -> Vec<u8> {
        let length = self.rng.usize(..40);
        let first = self.rng.u8(b'!'..b'~');
        (0..length as u8).map(|index| b'!' + (first - b'!' + index) % (b'~' - b'!')).collect()
    }
}
