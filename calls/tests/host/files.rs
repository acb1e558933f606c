//! Bytes, descriptors and names of files.

use crate::harness::{Call, Case, done, file, pidfd, pipe, pipe_with, words};
use libc::{AT_EMPTY_PATH, AT_FDCWD};

/// The kernel reads the whole path before it finds that it leads nowhere.
const NOWHERE: &str = "/nonexistent/file";

fn path(call: &mut Call) -> &mut Call {
    call.s(NOWHERE)
}

fn at(call: &mut Call) -> &mut Call {
    call.n(AT_FDCWD).s(NOWHERE)
}

pub const CASES: &[Case] = &[
    ("read", |c| _ = c.n(pipe_with(16)).o(16).n(16)),
    ("read", |c| _ = c.n(file(9000)).o(9000).n(9000)),
    ("write", |c| _ = c.n(pipe().1).i([1; 16]).n(16)),
    ("write", |c| _ = c.n(file(0)).i([1; 5000]).n(5000)),
    ("pread64", |c| _ = c.n(file(20)).o(16).n(16).n(2)),
    ("pwrite64", |c| _ = c.n(file(20)).i([1; 16]).n(16).n(2)),
    ("sendfile", |c| _ = c.n(pipe().1).n(file(20)).io([0; 8]).n(4)),
    ("splice", |c| _ = c.n(file(20)).io([0; 8]).n(pipe().1).n(0).n(4).n(0)),
    ("splice", |c| _ = c.n(pipe_with(9)).n(0).n(file(20)).io([0; 8]).n(4).n(0)),
    ("copy_file_range", |c| _ = c.n(file(20)).io([0; 8]).n(file(0)).io([0; 8]).n(4).n(0)),
    ("cachestat", |c| _ = c.n(file(20)).i(words(&[0, 0])).o(40).n(0)),
    ("open", |c| _ = path(c).n(0).n(0)),
    ("openat", |c| _ = at(c).n(0).n(0)),
    ("openat2", |c| _ = at(c).i([0; 24]).n(24)),
    ("openat2", |c| _ = at(c).i([0; 32]).n(32)),
    ("creat", |c| _ = path(c).n(0)),
    ("pipe", |c| _ = c.o(8)),
    ("pipe2", |c| _ = c.o(8).n(0)),
    ("memfd_create", |c| _ = c.s("name").n(0)),
    ("memfd_create", |c| _ = c.s(&"n".repeat(249)).n(0)),
    ("access", |c| _ = path(c).n(0)),
    ("faccessat", |c| _ = at(c).n(0)),
    ("faccessat2", |c| _ = at(c).n(0).n(0)),
    ("truncate", |c| _ = path(c).n(0)),
    ("getcwd", |c| {
        done(libc::SYS_chdir, &[c"/proc".as_ptr() as u64]);
        c.o(6).n(6);
    }),
    ("chdir", |c| _ = path(c)),
    ("rename", |c| _ = path(c.s("/proc"))),
    ("renameat", |c| _ = at(c.n(AT_FDCWD).s("/proc"))),
    ("renameat2", |c| _ = at(c.n(AT_FDCWD).s("/proc")).n(0)),
    ("mkdir", |c| _ = path(c).n(0)),
    ("mkdirat", |c| _ = at(c).n(0)),
    ("rmdir", |c| _ = path(c)),
    ("link", |c| _ = path(c.s("/proc"))),
    ("linkat", |c| _ = at(c.n(AT_FDCWD).s("/proc")).n(0)),
    ("unlink", |c| _ = path(c)),
    ("unlinkat", |c| _ = at(c).n(0)),
    ("symlink", |c| _ = path(path(c))),
    ("symlinkat", |c| _ = at(path(c))),
    ("readlink", |c| _ = c.s("/dev/fd").o(13).n(13)),
    ("readlinkat", |c| _ = c.n(AT_FDCWD).s("/dev/fd").o(13).n(13)),
    ("mknod", |c| _ = path(c).n(0).n(0)),
    ("mknodat", |c| _ = at(c).n(0).n(0)),
    ("chroot", |c| _ = path(c)),
    ("chmod", |c| _ = path(c).n(0)),
    ("fchmodat", |c| _ = at(c).n(0)),
    ("fchmodat2", |c| _ = at(c).n(0).n(0)),
    ("chown", |c| _ = path(c).n(0).n(0)),
    ("lchown", |c| _ = path(c).n(0).n(0)),
    ("fchownat", |c| _ = at(c).n(0).n(0).n(0)),
    ("utime", |c| _ = path(c).i([0; 16])),
    ("utimes", |c| _ = path(c).i([0; 32])),
    ("futimesat", |c| _ = at(c).i([0; 32])),
    ("utimensat", |c| _ = at(c).i([0; 32]).n(0)),
    // One entry: "."; its type or its name ends it, the rest is padding.
    ("getdents", |c| _ = c.n(directory()).o(24).n(24)),
    ("getdents64", |c| _ = c.n(directory()).o(24).cut(4).n(24)),
    ("fcntl", |c| _ = c.n(file(9)).n(libc::F_GETLK).io(lock())),
    ("fcntl", |c| _ = c.n(file(9)).n(libc::F_SETLK).i(lock())),
    ("fcntl", |c| _ = c.n(file(9)).n(libc::F_SETLKW).i(lock())),
    ("fcntl", |c| _ = c.n(file(9)).n(libc::F_OFD_GETLK).io(lock())),
    ("fcntl", |c| _ = c.n(file(9)).n(libc::F_OFD_SETLK).i(lock())),
    ("fcntl", |c| _ = c.n(file(9)).n(libc::F_OFD_SETLKW).i(lock())),
    ("fcntl", |c| _ = c.n(pipe().0).n(15).i(words(&[1]))),
    ("fcntl", |c| _ = c.n(pipe().0).n(16).o(8)),
    ("fcntl", |c| _ = c.n(pipe().0).n(17).o(8)),
    ("fcntl", |c| _ = c.n(file(9)).n(1035).o(8)),
    ("fcntl", |c| _ = c.n(file(9)).n(1036).i(words(&[2]))),
    ("ioctl", |c| _ = c.n(pipe_with(3)).n(libc::FIONREAD).o(4)),
    ("ioctl", |c| _ = c.n(pipe().0).n(libc::FIONBIO).i(&words(&[1])[..4])),
    ("ioctl", |c| _ = c.n(terminal()).n(libc::TCGETS).o(36)),
    ("ioctl", |c| _ = c.n(terminal()).n(libc::TCSETS).i(settings(libc::TCGETS, 36))),
    ("ioctl", |c| _ = c.n(terminal()).n(libc::TCGETA).o(18).cut(2)),
    ("ioctl", |c| _ = c.n(terminal()).n(libc::TCGETS2).o(44)),
    ("ioctl", |c| _ = c.n(terminal()).n(libc::TIOCGWINSZ).o(8)),
    ("ioctl", |c| _ = c.n(terminal()).n(libc::TIOCSWINSZ).i([0; 8])),
    ("ioctl", |c| _ = c.n(terminal()).n(libc::TIOCOUTQ).o(4)),
    ("ioctl", |c| _ = c.n(terminal()).n(libc::TIOCGETD).o(4)),
    ("ioctl", |c| _ = c.n(terminal()).n(libc::TIOCSETD).i([0; 4])),
    ("ioctl", |c| _ = c.n(terminal()).n(libc::TIOCGPTN).o(4)),
    ("ioctl", |c| _ = c.n(terminal()).n(libc::TIOCSPTLCK).i([0; 4])),
    ("ioctl", |c| _ = c.n(terminal()).n(libc::TIOCPKT).i([0; 4])),
    ("ioctl", |c| _ = c.n(file(9)).n(FIGETBSZ).o(4)),
    ("ioctl", |c| _ = c.n(file(9)).n(libc::FS_IOC_GETFLAGS as u32).o(4)),
    ("ioctl", |c| _ = c.n(file(9)).n(libc::FS_IOC_SETFLAGS as u32).i([0; 4])),
    ("ioctl", |c| _ = c.n(file(9)).n(FS_IOC_FSGETXATTR).o(28)),
    ("ioctl", |c| _ = c.n(file(9)).n(FIOQSIZE).o(8)),
    ("ioctl", |c| _ = c.n(pidfd()).n(PIDFD_GET_INFO).io([0; 64])),
    ("file_getattr", |c| _ = c.n(file(9)).s("").o(24).n(24).n(AT_EMPTY_PATH)),
    ("file_setattr", |c| _ = c.n(file(9)).s("").i([0; 24]).n(24).n(AT_EMPTY_PATH)),
    ("inotify_add_watch", |c| {
        let fd = done(libc::SYS_inotify_init1, &[]);
        c.n(fd).s("/proc").n(libc::IN_OPEN);
    }),
    ("fanotify_mark", |c| {
        let fd = done(libc::SYS_fanotify_init, &[0, 0]);
        c.n(fd).n(1).n(0x20).n(AT_FDCWD).s("/proc").optional();
    }),
];

const FIGETBSZ: u32 = 2;
const FIOQSIZE: u32 = 0x5460;
const FS_IOC_FSGETXATTR: u32 = 0x801c_581f;
const PIDFD_GET_INFO: u32 = 0xc040_ff0b;

fn directory() -> i64 {
    done(libc::SYS_open, &[c"/proc".as_ptr() as u64, 0])
}

fn lock() -> Vec<u8> {
    words(&[libc::F_RDLCK as u64, 0, 1, 0])
}

/// The master of a new pseudo-terminal.
fn terminal() -> i64 {
    done(libc::SYS_open, &[c"/dev/ptmx".as_ptr() as u64, libc::O_RDWR as u64])
}

/// The settings of the terminal.
fn settings(get: libc::c_ulong, len: usize) -> Vec<u8> {
    let mut settings = vec![0; len];
    done(libc::SYS_ioctl, &[terminal() as u64, get, settings.as_mut_ptr() as u64]);
    settings
}
