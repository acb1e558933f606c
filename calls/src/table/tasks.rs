//! Processes, threads, scheduling, identity, limits, signals.

use super::words::*;
use Interrupted::{Always, Handler, Restarts};

pub(super) const CALLS: &[Call] = &[
    // Their life.
    call(56, "clone", [V, ADDRESS, by(Decoder::Clone), by(Decoder::Clone), V]).ours(Subject::Tasks),
    call(435, "clone3", [by(Decoder::Clone3), V]).ours(Subject::Tasks),
    call(57, "fork", []).ours(Subject::Tasks),
    call(58, "vfork", []).ours(Subject::Tasks),
    call(59, "execve", [PATH, Arg::StrArray, Arg::StrArray]).ours(Subject::Tasks),
    call(322, "execveat", [FD, PATH, Arg::StrArray, Arg::StrArray, V]).ours(Subject::Tasks),
    call(60, "exit", [V]).ours(Subject::Tasks),
    call(231, "exit_group", [V]).ours(Subject::Tasks),
    call(61, "wait4", [V, output(4), V, output(RUSAGE)]).waits(Restarts),
    // Of the siginfo only the fields of SIGCHLD are written.
    call(247, "waitid", [V, V, output(28), V, output(RUSAGE)]).waits(Restarts),
    call(101, "ptrace", [V, V, by(Decoder::Ptrace), by(Decoder::Ptrace)]).ours(Subject::Tasks),
    call(272, "unshare", [V]),
    call(308, "setns", [FD, V]),
    call(434, "pidfd_open", [V, V]),
    // The second is the other process's.
    call(438, "pidfd_getfd", [FD, V, V]),
    call(424, "pidfd_send_signal", [FD, V, SIGINFO_IN, V]).again(),
    call(312, "kcmp", [V, V, V, V, by(Decoder::Kcmp)]).again(),
    call(
        157,
        "prctl",
        [V, by(Decoder::Prctl), by(Decoder::Prctl), by(Decoder::Prctl), by(Decoder::Prctl)],
    )
    .ours(Subject::Tasks),
    call(158, "arch_prctl", [V, by(Decoder::ArchPrctl)]).ours(Subject::Tasks),
    call(135, "personality", [V]),
    call(324, "membarrier", [V, V, V]),
    // A thread's own.
    call(186, "gettid", []),
    call(218, "set_tid_address", [Arg::Later { len: Len::Const(4), dir: Dir::Out }])
        .ours(Subject::Tasks),
    call(273, "set_robust_list", [Arg::Later { len: size(1), dir: Dir::In }, V])
        .ours(Subject::Tasks),
    call(274, "get_robust_list", [V, output(8), output(8)]).again(),
    call(334, "rseq", [Arg::Later { len: uint(1), dir: Dir::Both }, V, V, V]).ours(Subject::Tasks),
    call(205, "set_thread_area", [ADDRESS]).absent(),
    call(211, "get_thread_area", [ADDRESS]).absent(),
    call(154, "modify_ldt", [V, by(Decoder::ModifyLdt), V]).again(),
    // Made only by the kernel's own trampoline, after a probe.
    call(335, "uretprobe", []),
    call(336, "uprobe", []),
    // Identity.
    call(39, "getpid", []),
    call(110, "getppid", []),
    call(102, "getuid", []),
    call(104, "getgid", []),
    call(107, "geteuid", []),
    call(108, "getegid", []),
    call(105, "setuid", [V]),
    call(106, "setgid", [V]),
    call(113, "setreuid", [V, V]),
    call(114, "setregid", [V, V]),
    call(117, "setresuid", [V, V, V]),
    call(118, "getresuid", [output(4), output(4), output(4)]).again(),
    call(119, "setresgid", [V, V, V]),
    call(120, "getresgid", [output(4), output(4), output(4)]).again(),
    call(122, "setfsuid", [V]),
    call(123, "setfsgid", [V]),
    // As many as there are, if there is room; otherwise the call fails.
    call(115, "getgroups", [V, Arg::OutData(each(0, Width::I32, 4))]).again(),
    call(116, "setgroups", [V, Arg::In(each(0, Width::I32, 4))]).again(),
    call(109, "setpgid", [V, V]),
    call(111, "getpgrp", []),
    call(112, "setsid", []),
    call(121, "getpgid", [V]),
    call(124, "getsid", [V]),
    call(125, "capget", [both(8), by(Decoder::Capabilities(Dir::Out))]).again(),
    call(126, "capset", [both(8), by(Decoder::Capabilities(Dir::In))]).again(),
    // Scheduling. A mask of processors is copied only as far as the kernel's own is long.
    call(24, "sched_yield", []),
    call(140, "getpriority", [V, V]),
    call(141, "setpriority", [V, V, V]),
    call(142, "sched_setparam", [V, input(4)]).again(),
    call(143, "sched_getparam", [V, output(4)]).again(),
    call(144, "sched_setscheduler", [V, V, input(4)]).again(),
    call(145, "sched_getscheduler", [V]),
    call(146, "sched_get_priority_max", [V]),
    call(147, "sched_get_priority_min", [V]),
    call(148, "sched_rr_get_interval", [V, output(TIMESPEC)]).again(),
    call(203, "sched_setaffinity", [V, V, Arg::InData(uint(1))]).again(),
    call(204, "sched_getaffinity", [V, V, Arg::OutData(uint(1))]).again(),
    call(314, "sched_setattr", [V, by(Decoder::SchedSetattr), V]).again(),
    call(315, "sched_getattr", [V, Arg::OutData(uint(2)), V, V]).again(),
    call(251, "ioprio_set", [V, V, V]),
    call(252, "ioprio_get", [V, V]),
    call(309, "getcpu", [output(4), output(4), ADDRESS]).again(),
    // Limits and use.
    call(97, "getrlimit", [V, output(16)]).again().ours(Subject::Limits),
    call(160, "setrlimit", [V, input(16)]).again().ours(Subject::Limits),
    call(302, "prlimit64", [V, V, input(16), output(16)]).ours(Subject::Limits),
    call(98, "getrusage", [V, output(RUSAGE)]).again(),
    call(100, "times", [output(32)]).again(),
    // Signals.
    call(13, "rt_sigaction", [V, input(32), output(32), V]).ours(Subject::Signals),
    call(14, "rt_sigprocmask", [V, sigset(3), Arg::Out(size(3)), V]).ours(Subject::Signals),
    call(15, "rt_sigreturn", []).ours(Subject::Signals),
    call(34, "pause", []).waits(Handler).ours(Subject::Signals),
    call(62, "kill", [V, V]),
    call(200, "tkill", [V, V]),
    call(234, "tgkill", [V, V, V]),
    call(127, "rt_sigpending", [Arg::Out(size(1)), V]).again().ours(Subject::Signals),
    call(128, "rt_sigtimedwait", [sigset(3), output(128), input(TIMESPEC), V])
        .waits(Always)
        .ours(Subject::Signals),
    call(129, "rt_sigqueueinfo", [V, V, SIGINFO_IN]).again(),
    call(297, "rt_tgsigqueueinfo", [V, V, V, SIGINFO_IN]).again(),
    call(130, "rt_sigsuspend", [sigset(1), V]).waits(Handler).ours(Subject::Signals),
    call(131, "sigaltstack", [input(24), output(24)]).ours(Subject::Signals),
    call(317, "seccomp", [V, V, by(Decoder::Seccomp)]).ours(Subject::Signals),
];

/// The kernel reads 48 bytes, and the rest where it does not know the code.
const SIGINFO_IN: Arg = Arg::InData(Len::Const(128));
