//! Messages of sockets whose buffers are in more pages than one call may keep resident.

use super::Call;
use super::passed::{Vectors, is_over};
use crate::entry;
use crate::memory::{PAGE, Pins};
use crate::user;
use linux_raw_sys::general as nr;
use linux_raw_sys::net::{MSG_DONTWAIT, MSG_NOSIGNAL};
use pagefault_calls::{Pieces, Rule, Shape};

/// Flags that `linux_raw_sys` lacks.
const MSG_WAITFORONE: u32 = 0x1_0000;
const MSG_FASTOPEN: u32 = 0x2000_0000;
const MSG_ZEROCOPY: u32 = 0x400_0000;
/// The bytes of a `mmsghdr`.
pub(super) const MMSGHDR: u64 = 64;
/// The most messages that a call takes; further ones are left out.
pub(super) const MOST_MESSAGES: u64 = 1024;

/// The words of a `msghdr`.
#[derive(Clone, Copy)]
pub(super) struct Header([u64; 7]);

impl Header {
    const NAME_LEN: usize = 1;
    const VECTORS: usize = 2;
    const COUNT: usize = 3;
    const CONTROL_LEN: usize = 5;
    const FLAGS: usize = 6;

    pub(super) fn read(address: u64) -> Option<Self> {
        user::read(address).ok().map(Self)
    }

    pub(super) fn vectors(&self) -> Option<Vectors> {
        Vectors::of_buffers(self.0[Self::VECTORS], self.0[Self::COUNT])
    }

    /// The same message with other buffers. Only the first part has an address and control messages.
    fn with(&self, vectors: &[[u64; 2]], done: u64) -> Self {
        let [name, name_len, _, _, control, control_len, flags] = self.0;
        let [buffers, count] = [vectors.as_ptr() as u64, vectors.len() as u64];
        Self(match done {
            0 => [name, name_len, buffers, count, control, control_len, flags],
            _ => [0, 0, buffers, count, 0, 0, flags],
        })
    }

    /// Gives the program what the kernel says of a message that it received.
    fn give(&self, address: u64) -> bool {
        let [name_len, flags] =
            [self.0[Self::NAME_LEN], self.0[Self::FLAGS]].map(|word| word as u32);
        let at = |word: usize| address + 8 * word as u64;
        let given = user::write(at(Self::NAME_LEN), &name_len)
            .and_then(|()| user::write(at(Self::FLAGS), &flags))
            .and_then(|()| user::write(at(Self::CONTROL_LEN), &self.0[Self::CONTROL_LEN]));
        given.is_ok()
    }

    /// At most how many pages the message is in.
    fn pages(&self) -> u64 {
        let [_, name_len, _, count, _, control_len, _] = self.0;
        let total = self.vectors().map_or(0, |vectors| vectors.total);
        let flat = [u64::from(name_len as u32).min(PAGE), control_len.min(1 << 20), total];
        let bytes: u64 = flat.iter().map(|len| len / PAGE).sum();
        bytes + 6 + 2 * count.min(1024) + count.min(1024) * 16 / PAGE
    }
}

impl Call<'_> {
    /// Makes a long write to a stream as what it is, a send, whose parts can be made without a signal.
    pub(super) fn send(
        &mut self,
        args: &[u64; 6],
        transfer: impl FnOnce(&Self, &Pieces, &[u64; 6]) -> i64,
    ) -> i64 {
        let [file, start, len, ..] = *args;
        let header = [0, 0, start, len, 0, 0, 0_u64];
        let (number, args) = match self.number {
            nr::__NR_write => (nr::__NR_sendto, [file, start, len, 0, 0, 0]),
            nr::__NR_writev => (nr::__NR_sendmsg, [file, (&raw const header) as u64, 0, 0, 0, 0]),
            number => (number, *args),
        };
        let asked = core::mem::replace(&mut self.number, number);
        let raw = match pagefault_calls::split(number, &args) {
            Some(pieces) => transfer(self, &pieces, &args),
            None => self.make_with_pins(&args),
        };
        self.number = asked;
        raw
    }

    /// Makes a call with these buffers in place of the program's, of which `done` bytes are done.
    pub(super) fn make_with_vectors(
        &self,
        pieces: &Pieces,
        args: &[u64; 6],
        vectors: &[[u64; 2]],
        done: u64,
    ) -> i64 {
        let mut replaced = *args;
        match pieces.shape {
            Shape::Vectors { array, count } => {
                replaced[array as usize] = vectors.as_ptr() as u64;
                replaced[count as usize] = vectors.len() as u64;
                self.make_with_pins(&replaced)
            }
            Shape::Message { header } => {
                let address = args[header as usize];
                let Some(own) = Header::read(address) else { return self.make_with_pins(args) };
                let part = core::cell::Cell::new(own.with(vectors, done).0);
                replaced[header as usize] = part.as_ptr() as u64;
                let raw = self.make_with_pins(&replaced);
                if pieces.input && raw >= 0 && done == 0 && !Header(part.get()).give(address) {
                    return -i64::from(crate::sys::Errno::EFAULT.0);
                }
                raw
            }
            Shape::Flat { .. } | Shape::Messages { .. } => self.make_with_pins(args),
        }
    }

    /// Makes a call of many messages, as many at once as one call may keep resident, after `done` of them.
    pub(super) fn transfer_messages(&self, args: &[u64; 6], mut done: u64) -> i64 {
        let all = count_of(args);
        while done < all || all == 0 {
            let mut piece = *args;
            piece[1] += done * MMSGHDR;
            let asked = fitting(piece[1], all - done);
            piece[2] = asked;
            if done > 0 && self.number == nr::__NR_recvmmsg && args[3] as u32 & MSG_WAITFORONE != 0
            {
                piece[3] |= u64::from(MSG_DONTWAIT);
            }
            let raw = self.make_with_pins(&piece);
            if matches!(raw, entry::RESTART | entry::NOT_STARTED) {
                return if done > 0 { done as i64 } else { raw };
            }
            let asked = if self.was_cut(raw) { raw as u64 } else { asked };
            match Pieces::finished(Rule::Each, done, asked, all, raw) {
                Some(result) => return result,
                None => done += raw as u64,
            }
            if self.number == nr::__NR_recvmmsg && is_over(args[4]) {
                return done as i64;
            }
        }
        done as i64
    }
}

/// Whether a message has room for control messages, of which only one part may bring some.
pub(super) fn awaits_control(pieces: &Pieces, args: &[u64; 6]) -> bool {
    let Shape::Message { header } = pieces.shape else { return false };
    pieces.input
        && Header::read(args[header as usize]).is_some_and(|own| own.0[Header::CONTROL_LEN] > 0)
}

/// Changes the arguments of a further part: if the peer has gone, the kernel returns the parts before, without a signal.
/// A send without a copy is told of once, for its first part.
pub(super) fn go_on(number: u32, args: &mut [u64; 6]) {
    let flags = match number {
        nr::__NR_sendto => &mut args[3],
        nr::__NR_sendmsg => &mut args[2],
        _ => return,
    };
    *flags = (*flags | u64::from(MSG_NOSIGNAL)) & !u64::from(MSG_FASTOPEN | MSG_ZEROCOPY);
}

/// Whether the messages of a call are in more pages than it may keep resident.
pub(super) fn are_many(args: &[u64; 6]) -> bool {
    fitting(args[1], count_of(args)) < count_of(args)
}

fn count_of(args: &[u64; 6]) -> u64 {
    u64::from(args[2] as u32).min(MOST_MESSAGES)
}

/// How many of the messages at an address one call may keep resident, at least one.
fn fitting(start: u64, count: u64) -> u64 {
    let mut left = (Pins::most() as u64).saturating_sub(count * MMSGHDR / PAGE + 2);
    for index in 0..count {
        let Some(header) = start.checked_add(index * MMSGHDR).and_then(Header::read) else {
            return count;
        };
        match left.checked_sub(header.pages()) {
            Some(rest) => left = rest,
            None => return index.max(1),
        }
    }
    count
}
