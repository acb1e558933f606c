//! Attributes of files, and mounts.

use crate::harness::{Case, done, file, lacking, words};
use libc::{AT_EMPTY_PATH, AT_FDCWD};
use pagefault_calls::Access;

const NAME: &str = "trusted.pagefault";

pub const CASES: &[Case] = &[
    ("stat", |c| _ = c.s("/").o(144)),
    ("lstat", |c| _ = c.s("/").o(144)),
    ("fstat", |c| _ = c.n(0).o(144)),
    ("newfstatat", |c| _ = c.n(AT_FDCWD).s("/").o(144).n(0)),
    ("statx", |c| _ = c.n(AT_FDCWD).s("/").n(0).n(0xfff).o(256)),
    ("statfs", |c| _ = c.s("/").o(120)),
    ("fstatfs", |c| _ = c.n(file(0)).o(120)),
    ("ustat", |c| _ = c.n(device()).o(32)),
    ("setxattr", |c| _ = c.s("/nonexistent").s(NAME).i([1; 5]).n(5).n(0)),
    ("lsetxattr", |c| _ = c.s("/nonexistent").s(NAME).i([1; 5]).n(5).n(0)),
    ("fsetxattr", |c| _ = c.n(file(0)).s(NAME).i([1; 5]).n(5).n(0)),
    ("getxattr", |c| _ = c.s(&named(attributed())).s(NAME).o(5).n(5)),
    ("lgetxattr", |c| _ = c.s("/nonexistent").s(NAME).n(0).n(0)),
    ("fgetxattr", |c| _ = c.n(attributed()).s(NAME).o(5).n(5)),
    ("listxattr", |c| _ = c.s(&named(attributed())).o(NAME.len() + 1).n(NAME.len() + 1)),
    ("llistxattr", |c| _ = c.s("/nonexistent").n(0).n(0)),
    ("flistxattr", |c| _ = c.n(attributed()).o(NAME.len() + 1).n(NAME.len() + 1)),
    ("removexattr", |c| _ = c.s(&named(attributed())).s(NAME)),
    ("lremovexattr", |c| _ = c.s("/nonexistent").s(NAME)),
    ("fremovexattr", |c| _ = c.n(attributed()).s(NAME)),
    ("setxattrat", |c| {
        let value = c.hide([1; 5], Access::Read);
        c.n(file(0)).s("").n(AT_EMPTY_PATH).s(NAME);
        c.i(words(&[0, 5])).link(0, value).n(16);
    }),
    ("getxattrat", |c| {
        let value = c.hide([0; 5], Access::Write);
        c.n(attributed()).s("").n(AT_EMPTY_PATH).s(NAME);
        c.i(words(&[0, 5])).link(0, value).n(16);
    }),
    ("listxattrat", |c| {
        c.n(attributed()).s("").n(AT_EMPTY_PATH).o(NAME.len() + 1).n(NAME.len() + 1);
    }),
    ("removexattrat", |c| _ = c.n(attributed()).s("").n(AT_EMPTY_PATH).s(NAME)),
    ("name_to_handle_at", |c| {
        c.n(file(0)).s("").io(words(&[0])).o(4).n(AT_EMPTY_PATH);
    }),
    ("name_to_handle_at", |c| {
        // The room is twelve bytes, as long as this file system's handles.
        c.n(file(0)).s("").io(handle()).o(4).n(AT_EMPTY_PATH);
    }),
    ("name_to_handle_at", |c| {
        c.n(file(0)).s("").io(handle()).o(8).n(AT_EMPTY_PATH | 1);
    }),
    ("open_by_handle_at", |c| _ = c.n(file(0)).i(handle()).n(0)),
    ("mount", |c| {
        c.s("none").s("/nonexistent").s("nonesuch").n(0).n(0);
    }),
    ("umount2", |c| _ = c.s("/nonexistent").n(0)),
    ("pivot_root", |c| _ = c.s("/").s("/nonexistent")),
    ("open_tree", |c| _ = c.n(AT_FDCWD).s("/nonexistent").n(0)),
    ("open_tree_attr", |c| {
        c.n(AT_FDCWD).s("/").n(1).i(words(&[1, 0, 0, 0])).n(32);
    }),
    ("move_mount", |c| {
        c.n(AT_FDCWD).s("/").untold().n(AT_FDCWD).s("/nonexistent").n(0);
    }),
    ("move_mount", |c| _ = c.n(AT_FDCWD).s("/nonexistent").n(AT_FDCWD).s("/").untold().n(0)),
    ("fsopen", |c| _ = c.s("nonesuch").n(0)),
    ("fspick", |c| _ = c.n(AT_FDCWD).s("/nonexistent").n(0)),
    ("fsconfig", |c| _ = c.n(fresh()).n(0).s("ro").n(0).n(0)),
    ("fsconfig", |c| _ = c.n(fresh()).n(1).s("size").s("1M").n(0)),
    ("fsconfig", |c| _ = c.n(fresh()).n(2).s("size").i([1; 9]).n(9)),
    ("fsconfig", |c| _ = c.n(fresh()).n(3).s("size").s("/nonexistent").n(AT_FDCWD)),
    ("mount_setattr", |c| {
        c.n(AT_FDCWD).s("/nonexistent").n(0).i(words(&[1, 0, 0, 0])).n(32);
    }),
    ("statmount", |c| _ = c.i(root()).o(512).loose().n(512).n(0)),
    ("listmount", |c| _ = c.i(words(&[24, u64::MAX, 0])).o(8).n(1).n(0)),
    ("quotactl", |c| _ = c.n(0x8000_0700u32).s("/nonexistent").n(0).n(0)),
    ("sysfs", |c| _ = c.n(1).s("proc").n(0)),
    ("sysfs", |c| {
        let index = done(libc::SYS_sysfs, &[1, c"proc".as_ptr() as u64]);
        c.n(2).n(index).o(5).loose();
    }),
];

fn device() -> u64 {
    // SAFETY: a zeroed structure for the kernel to fill.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    done(libc::SYS_stat, &[c"/proc".as_ptr() as u64, &raw mut stat as u64]);
    stat.st_dev
}

/// A file with an extended attribute.
fn attributed() -> i32 {
    let (fd, name) = (file(0), c"trusted.pagefault");
    let (name, value) = (name.as_ptr() as u64, c"12345".as_ptr() as u64);
    if done(libc::SYS_fsetxattr, &[fd as u64, name, value, 5, 0]) != 0 {
        lacking();
    }
    fd
}

fn named(fd: i32) -> String {
    format!("/proc/self/fd/{fd}")
}

/// A handle of a file in memory: twelve bytes.
fn handle() -> Vec<u8> {
    let mut handle = [12u32, 0, 0, 0, 0];
    let mount = 0u32;
    let (handle_at, mount_at) = (handle.as_mut_ptr() as u64, &raw const mount as u64);
    let empty = c"".as_ptr() as u64;
    let flags = AT_EMPTY_PATH as u64;
    done(libc::SYS_name_to_handle_at, &[file(0) as u64, empty, handle_at, mount_at, flags]);
    handle.iter().flat_map(|half| half.to_ne_bytes()).collect()
}

/// A file system that is about to be made.
fn fresh() -> i64 {
    let fd = done(libc::SYS_fsopen, &[c"tmpfs".as_ptr() as u64, 0]);
    if fd < 0 {
        lacking();
    }
    fd
}

/// A request for what is known of the root's mount.
fn root() -> Vec<u8> {
    let mut statx = [0u64; 32];
    const STATX_MNT_ID_UNIQUE: u64 = 0x4000;
    let (path, at) = (c"/".as_ptr() as u64, statx.as_mut_ptr() as u64);
    done(libc::SYS_statx, &[AT_FDCWD as u64, path, 0, STATX_MNT_ID_UNIQUE, at]);
    words(&[24, statx[18], 1])
}
