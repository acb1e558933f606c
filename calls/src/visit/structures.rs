//! Structures that hold pointers, or their own size.

use super::{Flow, GO_ON, PAGE, VECTORS, WORDS_BEHIND, Walk};
use crate::area::Kind;
use crate::call::Dir;
use linux_raw_sys::general;

impl Walk<'_> {
    /// A thread's identifier: in the parent at once, in the child when it starts and when it ends.
    pub(super) fn clone_tid(&mut self, index: usize, start: u64) -> Flow {
        let flags = self.args[0] as u32;
        match index {
            2 if flags & (general::CLONE_PARENT_SETTID | general::CLONE_PIDFD) != 0 => {
                self.record(start, 4, Dir::Out)
            }
            3 if flags & CHILD_TID != 0 => self.area(start, 4, Dir::Out, Kind::Later),
            _ => GO_ON,
        }
    }

    pub(super) fn clone3(&mut self, start: u64) -> Flow {
        let len = self.args[1];
        if !(64..=PAGE).contains(&len) {
            return GO_ON;
        }
        self.record(start, len, Dir::In)?;
        let Some(flags) = self.memory.u64(start, 0) else { return GO_ON };
        let flags = flags as u32;
        if flags & general::CLONE_PIDFD != 0 {
            self.behind(start, 8, 4, Dir::Out)?;
        }
        if flags & CHILD_TID != 0 {
            let child = self.memory.u64(start, 16).unwrap_or(0);
            self.area(child, 4, Dir::Out, Kind::Later)?;
        }
        if flags & general::CLONE_PARENT_SETTID != 0 {
            self.behind(start, 24, 4, Dir::Out)?;
        }
        if len < 80 {
            return GO_ON;
        }
        // As many as process namespaces can be nested.
        match self.memory.u64(start, 72) {
            Some(count @ 1..=32) => self.behind(start, 64, count * 4, Dir::In),
            _ => GO_ON,
        }
    }

    /// `sched_attr`. A kernel that does not know the size writes its own.
    pub(super) fn sched_setattr(&mut self, start: u64) -> Flow {
        const KNOWN: u64 = 56;
        let len = match self.memory.u32(start, 0) {
            Some(0) => 48,
            Some(len) if (48..=PAGE).contains(&len) => len,
            _ => return self.record(start, 4, Dir::Both),
        };
        if len > KNOWN {
            self.record(start, 4, Dir::Both)?;
        }
        self.record(start, len, Dir::In)
    }

    /// `perf_event_attr`, the same, with its size at 4; two fields may be names of probes.
    pub(super) fn perf_event(&mut self, start: u64) -> Flow {
        const KNOWN: u64 = 128;
        let len = match self.memory.u32(start, 4) {
            Some(0) => 64,
            Some(len) if (64..=PAGE).contains(&len) => len,
            _ => return self.record(start, 8, Dir::Both),
        };
        if len > KNOWN {
            self.record(start, 8, Dir::Both)?;
        }
        self.record(start, len, Dir::In)?;
        let Some(kind) = self.memory.u32(start, 0) else { return GO_ON };
        // The fixed types end with breakpoints; kprobes and uprobes are numbered after them.
        if kind <= 5 {
            return GO_ON;
        }
        let name = self.memory.u64(start, 56).unwrap_or(0);
        self.guess(name)
    }

    pub(super) fn bpf(&mut self, start: u64) -> Flow {
        let len = u64::from(self.args[2] as u32);
        if len > PAGE {
            return GO_ON;
        }
        // Some commands answer into their attributes.
        self.record(start, len, Dir::Both)?;
        match self.args[0] as u32 {
            BPF_PROG_LOAD => self.bpf_program(start, len),
            // The path of a pinned object.
            BPF_OBJ_PIN | BPF_OBJ_GET if len >= 8 => {
                let path = self.memory.u64(start, 0).unwrap_or(0);
                self.text(path, PAGE)
            }
            BPF_OBJ_GET_INFO_BY_FD if len >= 16 => {
                let info = self.memory.u64(start, 8).unwrap_or(0);
                let size = self.memory.u32(start, 4).unwrap_or(0);
                self.data(info, size.min(PAGE), Dir::Both)?;
                self.guess_behind(info, (size / 8).min(64))
            }
            BPF_BTF_LOAD if len >= 28 => {
                let size = self.memory.u32(start, 16).unwrap_or(0);
                self.behind(start, 0, size, Dir::In)?;
                let log = self.memory.u64(start, 8).unwrap_or(0);
                let size = self.memory.u32(start, 20).unwrap_or(0);
                self.data(log, size, Dir::Out)
            }
            // Keys and values of maps have sizes that the map's descriptor stands for.
            _ => self.guess_behind(start, len / 8),
        }
    }

    fn bpf_program(&mut self, start: u64, len: u64) -> Flow {
        if len < 40 {
            return GO_ON;
        }
        let count = self.memory.u32(start, 4).unwrap_or(0).min(1_000_000);
        self.behind(start, 8, count * 8, Dir::In)?;
        let license = self.memory.u64(start, 16).unwrap_or(0);
        self.text(license, 128)?;
        let log = self.memory.u64(start, 32).unwrap_or(0);
        let size = self.memory.u32(start, 28).unwrap_or(0);
        self.data(log, size, Dir::Out)?;
        // Type information for functions and lines: the size of one, then where, then how many.
        for (size_at, pointer, count_at) in [(76, 80, 88), (92, 96, 104)] {
            if len < count_at + 4 {
                return GO_ON;
            }
            let size = self.memory.u32(start, size_at).unwrap_or(0).min(PAGE);
            let count = self.memory.u32(start, count_at).unwrap_or(0);
            self.behind(start, pointer, size * count, Dir::In)?;
        }
        self.guess_behind(start.saturating_add(112), len.saturating_sub(112) / 8)
    }

    /// A `file_handle`: its room, its type, then the room; `open_by_handle_at` reads it.
    pub(super) fn file_handle(&mut self, start: u64, dir: Dir) -> Flow {
        const MOST: u64 = 128;
        let head = if dir == Dir::In { Dir::In } else { Dir::Both };
        self.record(start, 8, head)?;
        match self.memory.u32(start, 0) {
            Some(room) if room > MOST => GO_ON,
            Some(room) if dir == Dir::In => self.record(start + 8, room, dir),
            // The handle may be shorter than its room.
            Some(room) => self.data(start + 8, room, dir),
            None => GO_ON,
        }
    }

    /// The data of `capget` and `capset`: once for 32 capabilities, twice for 64.
    pub(super) fn capabilities(&mut self, start: u64, dir: Dir) -> Flow {
        let len = match self.memory.u32(self.args[0], 0) {
            Some(0x1998_0330) => 12,
            Some(0x2007_1026 | 0x2008_0522) => 24,
            _ => return GO_ON,
        };
        self.record(start, len, dir)
    }

    /// A `sigevent`; with `SIGEV_THREAD` its value points to a cookie of 32 bytes.
    pub(super) fn mq_notify(&mut self, start: u64) -> Flow {
        self.record(start, 64, Dir::In)?;
        match self.memory.u32(start, 12) {
            Some(2) => self.behind(start, 0, 32, Dir::In),
            _ => GO_ON,
        }
    }

    /// An `xattr_args`: where the value is, its size, flags.
    pub(super) fn xattr_args(&mut self, start: u64, dir: Dir) -> Flow {
        let len = self.args[5];
        if !(16..=PAGE).contains(&len) {
            return GO_ON;
        }
        self.record(start, len, Dir::In)?;
        let value = self.memory.u64(start, 0).unwrap_or(0);
        let size = self.memory.u32(start, 8).unwrap_or(0);
        self.data(value, size, dir)
    }

    pub(super) fn kexec_load(&mut self, start: u64) -> Flow {
        const SEGMENTS: u64 = 16;
        const EACH: u64 = 32;
        let count = self.args[1];
        if count > SEGMENTS {
            return GO_ON;
        }
        self.record(start, count * EACH, Dir::In)?;
        for i in 0..count {
            let size = self.memory.u64(start, i * EACH + 8).unwrap_or(0);
            self.behind(start, i * EACH, size, Dir::In)?;
        }
        GO_ON
    }

    /// Control blocks, each with a buffer at 24 and its length at 32.
    pub(super) fn io_submit(&mut self, start: u64) -> Flow {
        let count = self.args[1].min(VECTORS);
        self.record(start, count * 8, Dir::In)?;
        for i in 0..count {
            let Some(block) = self.memory.u64(start, i * 8) else { return GO_ON };
            self.record(block, 64, Dir::Both)?;
            self.guess_behind(block, WORDS_BEHIND / 2)?;
        }
        GO_ON
    }
}

const CHILD_TID: u32 = general::CLONE_CHILD_SETTID | general::CLONE_CHILD_CLEARTID;

const BPF_PROG_LOAD: u32 = 5;
const BPF_OBJ_PIN: u32 = 6;
const BPF_OBJ_GET: u32 = 7;
const BPF_OBJ_GET_INFO_BY_FD: u32 = 15;
const BPF_BTF_LOAD: u32 = 18;
