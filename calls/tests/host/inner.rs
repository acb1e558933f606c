//! Pointers to pointers.

use crate::harness::{Call, Case, file, pipe, pipe_with, words};
use pagefault_calls::Access;

/// Two pieces of eight bytes, to be read from or written to.
fn vectors(call: &mut Call, access: Access) -> (usize, usize) {
    (call.hide([1; 8], access), call.hide([2; 8], access))
}

fn array(call: &mut Call, (one, two): (usize, usize)) -> &mut Call {
    call.i(words(&[0, 8, 0, 8])).link(0, one).link(16, two).n(2)
}

pub const CASES: &[Case] = &[
    ("readv", |c| {
        let pieces = vectors(c, Access::Write);
        array(c.n(pipe_with(16)), pieces);
    }),
    ("writev", |c| {
        let pieces = vectors(c, Access::Read);
        array(c.n(pipe().1), pieces);
    }),
    ("preadv", |c| {
        let pieces = vectors(c, Access::Write);
        array(c.n(file(16)), pieces).n(0).n(0);
    }),
    ("pwritev", |c| {
        let pieces = vectors(c, Access::Read);
        array(c.n(file(0)), pieces).n(0).n(0);
    }),
    ("preadv2", |c| {
        let pieces = vectors(c, Access::Write);
        array(c.n(file(16)), pieces).n(0).n(0).n(0);
    }),
    ("pwritev2", |c| {
        let pieces = vectors(c, Access::Read);
        array(c.n(file(0)), pieces).n(0).n(0).n(0);
    }),
    ("ioctl", |c| {
        // The name of every interface there is; the loopback device is one.
        let room = c.hide([0; 40], Access::Write);
        let socket = crate::harness::done(libc::SYS_socket, &[2, 2, 0]);
        let mut ioctl = words(&[40, 0]);
        ioctl.truncate(16);
        c.n(socket).n(0x8912).io(ioctl).link(8, room);
    }),
    ("ioctl", |c| {
        let mut map = words(&[0, u64::MAX, 0, 0]);
        map[24] = 1;
        map.resize(32 + 56, 0);
        let path = c"/proc/self/exe".as_ptr() as u64;
        let fd = crate::harness::done(libc::SYS_open, &[path, 0]);
        c.n(fd).n(0xc020_660bu32).io(map);
    }),
];
