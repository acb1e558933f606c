//! From a call's arguments to the areas that the kernel touches.

mod commands;
mod ioctl;
mod ioctl_inner;
mod sockets;
mod structures;

use crate::area::{Access, Area, Kind, Reader, USER_END};
use crate::call::{Arg, Decoder, Dir, Len, Width};
use crate::table::describe;
use core::ops::ControlFlow;

pub(crate) use commands::futex_interrupted;

/// The most areas that one visit names. No call that the kernel would accept has more.
pub const AREAS: u32 = 1 << 21;

/// The most bytes that one transfer moves.
pub(crate) const TRANSFER: u64 = 0x7fff_f000;
/// The most `iovec`s, and messages, of one call.
pub(crate) const VECTORS: u64 = 1024;
const PAGE: u64 = 4096;
/// How many words behind a pointer of unknown meaning are looked at.
const WORDS_BEHIND: u64 = 16;

type Flow = ControlFlow<()>;
const GO_ON: Flow = ControlFlow::Continue(());

/// Names every area of memory that the kernel may read or write for this call.
///
/// An inner pointer is named after the structure that holds it. What `memory` cannot read is named and
/// not followed: the kernel will say `EFAULT`. Areas may overlap and repeat. A call that the table does
/// not know has the memory that its arguments, and words behind them, seem to point to named as
/// [`Kind::Guess`].
///
/// Stops, and returns `Break`, when `f` does. Names at most [`AREAS`] areas.
pub fn visit(
    nr: u32,
    args: &[u64; 6],
    memory: &mut impl Reader,
    f: &mut impl FnMut(Area) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let mut walk = Walk { args, memory, f, left: AREAS };
    let Some(call) = describe(nr) else {
        return args.iter().try_for_each(|&arg| {
            walk.guess(arg)?;
            walk.guess_behind(arg, WORDS_BEHIND)
        });
    };
    call.args.iter().enumerate().try_for_each(|(index, &arg)| walk.argument(index, arg))
}

/// One visit.
struct Walk<'a> {
    args: &'a [u64; 6],
    memory: &'a mut dyn Reader,
    f: &'a mut dyn FnMut(Area) -> ControlFlow<()>,
    left: u32,
}

impl Walk<'_> {
    fn argument(&mut self, index: usize, arg: Arg) -> Flow {
        let start = self.args[index];
        if start == 0 {
            return GO_ON;
        }
        match arg {
            Arg::None | Arg::Value | Arg::Fd | Arg::Address => GO_ON,
            Arg::In(len) => self.sized(start, len, Dir::In, Kind::Record),
            Arg::Out(len) => self.sized(start, len, Dir::Out, Kind::Record),
            Arg::InOut(len) => self.sized(start, len, Dir::Both, Kind::Record),
            Arg::InData(len) => self.sized(start, len, Dir::In, Kind::Data),
            Arg::OutData(len) => self.sized(start, len, Dir::Out, Kind::Data),
            Arg::Str(most) => self.text(start, most.into()),
            Arg::StrArray => self.texts(start),
            Arg::Iovec { count, dir } => self.iovec(start, self.args[count as usize], dir),
            Arg::IovecArray { count } => {
                self.array(start, self.args[count as usize], VECTORS, 16, Dir::In)
            }
            Arg::Msghdr(dir) => self.msghdr(start, dir),
            Arg::Mmsghdr { count, dir } => self.mmsghdr(start, self.args[count as usize], dir),
            Arg::FdSet { bits } => {
                let len = Len::Bits { arg: bits, width: Width::I32, less: 0 };
                self.sized(start, len, Dir::Both, Kind::Data)
            }
            Arg::Pollfds { count } => {
                let count = self.args[count as usize] as u32;
                self.area(start, u64::from(count) * 8, Dir::Both, Kind::Record)
            }
            Arg::PackedSigset => self.packed_sigset(start),
            Arg::SockAddrOut { len } => self.socket_address(start, self.args[len as usize]),
            Arg::Word { flags } => self.futex_word(start, self.args[flags as usize] as u32),
            Arg::Later { len, dir } => self.sized(start, len, dir, Kind::Later),
            Arg::By(decoder) => self.decode(decoder, index, start),
        }
    }

    fn decode(&mut self, decoder: Decoder, index: usize, start: u64) -> Flow {
        match decoder {
            Decoder::Ioctl => self.ioctl(self.args[1] as u32, start),
            Decoder::Fcntl => self.fcntl(start),
            Decoder::Prctl => self.prctl(index, start),
            Decoder::ArchPrctl => self.arch_prctl(start),
            Decoder::Futex => self.futex(index, start),
            Decoder::FutexVector { count } => self.futex_vector(start, count),
            Decoder::Semctl => self.semctl(start),
            Decoder::Shmctl => self.shmctl(start),
            Decoder::Msgctl => self.msgctl(start),
            Decoder::Keyctl => self.keyctl(index, start),
            Decoder::Quotactl { command } => {
                self.quotactl(start, self.args[command as usize] as u32)
            }
            Decoder::EpollCtl => self.epoll_ctl(start),
            Decoder::Kcmp => self.kcmp(start),
            Decoder::Sysfs => self.sysfs(index, start),
            Decoder::Syslog => self.syslog(start),
            Decoder::ModifyLdt => self.modify_ldt(start),
            Decoder::Reboot => self.reboot(start),
            Decoder::MqOpen => self.mq_open(start),
            Decoder::Fsconfig => self.fsconfig(start),
            Decoder::LandlockRule => self.landlock_rule(start),
            Decoder::MountId => self.mount_id(start),
            Decoder::Seccomp => self.seccomp(start),
            Decoder::Ptrace => self.ptrace(index, start),
            Decoder::Bpf => self.bpf(start),
            Decoder::PerfEvent => self.perf_event(start),
            Decoder::Clone => self.clone_tid(index, start),
            Decoder::Clone3 => self.clone3(start),
            Decoder::FileHandle(dir) => self.file_handle(start, dir),
            Decoder::Capabilities(dir) => self.capabilities(start, dir),
            Decoder::MqNotify => self.mq_notify(start),
            Decoder::XattrArgs(dir) => self.xattr_args(start, dir),
            Decoder::KexecLoad => self.kexec_load(start),
            Decoder::SchedSetattr => self.sched_setattr(start),
            Decoder::IoSubmit => self.io_submit(start),
            Decoder::Setsockopt => self.setsockopt(start),
            Decoder::Getsockopt => self.getsockopt(start),
        }
    }

    /// Names one area, cut to where user memory ends.
    fn area(&mut self, start: u64, len: u64, dir: Dir, kind: Kind) -> Flow {
        let len = len.min(USER_END.saturating_sub(start));
        if start == 0 || len == 0 || self.left == 0 {
            return GO_ON;
        }
        self.left -= 1;
        let access = match dir {
            Dir::In => Access::Read,
            Dir::Out => Access::Write,
            Dir::Both => Access::ReadWrite,
        };
        (self.f)(Area { start, len, access, kind })
    }

    fn record(&mut self, start: u64, len: u64, dir: Dir) -> Flow {
        self.area(start, len, dir, Kind::Record)
    }

    fn data(&mut self, start: u64, len: u64, dir: Dir) -> Flow {
        self.area(start, len, dir, Kind::Data)
    }

    /// An array of at most `most` elements; the kernel refuses a longer one before it looks.
    fn array(&mut self, start: u64, count: u64, most: u64, each: u64, dir: Dir) -> Flow {
        if count > most {
            return GO_ON;
        }
        self.record(start, count * each, dir)
    }

    fn sized(&mut self, start: u64, len: Len, dir: Dir, kind: Kind) -> Flow {
        let mut len = self.len(len, start);
        if kind == Kind::Data {
            len = len.min(TRANSFER);
        }
        self.area(start, len, dir, kind)
    }

    fn len(&mut self, len: Len, start: u64) -> u64 {
        match len {
            Len::Const(len) => len.into(),
            Len::Of { arg, width, size, head } => {
                let count = narrow(self.args[arg as usize], width);
                count.saturating_mul(size.into()).saturating_add(head.into())
            }
            Len::At { arg, width } => {
                let at = self.args[arg as usize];
                let value = match width {
                    Width::U64 => self.memory.u64(at, 0),
                    Width::U32 => self.memory.u32(at, 0),
                    Width::I32 => self.memory.int(at, 0),
                };
                value.unwrap_or(0)
            }
            Len::Bits { arg, width, less } => {
                let bits = narrow(self.args[arg as usize], width).saturating_sub(less.into());
                bits.div_ceil(64).saturating_mul(8)
            }
            Len::Pages { arg } => self.args[arg as usize].div_ceil(PAGE),
            Len::Own { zero, least } => match self.memory.u32(start, 0) {
                Some(0) => zero.into(),
                Some(len) if len >= least.into() && len <= PAGE => len,
                _ => 4,
            },
        }
    }

    /// A string of at most `most` bytes with its NUL, page by page. Where it cannot be read the kernel
    /// stops too: only the first byte there is named.
    fn text(&mut self, start: u64, most: u64) -> Flow {
        self.text_length(start, most).1
    }

    /// As [`text`](Self::text), with the number of bytes up to the NUL and whether to go on.
    fn text_length(&mut self, start: u64, most: u64) -> (u64, Flow) {
        const CHUNK: usize = 64;
        let (mut piece, mut at) = (start, start);
        let end = start.saturating_add(most).min(USER_END);
        while at < end {
            // A chunk never leaves its page.
            let page_end = (at | (PAGE - 1)).saturating_add(1);
            let len = (page_end.min(end) - at).min(CHUNK as u64);
            let mut chunk = [0; CHUNK];
            let chunk = &mut chunk[..len as usize];
            if self.memory.read(at, chunk).is_none() {
                let flow = self.area(piece, (at - piece).max(1), Dir::In, Kind::Text);
                if flow.is_break() || at == piece {
                    return (at - start, flow);
                }
                return (at - start, self.area(at, 1, Dir::In, Kind::Text));
            }
            if let Some(nul) = chunk.iter().position(|&byte| byte == 0) {
                at += nul as u64 + 1;
                return (at - start, self.area(piece, at - piece, Dir::In, Kind::Text));
            }
            at += len;
            if at == page_end || at == end {
                let flow = self.area(piece, at - piece, Dir::In, Kind::Text);
                if flow.is_break() {
                    return (at - start, flow);
                }
                piece = at;
            }
        }
        (at - start, GO_ON)
    }

    /// `argv` or `envp`. The kernel takes no more than 6 MiB, and 128 KiB a string.
    fn texts(&mut self, start: u64) -> Flow {
        const STRING: u64 = 1 << 17;
        const ALL: u64 = 6 << 20;
        let (mut at, mut taken) = (start, 0);
        while taken < ALL {
            self.record(at, 8, Dir::In)?;
            let Some(string @ 1..) = self.memory.u64(at, 0) else { return GO_ON };
            let (len, flow) = self.text_length(string, STRING);
            flow?;
            taken += 8 + len;
            at = at.saturating_add(8);
        }
        GO_ON
    }

    /// An array of `iovec` and what they name, as far as one transfer goes.
    fn iovec(&mut self, start: u64, count: u64, dir: Dir) -> Flow {
        if count > VECTORS {
            return GO_ON;
        }
        self.record(start, count * 16, Dir::In)?;
        let mut left = TRANSFER;
        for i in 0..count {
            let Some(base) = self.memory.u64(start, i * 16) else { return GO_ON };
            let Some(len) = self.memory.u64(start, i * 16 + 8) else { return GO_ON };
            if len > i64::MAX as u64 {
                return GO_ON;
            }
            let len = len.min(left);
            left -= len;
            self.data(base, len, dir)?;
        }
        GO_ON
    }

    fn packed_sigset(&mut self, start: u64) -> Flow {
        self.record(start, 16, Dir::In)?;
        let (Some(set), Some(8)) = (self.memory.u64(start, 0), self.memory.u64(start, 8)) else {
            return GO_ON;
        };
        self.record(set, 8, Dir::In)
    }

    /// A page from where `value` points to, if it looks like an address.
    fn guess(&mut self, value: u64) -> Flow {
        if !looks_like_address(value) {
            return GO_ON;
        }
        self.area(value, PAGE, Dir::Both, Kind::Guess)
    }

    /// The same for the `words` aligned words from `start` on.
    fn guess_behind(&mut self, start: u64, words: u64) -> Flow {
        if !looks_like_address(start) {
            return GO_ON;
        }
        for i in 0..words {
            let Some(word) = self.memory.u64(start, i * 8) else { return GO_ON };
            self.guess(word)?;
        }
        GO_ON
    }

    /// The pointer at `start + offset`, and `len` bytes behind it.
    fn behind(&mut self, start: u64, offset: u64, len: u64, dir: Dir) -> Flow {
        match self.memory.u64(start, offset) {
            Some(inner) => self.record(inner, len, dir),
            None => GO_ON,
        }
    }
}

/// Whether a word can be a pointer to mapped memory: nothing is mapped below 64 KiB.
fn looks_like_address(value: u64) -> bool {
    (0x1_0000..USER_END).contains(&value)
}

fn narrow(value: u64, width: Width) -> u64 {
    match width {
        Width::U64 => value,
        Width::U32 => u64::from(value as u32),
        Width::I32 => (value as i32).max(0) as u64,
    }
}
