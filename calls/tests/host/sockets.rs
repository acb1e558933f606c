//! Sockets.

use crate::harness::{Case, done, halves, words, write};
use libc::{AF_UNIX, SOCK_DGRAM, SOCK_STREAM, SOL_SOCKET};
use pagefault_calls::Access;

/// An address that leads nowhere.
const NOWHERE: &[u8] = b"\x01\x00\0nowhere";
/// The length of an address that the kernel chose.
const CHOSEN: usize = 8;

pub const CASES: &[Case] = &[
    ("socketpair", |c| _ = c.n(AF_UNIX).n(SOCK_STREAM).n(0).o(8)),
    ("connect", |c| _ = c.n(socket(SOCK_STREAM)).i(NOWHERE).n(NOWHERE.len())),
    ("bind", |c| _ = c.n(socket(SOCK_STREAM)).i(NOWHERE).n(NOWHERE.len())),
    ("accept", |c| _ = c.n(connected()).o(CHOSEN).io(length(CHOSEN))),
    ("accept4", |c| _ = c.n(connected()).o(CHOSEN).io(length(CHOSEN)).n(0)),
    ("getsockname", |c| _ = c.n(chosen(SOCK_STREAM)).o(CHOSEN).io(length(CHOSEN))),
    ("getpeername", |c| {
        let (socket, _) = dialogue();
        c.n(socket).o(CHOSEN).io(length(CHOSEN));
    }),
    ("sendto", |c| _ = c.n(pair(SOCK_STREAM).0).i([1; 16]).n(16).n(0).n(0).n(0)),
    ("sendto", |c| _ = c.n(pair(SOCK_DGRAM).0).i([1; 16]).n(16).n(0).n(0).n(0)),
    ("sendto", |c| {
        c.n(socket(SOCK_DGRAM)).n(0).n(0).n(0).i(NOWHERE).n(NOWHERE.len());
    }),
    ("recvfrom", |c| _ = c.n(sent(SOCK_STREAM)).o(16).n(16).n(0).n(0).n(0)),
    ("recvfrom", |c| _ = c.n(sent(SOCK_DGRAM)).o(16).n(16).n(0).n(0).n(0)),
    ("recvfrom", |c| _ = c.n(addressed()).o(16).n(16).n(0).o(CHOSEN).io(length(CHOSEN))),
    ("sendmsg", |c| {
        let data = c.hide([1; 16], Access::Read);
        let vectors = c.hide(words(&[0, 16]), Access::Read);
        c.link(0, data);
        let control = c.hide(credentials(), Access::Read);
        c.n(pair(SOCK_DGRAM).0);
        c.i(words(&[0, 0, 0, 1, 0, 32, 0])).cut(8).link(16, vectors).link(32, control).n(0);
    }),
    ("sendmsg", |c| {
        let name = c.hide(NOWHERE, Access::Read);
        c.n(socket(SOCK_DGRAM));
        c.i(words(&[0, NOWHERE.len() as u64, 0, 0, 0, 0, 0])).cut(8).link(0, name).n(0);
    }),
    ("recvmsg", |c| {
        let name = c.hide([0; CHOSEN], Access::Write);
        let data = c.hide([0; 16], Access::Write);
        let vectors = c.hide(words(&[0, 16]), Access::Read);
        c.link(0, data);
        let header = words(&[0, CHOSEN as u64, 0, 1, 0, 0, 0]);
        c.n(addressed()).io(header).cut(8).link(0, name).link(16, vectors).n(0);
    }),
    ("sendmmsg", |c| {
        let data = c.hide([1; 4], Access::Read);
        let vectors = c.hide(words(&[0, 4]), Access::Read);
        c.link(0, data);
        let message = words(&[0, 0, 0, 1, 0, 0, 0, 0]);
        c.n(pair(SOCK_DGRAM).0).io(message.repeat(2)).cut(8);
        c.link(16, vectors).link(64 + 16, vectors).n(2).n(0);
    }),
    ("recvmmsg", |c| {
        let data = c.hide([0; 16], Access::Write);
        let vectors = c.hide(words(&[0, 16]), Access::Read);
        c.link(0, data);
        c.n(sent(SOCK_DGRAM)).io(words(&[0, 0, 0, 1, 0, 0, 0, 0])).cut(8).link(16, vectors);
        c.n(1).n(0).io([0; 16]);
    }),
    ("setsockopt", |c| {
        c.n(socket(SOCK_STREAM)).n(SOL_SOCKET).n(libc::SO_REUSEADDR).i([0; 4]).n(4);
    }),
    ("setsockopt", |c| {
        c.n(socket(SOCK_STREAM)).n(SOL_SOCKET).n(libc::SO_RCVTIMEO).i([0; 16]).n(16);
    }),
    ("setsockopt", |c| {
        // One instruction that accepts everything.
        let program = c.hide([6, 0, 0, 0, 255, 255, 0, 0], Access::Read);
        c.n(socket(SOCK_DGRAM)).n(SOL_SOCKET).n(libc::SO_ATTACH_FILTER);
        c.i(words(&[1, 0])).link(8, program).n(16);
    }),
    ("getsockopt", |c| {
        c.n(socket(SOCK_STREAM)).n(SOL_SOCKET).n(libc::SO_TYPE).io([0; 4]).io(length(4));
    }),
    ("getsockopt", |c| {
        c.n(pair(SOCK_STREAM).0).n(SOL_SOCKET).n(libc::SO_PEERCRED).io([0; 12]).io(length(12));
    }),
    ("getsockopt", |c| {
        let socket = socket(SOCK_DGRAM);
        let instruction = [6u8, 0, 0, 0, 255, 255, 0, 0];
        let program = words(&[1, instruction.as_ptr() as u64]);
        let (level, option) = (SOL_SOCKET as u64, libc::SO_ATTACH_FILTER as u64);
        let at = program.as_ptr() as u64;
        done(libc::SYS_setsockopt, &[socket as u64, level, option, at, 16]);
        c.n(socket).n(SOL_SOCKET).n(libc::SO_ATTACH_FILTER).o(8).io(length(1));
    }),
];

fn length(len: usize) -> Vec<u8> {
    halves(&[len as u32])
}

fn socket(kind: i32) -> i64 {
    done(libc::SYS_socket, &[AF_UNIX as u64, kind as u64, 0])
}

fn pair(kind: i32) -> (i32, i32) {
    let mut ends = [0; 2];
    done(libc::SYS_socketpair, &[AF_UNIX as u64, kind as u64, 0, ends.as_mut_ptr() as u64]);
    (ends[0], ends[1])
}

/// A socket for which sixteen bytes wait.
fn sent(kind: i32) -> i32 {
    let (here, there) = pair(kind);
    write(there, &[1; 16]);
    here
}

/// A socket whose address the kernel chose.
fn chosen(kind: i32) -> i64 {
    let socket = socket(kind);
    let family = [1u8, 0];
    done(libc::SYS_bind, &[socket as u64, family.as_ptr() as u64, 2]);
    socket
}

/// Connects two sockets with chosen addresses.
fn connect(from: i64, to: i64) {
    let (mut address, mut len) = ([0u8; 128], 128u32);
    let (at, len_at) = (address.as_mut_ptr() as u64, &raw mut len as u64);
    done(libc::SYS_getsockname, &[to as u64, at, len_at]);
    done(libc::SYS_connect, &[from as u64, at, len.into()]);
}

/// One that connects, and one that listens.
fn dialogue() -> (i64, i64) {
    let (client, server) = (chosen(SOCK_STREAM), chosen(SOCK_STREAM));
    done(libc::SYS_listen, &[server as u64, 4]);
    connect(client, server);
    (client, server)
}

fn connected() -> i64 {
    dialogue().1
}

/// A socket for which sixteen bytes wait from one with an address.
fn addressed() -> i64 {
    let (from, to) = (chosen(SOCK_DGRAM), chosen(SOCK_DGRAM));
    connect(from, to);
    write(from as i32, &[1; 16]);
    to
}

/// Our own identity, as a control message.
fn credentials() -> Vec<u8> {
    // SAFETY: no arguments.
    let (pid, uid, gid) = unsafe { (libc::getpid(), libc::getuid(), libc::getgid()) };
    let head = words(&[28, (SOL_SOCKET as u64) | (libc::SCM_CREDENTIALS as u64) << 32]);
    [head, halves(&[pid as u32, uid, gid, 0])].concat()
}
