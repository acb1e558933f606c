//! Pairs of sockets. There is no network, and no other sockets.

use super::{Arguments, Result};
use crate::errno::Errno;
use crate::fs::socket::{CAPACITY, Shut, Socket, Unit, pair};
use crate::fs::{OnExec, Open, Reading, What, file};
use crate::{process, signal, user};
use linux_raw_sys::general as nr;

const AF_UNIX: u32 = 1;
const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;
const SOCK_SEQPACKET: u32 = 5;
const SOCK_KIND: u32 = 15;

const MSG_DONTWAIT: u32 = 0x40;
const MSG_NOSIGNAL: u32 = 0x4000;

pub(super) fn call(number: u32, arguments: Arguments) -> Option<Result> {
    let Arguments { a, b, c, d, .. } = arguments;
    let fd = a as u32;
    Some(match number {
        nr::__NR_socket => Err(Errno::EAFNOSUPPORT),
        nr::__NR_socketpair => socketpair(a as u32, b as u32, d),
        nr::__NR_sendto => of(fd, |open, socket| send(open, socket, b, c, d as u32)),
        nr::__NR_recvfrom => of(fd, |open, socket| receive(open, socket, b, c, d as u32)),
        nr::__NR_sendmsg => {
            of(fd, |open, socket| vectors(b, |at, bytes| send(open, socket, at, bytes, c as u32)))
        }
        nr::__NR_recvmsg => of(fd, |open, socket| {
            // No address, no control data and no flags come with it.
            user::write(b + 8, &0u32.to_le_bytes())?;
            user::write(b + 40, &0u64.to_le_bytes())?;
            user::write(b + 48, &0u32.to_le_bytes())?;
            vectors(b, |at, bytes| receive(open, socket, at, bytes, c as u32))
        }),
        nr::__NR_shutdown => of(fd, |_, socket| {
            socket.shut(match b {
                0 => Shut::Reading,
                1 => Shut::Writing,
                2 => Shut::Both,
                _ => return Err(Errno::EINVAL),
            });
            Ok(0)
        }),
        nr::__NR_getsockopt => of(fd, |_, socket| getsockopt(socket, b, c, d, arguments.e)),
        nr::__NR_setsockopt => of(fd, |_, _| Ok(0)),
        nr::__NR_getsockname | nr::__NR_getpeername => of(fd, |_, _| {
            // An address without a name: the family alone.
            user::write(b, &(AF_UNIX as u16).to_le_bytes())?;
            user::write(c, &2u32.to_le_bytes())?;
            Ok(0)
        }),
        nr::__NR_connect => of(fd, |_, _| Err(Errno::EISCONN)),
        nr::__NR_bind | nr::__NR_listen | nr::__NR_accept | nr::__NR_accept4 => {
            of(fd, |_, _| Err(Errno::EINVAL))
        }
        _ => return None,
    })
}

fn of(fd: u32, act: impl FnOnce(&Open, &Socket) -> Result) -> Result {
    let open = file(fd)?;
    match &open.what {
        What::Socket(socket) => act(&open, socket),
        _ => Err(Errno::ENOTSOCK),
    }
}

fn socketpair(family: u32, kind: u32, to: u64) -> Result {
    if family != AF_UNIX {
        return Err(Errno::EAFNOSUPPORT);
    }
    let unit = match kind & SOCK_KIND {
        SOCK_STREAM => Unit::Bytes,
        SOCK_DGRAM | SOCK_SEQPACKET => Unit::Messages,
        _ => return Err(Errno::EPROTONOSUPPORT),
    };
    let flags = kind & nr::O_NONBLOCK | nr::O_RDWR;
    let on_exec = OnExec::of(kind);
    let (first, second) = pair(unit);
    let both = [first, second].map(|socket| Open::new(What::Socket(socket), flags));
    super::file::add_two(both, on_exec, to)
}

fn patience(open: &Open, flags: u32) -> Reading {
    if flags & MSG_DONTWAIT != 0 { Reading::NonBlocking } else { open.reading() }
}

fn send(open: &Open, socket: &Socket, from: u64, bytes: u64, flags: u32) -> Result {
    if socket.unit == Unit::Messages && bytes > CAPACITY as u64 {
        return Err(Errno::EMSGSIZE);
    }
    let mut buffer = process::buffer((bytes as usize).min(CAPACITY))?;
    if user::copy_from(from, &mut buffer) > 0 {
        return Err(Errno::EFAULT);
    }
    let sent = socket.write(&buffer, patience(open, flags));
    let tells = socket.unit == Unit::Bytes && flags & MSG_NOSIGNAL == 0;
    if sent == Err(Errno::EPIPE) && tells {
        signal::send(process::current(), signal::SIGPIPE);
    }
    sent.map(|n| n as u64)
}

fn receive(open: &Open, socket: &Socket, to: u64, bytes: u64, flags: u32) -> Result {
    if flags & !(MSG_DONTWAIT | MSG_NOSIGNAL | nr::O_CLOEXEC | 0x4000_0000) != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    let mut buffer = process::buffer((bytes as usize).min(CAPACITY))?;
    let n = socket.read(&mut buffer, patience(open, flags))?;
    user::write(to, &buffer[..n])?;
    Ok(n as u64)
}

/// Does something with the first buffer of a `struct msghdr` that is not empty: the message may end
/// there, as a short transfer. Control data is not carried.
fn vectors(message: u64, each: impl Fn(u64, u64) -> Result) -> Result {
    let (list, count) = (user::read_u64(message + 16)?, user::read_u64(message + 24)?);
    for i in 0..count.min(1024) {
        let (at, bytes) = (user::read_u64(list + 16 * i)?, user::read_u64(list + 16 * i + 8)?);
        if bytes > 0 {
            return each(at, bytes);
        }
    }
    each(0, 0)
}

fn getsockopt(socket: &Socket, level: u64, option: u64, to: u64, length: u64) -> Result {
    const SOL_SOCKET: u64 = 1;
    const SO_TYPE: u64 = 3;
    const SO_ERROR: u64 = 4;
    const SO_SNDBUF: u64 = 7;
    const SO_RCVBUF: u64 = 8;
    const SO_DOMAIN: u64 = 39;
    let value: u32 = match (level, option, socket.unit) {
        (SOL_SOCKET, SO_TYPE, Unit::Bytes) => SOCK_STREAM,
        (SOL_SOCKET, SO_TYPE, Unit::Messages) => SOCK_SEQPACKET,
        (SOL_SOCKET, SO_ERROR, _) => 0,
        (SOL_SOCKET, SO_SNDBUF | SO_RCVBUF, _) => CAPACITY as u32,
        (SOL_SOCKET, SO_DOMAIN, _) => AF_UNIX,
        _ => return Err(Errno::EOPNOTSUPP),
    };
    user::write(to, &value.to_le_bytes())?;
    user::write(length, &4u32.to_le_bytes())?;
    Ok(0)
}
