//! The code that brings the runtime into a program, without a stop after the exec.
//!
//! Two pieces of machine code run in the program, one after the other:
//! - The *stub* is written into the unused end of the program's vDSO. It maps the runtime's file and jumps
//!   to its last pages. The supervisor gives it all arguments in registers.
//! - The *loader* is in those pages. It replaces what is written to by private memory, fills that from the
//!   same file, relocates it, places the boot block, and jumps to the runtime.
//!
//! The file is relocated for a base that is the same in the whole tree, chosen at random. There the constants
//! are mapped as they are: all programs share their pages, and only a page of data is private. If a program has
//! something else there, the host chooses another place, and the loader relocates everything once more.
//!
//! If either fails, the program prints the supervisor's message and exits with status 125. All signals are
//! blocked meanwhile.

use super::image::{Image, LONGEST, Relocation};
use pagefault_control::{Boot, STATUS_FAILED};
use pagefault_linux::apart::IMAGES;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::mem::offset_of;

const PAGE: u64 = 4096;
/// The stack on which the runtime starts, with the boot block at its top: large enough for tables that are built
/// there and then moved.
const STACK: u64 = 1 << 20;

/// What the loader needs to know: numbers of bytes from the start of the runtime's file, which is laid out as
/// in memory.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Plan {
    /// What is private memory, for reading and writing: from here, of this length.
    private: u64,
    private_len: u64,
    /// How much of it is filled from the file.
    filled_len: u64,
    /// The boot block.
    block: u64,
    /// The runtime's first instruction.
    entry: u64,
    /// The number of relocations: pairs of a place and what its word names. Those of the boot block come first.
    relocations: u64,
    /// Where they are, in bytes from this plan.
    words: u64,
    /// The base for which the file is relocated.
    base: u64,
}

// The registers of the stub and the loader:
//   rdi rsi rdx r10 r8 r9   the arguments of the first mmap(2)
//   rbx   the loader's offset in the file
//   rbp   the boot block to be, on the program's stack, and directly after it
//   r12   the message for a failure, of the length
//   r13
//   r14   the plan: the first one if the file is relocated for the base, else the second
//   r15   the start of the mapping
std::arch::global_asm!(
    ".macro pagefault_give_up",
    "mov edi, 2",
    "mov rsi, r12",
    "mov rdx, r13",
    "mov eax, {write}",
    "syscall",
    "mov edi, {status}",
    "mov eax, {exit}",
    "syscall",
    "ud2",
    ".endm",
    // It is copied, not executed here.
    ".pushsection .rodata.pagefault_loader, \"a\", @progbits",
    // The references may be in other units of code generation.
    ".irp label, pagefault_stub, pagefault_stub_end, pagefault_loader, pagefault_loader_end",
    ".globl \\label",
    ".hidden \\label",
    ".endr",
    "pagefault_stub:",
    "mov eax, {mmap}",
    "syscall",
    "test rax, rax",
    "js 2f",
    "add rax, rbx",
    "jmp rax",
    "2: pagefault_give_up",
    "pagefault_stub_end:",
    ".balign 16",
    "pagefault_loader:",
    "mov r15, rax",
    "sub r15, rbx",
    "lea r14, [rip + pagefault_loader_end]",
    "cmp r15, [r14 + {base}]",
    "je 4f",
    "add r14, {plan_len}",
    "4:",
    // Private memory.
    "mov rdi, [r14 + {private}]",
    "add rdi, r15",
    "mov rsi, [r14 + {private_len}]",
    "mov edx, {read_write}",
    "mov r10d, {fixed}",
    "mov r8, -1",
    "xor r9d, r9d",
    "mov eax, {mmap}",
    "syscall",
    "test rax, rax",
    "js 2f",
    // Its pages, by one call instead of a fault for each. A host before Linux 5.14 does not know it.
    "mov rdi, rax",
    "mov rsi, [r14 + {filled_len}]",
    "add rsi, {page} - 1",
    "and rsi, -{page}",
    "mov edx, {populate}",
    "mov eax, {madvise}",
    "syscall",
    // Its content.
    "mov rsi, rdi",
    "mov edi, [rbp + {file}]",
    "mov rdx, [r14 + {filled_len}]",
    "mov r10, [r14 + {private}]",
    "mov eax, {pread}",
    "syscall",
    "cmp rax, [r14 + {filled_len}]",
    "jne 2f",
    // The boot block. The program's stack becomes as it was: zeros below the stack pointer.
    "mov rdi, [r14 + {block}]",
    "add rdi, r15",
    "mov rsi, rbp",
    "mov ecx, {block_len}",
    "rep movsb",
    "mov rdi, rbp",
    "lea rcx, [r12 + r13]",
    "sub rcx, rbp",
    "xor eax, eax",
    "rep stosb",
    // Relocations, at least those of the boot block.
    "mov rsi, [r14 + {words}]",
    "add rsi, r14",
    "mov rcx, [r14 + {relocations}]",
    "3: mov eax, [rsi]",
    "mov edx, [rsi + 4]",
    "add rdx, r15",
    "mov [r15 + rax], rdx",
    "add rsi, 8",
    "dec rcx",
    "jnz 3b",
    // A call of the runtime's entry, with a return address of zero.
    "mov rdi, [r14 + {block}]",
    "add rdi, r15",
    "mov rsp, rdi",
    "and rsp, -16",
    "sub rsp, 8",
    "add r15, [r14 + {entry}]",
    "xor ebp, ebp",
    "jmp r15",
    "2: pagefault_give_up",
    ".balign 8",
    "pagefault_loader_end:",
    ".popsection",
    mmap = const libc::SYS_mmap,
    madvise = const libc::SYS_madvise,
    populate = const libc::MADV_POPULATE_WRITE,
    page = const PAGE,
    pread = const libc::SYS_pread64,
    write = const libc::SYS_write,
    exit = const libc::SYS_exit_group,
    status = const STATUS_FAILED,
    read_write = const libc::PROT_READ | libc::PROT_WRITE,
    fixed = const libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED,
    file = const offset_of!(Boot, code_fd),
    block_len = const size_of::<Boot>(),
    plan_len = const size_of::<Plan>(),
    private = const offset_of!(Plan, private),
    private_len = const offset_of!(Plan, private_len),
    filled_len = const offset_of!(Plan, filled_len),
    block = const offset_of!(Plan, block),
    entry = const offset_of!(Plan, entry),
    relocations = const offset_of!(Plan, relocations),
    words = const offset_of!(Plan, words),
    base = const offset_of!(Plan, base),
);

unsafe extern "C" {
    static pagefault_stub: u8;
    static pagefault_stub_end: u8;
    static pagefault_loader: u8;
    static pagefault_loader_end: u8;
}

/// The bytes between two labels.
fn code(start: *const u8, end: *const u8) -> &'static [u8] {
    // SAFETY: both labels are of one constant section, the second one after the first.
    unsafe { std::slice::from_raw_parts(start, end.offset_from_unsigned(start)) }
}

/// The stub.
pub fn stub() -> &'static [u8] {
    code(&raw const pagefault_stub, &raw const pagefault_stub_end)
}

/// The runtime's file: the image, room for what it writes, and the loader.
pub struct Layout {
    /// The offset of the loader's first instruction.
    pub loader: u64,
    /// The length of all in memory, in whole pages.
    pub len: u64,
    /// What the loader's pages hold.
    pub content: Vec<u8>,
    /// The boot block of every process, as far as the image decides it.
    pub boot: Boot,
    /// Where the runtime preferably is.
    pub base: u64,
}

/// Chooses where the runtime is in the programs of a tree: at random, unless addresses are not to be.
pub fn choose_base() -> u64 {
    const QUERY: libc::c_ulong = 0xffff_ffff;
    let places = (IMAGES.end - IMAGES.start - LONGEST) / PAGE;
    // SAFETY: the call only asks.
    let persona = unsafe { libc::personality(QUERY) };
    let is_fixed = persona >= 0 && persona & libc::ADDR_NO_RANDOMIZE != 0;
    let chosen = if is_fixed { 0 } else { RandomState::new().build_hasher().finish() % places };
    IMAGES.start + chosen * PAGE
}

impl Layout {
    /// Plans the memory of an image that is preferably at a base.
    pub fn new(image: &Image<'_>, base: u64) -> Self {
        let stack = image.len();
        let loader = stack + STACK;
        let block = loader - size_of::<Boot>() as u64;
        let constants = image.constants();
        let boot = Boot {
            image_start: 0,
            image_len: image.len(),
            text_start: image.text().start,
            text_len: image.text().end - image.text().start,
            stack_start: stack,
            stack_len: STACK,
            constants_start: constants.start,
            constants_len: constants.end - constants.start,
            prepared: if image.written() > image.same_len() { base } else { 0 },
            ..Boot::default()
        };
        let own = [
            (offset_of!(Boot, image_start), boot.image_start),
            (offset_of!(Boot, text_start), boot.text_start),
            (offset_of!(Boot, stack_start), boot.stack_start),
            (offset_of!(Boot, constants_start), boot.constants_start),
        ];
        let own = own.map(|(field, named)| Relocation { place: block + field as u64, named });
        let relocations: Vec<_> = own.iter().chain(image.relocations()).collect();
        let plan = |private: u64, relocations: usize, words: usize| Plan {
            private,
            private_len: loader - private,
            filled_len: image.filled_len().saturating_sub(private),
            block,
            entry: image.entry(),
            relocations: relocations as u64,
            words: words as u64,
            base,
        };
        let prepared = plan(image.written(), own.len(), 2 * size_of::<Plan>());
        let elsewhere = plan(image.same_len(), relocations.len(), size_of::<Plan>());
        let code = code(&raw const pagefault_loader, &raw const pagefault_loader_end);
        let mut content = [code, &prepared.to_bytes(), &elsewhere.to_bytes()].concat();
        // Images are shorter than 4 GiB.
        let words = relocations.iter().flat_map(|it| [it.place as u32, it.named as u32]);
        content.extend(words.flat_map(u32::to_le_bytes));
        // What is left of the boot stack and the loader goes together.
        let len = loader + (content.len() as u64).next_multiple_of(PAGE);
        let mut layout = Self { loader, len, content, boot, base };
        layout.boot.stack_len = len - stack;
        layout
    }
}

impl Plan {
    fn to_bytes(self) -> [u8; size_of::<Self>()] {
        let words = [
            self.private,
            self.private_len,
            self.filled_len,
            self.block,
            self.entry,
            self.relocations,
            self.words,
            self.base,
        ];
        let mut bytes = [0; size_of::<Self>()];
        for (to, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *to = word.to_le_bytes();
        }
        bytes
    }
}
