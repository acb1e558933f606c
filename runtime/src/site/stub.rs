//! Stubs: the code to which a rewritten site jumps, and its place.
//!
//! ```text
//!   mov r11, gs:[tag]            the thread's block, if it is the program's `gs` no more
//!   rdgsbase rcx
//!   not rcx
//!   lea rcx, [rcx + r11 + …]     zero if the two agree; keeps the program's flags
//!   jrcxz enter
//! slow:
//!   syscall                      traps
//! next:
//!   lea rcx, [behind the call]   as a call of the kernel's leaves it
//! moved:
//!   …                            what stood behind the call
//!   jmp after them
//! enter:
//!   lea rcx, [next]
//!   jmp [pagefault_site]
//! ```
//!
//! Every system call clobbers rcx and r11, so they are free.

use super::enter;
use super::shape::{FAULTING, JUMP, MOST_MOVED, Shape};
use super::text::{Maps, Text};
use crate::frame::Registers;
use crate::sys;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicBool, AtomicU64};
use linux_raw_sys::general as nr;

/// The length of an area, which has two possible places for the stub of any call.
const AREA: u64 = 128 << 10;
/// The distance between code and a new area for it, so that the code's neighbours can grow.
const APART: u64 = 1 << 20;
/// The length of a stub.
const STUB: usize = 64;
/// Stubs begin at multiples of this.
const STEP: u64 = 16;

/// The offsets in a stub.
const SLOW: u64 = 27;
pub const NEXT: u64 = SLOW + 2;
const MOVED: u64 = NEXT + LEA;
/// The length of a `lea` of an address.
const LEA: u64 = 7;

/// An area: executable memory, with the address of the runtime's entry at its start.
struct Area {
    /// Its address; 0 for none.
    start: AtomicU64,
    /// Which steps are used.
    used: [AtomicU64; (AREA / STEP / 64) as usize],
}

static AREAS: [Area; 8] = [const {
    Area {
        start: AtomicU64::new(0),
        used: [const { AtomicU64::new(0) }; (AREA / STEP / 64) as usize],
    }
}; 8];

/// A rewritten site. Written once, under the lock of rewriting; `stub` comes last.
pub struct Record {
    place: AtomicU64,
    stub: AtomicU64,
    /// The moved bytes; `len` is their number.
    moved: [AtomicU64; 2],
    len: AtomicU64,
    interior: AtomicU64,
    /// Whether the jump is being written, so that its first byte may be a faulting one.
    is_written: AtomicBool,
}

/// The most sites that are rewritten: each costs two pages of memory.
const MOST: usize = 256;
static RECORDS: [Record; MOST] = [const {
    Record {
        place: AtomicU64::new(0),
        stub: AtomicU64::new(0),
        moved: [const { AtomicU64::new(0) }; 2],
        len: AtomicU64::new(0),
        interior: AtomicU64::new(0),
        is_written: AtomicBool::new(false),
    }
}; MOST];

/// Whether a range overlaps an area.
pub fn overlaps(start: u64, len: u64) -> bool {
    areas().any(|area| start < area + AREA && area < start.saturating_add(len))
}

fn areas() -> impl Iterator<Item = u64> {
    AREAS.iter().map(|area| area.start.load(Acquire)).filter(|start| *start != 0)
}

/// The record whose stub made the trapped call that ends at `ip`.
pub fn record_of_trap(ip: u64) -> Option<&'static Record> {
    Record::of_stub(ip).filter(|record| ip == record.stub() + NEXT)
}

impl Record {
    fn all() -> impl Iterator<Item = &'static Self> {
        RECORDS.iter().take_while(|record| record.stub.load(Acquire) != 0)
    }

    /// The record of a site.
    pub fn find(place: u64) -> Option<&'static Self> {
        Self::all().find(|record| record.place() == place)
    }

    /// The record whose stub contains an address.
    pub fn of_stub(ip: u64) -> Option<&'static Self> {
        if !areas().any(|area| ip.wrapping_sub(area) < AREA) {
            return None;
        }
        Self::all().find(|record| ip.wrapping_sub(record.stub()) < STUB as u64)
    }

    /// The record whose jump covers an instruction that began at `ip`, or whose jump starts at `ip`
    /// while it is written; and the address at which a thread continues in the stub.
    pub fn of_interior(ip: u64) -> Option<(&'static Self, u64)> {
        Self::all().find_map(|record| {
            let offset = ip.wrapping_sub(record.place());
            match offset {
                0 => Some((record, record.stub())),
                2..5 if record.interior.load(Relaxed) >> offset & 1 != 0 => {
                    Some((record, record.stub() + MOVED + offset - 2))
                }
                _ => None,
            }
        })
    }

    /// Makes a stub for a site, and its record. Nothing jumps to it yet.
    pub fn make(
        place: u64,
        shape: &Shape,
        code: &[u8],
        file: &Text,
        maps: &Maps,
    ) -> Option<&'static Self> {
        let record = RECORDS.iter().find(|record| record.stub.load(Acquire) == 0)?;
        let (area, stub) = find(place, shape).or_else(|| {
            make_area(place, maps)?;
            find(place, shape)
        })?;
        let moved = &code[2..2 + shape.moved];
        file.write(area, &enter::address().to_le_bytes())?;
        file.write(stub, &assemble(area, stub, place + 2 + shape.moved as u64, moved))?;
        let mut words = [0_u8; 16];
        words[..moved.len()].copy_from_slice(moved);
        for (word, bytes) in record.moved.iter().zip(words.chunks_exact(8)) {
            word.store(u64::from_le_bytes(bytes.try_into().ok()?), Relaxed);
        }
        record.len.store(moved.len() as u64, Relaxed);
        record.interior.store(shape.interior.into(), Relaxed);
        record.place.store(place, Relaxed);
        record.stub.store(stub, Release);
        Some(record)
    }

    /// Whether these bytes are the moved ones.
    pub fn has(&self, moved: &[u8]) -> bool {
        let mut words = [0_u8; 16];
        for (bytes, word) in words.chunks_exact_mut(8).zip(&self.moved) {
            bytes.copy_from_slice(&word.load(Relaxed).to_le_bytes());
        }
        words[..self.len()] == *moved
    }

    fn len(&self) -> usize {
        self.len.load(Relaxed) as usize
    }

    /// The address of the original call.
    pub fn place(&self) -> u64 {
        self.place.load(Relaxed)
    }

    /// Where the program continues after the call, by its own addresses.
    pub fn behind(&self) -> u64 {
        self.place() + 2
    }

    /// Whether the jump is being written.
    pub fn is_written(&self) -> bool {
        self.is_written.load(Acquire)
    }

    /// Sets whether the jump is being written.
    pub fn set_written(&self, is_written: bool) {
        self.is_written.store(is_written, Release);
    }

    /// The address of the stub.
    pub fn stub(&self) -> u64 {
        self.stub.load(Relaxed)
    }

    /// The stub's own call, which traps.
    pub fn slow(&self) -> u64 {
        self.stub() + SLOW
    }

    /// If code is about to continue after the call, makes it do so in the stub.
    pub fn go_on(&self, registers: &mut Registers) {
        if registers.rip == self.behind() {
            registers.rip = self.stub() + NEXT;
        }
    }

    /// The jump to the stub.
    pub fn jump(&self) -> [u8; JUMP] {
        jump(self.place(), self.stub())
    }

    /// The program address that an address in the stub stands for.
    pub fn shown(&self, ip: u64) -> u64 {
        match ip - self.stub() {
            NEXT => self.behind(),
            offset @ MOVED.. if offset <= MOVED + self.len() as u64 => {
                self.behind() + (offset - MOVED)
            }
            _ => self.place(),
        }
    }
}

fn jump(from: u64, to: u64) -> [u8; JUMP] {
    let [a, b, c, d] = (to.wrapping_sub(from + JUMP as u64) as u32).to_le_bytes();
    [0xe9, a, b, c, d]
}

/// `lea rcx, [to]`.
fn load(from: u64, to: u64) -> [u8; LEA as usize] {
    let [a, b, c, d] = (to.wrapping_sub(from + LEA) as u32).to_le_bytes();
    [0x48, 0x8d, 0x0d, a, b, c, d]
}

/// Finds a place for a call's stub such that the jump to it has faulting bytes where it must.
fn find(place: u64, shape: &Shape) -> Option<(u64, u64)> {
    for area in &AREAS {
        let start = area.start.load(Acquire);
        if start == 0 || start.abs_diff(place) > (1 << 31) - 2 * AREA {
            continue;
        }
        // Not on the first steps, which have the address of the entry.
        for step in 1..(AREA - STUB as u64) / STEP {
            let stub = start + step * STEP;
            if fits(place, stub, shape) && area.take(step) {
                return Some((start, stub));
            }
        }
    }
    None
}

/// Whether the jump to a stub faults where instructions began.
fn fits(place: u64, stub: u64, shape: &Shape) -> bool {
    let jump = jump(place, stub);
    (2..JUMP).all(|at| shape.interior >> at & 1 == 0 || jump[at] == FAULTING)
}

impl Area {
    /// Takes the steps of a stub, if they are free.
    fn take(&self, first: u64) -> bool {
        let steps =
            || (first..first + STUB as u64 / STEP).map(|step| (step as usize / 64, step % 64));
        let is_free = |(word, bit): (usize, u64)| self.used[word].load(Relaxed) >> bit & 1 == 0;
        if !steps().all(is_free) {
            return false;
        }
        for (word, bit) in steps() {
            self.used[word].fetch_or(1 << bit, Relaxed);
        }
        true
    }
}

/// Makes an area near a site.
fn make_area(place: u64, maps: &Maps) -> Option<()> {
    let area = AREAS.iter().find(|area| area.start.load(Acquire) == 0)?;
    let start = maps.gap_below(place, AREA + APART)?.checked_sub(AREA + APART)? & !0xffff;
    let prot = u64::from(nr::PROT_READ | nr::PROT_EXEC);
    let flags = nr::MAP_PRIVATE | nr::MAP_ANONYMOUS | nr::MAP_FIXED_NOREPLACE;
    let args = [start, AREA, prot, flags.into(), u64::MAX, 0];
    // SAFETY: a new mapping replaces nothing.
    let made = unsafe { sys::call(nr::__NR_mmap, args) }.ok()?;
    area.start.store(made, Release);
    Some(())
}

/// The code of a stub at `stub` for a program that continues at `behind`.
fn assemble(area: u64, stub: u64, behind: u64, moved: &[u8]) -> [u8; STUB] {
    let mut code = Code { bytes: [0xcc; STUB], len: 0 };
    let len = moved.len() as u64;
    let enter = MOVED + len + JUMP as u64;
    // mov r11, gs:[tag]
    code.put(&[0x65, 0x4c, 0x8b, 0x1c, 0x25]).put(&enter::TAG_AT.to_le_bytes());
    // rdgsbase rcx; not rcx; lea rcx, [rcx + r11 + 1 - TAG]
    code.put(&[0xf3, 0x48, 0x0f, 0xae, 0xc9]).put(&[0x48, 0xf7, 0xd1]);
    code.put(&[0x4a, 0x8d, 0x8c, 0x19]).put(&(1 - enter::TAG).to_le_bytes());
    // jrcxz enter; syscall
    code.put(&[0xe3, (enter - SLOW) as u8]).put(&[0x0f, 0x05]);
    code.put(&load(stub + NEXT, behind - len));
    code.put(moved).put(&jump(stub + MOVED + len, behind));
    code.put(&load(stub + enter, stub + NEXT));
    // jmp [area]
    let end = stub + enter + LEA + 6;
    code.put(&[0xff, 0x25]).put(&(area.wrapping_sub(end) as i32).to_le_bytes());
    code.bytes
}

const _: () = assert!((MOVED + LEA) as usize + MOST_MOVED + JUMP + 6 <= STUB);

struct Code {
    bytes: [u8; STUB],
    len: usize,
}

impl Code {
    fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    /// The target of a relative address at `at`, counted from its end.
    fn target(code: &[u8], at: usize, address: u64) -> u64 {
        let distance = i32::from_le_bytes(code[at..at + 4].try_into().unwrap());
        (address + at as u64 + 4).wrapping_add_signed(distance.into())
    }

    #[test]
    fn a_stub_goes_on_where_the_program_would() {
        let (area, stub, behind) = (0x7000_0000, 0x7000_4560, 0x6fff_0123);
        for moved in [&[0x48, 0x3d, 0, 0xf0, 0xff, 0xff][..], &[0xc3], &[0x90; MOST_MOVED]] {
            let code = assemble(area, stub, behind, moved);
            let (slow, next) = (SLOW as usize, NEXT as usize);
            assert_eq!(code[slow..next], [0x0f, 0x05]);
            assert_eq!(code[next..next + 3], [0x48, 0x8d, 0x0d]);
            assert_eq!(target(&code, next + 3, stub), behind - moved.len() as u64);
            let next = next + LEA as usize;
            assert_eq!(code[next..next + moved.len()], *moved);
            let jump = next + moved.len();
            assert_eq!((code[jump], target(&code, jump + 1, stub)), (0xe9, behind));
            // The target of jrcxz.
            let enter = slow + usize::from(code[slow - 1]);
            assert_eq!(enter, jump + JUMP);
            assert_eq!(code[enter..enter + 3], [0x48, 0x8d, 0x0d]);
            assert_eq!(target(&code, enter + 3, stub), stub + NEXT);
            assert_eq!(code[enter + 7..enter + 9], [0xff, 0x25]);
            assert_eq!(target(&code, enter + 9, stub), area);
        }
    }

    #[test]
    fn a_jump_faults_where_instructions_began() {
        let place = 0x7000_1234;
        for interior in [1 << 2, 1 << 2 | 1 << 3, 1 << 2 | 1 << 4] {
            let shape = Shape { moved: 6, interior };
            let stubs = (0..1_u64 << 28).step_by(16).map(|distance| 0x6000_0000 + distance);
            let fitting: Vec<u64> = stubs.filter(|stub| fits(place, *stub, &shape)).collect();
            assert!(!fitting.is_empty(), "{interior:b}");
            for stub in fitting {
                let jump = jump(place, stub);
                assert_eq!(target(&jump, 1, place), stub);
                let began = (2..JUMP).filter(|at| interior >> at & 1 != 0);
                assert!(began.into_iter().all(|at| jump[at] == FAULTING));
            }
        }
    }

    #[test]
    fn an_area_has_a_stub_for_every_place() {
        let shape = Shape { moved: 6, interior: 1 << 2 };
        for place in (0x7000_0000_u64..0x7001_0000).step_by(251) {
            let mut steps = 1..(AREA - STUB as u64) / STEP;
            assert!(steps.any(|step| fits(place, 0x7100_0000 + step * STEP, &shape)), "{place:x}");
        }
    }
}
