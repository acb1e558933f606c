//! Processes, threads, scheduling, signals, memory.

use crate::harness::{Case, done, file, halves, map_page, pidfd, pipe, pipe_with, words};
use pagefault_calls::Access;

const SIGCHLD: u64 = libc::SIGCHLD as u64;

pub const CASES: &[Case] = &[
    ("clone", |c| _ = c.n(SIGCHLD | libc::CLONE_PIDFD as u64).n(0).o(4).n(0).n(0)),
    ("clone3", |c| {
        let descriptor = c.hide([0; 4], Access::Write);
        c.i(words(&[libc::CLONE_PIDFD as u64, 0, 0, 0, SIGCHLD, 0, 0, 0]));
        c.link(8, descriptor).n(64);
    }),
    ("clone3", |c| {
        // Of two nested namespaces; there is one, so that the call fails once it has read them.
        let identifiers = c.hide(halves(&[99_999]), Access::Read);
        c.i(words(&[0, 0, 0, 0, SIGCHLD, 0, 0, 0, 0, 1])).link(64, identifiers).n(80);
    }),
    ("execve", |c| {
        let name = c.hide(*b"true\0", Access::Read);
        let setting = c.hide(*b"A=B\0", Access::Read);
        c.s("/bin/true").i(words(&[0, 0])).link(0, name).i(words(&[0, 0])).link(0, setting);
    }),
    ("execveat", |c| {
        let name = c.hide(*b"true\0", Access::Read);
        let setting = c.hide(*b"A=B\0", Access::Read);
        c.n(libc::AT_FDCWD).s("/bin/true");
        c.i(words(&[0, 0])).link(0, name).i(words(&[0, 0])).link(0, setting).n(0);
    }),
    ("wait4", |c| _ = c.n(ended()).o(4).n(0).o(144)),
    ("waitid", |c| _ = c.n(libc::P_ALL).n(ended()).o(28).n(libc::WEXITED).o(144)),
    ("pidfd_send_signal", |c| _ = c.n(pidfd()).n(libc::SIGUSR1).i(information()).loose().n(0)),
    ("rt_sigqueueinfo", |c| _ = c.n(me()).n(libc::SIGCONT).i(information()).loose()),
    ("rt_tgsigqueueinfo", |c| _ = c.n(me()).n(me()).n(libc::SIGCONT).i(information()).loose()),
    ("kcmp", |c| {
        let epoll = done(libc::SYS_epoll_create1, &[0]);
        let (fd, event) = (pipe().0, halves(&[1, 0, 0]));
        done(libc::SYS_epoll_ctl, &[epoll as u64, 1, fd as u64, event.as_ptr() as u64]);
        c.n(me()).n(me()).n(7).n(fd).i(halves(&[epoll as u32, fd as u32, 0]));
    }),
    ("prctl", |c| _ = c.n(libc::PR_SET_NAME).s("a name")),
    ("prctl", |c| _ = c.n(libc::PR_GET_NAME).o(16)),
    ("prctl", |c| _ = c.n(libc::PR_GET_PDEATHSIG).o(4)),
    ("prctl", |c| _ = c.n(libc::PR_GET_CHILD_SUBREAPER).o(4)),
    ("prctl", |c| _ = c.n(libc::PR_GET_TSC).o(4)),
    ("prctl", |c| _ = c.n(libc::PR_GET_TID_ADDRESS).o(8)),
    ("prctl", |c| _ = c.n(0x4155_5856).o(32).n(32).n(0).n(0)),
    ("prctl", |c| _ = c.n(libc::PR_SET_VMA).n(0).n(map_page()).n(4096).s("a name").optional()),
    ("prctl", |c| _ = c.n(libc::PR_SET_MM).n(libc::PR_SET_MM_MAP_SIZE).o(4).n(0).n(0).optional()),
    ("prctl", |c| {
        let vector = c.hide([0; 16], Access::Read);
        let mut map = vec![0; 104];
        map[96] = 16;
        c.n(libc::PR_SET_MM).n(libc::PR_SET_MM_MAP).i(map).link(88, vector).n(104).n(0);
        c.untell(vector).optional();
    }),
    ("prctl", |c| _ = c.n(libc::PR_SCHED_CORE).n(0).n(0).n(0).o(8).optional()),
    ("prctl", |c| {
        let program = c.hide(ALLOW, Access::Read);
        done(libc::SYS_prctl, &[libc::PR_SET_NO_NEW_PRIVS as u64, 1]);
        c.n(libc::PR_SET_SECCOMP).n(2).i(words(&[1, 0])).link(8, program);
    }),
    ("arch_prctl", |c| _ = c.n(0x1003).o(8)),
    ("arch_prctl", |c| _ = c.n(0x1004).o(8)),
    ("arch_prctl", |c| _ = c.n(0x1021).o(8).optional()),
    ("arch_prctl", |c| _ = c.n(0x1022).o(8).optional()),
    ("arch_prctl", |c| _ = c.n(0x4001).o(8).optional()),
    ("arch_prctl", |c| _ = c.n(0x5005).o(8).optional()),
    ("get_robust_list", |c| _ = c.n(0).o(8).o(8)),
    ("modify_ldt", |c| _ = c.n(2).o(128).n(128)),
    ("modify_ldt", |c| _ = c.n(1).i(halves(&[0, 0, 0, 0x28])).n(16)),
    ("ptrace", |c| _ = c.n(0x4201).n(stopped()).n(0).o(8)),
    ("ptrace", |c| _ = c.n(0x4202).n(stopped()).n(0).o(128)),
    ("ptrace", |c| _ = c.n(12).n(stopped()).n(0).o(216)),
    ("ptrace", |c| _ = c.n(14).n(stopped()).n(0).o(512)),
    ("ptrace", |c| _ = c.n(0x420a).n(stopped()).n(8).o(8)),
    ("ptrace", |c| _ = c.n(0x420b).n(stopped()).n(8).i([0; 8])),
    ("ptrace", |c| {
        let registers = c.hide([0; 216], Access::Write);
        c.n(0x4204).n(stopped()).n(1).io(words(&[0, 216])).link(0, registers);
    }),
    ("seccomp", |c| _ = c.n(2).n(0).i(halves(&[0x7fff_0000]))),
    ("seccomp", |c| _ = c.n(3).n(0).o(6)),
    ("seccomp", |c| {
        let program = c.hide(ALLOW, Access::Read);
        done(libc::SYS_prctl, &[libc::PR_SET_NO_NEW_PRIVS as u64, 1]);
        c.n(1).n(0).i(words(&[1, 0])).link(8, program);
    }),
    ("rt_sigaction", |c| _ = c.n(libc::SIGUSR1).i([0; 32]).o(32).n(8)),
    ("rt_sigprocmask", |c| _ = c.n(0).i([0; 8]).o(8).n(8)),
    ("rt_sigpending", |c| _ = c.o(8).n(8)),
    ("rt_sigtimedwait", |c| _ = c.i(pending()).o(128).i([0; 16]).n(8)),
    ("rt_sigsuspend", |c| {
        // SAFETY: the handler does nothing.
        unsafe { libc::signal(libc::SIGUSR1, ignore as *const () as usize) };
        pending();
        c.i([0; 8]).n(8);
    }),
    ("sigaltstack", |c| _ = c.i(words(&[0, 2, 0])).o(24)),
    // Memory.
    ("mincore", |c| _ = c.n(map_page()).n(4096).o(1)),
    ("set_mempolicy", |c| _ = c.n(2).i(words(&[1])).n(64)),
    ("set_mempolicy", |c| _ = c.n(2).i(words(&[1, 0])).n(66)),
    ("set_mempolicy", |c| _ = c.n(2).i(words(&[1])).n(65)),
    ("get_mempolicy", |c| _ = c.o(4).o(8).n(65).n(0).n(0)),
    ("get_mempolicy", |c| _ = c.o(4).o(128).n(1024).n(0).n(0)),
    ("get_mempolicy", |c| _ = c.o(4).n(0).n(0).i([7]).n(3)),
    ("mbind", |c| _ = c.n(map_page()).n(4096).n(2).i(words(&[1])).n(64).n(0)),
    ("migrate_pages", |c| _ = c.n(0).n(64).i(words(&[1])).i(words(&[1]))),
    ("move_pages", |c| {
        let pages = words(&[map_page() as u64, map_page() as u64]);
        c.n(0).n(2).i(pages).n(0).o(8).n(0);
    }),
    ("move_pages", |c| {
        let pages = words(&[map_page() as u64, map_page() as u64]);
        c.n(0).n(2).i(pages).i([0; 8]).o(8).n(0);
    }),
    ("process_vm_readv", |c| {
        let here = c.hide([0; 16], Access::Write);
        let page = map_page() as u64;
        c.n(me()).i(words(&[0, 16])).link(0, here).n(1).i(words(&[page, 16])).n(1).n(0);
    }),
    ("process_vm_writev", |c| {
        let here = c.hide([0; 16], Access::Read);
        let page = map_page() as u64;
        c.n(me()).i(words(&[0, 16])).link(0, here).n(1).i(words(&[page, 16])).n(1).n(0);
    }),
    ("process_madvise", |c| {
        c.n(pidfd()).i(words(&[map_page() as u64, 4096])).n(1).n(libc::MADV_COLD).n(0);
    }),
    ("vmsplice", |c| {
        let data = c.hide([1; 16], Access::Read);
        c.n(pipe().1).i(words(&[0, 16])).link(0, data).n(1).n(0);
        c.both_ways(data);
    }),
    ("vmsplice", |c| {
        let data = c.hide([0; 16], Access::Write);
        c.n(pipe_with(16)).i(words(&[0, 16])).link(0, data).n(1).n(0);
    }),
    ("ioctl", |c| {
        // Which pages of one mapping are present: one region.
        let regions = c.hide([0; 24], Access::Write);
        let page = map_page() as u64;
        let mut scan = words(&[96, 0, page, page + 4096, 0, 0, 1, 0, 0, 8, 0, 8]);
        scan.truncate(96);
        let fd = done(libc::SYS_open, &[c"/proc/self/pagemap".as_ptr() as u64, 0]);
        c.n(fd).n(0xc060_6610u32).io(scan).link(40, regions);
    }),
    ("ioctl", |c| {
        let name = c.hide([0; 64], Access::Write);
        let mut query = words(&[104, 0, name_of_code(), 0, 0, 0, 0, 0, 0, 0, 64, 0, 0]);
        query.truncate(104);
        let fd = done(libc::SYS_open, &[c"/proc/self/maps".as_ptr() as u64, 0]);
        c.n(fd).n(0xc068_6611u32).io(query).link(88, name);
        c.untell(name);
    }),
    ("sendfile", |c| _ = c.n(pipe().1).n(file(20)).io([0; 8]).n(4)),
];

/// A filter of one instruction, which allows everything.
const ALLOW: [u8; 8] = [6, 0, 0, 0, 0, 0, 0xff, 0x7f];

extern "C" fn ignore(_: i32) {}

fn me() -> i64 {
    done(libc::SYS_getpid, &[])
}

fn name_of_code() -> u64 {
    name_of_code as *const () as u64
}

/// What `sigqueue` sends, as far as the kernel reads it.
fn information() -> Vec<u8> {
    // SAFETY: ignores a signal in a process that will end.
    unsafe { libc::signal(libc::SIGUSR1, libc::SIG_IGN) };
    let mut information = halves(&[libc::SIGUSR1 as u32, 0, -1i32 as u32]);
    information.resize(48, 0);
    information
}

/// Blocks a signal and sends it; the set that holds it.
fn pending() -> Vec<u8> {
    let set = words(&[1 << (libc::SIGUSR1 - 1)]);
    done(libc::SYS_rt_sigprocmask, &[0, set.as_ptr() as u64, 0, 8]);
    done(libc::SYS_kill, &[me() as u64, libc::SIGUSR1 as u64]);
    set
}

/// A child that has ended; any.
fn ended() -> i64 {
    // SAFETY: the child ends at once.
    match unsafe { libc::fork() } {
        // SAFETY: as above.
        0 => unsafe { libc::_exit(3) },
        child => child.into(),
    }
}

/// A child that we trace, and that has stopped.
fn stopped() -> i64 {
    // SAFETY: the child asks to be traced and stops.
    match unsafe { libc::fork() } {
        0 => {
            // When its tracer ends, so does it; the tracer waits for its stop.
            done(libc::SYS_prctl, &[libc::PR_SET_PDEATHSIG as u64, libc::SIGKILL as u64]);
            done(libc::SYS_ptrace, &[libc::PTRACE_TRACEME as u64]);
            done(libc::SYS_kill, &[me() as u64, libc::SIGSTOP as u64]);
            // SAFETY: ends the child.
            unsafe { libc::_exit(0) }
        }
        child => {
            done(libc::SYS_wait4, &[child as u64, 0, libc::WUNTRACED as u64, 0]);
            child.into()
        }
    }
}
