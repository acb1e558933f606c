//! The words in which the rows are written.

pub(super) use crate::call::{Arg, Call, Class, Decoder, Dir, Errno, Interrupted, Len};
pub(super) use crate::call::{Subject, Traits, Width};

pub(super) const V: Arg = Arg::Value;
pub(super) const FD: Arg = Arg::Fd;
pub(super) const ADDRESS: Arg = Arg::Address;
/// A path: `PATH_MAX`.
pub(super) const PATH: Arg = Arg::Str(4096);
/// `timespec`, `timeval`, `timezone`.
pub(super) const TIMESPEC: u32 = 16;
/// `itimerval`, `itimerspec`.
pub(super) const TIMER: u32 = 32;
pub(super) const RUSAGE: u32 = 144;
pub(super) const STAT: u32 = 144;

pub(super) const fn input(len: u32) -> Arg {
    Arg::In(Len::Const(len))
}

pub(super) const fn output(len: u32) -> Arg {
    Arg::Out(Len::Const(len))
}

pub(super) const fn both(len: u32) -> Arg {
    Arg::InOut(Len::Const(len))
}

/// As many bytes as the argument, a `size_t`, says.
pub(super) const fn size(arg: u8) -> Len {
    each(arg, Width::U64, 1)
}

pub(super) const fn uint(arg: u8) -> Len {
    each(arg, Width::U32, 1)
}

pub(super) const fn int(arg: u8) -> Len {
    each(arg, Width::I32, 1)
}

pub(super) const fn each(arg: u8, width: Width, size: u32) -> Len {
    Len::Of { arg, width, size, head: 0 }
}

pub(super) const fn by(decoder: Decoder) -> Arg {
    Arg::By(decoder)
}

pub(super) const fn iovec(count: u8, dir: Dir) -> Arg {
    Arg::Iovec { count, dir }
}

/// A set of signals, whose size another argument holds.
pub(super) const fn sigset(size_in: u8) -> Arg {
    Arg::In(size(size_in))
}

/// A row for a call that the host makes.
pub(super) const fn call<const N: usize>(nr: u32, name: &'static str, taken: [Arg; N]) -> Call {
    let mut args = [Arg::None; 6];
    let mut i = 0;
    while i < N {
        args[i] = taken[i];
        i += 1;
    }
    let traits = Traits::empty();
    Call { nr, name, args, class: Class::Host, traits, interrupted: Interrupted::Never }
}

impl Call {
    /// It may wait, and this is what a handler does to it.
    pub(super) const fn waits(mut self, interrupted: Interrupted) -> Call {
        self.traits = self.traits.union(Traits::BLOCKS);
        self.interrupted = interrupted;
        self
    }

    /// It changes nothing before `EFAULT`.
    pub(super) const fn again(mut self) -> Call {
        self.traits = self.traits.union(Traits::REPEATABLE);
        self
    }

    /// It writes its timeout back.
    pub(super) const fn time_left(mut self) -> Call {
        self.traits = self.traits.union(Traits::TIME_LEFT);
        self
    }

    pub(super) const fn ours(mut self, subject: Subject) -> Call {
        self.class = Class::Ours(subject);
        self
    }

    pub(super) const fn refused(mut self, errno: u32) -> Call {
        self.class = Class::Refused(Errno(errno as u16));
        self
    }

    pub(super) const fn absent(mut self) -> Call {
        self.class = Class::Absent;
        self
    }
}
