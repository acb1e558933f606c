//! What the loader says about the machine: the PVH start information (Xen's `hvm_start_info`).

use crate::layout::KERNEL_BASE;
use core::ops::Range;

const MAGIC: u32 = 0x336e_c578;
const RAM: u32 = 1;

/// The most pieces of memory that are remembered; a PC under QEMU has four.
const PIECES: usize = 16;

/// The most bytes of settings that are read.
const SETTINGS: usize = 256;

#[repr(C)]
#[derive(Clone, Copy)]
struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    modules: u32,
    module_list: u64,
    command_line: u64,
    root_pointer: u64,
    memory_map: u64,
    memory_entries: u32,
    reserved: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct MemoryEntry {
    address: u64,
    size: u64,
    kind: u32,
    reserved: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Module {
    address: u64,
    size: u64,
    command_line: u64,
    reserved: u64,
}

/// The machine as the loader describes it; addresses are physical.
#[derive(Clone, Debug)]
pub struct BootInfo {
    /// The pieces of memory that can be used, in the loader's order; the rest are empty.
    pub memory: [Range<u64>; PIECES],
    /// The initial file system, empty if there is none.
    pub archive: Range<u64>,
    /// What the host tells the kernel, up to a zero byte; the rest are zeros.
    pub settings: [u8; SETTINGS],
    /// Where the ACPI tables begin.
    pub acpi: u64,
}

/// Why the start information cannot be used.
#[derive(Clone, Copy, Debug)]
pub enum StartError {
    /// It is not where the loader promised it.
    Magic(u32),
    /// It has no memory map.
    NoMemoryMap,
}

impl BootInfo {
    /// Copies what is needed out of the loader's structures.
    ///
    /// # Safety
    /// `address` is the physical address that the loader passed, and the lowest gigabyte is still
    /// mapped at [`KERNEL_BASE`].
    pub unsafe fn read(address: u64) -> Result<Self, StartError> {
        // SAFETY: the loader put the structure there, in the lowest gigabyte.
        let info = unsafe { at::<StartInfo>(address, 0) };
        if info.magic != MAGIC {
            return Err(StartError::Magic(info.magic));
        }
        if info.version == 0 || info.memory_entries == 0 {
            return Err(StartError::NoMemoryMap);
        }
        let mut memory = [const { 0..0 }; PIECES];
        let mut known = 0;
        for i in 0..info.memory_entries as usize {
            // SAFETY: the loader counts that many entries there.
            let entry = unsafe { at::<MemoryEntry>(info.memory_map, i) };
            if entry.kind == RAM && known < PIECES {
                memory[known] = entry.address..entry.address + entry.size;
                known += 1;
            }
        }
        let mut archive = 0..0;
        if info.modules > 0 {
            // SAFETY: the loader counts at least one module there.
            let module = unsafe { at::<Module>(info.module_list, 0) };
            archive = module.address..module.address + module.size;
        }
        let mut settings = [0; SETTINGS];
        for (i, byte) in settings.iter_mut().enumerate().take(SETTINGS - 1) {
            // SAFETY: the loader's text ends with a zero byte, at which the loop stops.
            *byte = unsafe { at::<u8>(info.command_line, i) };
            if info.command_line == 0 || *byte == 0 {
                *byte = 0;
                break;
            }
        }
        Ok(Self { memory, archive, settings, acpi: info.root_pointer })
    }

    /// Whether the host gave the setting `word`.
    pub fn has(&self, word: &str) -> bool {
        let text = self.settings.split(|byte| *byte == 0).next().unwrap_or_default();
        text.split(u8::is_ascii_whitespace).any(|given| given == word.as_bytes())
    }

    /// One past the highest frame of memory.
    pub fn frames(&self) -> u32 {
        let end = self.memory.iter().map(|piece| piece.end).max().unwrap_or(0);
        (end >> 12) as u32
    }

    /// The pieces of memory that are not empty, cut to whole pages.
    pub fn pieces(&self) -> impl Iterator<Item = Range<u64>> {
        self.memory
            .iter()
            .map(|piece| piece.start.next_multiple_of(4096)..piece.end & !4095)
            .filter(|piece| piece.start < piece.end)
    }
}

/// Copies the `index`th element of an array at a physical address.
///
/// # Safety
/// There is one, below one gigabyte, and that is still mapped at [`KERNEL_BASE`].
unsafe fn at<T: Copy>(address: u64, index: usize) -> T {
    let pointer = (KERNEL_BASE + address) as *const T;
    // SAFETY: by the caller's contract.
    unsafe { pointer.add(index).read_unaligned() }
}
