//! Numbers that Linux 6.18 answers with `ENOSYS` on x86-64: removed, or never there.

use super::words::*;

pub(super) const CALLS: &[Call] = &[
    call(134, "uselib", [PATH]).absent(),
    call(156, "_sysctl", [V]).absent(),
    call(174, "create_module", [V, V]).absent(),
    call(177, "get_kernel_syms", [V]).absent(),
    call(178, "query_module", [V, V, V, V, V]).absent(),
    call(180, "nfsservctl", [V, V, V]).absent(),
    call(181, "getpmsg", [V, V, V, V, V]).absent(),
    call(182, "putpmsg", [V, V, V, V, V]).absent(),
    call(183, "afs_syscall", [V, V, V, V, V]).absent(),
    call(184, "tuxcall", [V, V, V]).absent(),
    call(185, "security", [V, V, V]).absent(),
    // Until Linux 6.5 profilers' own.
    call(212, "lookup_dcookie", [V, Arg::OutData(size(2)), V]).absent(),
    call(214, "epoll_ctl_old", [V, V, V, V]).absent(),
    call(215, "epoll_wait_old", [V, V, V, V]).absent(),
    call(236, "vserver", [V, V, V, V, V]).absent(),
];
