//! Calls that name a descriptor of the runtime's, which the program does not see.
//!
//! The host gets a number in its place that no descriptor has. So it refuses the call when and as it refuses any that
//! names a closed descriptor. Where the program's memory names the descriptor, the host gets a copy.

use super::message::{MMSGHDR, MOST_MESSAGES};
use super::{Call, Outcome};
use crate::sys::{Errno, Result};
use crate::{files, user};
use alloc::vec::Vec;
use linux_raw_sys::general as nr;
use linux_raw_sys::net;

/// The number of no descriptor: `fs.nr_open` cannot be so high.
const CLOSED: u32 = i32::MAX as u32;
/// Both are 8 bytes: the number, then what is waited for and what has come.
type PollFd = [u16; 4];
/// The bytes of a `cmsghdr`, and of a descriptor behind it.
const CMSGHDR: usize = 16;
const NUMBER: usize = 4;
/// The longest control messages that are looked at; the host takes less by default (`net.core.optmem_max`).
const MOST_CONTROL: u64 = 1 << 20;

/// The descriptors that every table has room for.
const SHORTEST_TABLE: u32 = 64;

/// What was done about the runtime's descriptors in a call.
pub(super) enum Hidden {
    /// The program's memory is as the host may see it.
    None,
    /// The call has a copy of the program's memory.
    Copied(Copy),
}

/// A copy of memory that names descriptors.
pub(super) enum Copy {
    /// Of the array of `poll(2)` at an address.
    Polled { from: u64, copy: Vec<PollFd> },
    /// Of one message: its header, as long as in an array of them, and its control messages.
    Message { length_at: Option<u64>, header: alloc::boxed::Box<[u64; 8]>, _control: Vec<u8> },
    /// Of a structure, which the host only reads.
    Structure { _bytes: Vec<u8> },
}

/// A structure that names a descriptor.
struct Naming {
    /// The argument that leads to it.
    index: usize,
    len: u64,
    /// Where the descriptor is in it.
    at: usize,
}

impl Naming {
    /// The structure of a call, by its command.
    fn of(number: u32, args: &[u64; 6]) -> Option<Self> {
        /// `FICLONERANGE`, `LOOP_CONFIGURE`, `LANDLOCK_RULE_PATH_BENEATH`.
        const CLONE_RANGE: u32 = 0x4020_940d;
        const CONFIGURE: u32 = 0x4c0a;
        const BENEATH: u32 = 1;
        /// The longest `struct mount_attr` that is looked at.
        const MOST: u64 = 4096;
        let naming = |index, len, at| Some(Self { index, len, at });
        match (number, args[1] as u32) {
            (nr::__NR_ioctl, CLONE_RANGE) => naming(2, 32, 0),
            (nr::__NR_ioctl, CONFIGURE) => naming(2, 304, 0),
            (nr::__NR_landlock_add_rule, BENEATH) => naming(2, 12, 8),
            (nr::__NR_mount_setattr, _) if (32..=MOST).contains(&args[4]) => naming(3, args[4], 24),
            _ => None,
        }
    }
}

impl Copy {
    /// Gives the program what the host has written to the copy.
    pub(super) fn give_back(self, made: Outcome) -> Outcome {
        let given = match (self, &made) {
            (Self::Polled { from, copy }, Outcome::Raw(raw)) if *raw >= 0 => {
                give_polled(from, &copy)
            }
            (Self::Message { length_at: Some(at), header, .. }, Outcome::Raw(1)) => {
                user::write(at, &(header[7] as u32))
            }
            _ => Ok(()),
        };
        given.map_or_else(|errno| Err(errno).into(), |()| made)
    }
}

fn give_polled(from: u64, copy: &[PollFd]) -> Result<()> {
    let at = |index: usize| from + (size_of::<PollFd>() * index) as u64 + 6;
    copy.iter().enumerate().try_for_each(|(index, entry)| user::write(at(index), &entry[3]))
}

impl Call<'_> {
    /// Hides the runtime's descriptors from the host's side of the call.
    pub(super) fn hide_descriptors(&mut self) -> Hidden {
        self.hide_arguments();
        match self.number {
            nr::__NR_poll | nr::__NR_ppoll => self.hide_polled(),
            nr::__NR_sendmsg | nr::__NR_sendmmsg => self.hide_sent(),
            nr::__NR_kcmp => self.hide_compared(),
            nr::__NR_pidfd_getfd if files::may_be_kept(self.args[1] as u32) => {
                let owner = files::owner_of_pidfd(self.args[0] as u32);
                self.hide_argument(1, owner);
                Hidden::None
            }
            _ => self.hide_in_structure(),
        }
    }

    /// The one in a structure.
    fn hide_in_structure(&mut self) -> Hidden {
        let Some(Naming { index, len, at }) = Naming::of(self.number, &self.args) else {
            return Hidden::None;
        };
        let from = self.args[index];
        let is_kept = |number: u32| files::may_be_kept(number) && files::is_kept(number);
        if !user::read::<u32>(from.wrapping_add(at as u64)).is_ok_and(is_kept) {
            return Hidden::None;
        }
        let mut bytes = alloc::vec![0; len as usize];
        // What it may not read, the host refuses.
        if user::read_bytes(from, &mut bytes).is_ok() {
            bytes[at..at + NUMBER].copy_from_slice(&CLOSED.to_ne_bytes());
            self.args[index] = bytes.as_ptr() as u64;
        }
        Hidden::Copied(Copy::Structure { _bytes: bytes })
    }

    /// Those that are arguments.
    fn hide_arguments(&mut self) {
        // Which of two numbers is refused, and how, `descriptor` knows.
        if matches!(self.number, nr::__NR_dup2 | nr::__NR_dup3) {
            return;
        }
        let mut left = pagefault_calls::descriptors(self.number) | self.descriptor_by_command();
        while left != 0 {
            let index = left.trailing_zeros() as usize;
            left &= left - 1;
            if files::may_be_kept(self.args[index] as u32) {
                self.hide_argument(index, Some(files::Owner::Own));
            }
        }
    }

    /// Further arguments that are descriptors, by the call's command.
    fn descriptor_by_command(&self) -> u8 {
        /// `F_DUPFD_QUERY`, `FSCONFIG_SET_FD`, `FICLONE`.
        const DUPFD_QUERY: u32 = 1027;
        const SET_FD: u32 = 5;
        const CLONE: u32 = 0x4004_9409;
        match (self.number, self.args[1] as u32) {
            (nr::__NR_fcntl, DUPFD_QUERY) | (nr::__NR_ioctl, CLONE) => 1 << 2,
            (nr::__NR_fsconfig, SET_FD) => 1 << 4,
            _ => 0,
        }
    }

    fn hide_argument(&mut self, index: usize, owner: Option<files::Owner>) {
        if owner.is_some_and(|owner| owner.keeps(self.args[index] as u32)) {
            self.args[index] = CLOSED.into();
        }
    }

    /// Those that `kcmp(2)` compares.
    fn hide_compared(&mut self) -> Hidden {
        /// `KCMP_FILE`, `KCMP_EPOLL_TFD`.
        const FILE: u32 = 0;
        const EPOLL: u32 = 7;
        let [first, second, kind, ..] = self.args.map(|arg| arg as u32);
        let mut hide = |index: usize, process: u32| {
            if files::may_be_kept(self.args[index] as u32) {
                self.hide_argument(index, files::owner(process));
            }
        };
        match kind {
            FILE => {
                hide(3, first);
                hide(4, second);
            }
            EPOLL => hide(3, first),
            _ => {}
        }
        Hidden::None
    }

    /// Those in the array of `poll(2)`.
    fn hide_polled(&mut self) -> Hidden {
        let [from, count, ..] = self.args;
        let count = u64::from(count as u32);
        let entry = |index: u64| user::read::<PollFd>(from.wrapping_add(8 * index));
        let is_kept = |entry: &PollFd| {
            files::may_be_kept(number_of(entry)) && files::is_kept(number_of(entry))
        };
        // The host refuses more.
        let count = if count <= files::limit() { count } else { 0 };
        if !(0..count).map_while(|index| entry(index).ok()).any(|entry| is_kept(&entry)) {
            return Hidden::None;
        }
        let Ok(mut copy) = (0..count).map(entry).collect::<Result<Vec<_>>>() else {
            return Hidden::None;
        };
        for entry in copy.iter_mut().filter(|entry| is_kept(entry)) {
            [entry[0], entry[1]] = [CLOSED as u16, (CLOSED >> 16) as u16];
        }
        self.args[0] = copy.as_ptr() as u64;
        Hidden::Copied(Copy::Polled { from, copy })
    }

    /// Makes `select(2)`. The kernel ignores bits behind the end of the process's table of descriptors, which is longer
    /// with the runtime's.
    pub(super) fn select(&mut self) -> Outcome {
        let made = match self.selects_kept() {
            true => Err(Errno::EBADF).into(),
            false => self.make_by_room(),
        };
        let Outcome::Raw(raw) = made else { return made };
        let count = self.args[0] as i32 as u32;
        if raw != -i64::from(Errno::EBADF.0) || count <= SHORTEST_TABLE {
            return made;
        }
        let table = table_without_kept(count);
        if table >= count {
            return made;
        }
        self.args[0] = table.into();
        if self.selects_kept() { made } else { self.make_by_room() }
    }

    /// Whether one of the sets of `select(2)` has a descriptor of the runtime's.
    fn selects_kept(&self) -> bool {
        let [count, sets @ .., _, _] = self.args;
        let count = count as i32;
        if count <= 0 || !files::may_be_kept(count as u32 - 1) {
            return false;
        }
        let has = |number: u32| {
            let word = |set: u64| user::read::<u64>(set.wrapping_add(u64::from(number) / 64 * 8));
            let is_in = |set: u64| word(set).is_ok_and(|word| word >> (number % 64) & 1 == 1);
            sets.into_iter().any(|set| set != 0 && is_in(set))
        };
        let mut from = 0;
        while let Some(number) = files::next_kept(from).filter(|number| *number < count as u32) {
            if has(number) {
                return true;
            }
            from = number + 1;
        }
        false
    }

    /// Those that a message brings to another process (`SCM_RIGHTS`).
    fn hide_sent(&mut self) -> Hidden {
        if self.number == nr::__NR_sendmsg {
            return match message_without(self.args[1]) {
                Some(copy) => self.send_copy(None, copy),
                None => Hidden::None,
            };
        }
        let [_, messages, count, ..] = self.args;
        for index in 0..u64::from(count as u32).min(MOST_MESSAGES) {
            let at = messages.wrapping_add(MMSGHDR * index);
            match message_without(at) {
                None => {}
                Some(copy) if index == 0 => {
                    self.args[2] = 1;
                    return self.send_copy(Some(at + 56), copy);
                }
                // The kernel tells of the message that it refuses in the next call.
                Some(_) => {
                    self.args[2] = index;
                    return Hidden::None;
                }
            }
        }
        Hidden::None
    }

    fn send_copy(&mut self, length_at: Option<u64>, copy: ([u64; 8], Vec<u8>)) -> Hidden {
        let (mut header, control) = copy;
        header[4] = control.as_ptr() as u64;
        let header = alloc::boxed::Box::new(header);
        self.args[1] = header.as_ptr() as u64;
        Hidden::Copied(Copy::Message { length_at, header, _control: control })
    }
}

/// How long the table of descriptors would be without the runtime's, as far as those below a number tell.
fn table_without_kept(below: u32) -> u32 {
    const STEP: u32 = 128;
    let is_own = |number: &u32| files::is_open(*number) && !files::is_kept(*number);
    match (SHORTEST_TABLE..below).rev().find(is_own) {
        Some(highest) => STEP * (highest / STEP + 1).next_power_of_two(),
        None => SHORTEST_TABLE,
    }
}

fn number_of(entry: &PollFd) -> u32 {
    u32::from(entry[0]) | u32::from(entry[1]) << 16
}

/// The header of a message and its control messages, without the runtime's descriptors; `None` if it names none.
fn message_without(at: u64) -> Option<([u64; 8], Vec<u8>)> {
    let own: [u64; 7] = user::read(at).ok()?;
    let [.., start, len, _] = own;
    if start == 0 || len < (CMSGHDR + NUMBER) as u64 || len > MOST_CONTROL {
        return None;
    }
    let mut control = alloc::vec![0; len as usize];
    user::read_bytes(start, &mut control).ok()?;
    let mut header = [0; 8];
    header[..7].copy_from_slice(&own);
    close_kept(&mut control).then_some((header, control))
}

/// Closes the runtime's descriptors in control messages; whether there are any.
fn close_kept(control: &mut [u8]) -> bool {
    let (mut at, mut found) = (0, false);
    while let Some(head) = control.get(at..at + CMSGHDR) {
        let word = |from: usize| {
            u32::from_ne_bytes([head[from], head[from + 1], head[from + 2], head[from + 3]])
        };
        let is_of_rights = word(8) == net::SOL_SOCKET && word(12) == net::SCM_RIGHTS;
        let len = word(0) as usize;
        if word(4) != 0 || len < CMSGHDR || len > control.len() - at {
            break;
        }
        if is_of_rights {
            for number in control[at + CMSGHDR..at + len].chunks_exact_mut(NUMBER) {
                let value = u32::from_ne_bytes([number[0], number[1], number[2], number[3]]);
                if files::may_be_kept(value) && files::is_kept(value) {
                    number.copy_from_slice(&CLOSED.to_ne_bytes());
                    found = true;
                }
            }
        }
        at += len.next_multiple_of(size_of::<u64>());
    }
    found
}
