//! Which instructions after a `syscall` may move into a stub.
//!
//! They are decoded forwards from the call's return address, so their boundaries are certain. The
//! decoder knows only instructions that mean the same at any address.

/// The length of the jump that replaces a call.
pub const JUMP: usize = 5;
/// `syscall`.
pub const SYSCALL: [u8; 2] = [0x0f, 0x05];
/// `hlt`, which faults in a program.
pub const FAULTING: u8 = 0xf4;
/// The most bytes that are decoded.
pub const LONGEST: usize = 24;
/// The most bytes that a stub has room for.
pub const MOST_MOVED: usize = 10;

const RET: u8 = 0xc3;

/// The layout of a rewritten site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// How many bytes after the `syscall` move.
    pub moved: usize,
    /// The bytes of the jump, as bits, where a moved instruction began.
    pub interior: u8,
}

impl Shape {
    /// The shape of the code at a `syscall` instruction, if it can be rewritten. `code` ends early if
    /// the rest cannot be read; an instruction that is cut off does not move.
    pub fn of(place: u64, code: &[u8]) -> Option<Self> {
        if !code.starts_with(&SYSCALL) || code.len() < JUMP {
            return None;
        }
        let (mut at, mut interior) = (2, 0);
        while at < JUMP {
            interior |= 1 << at;
            let rest = code.get(at..)?;
            if rest.first() == Some(&RET) {
                at += 1;
                return is_padding(place + at as u64, code.get(at..)?, JUMP - at.min(JUMP))
                    .then_some(Self { moved: at - 2, interior });
            }
            at += movable(rest).filter(|len| *len <= rest.len())?;
        }
        (at - 2 <= MOST_MOVED).then_some(Self { moved: at - 2, interior })
    }
}

/// The length of an instruction that means the same at any address.
fn movable(code: &[u8]) -> Option<usize> {
    let rex = code.first().filter(|byte| **byte & 0xf0 == 0x40).copied();
    let prefix = usize::from(rex.is_some());
    let is_wide = rex.is_some_and(|rex| rex & 8 != 0);
    let opcode = *code.get(prefix)?;
    let operand = || operand(code.get(prefix + 1..)?);
    let len = match opcode {
        // add, or, and, sub, xor, cmp, test, mov, movsxd, lea: a register and an operand.
        0x01 | 0x03 | 0x09 | 0x0b | 0x21 | 0x23 | 0x29 | 0x2b | 0x31 | 0x33 | 0x39 | 0x3b
        | 0x63 | 0x85 | 0x89 | 0x8b | 0x8d => 1 + operand()?,
        // The same with a constant of 8 bits, and of 32.
        0x83 => 2 + operand()?,
        0x81 => 5 + operand()?,
        0xc7 if code.get(prefix + 1)? >> 3 & 7 == 0 => 5 + operand()?,
        0x05 | 0x0d | 0x25 | 0x2d | 0x35 | 0x3d | 0xa9 => 5,
        0xa8 => 2,
        // not, neg.
        0xf7 if matches!(code.get(prefix + 1)? >> 3 & 7, 2 | 3) => 1 + operand()?,
        // push, pop.
        0x50..=0x5f => 1,
        // mov of a constant.
        0xb8..=0xbf if is_wide => 9,
        0xb8..=0xbf => 5,
        _ => return None,
    };
    Some(prefix + len)
}

/// The length of an operand: its ModRM byte and the rest of the address. `None` for a RIP-relative
/// address.
fn operand(code: &[u8]) -> Option<usize> {
    let kinds = *code.first()?;
    let (mode, base) = (kinds >> 6, kinds & 7);
    let has_scale = mode != 3 && base == 4;
    let offset = match mode {
        0 if base == 5 => return None,
        0 if has_scale && code.get(1)? & 7 == 5 => 4,
        1 => 1,
        2 => 4,
        _ => 0,
    };
    Some(1 + usize::from(has_scale) + offset)
}

/// Whether the `len` bytes after the end of a function only align the next one.
fn is_padding(address: u64, code: &[u8], len: usize) -> bool {
    if len == 0 {
        return true;
    }
    // Padding aligns the next function, so none begins within these bytes.
    let begins_function = |offset: usize| (address + offset as u64).is_multiple_of(16);
    if (0..len).any(begins_function) {
        return false;
    }
    match padding(code) {
        Some(one) if one >= len => true,
        Some(one) => is_padding(address + one as u64, &code[one..], len - one),
        None => false,
    }
}

/// The length of an instruction that does nothing: `nop` in its forms, `int3` as a filler.
fn padding(code: &[u8]) -> Option<usize> {
    let prefixes = code.iter().take_while(|byte| matches!(byte, 0x66 | 0x2e)).count();
    match code.get(prefixes..)? {
        [0xcc, ..] if prefixes == 0 => Some(1),
        [0x90, ..] => Some(prefixes + 1),
        [0x0f, 0x1f, rest @ ..] => Some(prefixes + 2 + operand(rest)?),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn of(place: u64, code: &[u8]) -> Option<(usize, u8)> {
        let code: Vec<u8> = SYSCALL.into_iter().chain(code.iter().copied()).collect();
        Shape::of(place, &code).map(|shape| (shape.moved, shape.interior))
    }

    #[test]
    fn what_compilers_put_behind_a_call_moves() {
        // cmp rax, -4096; cmp rax, -4; mov rbp, rax; mov [rsp + 32], eax
        assert_eq!(of(0, &[0x48, 0x3d, 0, 0xf0, 0xff, 0xff]), Some((6, 1 << 2)));
        assert_eq!(of(0, &[0x48, 0x83, 0xf8, 0xfc]), Some((4, 1 << 2)));
        assert_eq!(of(0, &[0x48, 0x89, 0xc5]), Some((3, 1 << 2)));
        assert_eq!(of(0, &[0x89, 0x44, 0x24, 0x20]), Some((4, 1 << 2)));
        // pop rdx; cmp rax, -4095
        assert_eq!(of(0, &[0x5a, 0x48, 0x3d, 1, 0xf0, 0xff, 0xff]), Some((7, 1 << 2 | 1 << 3)));
        // mov edx, eax; mov rax, [rbx]
        assert_eq!(of(0, &[0x89, 0xc2, 0x48, 0x8b, 3]), Some((5, 1 << 2 | 1 << 4)));
    }

    #[test]
    fn the_end_of_a_function_moves_where_padding_follows() {
        let long = [0xc3, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0];
        assert_eq!(of(0x1005, &long), Some((1, 1 << 2)));
        assert_eq!(of(0x1005, &[0xc3, 0xcc, 0xcc]), Some((1, 1 << 2)));
        assert_eq!(of(0x1005, &[0xc3, 0x90, 0x0f, 0x1f, 0x00]), Some((1, 1 << 2)));
        // The next function begins at once, or after one byte.
        assert_eq!(of(0x100d, &[0xc3, 0x90, 0x90]), None);
        assert_eq!(of(0x100c, &[0xc3, 0x90, 0x90]), None);
        assert_eq!(of(0x1005, &[0xc3, 0x55, 0x90]), None);
    }

    #[test]
    fn an_instruction_that_is_cut_off_stays() {
        // cmp rax, -4095: six bytes, the last of which may be unreadable.
        let code = [0x48, 0x3d, 0x01, 0xf0, 0xff, 0xff];
        assert_eq!(of(0x1000, &code), Some((6, 0b100)));
        for len in 0..code.len() {
            assert_eq!(of(0x1000, &code[..len]), None, "{len}");
        }
    }

    #[test]
    fn what_depends_on_its_place_stays() {
        // jmp, a conditional jump, a call, lea of an address near it, another system call.
        for code in [
            &[0xeb, 0xf8, 0x90, 0x90][..],
            &[0x85, 0xc0, 0x78, 0x10],
            &[0xe8, 0, 0, 0, 0],
            &[0x48, 0x8d, 0x3d, 0, 0, 0, 0],
            &[0x48, 0x8b, 0x05, 0, 0, 0, 0],
            &[0x0f, 0x05, 0x90],
            &[0x48],
            &[],
        ] {
            assert_eq!(of(0x1005, code), None, "{code:x?}");
        }
        assert_eq!(Shape::of(0, &[0x90; 16]), None);
    }
}
