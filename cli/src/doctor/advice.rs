//! What to do where the machine refuses something.

use std::fs;

/// Why `ptrace` may be forbidden here, and what an administrator would do.
pub fn ptrace() -> String {
    let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope");
    match scope.as_deref().map(str::trim) {
        Ok("3") => "Yama forbids ptrace to all until the next boot (kernel.yama.ptrace_scope=3); \
                    set 1 in /etc/sysctl.d and reboot"
            .to_owned(),
        Ok("2") => "Yama allows ptrace to administrators alone: run pagefault as root, or \
                    `sysctl kernel.yama.ptrace_scope=1`"
            .to_owned(),
        _ if is_filtered() => "a seccomp filter forbids ptrace, as in some containers: start the \
                               container with `--cap-add=SYS_PTRACE`, or with a profile that \
                               allows ptrace"
            .to_owned(),
        _ => "is the program traced by another process, as by a debugger or strace?".to_owned(),
    }
}

/// Whether a seccomp filter is over this process.
fn is_filtered() -> bool {
    fs::read_to_string("/proc/self/status")
        .is_ok_and(|status| status.lines().any(|line| line.replace('\t', "") == "Seccomp:2"))
}
