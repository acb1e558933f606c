//! The whole system: names, clocks apart; modules, swap, tracing, security modules.

use super::words::*;
use Interrupted::Restarts;

pub(super) const CALLS: &[Call] = &[
    call(63, "uname", [output(390)]).again(),
    call(99, "sysinfo", [output(112)]).again(),
    call(103, "syslog", [V, by(Decoder::Syslog), V]).waits(Restarts),
    call(153, "vhangup", []),
    call(163, "acct", [PATH]).again(),
    call(167, "swapon", [PATH, V]).again(),
    call(168, "swapoff", [PATH]).again(),
    call(169, "reboot", [V, V, V, by(Decoder::Reboot)]).again(),
    call(170, "sethostname", [Arg::In(int(1)), V]).again(),
    call(171, "setdomainname", [Arg::In(int(1)), V]).again(),
    call(172, "iopl", [V]),
    call(173, "ioperm", [V, V, V]),
    call(175, "init_module", [Arg::In(size(1)), V, Arg::Str(1 << 17)]),
    call(313, "finit_module", [FD, Arg::Str(1 << 17), V]),
    call(176, "delete_module", [Arg::Str(64), V]).again(),
    call(246, "kexec_load", [V, V, by(Decoder::KexecLoad), V]),
    call(320, "kexec_file_load", [FD, FD, V, Arg::In(size(2)), V]),
    call(298, "perf_event_open", [by(Decoder::PerfEvent), V, V, FD, V]).again(),
    call(318, "getrandom", [Arg::OutData(size(1)), V, V]).waits(Restarts),
    call(321, "bpf", [V, by(Decoder::Bpf), V]),
    call(444, "landlock_create_ruleset", [Arg::In(size(1)), V, V]).again(),
    call(445, "landlock_add_rule", [FD, V, by(Decoder::LandlockRule), V]).again(),
    call(446, "landlock_restrict_self", [FD, V]),
    call(
        459,
        "lsm_get_self_attr",
        [V, Arg::OutData(Len::At { arg: 2, width: Width::U32 }), both(4), V],
    )
    .again(),
    call(460, "lsm_set_self_attr", [V, Arg::In(uint(2)), V, V]).again(),
    call(
        461,
        "lsm_list_modules",
        [Arg::OutData(Len::At { arg: 1, width: Width::U32 }), both(4), V],
    )
    .again(),
    call(219, "restart_syscall", []).ours(Subject::Signals),
];
