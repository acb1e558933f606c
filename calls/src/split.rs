//! Long transfers in pieces.

/// What kind of file a descriptor stands for, as `fstat` and `SO_TYPE` say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// A regular file, a directory, or a block device.
    Storage,
    /// A character device that neither waits nor ends: major number 1, as `/dev/zero`.
    Memory,
    /// A terminal.
    Terminal,
    /// A pipe, without `O_DIRECT`.
    Pipe,
    /// A socket of type `SOCK_STREAM`.
    Stream,
    /// Whatever keeps the bounds of a transfer: sockets of other types, a pipe with `O_DIRECT`,
    /// eventfd, signalfd, timerfd, inotify; other devices, anything unknown.
    Messages,
}

/// How a transfer that is longer than a piece is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Piece after piece, until one is short or fails.
    Each,
    /// Only the first piece: a short count is what the file itself may answer, and a second call
    /// could wait for what a single one would not wait for.
    First,
    /// Not in pieces: it is one message, or the kernel says nothing of parts.
    Whole,
}

/// Where a call's buffer and its length are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One buffer.
    Flat {
        /// The argument that points to it.
        buffer: u8,
        /// The argument that says its bytes.
        len: u8,
    },
    /// An array of `iovec`, of which the caller passes a cut copy.
    Vectors {
        /// The argument that points to the array.
        array: u8,
        /// The argument that says how many.
        count: u8,
    },
    /// A `msghdr`, of which the caller passes a copy with cut buffers.
    Message {
        /// The argument that points to it.
        header: u8,
    },
    /// An array of `mmsghdr`; a piece is some of the messages, and the result counts messages.
    Messages {
        /// The argument that points to the array.
        array: u8,
        /// The argument that says how many.
        count: u8,
    },
}

/// A transfer that may be done in pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pieces {
    /// Where the buffer is.
    pub shape: Shape,
    /// The argument that holds the position in the file, which a piece advances. Where it is −1
    /// (`preadv2`, `pwritev2`), the file's own position is used and nothing is advanced.
    pub offset: Option<u8>,
    /// Whether the program receives.
    pub input: bool,
    /// Whether every piece is waited for: `MSG_WAITALL`.
    pub wait_all: bool,
    /// The rule, where it is the same for every file.
    rule: Option<Rule>,
}

/// How this call may be done in pieces, or `None` if it may not.
///
/// A piece's size should be a multiple of 4096, for direct I/O, and at least 65,536, so that a write to
/// a pipe that is to be atomic is not cut. What a transfer in pieces loses is that others can see its
/// middle: two processes that append to one file may find their long writes interleaved.
#[allow(non_upper_case_globals, reason = "the constants' own names")]
pub fn split(nr: u32, args: &[u64; 6]) -> Option<Pieces> {
    use linux_raw_sys::general::*;
    use linux_raw_sys::net::{MSG_PEEK, MSG_WAITALL};
    let flat = Shape::Flat { buffer: 1, len: 2 };
    let vectors = Shape::Vectors { array: 1, count: 2 };
    let file = |shape, offset, input| Pieces { shape, offset, input, wait_all: false, rule: None };
    Some(match nr {
        __NR_read => file(flat, None, true),
        __NR_write => file(flat, None, false),
        __NR_pread64 => file(flat, Some(3), true),
        __NR_pwrite64 => file(flat, Some(3), false),
        __NR_readv => file(vectors, None, true),
        __NR_writev => file(vectors, None, false),
        __NR_preadv => file(vectors, Some(3), true),
        __NR_pwritev => file(vectors, Some(3), false),
        // RWF_ATOMIC promises one write.
        __NR_pwritev2 if args[5] & RWF_ATOMIC != 0 => return None,
        __NR_preadv2 => file(vectors, (args[3] as i64 != -1).then_some(3), true),
        __NR_pwritev2 => file(vectors, (args[3] as i64 != -1).then_some(3), false),
        // An unconnected or addressed send is a message's; a stream takes no address.
        __NR_sendto => file(flat, None, false),
        // A second look would see the same bytes again.
        __NR_recvfrom if args[3] as u32 & MSG_PEEK != 0 => {
            Pieces { rule: Some(Rule::Whole), ..file(flat, None, true) }
        }
        __NR_recvfrom => {
            Pieces { wait_all: args[3] as u32 & MSG_WAITALL != 0, ..file(flat, None, true) }
        }
        __NR_sendmsg => file(Shape::Message { header: 1 }, None, false),
        __NR_recvmsg if args[2] as u32 & MSG_PEEK != 0 => {
            Pieces { rule: Some(Rule::Whole), ..file(Shape::Message { header: 1 }, None, true) }
        }
        __NR_recvmsg => {
            let wait_all = args[2] as u32 & MSG_WAITALL != 0;
            Pieces { wait_all, ..file(Shape::Message { header: 1 }, None, true) }
        }
        // Each message is one already; the rest is sent or received by the next piece.
        __NR_sendmmsg | __NR_recvmmsg => {
            let shape = Shape::Messages { array: 1, count: 2 };
            Pieces { rule: Some(Rule::Each), ..file(shape, None, nr == __NR_recvmmsg) }
        }
        __NR_getrandom => {
            let shape = Shape::Flat { buffer: 0, len: 1 };
            Pieces { rule: Some(Rule::Each), ..file(shape, None, true) }
        }
        // A directory answers as many entries as there is room for.
        __NR_getdents | __NR_getdents64 => {
            Pieces { rule: Some(Rule::First), ..file(flat, None, true) }
        }
        _ => return None,
    })
}

const RWF_ATOMIC: u64 = 0x40;

impl Pieces {
    /// How the transfer is made on this kind of file.
    pub fn rule(&self, file: File) -> Rule {
        if let Some(rule) = self.rule {
            return rule;
        }
        match (file, self.input) {
            (File::Messages, _) => Rule::Whole,
            (File::Storage | File::Memory, _) => Rule::Each,
            (File::Stream, true) if self.wait_all => Rule::Each,
            (File::Terminal | File::Pipe | File::Stream, true) => Rule::First,
            (File::Terminal | File::Pipe | File::Stream, false) => Rule::Each,
        }
    }

    /// The arguments of the piece that begins after `done` bytes (messages) and has at most `most`.
    ///
    /// For [`Shape::Vectors`] and [`Shape::Message`] only the position is advanced: the caller puts its own array in.
    /// `None` when nothing is left.
    pub fn piece(&self, args: &[u64; 6], done: u64, most: u64) -> Option<[u64; 6]> {
        let mut piece = *args;
        match self.shape {
            Shape::Flat { buffer, len } => {
                let left = args[len as usize].min(crate::visit::TRANSFER).checked_sub(done)?;
                if left == 0 && done != 0 {
                    return None;
                }
                piece[buffer as usize] = args[buffer as usize].wrapping_add(done);
                piece[len as usize] = left.min(most);
            }
            Shape::Messages { array, count } => {
                let all = u64::from(args[count as usize] as u32).min(crate::visit::VECTORS);
                let left = all.checked_sub(done)?;
                if left == 0 && done != 0 {
                    return None;
                }
                piece[array as usize] = args[array as usize].wrapping_add(done * 64);
                piece[count as usize] = left.min(most);
            }
            Shape::Vectors { .. } | Shape::Message { .. } => {}
        }
        if let Some(offset) = self.offset {
            piece[offset as usize] = args[offset as usize].wrapping_add(done);
        }
        Some(piece)
    }

    /// What the whole call returns, once a piece of `asked` bytes (messages) has returned `result`
    /// after `done` of `all`; `None` if another piece follows.
    ///
    /// An error after a part is left out, as the kernel does: the program meets it at its next call.
    pub fn finished(rule: Rule, done: u64, asked: u64, all: u64, result: i64) -> Option<i64> {
        if result < 0 {
            return Some(if done == 0 { result } else { done as i64 });
        }
        let done = done + result as u64;
        let more = rule == Rule::Each && result as u64 == asked && done < all;
        if more { None } else { Some(done as i64) }
    }

    /// The part of an array of `iovec` (base, length) that begins after `done` bytes and has at most
    /// `most`: fills `into` from its start, and returns how many entries and how many bytes that are.
    pub fn cut(
        vectors: impl IntoIterator<Item = [u64; 2]>,
        done: u64,
        most: u64,
        into: &mut [[u64; 2]],
    ) -> (usize, u64) {
        let (mut skip, mut entries, mut bytes) = (done, 0, 0);
        for [base, len] in vectors {
            if bytes == most {
                break;
            }
            let skipped = skip.min(len);
            skip -= skipped;
            let taken = (len - skipped).min(most - bytes);
            if taken == 0 {
                continue;
            }
            let Some(entry) = into.get_mut(entries) else { break };
            *entry = [base.wrapping_add(skipped), taken];
            entries += 1;
            bytes += taken;
        }
        (entries, bytes)
    }
}
