//! What one system call is: its arguments, and how it behaves.

use bitflags::bitflags;

/// One system call.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Its number.
    pub nr: u32,
    /// Its name, as in `__NR_name`.
    pub name: &'static str,
    /// Its arguments; [`Arg::None`] from the first that it does not take.
    pub args: [Arg; 6],
    /// Who makes it.
    pub class: Class,
    /// What else is known of it.
    pub traits: Traits,
    /// What a signal handler does to it; [`Call::interrupted`] is more exact.
    pub interrupted: Interrupted,
}

/// Who makes a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The host does, on the program's own arguments.
    Host,
    /// The runtime does, because it keeps the books of what the call changes.
    Ours(Subject),
    /// Nobody does: the runtime answers with this error, for which programs have a way round.
    Refused(Errno),
    /// Linux 6.18 does not have it on x86-64, and answers `ENOSYS`.
    Absent,
}

/// What a call of the runtime's own changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Mappings, and what they hold.
    Memory,
    /// Handlers, masks, signal stacks; system call filters, which are trapped by a signal.
    Signals,
    /// Threads and processes, and what the kernel keeps for a thread.
    Tasks,
    /// Resource limits.
    Limits,
    /// Descriptors, of which some are the runtime's.
    Descriptors,
}

/// An error number, positive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub u16);

bitflags! {
    /// What else is known of a call.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Traits: u8 {
        /// It may wait for an event for an unlimited time. Waiting for a disk does not count.
        const BLOCKS = 1 << 0;
        /// When it fails with `EFAULT`, it has changed nothing and waited for nothing, and may be made again.
        const REPEATABLE = 1 << 1;
        /// It writes the time that is left back to its timeout.
        const TIME_LEFT = 1 << 2;
    }
}

/// What a call returns when a signal's handler interrupts its wait (signal(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupted {
    /// A handler does not interrupt it.
    Never,
    /// It starts again if the handler has `SA_RESTART`, else it is `EINTR`; also after a part was
    /// transferred, when it returns that part.
    Restarts,
    /// As [`Restarts`](Self::Restarts), but always `EINTR` where `SO_RCVTIMEO` (for input) or
    /// `SO_SNDTIMEO` (for output) is set.
    Socket,
    /// Always `EINTR` when a handler ran. A stop and `SIGCONT` do not show.
    Handler,
    /// As [`Handler`](Self::Handler), but after a stop it goes on with the time that is left.
    Resumes,
    /// Always `EINTR`, also after a stop and `SIGCONT` with no handler.
    Always,
    /// It starts again whatever the handler's flags.
    StartsAgain,
    /// By the command or the flags: ask [`Call::interrupted`].
    ByCommand,
}

impl Call {
    /// What a handler does to this call with these arguments.
    pub fn interrupted(&self, args: &[u64; 6]) -> Interrupted {
        if self.interrupted != Interrupted::ByCommand {
            return self.interrupted;
        }
        match self.name {
            "futex" => crate::visit::futex_interrupted(args),
            // A relative sleep goes on with the rest after a stop; an absolute one begins anew.
            "clock_nanosleep" if args[1] & 1 != 0 => Interrupted::Handler,
            "clock_nanosleep" => Interrupted::Resumes,
            _ => Interrupted::Restarts,
        }
    }

    /// Which arguments are descriptors of the caller's, a bit for each.
    pub const fn descriptors(&self) -> u8 {
        let (mut mask, mut index) = (0, 0);
        while index < self.args.len() {
            if matches!(self.args[index], Arg::Fd) {
                mask |= 1 << index;
            }
            index += 1;
        }
        mask
    }

    /// The number of arguments that it takes.
    pub fn arity(&self) -> usize {
        self.args.iter().take_while(|arg| **arg != Arg::None).count()
    }
}

/// One argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arg {
    /// Not taken.
    None,
    /// A number.
    Value,
    /// A descriptor of the caller's, or a number that stands for none.
    Fd,
    /// An address of which the kernel reads and writes nothing by this argument.
    Address,
    /// A structure or an array that the kernel reads.
    In(Len),
    /// A structure or an array that the kernel writes.
    Out(Len),
    /// A structure or an array that the kernel reads and writes.
    InOut(Len),
    /// Bytes to send, of which the kernel may read fewer.
    InData(Len),
    /// Room to receive, of which the kernel may write less.
    OutData(Len),
    /// A string that ends with a NUL; the kernel reads at most this many bytes.
    Str(u32),
    /// An array of strings that ends with a null pointer.
    StrArray,
    /// An array of `iovec`, as many as argument `count` says.
    Iovec {
        /// The argument that holds their number.
        count: u8,
        /// Which way the bytes go.
        dir: Dir,
    },
    /// An array of `iovec` whose bases name another process's memory, or memory that is not touched.
    IovecArray {
        /// The argument that holds their number.
        count: u8,
    },
    /// A `msghdr`.
    Msghdr(Dir),
    /// An array of `mmsghdr`.
    Mmsghdr {
        /// The argument that holds their number.
        count: u8,
        /// Which way the messages go.
        dir: Dir,
    },
    /// A set of descriptors, in which the argument says how many bits count.
    FdSet {
        /// The argument that holds the number of bits.
        bits: u8,
    },
    /// An array of `pollfd`.
    Pollfds {
        /// The argument that holds their number.
        count: u8,
    },
    /// `pselect6`'s last: a pointer to a mask, and the mask's size.
    PackedSigset,
    /// Room for an address whose size the `int` at argument `len` holds.
    SockAddrOut {
        /// The argument that points to the size.
        len: u8,
    },
    /// A word to wait for.
    Word {
        /// The argument whose flag says that no other process uses it.
        flags: u8,
    },
    /// Memory that the kernel touches by itself after the call.
    Later {
        /// How long it is.
        len: Len,
        /// Which way.
        dir: Dir,
    },
    /// What it is depends on other arguments.
    By(Decoder),
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dir {
    /// From the program to the kernel.
    In,
    /// From the kernel to the program.
    Out,
    /// Both.
    Both,
}

/// The length of memory behind an argument, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Len {
    /// Always the same.
    Const(u32),
    /// Another argument's value, times a size, and some more.
    Of {
        /// The argument.
        arg: u8,
        /// How much of the register counts.
        width: Width,
        /// Bytes for each.
        size: u32,
        /// Bytes before the first.
        head: u32,
    },
    /// What another argument points to.
    At {
        /// The argument.
        arg: u8,
        /// The type of what it points to.
        width: Width,
    },
    /// As many bits as another argument says, less `less`, in whole 64-bit words.
    Bits {
        /// The argument.
        arg: u8,
        /// How much of the register counts.
        width: Width,
        /// How many bits the argument counts too many.
        less: u8,
    },
    /// A byte for each page of the length that another argument, a `size_t`, says.
    Pages {
        /// The argument.
        arg: u8,
    },
    /// What the structure's first `u32` says, or this if it says zero; a number that is smaller than
    /// `least` or larger than a page is refused by the kernel.
    Own {
        /// The length that zero stands for.
        zero: u32,
        /// The smallest length.
        least: u32,
    },
}

/// How much of a register, or of a word in memory, is a length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// All of it.
    U64,
    /// The low half.
    U32,
    /// The low half, signed; a negative length touches nothing.
    I32,
}

/// The calls, and families of structures, whose memory depends on a command or on flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoder {
    /// `ioctl`.
    Ioctl,
    /// `fcntl`.
    Fcntl,
    /// `prctl`.
    Prctl,
    /// `arch_prctl`.
    ArchPrctl,
    /// `futex`.
    Futex,
    /// `futex_waitv` (as many as an argument says), `futex_requeue` (two): an array of words to wait
    /// for.
    FutexVector {
        /// The argument that holds their number.
        count: Option<u8>,
    },
    /// `bpf`.
    Bpf,
    /// `semctl`.
    Semctl,
    /// `shmctl`.
    Shmctl,
    /// `msgctl`.
    Msgctl,
    /// `keyctl`.
    Keyctl,
    /// `quotactl`, `quotactl_fd`.
    Quotactl {
        /// The argument that holds the command.
        command: u8,
    },
    /// `perf_event_open`.
    PerfEvent,
    /// `clone`.
    Clone,
    /// `clone3`.
    Clone3,
    /// `ptrace`.
    Ptrace,
    /// `fsconfig`.
    Fsconfig,
    /// `name_to_handle_at`, `open_by_handle_at`: a `file_handle`.
    FileHandle(Dir),
    /// `landlock_add_rule`.
    LandlockRule,
    /// `capget`, `capset`: the data, by the header's version.
    Capabilities(Dir),
    /// `mq_notify`: a `sigevent` with a cookie.
    MqNotify,
    /// `seccomp`.
    Seccomp,
    /// `setsockopt`.
    Setsockopt,
    /// `getsockopt`.
    Getsockopt,
    /// `setxattrat`, `getxattrat`: an `xattr_args`.
    XattrArgs(Dir),
    /// `epoll_ctl`: an event, except to delete.
    EpollCtl,
    /// `kcmp`.
    Kcmp,
    /// `sysfs`.
    Sysfs,
    /// `syslog`.
    Syslog,
    /// `modify_ldt`.
    ModifyLdt,
    /// `reboot`.
    Reboot,
    /// `kexec_load`.
    KexecLoad,
    /// `mq_open`: attributes, if it may create.
    MqOpen,
    /// `name_to_handle_at`'s mount identifier, whose size depends on a flag.
    MountId,
    /// `sched_setattr`.
    SchedSetattr,
    /// `io_submit`: an array of pointers to control blocks.
    IoSubmit,
}
