//! `ioctl`s of devices, interfaces, file systems and events. A machine need not have any of them.

use crate::harness::{Call, Case, done, file, halves, words};
use linux_raw_sys::ioctl::*;
use pagefault_calls::Access;

/// A device, or none.
fn device(path: &std::ffi::CStr) -> i64 {
    let flags = libc::O_RDWR | libc::O_NONBLOCK | libc::O_NOCTTY;
    done(libc::SYS_open, &[path.as_ptr() as u64, flags as u64])
}

fn disk() -> i64 {
    done(libc::SYS_open, &[c"/dev/vda".as_ptr() as u64, 0])
}

fn ask<'a>(call: &'a mut Call, path: &std::ffi::CStr, number: u32) -> &'a mut Call {
    call.optional().n(device(path)).n(number)
}

fn serial(call: &mut Call, number: u32) -> &mut Call {
    ask(call, c"/dev/ttyS0", number)
}

fn console(call: &mut Call, number: u32) -> &mut Call {
    ask(call, c"/dev/tty0", number)
}

fn block(call: &mut Call, number: u32) -> &mut Call {
    call.optional().n(disk()).n(number)
}

/// The loopback interface, asked over a socket.
fn interface(call: &mut Call, number: u32) {
    let socket = done(libc::SYS_socket, &[2, 2, 0]);
    let mut request = b"lo\0".to_vec();
    request.resize(40, 0);
    call.n(socket).n(number).io(request).optional();
}

/// A counter of software events, which is off.
fn counter() -> i64 {
    let mut event = halves(&[1, 64]);
    event.resize(64, 0);
    event[40] = 1;
    done(libc::SYS_perf_event_open, &[event.as_ptr() as u64, 0, u64::MAX, u64::MAX, 0])
}

pub const CASES: &[Case] = &[
    ("ioctl", |c| _ = serial(c, TIOCMGET).o(4)),
    ("ioctl", |c| _ = serial(c, TIOCGSERIAL).o(72)),
    ("ioctl", |c| _ = serial(c, TIOCGICOUNT).o(80)),
    ("ioctl", |c| _ = serial(c, TIOCGRS485).o(32)),
    ("ioctl", |c| _ = serial(c, TIOCGSOFTCAR).o(4)),
    ("ioctl", |c| _ = serial(c, TIOCSERGETLSR).o(4)),
    ("ioctl", |c| _ = serial(c, TIOCGLCKTRMIOS).o(36)),
    ("ioctl", |c| _ = console(c, KDGETMODE).o(4)),
    ("ioctl", |c| _ = console(c, KDGKBTYPE).o(1)),
    ("ioctl", |c| _ = console(c, KDGKBMODE).o(4)),
    ("ioctl", |c| _ = console(c, KDGKBENT).io([0; 4])),
    ("ioctl", |c| _ = console(c, KDGETLED).o(1)),
    ("ioctl", |c| _ = console(c, VT_OPENQRY).o(4)),
    ("ioctl", |c| _ = console(c, VT_GETMODE).o(8)),
    ("ioctl", |c| _ = console(c, VT_GETSTATE).o(6)),
    ("ioctl", |c| _ = block(c, BLKROGET).o(4)),
    ("ioctl", |c| _ = block(c, BLKSSZGET).o(4)),
    ("ioctl", |c| _ = block(c, BLKPBSZGET).o(4)),
    ("ioctl", |c| _ = block(c, BLKIOMIN).o(4)),
    ("ioctl", |c| _ = block(c, BLKIOOPT).o(4)),
    ("ioctl", |c| _ = block(c, BLKALIGNOFF).o(4)),
    ("ioctl", |c| _ = block(c, BLKDISCARDZEROES).o(4)),
    ("ioctl", |c| _ = block(c, BLKGETSIZE).o(8)),
    ("ioctl", |c| _ = block(c, BLKRAGET).o(8)),
    ("ioctl", |c| _ = block(c, BLKFRAGET).o(8)),
    ("ioctl", |c| _ = block(c, BLKSECTGET).o(2)),
    ("ioctl", |c| _ = block(c, BLKROTATIONAL).o(2)),
    ("ioctl", |c| _ = block(c, BLKBSZGET).o(4)),
    ("ioctl", |c| _ = block(c, BLKGETSIZE64).o(8)),
    ("ioctl", |c| _ = block(c, BLKBSZSET).i(halves(&[7]))),
    ("ioctl", |c| {
        // No partition has this number: nothing is changed.
        let partition = c.hide([0; 152], Access::Read);
        let request = words(&[99, 152, 0]);
        block(c, BLKPG).i(request).link(16, partition);
        c.untell(partition);
    }),
    ("ioctl", |c| _ = block(c, 0x301).o(16)),
    ("ioctl", |c| _ = ask(c, c"/dev/loop0", 0x4c05).o(232)),
    ("ioctl", |c| _ = ask(c, c"/dev/loop0", 0x4c0a).i([255; 304])),
    ("ioctl", |c| _ = ask(c, c"/dev/net/tun", TUNSETIFF).io([255; 40]).unwritten()),
    ("ioctl", |c| _ = ask(c, c"/dev/net/tun", TUNGETFEATURES).o(4)),
    ("ioctl", |c| _ = ask(c, c"/dev/random", RNDGETENTCNT).o(4)),
    ("ioctl", |c| _ = ask(c, c"/dev/kvm", 0xc004_ae02).io([0; 4])),
    ("ioctl", |c| _ = ask(c, c"/dev/kvm", 0xc008_ae05).io([0; 8]).unwritten()),
    ("ioctl", |c| interface(c, 0x8913)),
    ("ioctl", |c| interface(c, 0x8915)),
    ("ioctl", |c| interface(c, 0x8921)),
    ("ioctl", |c| interface(c, 0x8927)),
    ("ioctl", |c| interface(c, 0x8933)),
    ("ioctl", |c| interface(c, 0x8970)),
    ("ioctl", |c| {
        let socket = done(libc::SYS_socket, &[2, 2, 0]);
        c.n(socket).n(SIOCGIFNAME).io(words(&[0, 0, 1, 0, 0])).optional();
    }),
    ("ioctl", |c| {
        let socket = done(libc::SYS_socket, &[2, 2, 0]);
        c.n(socket).n(SIOCGARP).io([0; 68]).unwritten().optional();
    }),
    ("ioctl", |c| {
        let socket = done(libc::SYS_socket, &[2, 1, 0]);
        c.n(socket).n(SIOCATMARK).o(4).optional();
    }),
    ("ioctl", |c| {
        let socket = done(libc::SYS_socket, &[2, 1, 0]);
        c.n(socket).n(SIOCSPGRP).i([0; 4]).optional();
    }),
    ("ioctl", |c| {
        let socket = done(libc::SYS_socket, &[2, 1, 0]);
        c.n(socket).n(SIOCGPGRP).o(4).optional();
    }),
    ("ioctl", |c| {
        let socket = done(libc::SYS_socket, &[2, 1, 0]);
        let name = c.hide(*b"lo\0", Access::Read);
        let mut route = vec![0; 120];
        route[0] = 2;
        c.n(socket).n(SIOCADDRT).i(route).link(88, name).optional();
        c.untell(name);
    }),
    ("ioctl", |c| _ = c.optional().n(counter()).n(0x8008_2407u32).o(8)),
    ("ioctl", |c| _ = c.optional().n(counter()).n(0x4008_2404u32).i(words(&[5]))),
    ("ioctl", |c| {
        let filter = "filter";
        c.optional().n(counter()).n(PERF_EVENT_IOC_SET_FILTER).s(filter);
    }),
    ("ioctl", |c| {
        let namespace = done(libc::SYS_open, &[c"/proc/self/ns/user".as_ptr() as u64, 0]);
        c.optional().n(namespace).n(NS_GET_OWNER_UID).o(4);
    }),
    ("ioctl", |c| _ = c.optional().n(file(9)).n(FICLONERANGE).i([255; 32])),
    ("ioctl", |c| _ = c.optional().n(file(9)).n(FIDEDUPERANGE).io([0; 24]).unwritten()),
    ("ioctl", |c| {
        // Two ranges behind the head.
        let mut request = words(&[0, 0, 2]);
        request.resize(24 + 64, 0);
        c.optional().n(file(9)).n(FIDEDUPERANGE).io(request).unwritten();
    }),
    ("ioctl", |c| _ = c.optional().n(file(9)).n(FS_IOC_GETVERSION).o(4)),
    ("ioctl", |c| {
        let executable = done(libc::SYS_open, &[c"/proc/self/exe".as_ptr() as u64, 0]);
        c.optional().n(executable).n(FIBMAP).io([0; 4]);
    }),
];
