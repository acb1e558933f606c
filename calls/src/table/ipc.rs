//! Semaphores, message queues, futexes, keys.

use super::words::*;
use Interrupted::{Always, ByCommand, Handler, Restarts, StartsAgain};

/// The type of a key: 31 bytes and the NUL.
const KEY_TYPE: Arg = Arg::Str(32);
const TEXT: Arg = Arg::Str(4096);
/// A System V message: its type, then its text.
const MESSAGE: Len = Len::Of { arg: 2, width: Width::U64, size: 1, head: 8 };

pub(super) const CALLS: &[Call] = &[
    call(64, "semget", [V, V, V]),
    call(65, "semop", [V, Arg::In(each(2, Width::U32, 6)), V]).waits(Always).again(),
    call(220, "semtimedop", [V, Arg::In(each(2, Width::U32, 6)), V, input(TIMESPEC)])
        .waits(Always)
        .again(),
    call(66, "semctl", [V, V, V, by(Decoder::Semctl)]).again(),
    call(31, "shmctl", [V, V, by(Decoder::Shmctl)]).again(),
    call(68, "msgget", [V, V]),
    call(69, "msgsnd", [V, Arg::In(MESSAGE), V, V]).waits(Handler).again(),
    call(70, "msgrcv", [V, Arg::OutData(MESSAGE), V, V, V]).waits(Handler),
    call(71, "msgctl", [V, V, by(Decoder::Msgctl)]).again(),
    call(240, "mq_open", [PATH, V, V, by(Decoder::MqOpen)]).again(),
    call(241, "mq_unlink", [PATH]).again(),
    call(242, "mq_timedsend", [FD, Arg::In(size(2)), V, V, input(TIMESPEC)])
        .waits(Restarts)
        .again(),
    call(243, "mq_timedreceive", [FD, Arg::OutData(size(2)), V, output(4), input(TIMESPEC)])
        .waits(Restarts),
    call(244, "mq_notify", [FD, by(Decoder::MqNotify)]).again(),
    call(245, "mq_getsetattr", [FD, input(64), output(64)]),
    call(202, "futex", [by(Decoder::Futex), V, V, by(Decoder::Futex), by(Decoder::Futex), V])
        .waits(ByCommand)
        .again(),
    call(
        449,
        "futex_waitv",
        [by(Decoder::FutexVector { count: Some(1) }), V, V, input(TIMESPEC), V],
    )
    .waits(Restarts)
    .again(),
    call(454, "futex_wake", [Arg::Word { flags: 3 }, V, V, V]).again(),
    call(455, "futex_wait", [Arg::Word { flags: 3 }, V, V, V, input(TIMESPEC), V])
        .waits(Restarts)
        .again(),
    call(456, "futex_requeue", [by(Decoder::FutexVector { count: None }), V, V, V]).again(),
    call(248, "add_key", [KEY_TYPE, TEXT, Arg::In(size(3)), V, V]).again(),
    call(249, "request_key", [KEY_TYPE, TEXT, TEXT, V]).waits(Restarts),
    call(
        250,
        "keyctl",
        [V, by(Decoder::Keyctl), by(Decoder::Keyctl), by(Decoder::Keyctl), by(Decoder::Keyctl)],
    )
    .waits(StartsAgain),
];
