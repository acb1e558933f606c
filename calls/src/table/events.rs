//! Waiting for descriptors; watches.

use super::words::*;
use Interrupted::{Always, Handler, Resumes};

const EVENT: u32 = 12;
const SET: Arg = Arg::FdSet { bits: 0 };

pub(super) const CALLS: &[Call] = &[
    // It finds out after its wait that it cannot write what came.
    call(7, "poll", [Arg::Pollfds { count: 1 }, V, V]).waits(Resumes),
    call(271, "ppoll", [Arg::Pollfds { count: 1 }, V, both(TIMESPEC), sigset(4), V])
        .waits(Handler)
        .time_left(),
    call(23, "select", [V, SET, SET, SET, both(TIMESPEC)]).waits(Handler).time_left(),
    call(270, "pselect6", [V, SET, SET, SET, both(TIMESPEC), Arg::PackedSigset])
        .waits(Handler)
        .time_left(),
    call(213, "epoll_create", [V]),
    call(291, "epoll_create1", [V]),
    call(233, "epoll_ctl", [FD, V, FD, by(Decoder::EpollCtl)]).again(),
    call(232, "epoll_wait", [FD, Arg::OutData(each(2, Width::I32, EVENT)), V, V]).waits(Always),
    call(281, "epoll_pwait", [FD, Arg::OutData(each(2, Width::I32, EVENT)), V, V, sigset(5), V])
        .waits(Always),
    call(
        441,
        "epoll_pwait2",
        [FD, Arg::OutData(each(2, Width::I32, EVENT)), V, input(TIMESPEC), sigset(5), V],
    )
    .waits(Always),
    call(282, "signalfd", [FD, sigset(2), V]).again(),
    call(289, "signalfd4", [FD, sigset(2), V, V]).again(),
    call(284, "eventfd", [V]),
    call(290, "eventfd2", [V, V]),
    call(253, "inotify_init", []),
    call(294, "inotify_init1", [V]),
    call(254, "inotify_add_watch", [FD, PATH, V]).again(),
    call(255, "inotify_rm_watch", [FD, V]),
    call(300, "fanotify_init", [V, V]),
    call(301, "fanotify_mark", [FD, V, V, FD, PATH]).again(),
    // io_uring and the older asynchronous I/O touch memory with no call; programs have a way round.
    call(425, "io_uring_setup", [V, both(120)]).refused(ENOSYS),
    call(426, "io_uring_enter", [FD, V, V, V, Arg::InData(size(5)), V]).refused(ENOSYS),
    call(427, "io_uring_register", [FD, V, ADDRESS, V]).refused(ENOSYS),
    call(206, "io_setup", [V, both(8)]).refused(ENOSYS),
    call(207, "io_destroy", [V]).refused(ENOSYS),
    call(208, "io_getevents", [V, V, V, Arg::OutData(each(2, Width::U64, 32)), input(TIMESPEC)])
        .waits(Handler)
        .refused(ENOSYS),
    call(209, "io_submit", [V, V, by(Decoder::IoSubmit)]).refused(ENOSYS),
    call(210, "io_cancel", [V, input(64), output(32)]).refused(ENOSYS),
    call(
        333,
        "io_pgetevents",
        [V, V, V, Arg::OutData(each(2, Width::U64, 32)), input(TIMESPEC), Arg::PackedSigset],
    )
    .waits(Handler)
    .refused(ENOSYS),
];

const ENOSYS: u32 = linux_raw_sys::errno::ENOSYS;
