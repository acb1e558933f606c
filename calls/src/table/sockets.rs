//! Sockets.

use super::words::*;
use Interrupted::Socket;

pub(super) const CALLS: &[Call] = &[
    call(41, "socket", [V, V, V]),
    call(53, "socketpair", [V, V, V, output(8)]).again(),
    call(42, "connect", [FD, Arg::In(int(2)), V]).waits(Socket).again(),
    call(49, "bind", [FD, Arg::In(int(2)), V]).again(),
    call(50, "listen", [FD, V]),
    call(43, "accept", [FD, Arg::SockAddrOut { len: 2 }, both(4)]).waits(Socket),
    call(288, "accept4", [FD, Arg::SockAddrOut { len: 2 }, both(4), V]).waits(Socket),
    call(51, "getsockname", [FD, Arg::SockAddrOut { len: 2 }, both(4)]).again(),
    call(52, "getpeername", [FD, Arg::SockAddrOut { len: 2 }, both(4)]).again(),
    call(48, "shutdown", [FD, V]),
    call(44, "sendto", [FD, Arg::InData(size(2)), V, V, Arg::In(int(5)), V]).waits(Socket),
    call(45, "recvfrom", [FD, Arg::OutData(size(2)), V, V, Arg::SockAddrOut { len: 5 }, both(4)])
        .waits(Socket),
    call(46, "sendmsg", [FD, Arg::Msghdr(Dir::In), V]).waits(Socket),
    call(47, "recvmsg", [FD, Arg::Msghdr(Dir::Out), V]).waits(Socket),
    call(307, "sendmmsg", [FD, Arg::Mmsghdr { count: 2, dir: Dir::In }, V, V]).waits(Socket),
    call(299, "recvmmsg", [FD, Arg::Mmsghdr { count: 2, dir: Dir::Out }, V, V, both(TIMESPEC)])
        // Also with a timeout, whatever signal(7) says: it is looked at between messages.
        .waits(Socket)
        .time_left(),
    call(54, "setsockopt", [FD, V, V, by(Decoder::Setsockopt), V]),
    call(55, "getsockopt", [FD, V, V, by(Decoder::Getsockopt), both(4)]),
];
