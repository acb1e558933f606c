//! What to do if the machine forbids tracing.

use super::facts::is_filtered;
use std::fs;

/// Why a program cannot be traced here, and what an administrator can do.
pub fn ptrace() -> String {
    let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope");
    of_ptrace(scope.ok().and_then(|scope| scope.trim().parse().ok()), is_filtered())
}

/// The same, from facts that are known.
pub fn of_ptrace(yama: Option<u32>, filtered: bool) -> String {
    match yama {
        Some(3) => {
            "Yama forbids ptrace until the next boot (kernel.yama.ptrace_scope=3): set \
             `kernel.yama.ptrace_scope=1` in /etc/sysctl.d and reboot"
        }
        Some(2) => {
            "Yama permits ptrace only to administrators: run pagefault as root, or \
             `sysctl kernel.yama.ptrace_scope=1`"
        }
        _ if filtered => {
            "a seccomp filter forbids ptrace, perhaps a container engine's: start the container with \
             `--cap-add=SYS_PTRACE`, or with a profile that allows ptrace"
        }
        _ => "does another process, such as a debugger or strace, already trace it?",
    }
    .to_owned()
}
