//! Two words of each thread.
//!
//! Rust's thread-locals in a shared object go through `__tls_get_addr`, which may call `malloc`,
//! which needs these words. So they lie in the initial block of thread-local storage, which an
//! object loaded at start may use, and are reached without a call.

use core::arch::{asm, global_asm};
use core::cell::Cell;

global_asm!(
    ".pushsection .tbss,\"awT\",@nobits",
    ".balign 8",
    ".globl pagefault_thread_words",
    ".hidden pagefault_thread_words",
    ".type pagefault_thread_words,@object",
    ".size pagefault_thread_words, 16",
    "pagefault_thread_words:",
    ".zero 16",
    ".popsection",
);

/// What is known of the calling thread; all zero at its start.
#[repr(C)]
pub struct Words {
    /// How often the manager was entered and not left; above zero, nothing is managed.
    pub inside: Cell<u32>,
    /// One if this thread holds every lock because it is about to fork, or just did.
    pub forking: Cell<u32>,
    /// The number of the thread's arena plus one, or 0.
    pub arena: Cell<u32>,
    reserved: Cell<u32>,
}

/// The calling thread's words.
pub fn words() -> &'static Words {
    let words: *const Words;
    // By the x86-64 ABI, the thread pointer is the word at fs:0 and a variable of the initial block
    // lies at the offset that the linker puts into the global offset table.
    // SAFETY: the words are 16 zeroed bytes, aligned for u32, and this thread's: Words is not Sync.
    unsafe {
        asm!(
            "mov {0}, qword ptr fs:[0]",
            "add {0}, qword ptr [rip + pagefault_thread_words@GOTTPOFF]",
            out(reg) words,
            options(pure, readonly, nostack),
        );
        &*words
    }
}
