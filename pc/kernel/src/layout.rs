//! Where things are in the kernel's half of the addresses.
//!
//! | from | what |
//! |---|---|
//! | `0xffff_8880_0000_0000` | the direct map: all memory, one after the other |
//! | `0xffff_c200_0000_0000` | the vmalloc area (spec A3): the kernel's heap and device registers |
//! | `0xffff_e400_0000_0000` | the kernel's stacks, each with memory below it that is not mapped |
//! | `0xffff_ffff_8000_0000` | the kernel itself |

use core::ops::Range;

/// Where the kernel is linked: physical address 0.
pub const KERNEL_BASE: u64 = 0xffff_ffff_8000_0000;

/// Where physical address 0 appears in the direct map.
pub const DIRECT_MAP: u64 = 0xffff_8880_0000_0000;

/// The vmalloc area.
pub const VMALLOC: Range<u64> = 0xffff_c200_0000_0000..0xffff_e200_0000_0000;

/// Where the kernel's stacks are: what one entry of the top level translates.
pub const STACKS: Range<u64> = 0xffff_e400_0000_0000..0xffff_e480_0000_0000;

/// Each stack is the upper half of a block of this size in bytes; the lower half is not mapped.
pub const STACK_BLOCK: u64 = 65536;

/// The end of the addresses that programs may use (spec A3).
pub const TASK_SIZE: u64 = (1 << 47) - 4096;

/// How many bytes one entry of the top level translates.
pub const TOP_SPAN: u64 = 1 << 39;

unsafe extern "C" {
    static kernel_start: u8;
    static text_end: u8;
    static rodata_end: u8;
    static kernel_end: u8;
}

/// The borders of the kernel's image, as virtual addresses of whole pages.
#[derive(Clone, Debug)]
pub struct Image {
    /// Code.
    pub text: Range<u64>,
    /// Constants.
    pub rodata: Range<u64>,
    /// Variables.
    pub data: Range<u64>,
}

/// Where the linker put the parts of the kernel.
pub fn image() -> Image {
    let start = (&raw const kernel_start).addr() as u64;
    let text = (&raw const text_end).addr() as u64;
    let rodata = (&raw const rodata_end).addr() as u64;
    let end = (&raw const kernel_end).addr() as u64;
    Image { text: start..text, rodata: text..rodata, data: rodata..end }
}
