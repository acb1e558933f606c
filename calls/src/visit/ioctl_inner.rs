//! `ioctl`s whose argument holds pointers, or is longer than its number says.

use super::ioctl::encoded;
use super::{Flow, GO_ON, PAGE, Walk};
use crate::call::Dir;
use linux_raw_sys::ioctl::*;

/// An array behind a structure: where the pointer is, where its count (a `u32`), bytes for each.
type Behind = (u64, u64, u64);

impl Walk<'_> {
    /// `None` if the number is not one of these.
    pub(super) fn ioctl_inner(&mut self, number: u32, start: u64) -> Option<Flow> {
        if let Some((dir, arrays)) = drm(number) {
            return Some(self.arrays(number, start, dir, arrays));
        }
        Some(match number {
            SIOCGIFCONF => self.interfaces(start),
            SIOCADDRT | SIOCDELRT => self.route(start),
            // Interfaces with a pointer in their ifreq: ethtool, time stamps, private numbers.
            0x8946 | 0x89b0 | 0x89b1 | 0x89f0..=0x89ff => self.with_guesses(start, 40),
            TUNATTACHFILTER => self.filter(start),
            FS_IOC_FIEMAP => self.trailing(start, 32, 24, 56, Dir::Both),
            FIDEDUPERANGE => self.trailing_u16(start, 24, 16, 32),
            FS_IOC_MEASURE_VERITY => self.trailing_u16(start, 4, 2, 1),
            PAGEMAP_SCAN => self.page_table_scan(start),
            PROCMAP_QUERY => self.arrays(number, start, Dir::Both, &[(88, 80, 1), (96, 84, 1)]),
            BLKPG => self.arrays(number, start, Dir::In, &[(16, 8, 1)]),
            SG_IO => self.scsi(start),
            EVIOCGMASK => self.arrays(number, start, Dir::Out, &[(8, 4, 1)]),
            EVIOCSMASK => self.arrays(number, start, Dir::In, &[(8, 4, 1)]),
            PERF_EVENT_IOC_SET_FILTER => self.text(start, PAGE),
            PERF_EVENT_IOC_QUERY_BPF => self.trailing(start, 8, 0, 4, Dir::Both),
            RNDADDENTROPY => self.trailing(start, 8, 4, 1, Dir::In),
            // The device mapper's numbers: the whole size is in the structure.
            number if number & 0xffff_ff00 == DM_VERSION & 0xffff_ff00 => {
                let len = self.memory.u32(start, 12).unwrap_or(0).clamp(312, 64 << 20);
                self.data(start, len, Dir::Both)
            }
            BTRFS_IOC_TREE_SEARCH_V2 => self.tree_search(start),
            KVM_GET_MSR_INDEX_LIST => self.trailing(start, 4, 0, 4, Dir::Both),
            KVM_GET_SUPPORTED_CPUID | KVM_GET_CPUID2 => self.trailing(start, 8, 0, 40, Dir::Both),
            KVM_SET_CPUID2 => self.trailing(start, 8, 0, 40, Dir::In),
            KVM_GET_MSRS => self.trailing(start, 8, 0, 16, Dir::Both),
            KVM_SET_MSRS => self.trailing(start, 8, 0, 16, Dir::In),
            KVM_SET_SIGNAL_MASK => self.trailing(start, 4, 0, 1, Dir::In),
            _ => return None,
        })
    }

    /// A structure of the size in its number, and arrays behind its pointers.
    fn arrays(&mut self, number: u32, start: u64, dir: Dir, arrays: &[Behind]) -> Flow {
        let (header, len) = match number {
            BLKPG => (Dir::In, 24),
            _ => encoded(number).unwrap_or((Dir::Both, 0)),
        };
        self.record(start, len, header)?;
        for &(pointer, count, each) in arrays {
            let count = self.memory.u32(start, count).unwrap_or(0);
            let inner = self.memory.u64(start, pointer).unwrap_or(0);
            self.data(inner, count * each, dir)?;
        }
        GO_ON
    }

    /// A structure with an array right behind it, whose count is a `u32`.
    fn trailing(&mut self, start: u64, head: u64, count: u64, each: u64, dir: Dir) -> Flow {
        self.record(start, head, dir)?;
        let count = self.memory.u32(start, count).unwrap_or(0);
        self.data(start.saturating_add(head), count * each, dir)
    }

    /// The same with a `u16`.
    fn trailing_u16(&mut self, start: u64, head: u64, count: u64, each: u64) -> Flow {
        self.record(start, head, Dir::Both)?;
        let count = self.memory.u16(start, count).unwrap_or(0);
        self.data(start.saturating_add(head), count * each, Dir::Both)
    }

    fn with_guesses(&mut self, start: u64, len: u64) -> Flow {
        self.record(start, len, Dir::Both)?;
        self.guess_behind(start, len / 8)
    }

    /// An `ifconf`: room in bytes, and where.
    fn interfaces(&mut self, start: u64) -> Flow {
        self.record(start, 16, Dir::Both)?;
        let room = self.memory.int(start, 0).unwrap_or(0);
        let buffer = self.memory.u64(start, 8).unwrap_or(0);
        self.data(buffer, room, Dir::Out)
    }

    /// An `rtentry`, with a device's name.
    fn route(&mut self, start: u64) -> Flow {
        self.record(start, 120, Dir::In)?;
        let device = self.memory.u64(start, 88).unwrap_or(0);
        self.text(device, 15)
    }

    fn page_table_scan(&mut self, start: u64) -> Flow {
        self.record(start, 96, Dir::Both)?;
        let regions = self.memory.u64(start, 40).unwrap_or(0);
        let count = self.memory.u64(start, 48).unwrap_or(0);
        self.data(regions, count.saturating_mul(24), Dir::Out)
    }

    /// The key to search for, and right behind it room for items.
    fn tree_search(&mut self, start: u64) -> Flow {
        self.record(start, 112, Dir::Both)?;
        let room = self.memory.u64(start, 104).unwrap_or(0).min(16 << 20);
        self.data(start.saturating_add(112), room, Dir::Out)
    }

    /// An `sg_io_hdr`: data, whole or in pieces, a command, room for sense data. The other version,
    /// `sg_io_v4`, is longer.
    fn scsi(&mut self, start: u64) -> Flow {
        if self.memory.u32(start, 0) == Some(u32::from(b'Q').into()) {
            return self.with_guesses(start, 160);
        }
        self.record(start, 88, Dir::Both)?;
        let Some([command, sense]) = self.memory.bytes::<2>(start, 8) else { return GO_ON };
        let pieces = self.memory.u16(start, 10).unwrap_or(0);
        let len = self.memory.u32(start, 12).unwrap_or(0);
        let data = self.memory.u64(start, 16).unwrap_or(0);
        match pieces {
            0 => self.data(data, len, Dir::Both)?,
            pieces => self.iovec(data, pieces, Dir::Both)?,
        }
        self.behind(start, 24, command.into(), Dir::In)?;
        let buffer = self.memory.u64(start, 32).unwrap_or(0);
        self.data(buffer, sense.into(), Dir::Out)
    }
}

/// The common numbers of graphics devices, and which way their arrays go. A driver's own numbers have
/// their words followed.
fn drm(number: u32) -> Option<(Dir, &'static [Behind])> {
    if number >> 8 & 0xff != u32::from(b'd') || number >> 30 != 3 {
        return None;
    }
    Some(match (number & 0xff, number >> 16 & 0x3fff) {
        // Version and unique name: the counts are size_t, whose low half counts.
        (0x00, 64) => (Dir::Out, &[(24, 16, 1), (40, 32, 1), (56, 48, 1)]),
        (0x01, 16) => (Dir::Out, &[(8, 0, 1)]),
        // Resources, connectors, planes, properties, blobs, gamma tables, objects.
        (0xa0, 64) => (Dir::Out, &[(0, 32, 4), (8, 36, 4), (16, 40, 4), (24, 44, 4)]),
        (0xa4, 32) => (Dir::Out, &[(8, 4, 2), (16, 4, 2), (24, 4, 2)]),
        (0xa5, 32) => (Dir::In, &[(8, 4, 2), (16, 4, 2), (24, 4, 2)]),
        (0xa7, 80) => (Dir::Out, &[(0, 40, 4), (8, 32, 68), (16, 36, 4), (24, 36, 8)]),
        (0xaa, 64) => (Dir::Out, &[(0, 56, 8), (8, 60, 40)]),
        (0xac, 16) => (Dir::Out, &[(8, 4, 1)]),
        (0xb5, 16) => (Dir::Out, &[(0, 8, 4)]),
        (0xb6, 32) => (Dir::Out, &[(24, 20, 4)]),
        (0xb9, 32) => (Dir::Out, &[(0, 16, 4), (8, 16, 8)]),
        (0xbd, 16) => (Dir::In, &[(0, 8, 1)]),
        (0xc3, 32 | 40) => (Dir::In, &[(0, 16, 4)]),
        _ => return None,
    })
}

const SG_IO: u32 = 0x2285;
/// `_IOWR('f', 16, struct pm_scan_arg)` and `_IOWR('f', 17, struct procmap_query)`.
const PAGEMAP_SCAN: u32 = 0xc060_6610;
const PROCMAP_QUERY: u32 = 0xc068_6611;
const KVM_GET_MSR_INDEX_LIST: u32 = 0xc004_ae02;
const KVM_GET_SUPPORTED_CPUID: u32 = 0xc008_ae05;
const KVM_SET_CPUID2: u32 = 0x4008_ae90;
const KVM_GET_CPUID2: u32 = 0xc008_ae91;
const KVM_GET_MSRS: u32 = 0xc008_ae88;
const KVM_SET_MSRS: u32 = 0x4008_ae89;
const KVM_SET_SIGNAL_MASK: u32 = 0x4004_ae8b;
