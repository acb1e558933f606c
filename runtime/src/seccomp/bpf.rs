//! Classic BPF as `seccomp(2)` has it: programs that judge one system call by its number and its
//! arguments.

use crate::sys::Errno;
use alloc::vec::Vec;

/// The most instructions of a program (`BPF_MAXINSNS`).
pub const MOST: usize = 4096;

/// The words of scratch memory (`BPF_MEMWORDS`).
const WORDS: usize = 16;

/// An instruction (`struct sock_filter`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Instruction {
    pub(crate) code: u16,
    pub(crate) if_true: u8,
    pub(crate) if_false: u8,
    pub(crate) k: u32,
}

/// What a program sees of a call (`struct seccomp_data`).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Data {
    /// The call's number.
    pub number: u32,
    /// `AUDIT_ARCH_X86_64`.
    pub architecture: u32,
    /// The address of the instruction after the call.
    pub ip: u64,
    /// Its arguments.
    pub args: [u64; 6],
}

impl Data {
    const LEN: u32 = size_of::<Self>() as u32;

    /// The word at an offset that was checked.
    fn word(&self, offset: u32) -> u32 {
        let long = match offset / 8 {
            0 => u64::from(self.number) | u64::from(self.architecture) << 32,
            1 => self.ip,
            index => self.args[(index as usize - 2).min(5)],
        };
        if offset & 4 == 0 { long as u32 } else { (long >> 32) as u32 }
    }
}

// The parts of an instruction's code.
const CODE: u16 = 0xff;
const CLASS: u16 = 0x07;
const LD: u16 = 0x00;
const LDX: u16 = 0x01;
const ST: u16 = 0x02;
const STX: u16 = 0x03;
const ALU: u16 = 0x04;
const JMP: u16 = 0x05;
const RET: u16 = 0x06;
const MISC: u16 = 0x07;
/// The second operand is the index register, not `k`.
const BY_X: u16 = 0x08;
const OPERATION: u16 = 0xf0;

const LD_WORD: u16 = 0x20;
const LD_LEN: u16 = 0x80;
const LD_IMMEDIATE: u16 = 0x00;
const LD_MEMORY: u16 = 0x60;
const LDX_LEN: u16 = 0x81;
const LDX_IMMEDIATE: u16 = 0x01;
const LDX_MEMORY: u16 = 0x61;
const RET_K: u16 = 0x06;
const RET_A: u16 = 0x16;
const TAX: u16 = 0x07;
const TXA: u16 = 0x87;

const ADD: u16 = 0x00;
const SUB: u16 = 0x10;
const MUL: u16 = 0x20;
const DIV: u16 = 0x30;
const OR: u16 = 0x40;
const AND: u16 = 0x50;
const LSH: u16 = 0x60;
const RSH: u16 = 0x70;
const NEG: u16 = 0x80;
const XOR: u16 = 0xa0;

const JA: u16 = 0x00;
const JEQ: u16 = 0x10;
const JGT: u16 = 0x20;
const JGE: u16 = 0x30;
const JSET: u16 = 0x40;

/// A program that was checked: every run of it ends, within its bounds.
#[derive(Debug)]
pub struct Program(Vec<Instruction>);

impl Program {
    /// Checks a program as the kernel does.
    pub fn new(code: Vec<Instruction>) -> Result<Self, Errno> {
        let len = code.len();
        let is_valid = (1..=MOST).contains(&len)
            && code.iter().enumerate().all(|(at, instruction)| instruction.is_valid(at, len))
            && matches!(code.last(), Some(last) if last.code & CLASS == RET)
            && loads_what_was_stored(&code);
        if is_valid { Ok(Self(code)) } else { Err(Errno::EINVAL) }
    }

    /// How many instructions it has.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it may answer with a constant of which this holds; what it computes is not foreseen.
    pub fn answers(&self, holds: impl Fn(u32) -> bool) -> bool {
        self.0.iter().any(|instruction| instruction.code == RET_K && holds(instruction.k))
    }

    /// The instructions, as the kernel takes them.
    pub fn code(&self) -> &[Instruction] {
        &self.0
    }

    /// What it says about a call.
    pub fn run(&self, data: &Data) -> u32 {
        let (mut a, mut x, mut memory) = (0_u32, 0_u32, [0_u32; WORDS]);
        let mut at = 0;
        while let Some(instruction) = self.0.get(at) {
            let Instruction { code, if_true, if_false, k } = *instruction;
            let operand = if code & BY_X != 0 { x } else { k };
            at += 1;
            match code & CLASS {
                LD => {
                    a = match code {
                        LD_WORD => data.word(k),
                        LD_LEN => Data::LEN,
                        LD_MEMORY => memory[k as usize],
                        _ => k,
                    }
                }
                LDX => {
                    x = match code {
                        LDX_LEN => Data::LEN,
                        LDX_MEMORY => memory[k as usize],
                        _ => k,
                    }
                }
                ST => memory[k as usize] = a,
                STX => memory[k as usize] = x,
                ALU => match compute(code & OPERATION, a, operand) {
                    Some(result) => a = result,
                    // Division by zero ends the program with 0.
                    None => return 0,
                },
                JMP if code & OPERATION == JA => at += k as usize,
                JMP => {
                    let holds = compare(code & OPERATION, a, operand);
                    at += usize::from(if holds { if_true } else { if_false });
                }
                RET => return if code == RET_A { a } else { k },
                _ if code == TAX => x = a,
                _ => a = x,
            }
        }
        0
    }
}

fn compute(operation: u16, a: u32, operand: u32) -> Option<u32> {
    Some(match operation {
        ADD => a.wrapping_add(operand),
        SUB => a.wrapping_sub(operand),
        MUL => a.wrapping_mul(operand),
        DIV => a.checked_div(operand)?,
        OR => a | operand,
        AND => a & operand,
        LSH => a.wrapping_shl(operand),
        RSH => a.wrapping_shr(operand),
        NEG => a.wrapping_neg(),
        _ => a ^ operand,
    })
}

fn compare(operation: u16, a: u32, operand: u32) -> bool {
    match operation {
        JEQ => a == operand,
        JGT => a > operand,
        JGE => a >= operand,
        _ => a & operand != 0,
    }
}

impl Instruction {
    /// Whether it may stand at a place of a program of that length.
    fn is_valid(&self, at: usize, len: usize) -> bool {
        if self.code & !CODE != 0 {
            return false;
        }
        let in_memory = (self.k as usize) < WORDS;
        let rest = len - at - 1;
        let operation = self.code & OPERATION;
        match self.code & CLASS {
            LD | LDX => match self.code {
                LD_WORD => self.k < Data::LEN && self.k.is_multiple_of(4),
                LD_MEMORY | LDX_MEMORY => in_memory,
                LD_LEN | LDX_LEN | LD_IMMEDIATE | LDX_IMMEDIATE => true,
                _ => false,
            },
            ST | STX => matches!(self.code, ST | STX) && in_memory,
            ALU => {
                let by_x = self.code & BY_X != 0;
                match operation {
                    DIV => by_x || self.k != 0,
                    LSH | RSH => by_x || self.k < 32,
                    ADD | SUB | MUL | OR | AND | XOR => true,
                    NEG => !by_x,
                    _ => false,
                }
            }
            JMP => match operation {
                JA => self.code & BY_X == 0 && (self.k as usize) < rest,
                JEQ | JGT | JGE | JSET => {
                    usize::from(self.if_true) < rest && usize::from(self.if_false) < rest
                }
                _ => false,
            },
            RET => matches!(self.code, RET_K | RET_A),
            MISC => matches!(self.code, TAX | TXA),
            _ => false,
        }
    }
}

/// Whether every load from scratch memory follows a store to the same word, whatever way was taken.
/// The jumps are within the program.
fn loads_what_was_stored(code: &[Instruction]) -> bool {
    let mut stored = alloc::vec![u16::MAX; code.len()];
    let mut now = 0_u16;
    for (at, instruction) in code.iter().enumerate() {
        now &= stored[at];
        let mut jump = |by: usize, now: u16| {
            if let Some(there) = stored.get_mut(at + 1 + by) {
                *there &= now;
            }
        };
        match instruction.code & CLASS {
            ST | STX => now |= 1 << instruction.k,
            JMP => {
                if instruction.code & OPERATION == JA {
                    jump(instruction.k as usize, now);
                } else {
                    jump(instruction.if_true.into(), now);
                    jump(instruction.if_false.into(), now);
                }
                now = u16::MAX;
            }
            LD | LDX
                if matches!(instruction.code, LD_MEMORY | LDX_MEMORY)
                    && now & 1 << instruction.k == 0 =>
            {
                return false;
            }
            _ => {}
        }
    }
    true
}
