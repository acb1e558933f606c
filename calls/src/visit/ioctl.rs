//! `ioctl`: what the number says of the argument.

use super::{Flow, WORDS_BEHIND, Walk};
use crate::call::Dir;
use linux_raw_sys::ioctl::*;

impl Walk<'_> {
    /// The argument of an `ioctl`, by the table of known numbers, else by the size and the direction
    /// that the number encodes. Where neither says what lies inside, words that look like addresses are
    /// followed.
    pub(super) fn ioctl(&mut self, number: u32, start: u64) -> Flow {
        if let Some(flow) = self.ioctl_inner(number, start) {
            return flow;
        }
        if let Some((dir, len)) = known(number) {
            return self.record(start, len, dir);
        }
        match encoded(number) {
            Some((dir, len)) => {
                self.data(start, len, dir)?;
                self.guess_behind(start, (len / 8).min(64))
            }
            None => {
                self.guess(start)?;
                self.guess_behind(start, WORDS_BEHIND)
            }
        }
    }
}

/// The direction and size in a number made by `_IOR`, `_IOW` or `_IOWR`.
pub(super) fn encoded(number: u32) -> Option<(Dir, u64)> {
    let len = u64::from(number >> 16 & 0x3fff);
    let dir = match number >> 30 {
        1 => Dir::In,
        2 => Dir::Out,
        3 => Dir::Both,
        _ => return None,
    };
    (len != 0).then_some((dir, len))
}

/// No memory: the argument is a number, or nothing.
const NUMBER: (Dir, u64) = (Dir::In, 0);
const GET_INT: (Dir, u64) = (Dir::Out, 4);
const SET_INT: (Dir, u64) = (Dir::In, 4);
const GET_LONG: (Dir, u64) = (Dir::Out, 8);
/// `termios`, `termio`, `ifreq`, `arpreq`.
const TERMIOS: u64 = 36;
const TERMIO: u64 = 18;
const IFREQ: u64 = 40;
const ARPREQ: u64 = 68;

/// Numbers that say nothing of their argument, or not the truth, and whose argument holds no pointers.
fn known(number: u32) -> Option<(Dir, u64)> {
    terminal(number).or_else(|| socket(number)).or_else(|| file(number)).or_else(|| device(number))
}

fn terminal(number: u32) -> Option<(Dir, u64)> {
    Some(match number {
        TCGETS | TIOCGLCKTRMIOS => (Dir::Out, TERMIOS),
        TCSETS | TCSETSW | TCSETSF | TIOCSLCKTRMIOS => (Dir::In, TERMIOS),
        TCGETA => (Dir::Out, TERMIO),
        TCSETA | TCSETAW | TCSETAF => (Dir::In, TERMIO),
        TCSBRK | TCXONC | TCFLSH | TCSBRKP | TIOCSBRK | TIOCCBRK | TIOCSCTTY | TIOCNOTTY
        | TIOCEXCL | TIOCNXCL | TIOCCONS | TIOCMIWAIT | TIOCVHANGUP | TIOCGPTPEER
        | TIOCSERCONFIG | TIOCSIG => NUMBER,
        TIOCGPGRP | TIOCOUTQ | TIOCMGET | TIOCGSOFTCAR | FIONREAD | TIOCGETD | TIOCGSID
        | TIOCSERGETLSR => GET_INT,
        TIOCSPGRP | TIOCMBIS | TIOCMBIC | TIOCMSET | TIOCSSOFTCAR | TIOCPKT | TIOCSETD => SET_INT,
        TIOCSTI => (Dir::In, 1),
        TIOCGWINSZ => (Dir::Out, 8),
        TIOCSWINSZ => (Dir::In, 8),
        TIOCGSERIAL => (Dir::Out, 72),
        TIOCSSERIAL => (Dir::In, 72),
        TIOCGICOUNT => (Dir::Out, 80),
        TIOCGRS485 => (Dir::Out, 32),
        TIOCSRS485 => (Dir::Both, 32),
        // Consoles: modes are one int or a byte, fonts and maps are not here.
        KDGETMODE | KDGKBMODE | KDGKBMETA | VT_OPENQRY => GET_INT,
        KDGKBTYPE | KDGETLED => (Dir::Out, 1),
        KDSETMODE | KDSKBMODE | KDSKBMETA | KDSETLED | KDMKTONE | KIOCSOUND | VT_ACTIVATE
        | VT_WAITACTIVE | VT_RELDISP | VT_DISALLOCATE => NUMBER,
        KDGKBENT => (Dir::Both, 4),
        KDSKBENT => (Dir::In, 4),
        VT_GETMODE => (Dir::Out, 8),
        VT_SETMODE => (Dir::In, 8),
        VT_GETSTATE => (Dir::Out, 6),
        _ => return None,
    })
}

fn socket(number: u32) -> Option<(Dir, u64)> {
    Some(match number {
        FIOSETOWN | SIOCSPGRP => SET_INT,
        // SIOCOUTQNSD.
        FIOGETOWN | SIOCGPGRP | SIOCATMARK | 0x894b => GET_INT,
        // SIOCGSTAMP and SIOCGSTAMPNS of old.
        0x8906 | 0x8907 => (Dir::Out, 16),
        SIOCDARP | SIOCGARP | SIOCSARP => (Dir::Both, ARPREQ),
        // Interfaces: names, flags, addresses, metrics, maps.
        0x8910
        | 0x8911
        | 0x8913..=0x8927
        | 0x8929..=0x8938
        | 0x8942
        | 0x8943
        | 0x8947..=0x8949
        | 0x8970
        | 0x8971 => (Dir::Both, IFREQ),
        // SIOCGSKNS.
        0x894c => NUMBER,
        // Whole bridges: a name.
        0x89a0 | 0x89a1 => (Dir::In, 16),
        0x89a2 | 0x89a3 => (Dir::In, IFREQ),
        // The numbers of these speak of an int; it is an ifreq.
        TUNSETIFF => (Dir::Both, IFREQ),
        TUNGETIFF => (Dir::Out, IFREQ),
        TUNSETQUEUE => (Dir::In, IFREQ),
        TUNSETPERSIST | TUNSETOWNER | TUNSETLINK | TUNSETNOCSUM | TUNSETDEBUG | TUNSETGROUP
        | TUNSETOFFLOAD => NUMBER,
        _ => return None,
    })
}

fn file(number: u32) -> Option<(Dir, u64)> {
    Some(match number {
        FIONBIO | FIOASYNC => SET_INT,
        FIOCLEX | FIONCLEX => NUMBER,
        FIOQSIZE => GET_LONG,
        FIBMAP => (Dir::Both, 4),
        FIGETBSZ => GET_INT,
        FIFREEZE | FITHAW | FICLONE => NUMBER,
        // The numbers speak of a long; it is an int.
        FS_IOC_GETFLAGS | FS_IOC_GETVERSION => GET_INT,
        FS_IOC_SETFLAGS | FS_IOC_SETVERSION => SET_INT,
        // The number says that the kernel writes; it reads.
        FS_IOC_SET_ENCRYPTION_POLICY => (Dir::In, 12),
        // NS_GET_USERNS, NS_GET_PARENT, NS_GET_NSTYPE.
        0xb701..=0xb703 => NUMBER,
        NS_GET_OWNER_UID => GET_INT,
        // Perf: on, off, again, redirect.
        0x2400..=0x2403 | 0x2405 => NUMBER,
        // PERF_EVENT_IOC_SET_BPF and _PAUSE_OUTPUT take their value, not a pointer.
        0x4004_2408 | 0x4004_2409 => NUMBER,
        _ => return None,
    })
}

fn device(number: u32) -> Option<(Dir, u64)> {
    Some(match number {
        BLKROSET => SET_INT,
        BLKROGET | BLKSSZGET | BLKIOMIN | BLKIOOPT | BLKALIGNOFF | BLKPBSZGET
        | BLKDISCARDZEROES => GET_INT,
        BLKRRPART | BLKFLSBUF | BLKRASET | BLKFRASET | BLKTRACESTART | BLKTRACESTOP
        | BLKTRACETEARDOWN => NUMBER,
        BLKGETSIZE | BLKRAGET | BLKFRAGET => GET_LONG,
        BLKSECTGET | BLKROTATIONAL => (Dir::Out, 2),
        // The numbers speak of a size_t; it is an int.
        BLKBSZGET => GET_INT,
        BLKBSZSET => SET_INT,
        BLKDISCARD | BLKSECDISCARD | BLKZEROOUT => (Dir::In, 16),
        // HDIO_GETGEO, HDIO_GET_IDENTITY.
        0x301 => (Dir::Out, 16),
        0x30d => (Dir::Out, 512),
        // Loop: LOOP_SET_FD, CLR_FD, CHANGE_FD, SET_CAPACITY, SET_DIRECT_IO, SET_BLOCK_SIZE; CTL_*.
        0x4c00 | 0x4c01 | 0x4c06..=0x4c09 | 0x4c80..=0x4c82 => NUMBER,
        0x4c02 => (Dir::In, 168),
        0x4c03 => (Dir::Out, 168),
        0x4c04 => (Dir::In, 232),
        0x4c05 => (Dir::Out, 232),
        0x4c0a => (Dir::In, 304),
        // SCSI generic: version, timeout, host, identifiers, reserved size; LUN and bus.
        0x2201 | 0x2275 => SET_INT,
        0x2202 => NUMBER,
        0x2203 | 0x2272 | 0x2282 | 0x5386 => GET_INT,
        0x2276 => (Dir::Out, 32),
        0x5382 => (Dir::Out, 8),
        // KVM: version, machines, extensions, mmap size, processors, run.
        0xae00 | 0xae01 | 0xae03 | 0xae04 | 0xae41 | 0xae80 => NUMBER,
        // Evdev: remove an effect, grab, revoke take their value.
        0x4004_4581 | 0x4004_4590 | 0x4004_4591 => NUMBER,
        _ => return None,
    })
}
