//! Messages, addresses and options of sockets.

use super::{Flow, GO_ON, TRANSFER, VECTORS, Walk};
use crate::call::Dir;
use linux_raw_sys::net;

/// `sockaddr_storage`.
const ADDRESS: u64 = 128;
const MSGHDR: u64 = 56;
const MMSGHDR: u64 = 64;

impl Walk<'_> {
    /// A `msghdr`: the name, the vectors, the control messages. Receiving writes three of its fields.
    pub(super) fn msghdr(&mut self, start: u64, dir: Dir) -> Flow {
        let header = if dir == Dir::In { Dir::In } else { Dir::Both };
        self.record(start, MSGHDR, header)?;
        self.message(start, dir)
    }

    pub(super) fn mmsghdr(&mut self, start: u64, count: u64, dir: Dir) -> Flow {
        // More messages than this are silently left out.
        let count = u64::from(count as u32).min(VECTORS);
        // The kernel goes from message to message and ends early; it writes each length.
        self.data(start, count * MMSGHDR, Dir::Both)?;
        for i in 0..count {
            self.message(start.saturating_add(i * MMSGHDR), dir)?;
        }
        GO_ON
    }

    fn message(&mut self, start: u64, dir: Dir) -> Flow {
        if let (Some(name), Some(len)) = (self.memory.u64(start, 0), self.memory.int(start, 8)) {
            match dir {
                Dir::In => self.record(name, len.min(ADDRESS), dir)?,
                _ => self.data(name, len.min(ADDRESS), dir)?,
            }
        }
        if let (Some(vectors), Some(count)) =
            (self.memory.u64(start, 16), self.memory.u64(start, 24))
        {
            self.iovec(vectors, count, dir)?;
        }
        if let (Some(control), Some(len)) = (self.memory.u64(start, 32), self.memory.u64(start, 40))
        {
            match dir {
                Dir::In if len > i32::MAX as u64 => {}
                Dir::In => self.record(control, len, dir)?,
                _ => self.data(control, len.min(TRANSFER), dir)?,
            }
        }
        GO_ON
    }

    /// Room for a peer's address, its size in the `int` at `len_at`.
    pub(super) fn socket_address(&mut self, start: u64, len_at: u64) -> Flow {
        match self.memory.int(len_at, 0) {
            Some(len) => self.data(start, len.min(ADDRESS), Dir::Out),
            None => GO_ON,
        }
    }

    pub(super) fn setsockopt(&mut self, start: u64) -> Flow {
        let (level, option) = (self.args[1] as u32, self.args[2] as u32);
        let len = (self.args[4] as i32).max(0) as u64;
        match (level, option) {
            (net::SOL_SOCKET, net::SO_ATTACH_FILTER | net::SO_ATTACH_REUSEPORT_CBPF) => {
                self.filter(start)
            }
            // Tables of netfilter's older interfaces point to their counters.
            (IPPROTO_IP | IPPROTO_IPV6, 64..=131) => {
                self.data(start, len, Dir::In)?;
                self.guess_behind(start, (len / 8).min(32))
            }
            // Most options are shorter than the length that is passed, and the rest is not read.
            _ => self.data(start, len, Dir::In),
        }
    }

    pub(super) fn getsockopt(&mut self, start: u64) -> Flow {
        let (level, option) = (self.args[1] as u32, self.args[2] as u32);
        let Some(len) = self.memory.int(self.args[3 + 1], 0) else { return GO_ON };
        match (level, option) {
            // The length counts instructions.
            (net::SOL_SOCKET, net::SO_ATTACH_FILTER) => self.data(start, len * 8, Dir::Out),
            (IPPROTO_TCP, TCP_ZEROCOPY_RECEIVE) => {
                self.data(start, len, Dir::Both)?;
                if len >= 40 {
                    let (buffer, size) = (self.memory.u64(start, 24), self.memory.int(start, 32));
                    self.data(buffer.unwrap_or(0), size.unwrap_or(0), Dir::Out)?;
                }
                if len >= 56 {
                    let (control, size) = (self.memory.u64(start, 40), self.memory.u64(start, 48));
                    let size = size.unwrap_or(0).min(TRANSFER);
                    self.data(control.unwrap_or(0), size, Dir::Out)?;
                }
                GO_ON
            }
            // Some options ask with what they are answered into.
            _ => self.data(start, len, Dir::Both),
        }
    }

    /// A `sock_fprog`: a count, and a pointer to that many instructions of eight bytes.
    pub(super) fn filter(&mut self, start: u64) -> Flow {
        self.record(start, 16, Dir::In)?;
        match self.memory.u16(start, 0) {
            Some(count @ 1..=4096) => self.behind(start, 8, count * 8, Dir::In),
            _ => GO_ON,
        }
    }
}

const IPPROTO_IP: u32 = 0;
const IPPROTO_TCP: u32 = 6;
const IPPROTO_IPV6: u32 = 41;
const TCP_ZEROCOPY_RECEIVE: u32 = 35;
