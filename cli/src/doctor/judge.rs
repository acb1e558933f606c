//! What follows from the facts about a machine, and what an administrator can do.

use super::facts::{Answer, Facts};
use crate::size::about;
use pagefault_linux::UffdFeatures;
use rustix::io::Errno;

/// What a finding is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// For `run`.
    Run,
    /// For `run --delivery=threads`.
    Threads,
    /// For `run` to be as fast as possible, or to run for longer.
    Better,
}

/// One fact about a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its name.
    pub name: &'static str,
    /// What was found.
    pub value: String,
    /// What it is needed for.
    pub need: Need,
    /// What to do, if it does not suffice.
    pub remedy: Option<String>,
}

/// All findings, in the order of the output.
pub fn findings(facts: &Facts) -> Vec<Finding> {
    let mut found = vec![kernel(facts)];
    found.extend(userfaultfd(facts));
    found.extend(tracing(facts));
    found.extend(speed(facts));
    found.extend(limits(facts));
    found.push(disk(facts));
    found
}

/// Whether all findings that something needs suffice.
pub fn works(findings: &[Finding], need: Need) -> bool {
    let concerns = |finding: &&Finding| match need {
        Need::Threads => finding.need != Need::Better,
        need => finding.need == need,
    };
    findings.iter().filter(concerns).all(|finding| finding.remedy.is_none())
}

fn finding(name: &'static str, value: String, need: Need, remedy: Option<String>) -> Finding {
    Finding { name, value, need, remedy }
}

/// A remedy, if a condition does not hold.
fn unless(good: bool, remedy: &str) -> Option<String> {
    (!good).then(|| remedy.to_owned())
}

fn said(answer: Answer) -> String {
    match answer {
        Ok(()) => "yes".to_owned(),
        Err(Errno::NOENT) => "absent".to_owned(),
        Err(Errno::PERM | Errno::ACCESS) => "not permitted".to_owned(),
        Err(Errno::NOSYS) => "not in this kernel".to_owned(),
        Err(errno) => format!("no: {errno}"),
    }
}

/// The major and minor number of a kernel's version.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn kernel(facts: &Facts) -> Finding {
    let new_enough = version(&facts.kernel).is_none_or(|version| version >= (5, 11));
    let remedy = unless(new_enough, "boot Linux 5.11 or later");
    finding("kernel", facts.kernel.clone(), Need::Run, remedy)
}

fn userfaultfd(facts: &Facts) -> Vec<Finding> {
    let found = &facts.userfaultfd;
    let all = found.call.is_ok() || found.device.is_ok();
    let any = all || found.user_only.is_ok();
    let wide = unless(
        all,
        "to answer faults of system calls too, any of: run as root; \
         `sysctl vm.unprivileged_userfaultfd=1`; \
         `setfacl -m u:USER:rw /dev/userfaultfd` (Linux 6.1 and later)",
    );
    let sysctl = found.sysctl.map_or("absent".to_owned(), |value| value.to_string());
    let inline = found.features.contains(UffdFeatures::SIGBUS | UffdFeatures::WRITE_PROTECT);
    let features =
        unless(inline || !any, "boot Linux 5.11 or later with CONFIG_HAVE_ARCH_USERFAULTFD_WP");
    let moves = if found.features.contains(UffdFeatures::MOVE) { "yes" } else { "no" };
    vec![
        finding(
            "userfaultfd, user-mode faults",
            said(found.user_only),
            Need::Run,
            forbidden(facts),
        ),
        finding("userfaultfd, all faults", said(found.call), Need::Threads, wide),
        finding("/dev/userfaultfd", said(found.device), Need::Better, None),
        finding("vm.unprivileged_userfaultfd", sysctl, Need::Better, None),
        finding(
            "userfaultfd: SIGBUS, protection",
            if inline { "yes" } else { "no" }.to_owned(),
            Need::Run,
            features,
        ),
        finding("userfaultfd: MOVE", moves.to_owned(), Need::Better, None),
    ]
}

/// What to do if no userfaultfd can be opened at all.
fn forbidden(facts: &Facts) -> Option<String> {
    match facts.userfaultfd.user_only {
        Ok(()) => None,
        Err(Errno::NOSYS) => {
            Some("boot a kernel with CONFIG_USERFAULTFD=y, 5.11 or later".to_owned())
        }
        Err(Errno::INVAL) => Some("boot Linux 5.11 or later".to_owned()),
        Err(_) => Some(
            "a seccomp filter forbids userfaultfd, probably a container engine's: start the container \
             with a profile that allows it (`docker run --security-opt seccomp=PROFILE.json`)"
                .to_owned(),
        ),
    }
}

fn tracing(facts: &Facts) -> Vec<Finding> {
    let dispatch = unless(
        facts.dispatch.is_ok(),
        "boot Linux 5.11 or later for x86-64 with CONFIG_GENERIC_ENTRY (syscall user dispatch)",
    );
    let yama = facts.yama.map_or("absent".to_owned(), |scope| scope.to_string());
    let filter = if facts.filtered { "yes" } else { "no" }.to_owned();
    vec![
        finding("syscall user dispatch", said(facts.dispatch), Need::Run, dispatch),
        finding("ptrace of own processes", said(facts.ptrace), Need::Run, ptrace(facts)),
        finding("kernel.yama.ptrace_scope", yama, Need::Better, None),
        finding("seccomp filter", filter, Need::Better, None),
    ]
}

fn ptrace(facts: &Facts) -> Option<String> {
    facts.ptrace.err().map(|_| super::advice::of_ptrace(facts.yama, facts.filtered))
}

fn speed(facts: &Facts) -> Vec<Finding> {
    let yes = |good| if good { "yes" } else { "no" }.to_owned();
    let drop = unless(facts.batched_drop, "Linux 6.13 and later drop many pages with one call");
    let scan = unless(facts.pagemap_scan, "Linux 6.7 and later find used pages with one call");
    vec![
        finding("process_madvise on oneself", yes(facts.batched_drop), Need::Better, drop),
        finding("PAGEMAP_SCAN", yes(facts.pagemap_scan), Need::Better, scan),
    ]
}

fn limits(facts: &Facts) -> Vec<Finding> {
    let [descriptors, addresses, locked] =
        [facts.limits.descriptors, facts.limits.addresses, facts.limits.locked];
    let count = |limit: Option<u64>| limit.map_or("unlimited".to_owned(), |n| n.to_string());
    let bytes = |limit: Option<u64>| limit.map_or("unlimited".to_owned(), about);
    let enough = descriptors.current.is_none_or(|soft| soft >= 64);
    vec![
        finding(
            "descriptors (ulimit -n)",
            format!("{}, at most {}", count(descriptors.current), count(descriptors.maximum)),
            Need::Better,
            unless(
                enough,
                "`ulimit -n 1024`, or a line `USER hard nofile 1024` in /etc/security/limits.conf",
            ),
        ),
        finding(
            "address space (ulimit -v)",
            bytes(addresses.current),
            Need::Better,
            unless(
                addresses.current.is_none(),
                "`ulimit -v unlimited`: the tables take addresses, not memory",
            ),
        ),
        finding("locked memory (ulimit -l)", bytes(locked.current), Need::Better, None),
    ]
}

fn disk(facts: &Facts) -> Finding {
    /// Less free space than this is soon full.
    const LITTLE: u64 = 1 << 30;
    let place = facts.swap.directory.display();
    let other = "set TMPDIR to a directory on a disk, or give `--swap file:PATH`";
    let (value, remedy) = match facts.swap.free {
        Err(error) => (format!("{place}: {error}"), Some(other.to_owned())),
        Ok(free) if facts.swap.in_memory => {
            (format!("{place}: {}, a file system in memory", about(free)), Some(other.to_owned()))
        }
        Ok(free) => (format!("{place}: {} free", about(free)), unless(free >= LITTLE, other)),
    };
    finding("room for swap files", value, Need::Better, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::facts::{Limits, Swap, Userfaultfd};
    use rustix::process::Rlimit;

    /// A machine that lacks nothing.
    fn good() -> Facts {
        let limit = |current| Rlimit { current, maximum: None };
        Facts {
            kernel: "6.18.1-test".to_owned(),
            userfaultfd: Userfaultfd {
                call: Ok(()),
                device: Err(Errno::NOENT),
                user_only: Ok(()),
                sysctl: Some(1),
                features: UffdFeatures::all(),
            },
            dispatch: Ok(()),
            pagemap_scan: true,
            batched_drop: true,
            ptrace: Ok(()),
            yama: Some(1),
            filtered: false,
            limits: Limits {
                descriptors: limit(Some(1024)),
                addresses: limit(None),
                locked: limit(Some(8 << 20)),
            },
            swap: Swap { directory: "/var/tmp".into(), free: Ok(10 << 30), in_memory: false },
        }
    }

    /// What works on a machine: `run`, its threads; and all remedies.
    fn verdict(facts: &Facts) -> (bool, bool, String) {
        let found = findings(facts);
        let todo: Vec<_> = found.iter().filter_map(|finding| finding.remedy.clone()).collect();
        (works(&found, Need::Run), works(&found, Need::Threads), todo.join("\n"))
    }

    #[test]
    fn a_good_machine_needs_nothing() {
        assert_eq!(verdict(&good()), (true, true, String::new()));
    }

    #[test]
    fn an_ordinary_user_runs_inline() {
        let mut facts = good();
        facts.userfaultfd.call = Err(Errno::PERM);
        facts.userfaultfd.sysctl = Some(0);
        let (run, threads, todo) = verdict(&facts);
        assert!(run && !threads, "{todo}");
        assert!(todo.contains("sysctl vm.unprivileged_userfaultfd=1"), "{todo}");
        // Access to the device is as good.
        facts.userfaultfd.device = Ok(());
        assert_eq!(verdict(&facts), (true, true, String::new()));
    }

    #[test]
    fn what_stands_in_the_way_is_named_with_what_to_do() {
        let change = |change: fn(&mut Facts)| {
            let mut facts = good();
            change(&mut facts);
            verdict(&facts)
        };
        for (found, word) in [
            (change(|facts| facts.kernel = "5.10.0".to_owned()), "5.11"),
            (change(|facts| facts.dispatch = Err(Errno::INVAL)), "dispatch"),
            (change(|facts| facts.userfaultfd.features = UffdFeatures::empty()), "WP"),
            (
                change(|facts| {
                    facts.userfaultfd.call = Err(Errno::PERM);
                    facts.userfaultfd.user_only = Err(Errno::PERM);
                }),
                "seccomp",
            ),
            (
                change(|facts| {
                    facts.userfaultfd.call = Err(Errno::NOSYS);
                    facts.userfaultfd.user_only = Err(Errno::NOSYS);
                }),
                "CONFIG_USERFAULTFD",
            ),
            (
                change(|facts| (facts.ptrace, facts.yama) = (Err(Errno::PERM), Some(3))),
                "ptrace_scope=3",
            ),
            (
                change(|facts| (facts.ptrace, facts.filtered) = (Err(Errno::PERM), true)),
                "--cap-add=SYS_PTRACE",
            ),
        ] {
            assert!(!found.0 && !found.1 && found.2.contains(word), "{word}: {found:?}");
        }
    }

    #[test]
    fn what_is_merely_worse_stops_nothing() {
        let mut facts = good();
        (facts.batched_drop, facts.pagemap_scan) = (false, false);
        facts.limits.descriptors.current = Some(20);
        facts.limits.addresses.current = Some(1 << 30);
        facts.swap.free = Ok(1 << 20);
        let (run, threads, todo) = verdict(&facts);
        assert!(run && threads);
        assert_eq!(todo.lines().count(), 5, "{todo}");
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(version("5.9.12"), Some((5, 9)));
        assert_eq!(version("6.18.44-fc-v669"), Some((6, 18)));
        assert!(version("5.9.1") < version("5.11"));
        assert_eq!(version("strange"), None);
    }
}
