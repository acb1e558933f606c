//! The runtime's first argument.

/// The first words of a start: the argument of the runtime's entry.
///
/// The entry is called as a C function, `fn(&Boot) -> !`, on the boot stack, with all signals blocked. Unmapping
/// `stack_start..stack_start + stack_len` removes the stack, this block and the code that loaded the runtime.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Boot {
    /// `Control::LAYOUT` of the command that wrote this.
    pub magic: u64,
    /// Where the control memory is mapped; 0 until the runtime has mapped it.
    pub control: u64,
    /// The length of that memory in bytes, as far as each process may have it mapped all the time; 0 for none.
    pub control_len: u64,
    /// The descriptor of the control memory.
    pub control_fd: i32,
    /// The socket to the supervisor.
    pub socket_fd: i32,
    /// The file of the runtime's code; −1 for none.
    pub code_fd: i32,
    /// The slot of this process.
    pub slot: u32,
    /// [`Boot::FIRST`], [`Boot::GS_BASE`].
    pub flags: u32,
    /// Not used.
    pub spare: u32,
    /// The signals that the program blocks; until the runtime is ready, all are blocked.
    pub mask: u64,
    /// The start of the runtime's image.
    pub image_start: u64,
    /// Its length, `.bss` included, in whole pages.
    pub image_len: u64,
    /// The start of its executable segment, from which system calls pass through.
    pub text_start: u64,
    /// The length of the executable segment, in whole pages.
    pub text_len: u64,
    /// The first instruction of the program or of its interpreter.
    pub program_ip: u64,
    /// The program's initial stack pointer.
    pub program_sp: u64,
    /// The lower end of the boot stack.
    pub stack_start: u64,
    /// The length of the boot stack, of this block at its upper end, and of the code that loaded the runtime.
    pub stack_len: u64,
    /// The part that becomes read-only, in whole pages: the runtime protects it first of all.
    pub constants_start: u64,
    /// Its length.
    pub constants_len: u64,
    /// Where the image is relocated and its constants are protected before it is loaded.
    pub prepared: u64,
}

impl Boot {
    /// In `flags`: this is the program that the command was asked to run, not one started by it.
    pub const FIRST: u32 = 1;
    /// In `flags`: programs may read and write the base of `gs` (`HWCAP2_FSGSBASE`).
    pub const GS_BASE: u32 = 2;

    /// The block as the words in memory.
    pub const fn to_bytes(self) -> [u8; size_of::<Self>()] {
        // SAFETY: the structure is repr(C) of integers without padding: u64s, and six fields of
        // 32 bits that fill three words.
        unsafe { core::mem::transmute(self) }
    }
}
