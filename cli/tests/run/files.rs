//! The swap files of a tree: one set, while processes come and go.

use crate::harness::{Scratch, message, number};
use crate::pool::run;
use std::process::Output;

#[track_caller]
fn assert_fine((output, stats): (Output, serde_json::Value), most: u64) {
    assert_eq!((&*message(&output), output.status.code()), ("", Some(0)), "{stats:#}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "True\n");
    let peak = number(&stats, "/swap_files/peak_bytes");
    assert!(peak > 0 && peak <= most << 20, "{stats:#}");
}

#[test]
fn relatives_read_what_was_written_before_and_write_where_the_others_do_not() {
    let scratch = Scratch::new("relatives");
    let program = "
m = memory(4096)
fill(m, 0, 4096)
def link(depth):
    own = memoryview(m)[depth * 256 * 4096:(depth + 1) * 256 * 4096]
    # Two at once, so that both write while they share what is there.
    def change(n):
        fill(own, n, 256)
        again = depth == 2 or link(depth + 1)
        rest = (depth + 1) * 256
        return again and same(own, n, 256) and same(memoryview(m)[rest * 4096:], rest, 4096 - rest)
    return wait([fork(lambda: change(100000 + depth * 1000 + n * 500)) for n in range(2)])
print(link(0) and same(m, 0, 4096))
";
    let options = ["--memory", "12M", "--swap", "file::400M"];
    assert_fine(run(&scratch, &options, program), 400);
}

/// Later processes need the extents of ended ones: the size is the whole tree's.
#[test]
fn what_ended_or_was_killed_or_executed_another_program_holds_nothing() {
    let scratch = Scratch::new("gone");
    let program = "
def child(full, n):
    m = memory(3072)
    fill(m, n * 10000, 3072)
    good = same(m, n * 10000, 3072)
    os.write(full, b'x' if good else b'-')
    if n % 3 == 0:
        signal.pause()
    if n % 3 == 1:
        os.execv('/bin/true', ['true'])
    return True
keep = memory(2048)
fill(keep, 5, 2048)
good = True
for n in range(15):
    ready, full = os.pipe()
    pid = fork(lambda: child(full, n))
    os.close(full)
    good = os.read(ready, 1) == b'x' and good
    os.close(ready)
    if n % 3 == 0:
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
print(good and same(keep, 5, 2048))
";
    // Each of them needs 12 MiB, and the one that stays 8.
    let options = ["--memory", "8M", "--swap", "file::28M"];
    assert_fine(run(&scratch, &options, program), 28);
}

/// The file is opened before the program begins, and inherited.
#[test]
fn who_may_not_open_the_swap_file_uses_it() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = Scratch::new("rights");
    let only_owner = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(scratch.path("swap"), only_owner).unwrap();
    let program = "
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
source = 'm = memory(4096); fill(m, 0, 4096); print(same(m, 0, 4096))'
begin = open('/proc/self/cmdline').read().split('\\0')[2].split('if os.getuid')[0]
os.execv(sys.executable, [sys.executable, '-c', begin + source])
";
    let options = ["--memory", "8M", "--swap", "file::20M"];
    assert_fine(run(&scratch, &options, program), 20);
}

/// Each of them alone would fit: the size limits all of them together.
#[test]
fn a_size_is_one_for_all_processes() {
    let scratch = Scratch::new("together");
    let program = |processes: usize| {
        format!(
            "
import select
ready, full = os.pipe()
hold, held = os.pipe()
def child(n):
    os.close(held)
    m = memory(3072)
    fill(m, n * 10000, 3072)
    os.write(full, b'x' if same(m, n * 10000, 3072) else b'-')
    # Until the parent ends.
    os.read(hold, 1)
children = [fork(lambda: child(n)) for n in range({processes})]
os.close(full)
# Whoever is stopped closes its end.
got = b''
while len(got) < {processes}:
    more = os.read(ready, 1) if select.select([ready], [], [], 0.05)[0] else b''
    got += more
    if not more and os.waitpid(-1, os.WNOHANG)[0]:
        break
print(got.decode())
for pid in children:
    try: os.kill(pid, signal.SIGKILL)
    except ProcessLookupError: pass
"
        )
    };
    // 12 MiB each.
    let options = ["--memory", "8M", "--swap", "file::24M"];
    let (alone, _) = run(&scratch, &options, &program(1));
    assert_eq!((&*alone.stdout, &*message(&alone)), (&b"x\n"[..], ""));
    let (together, stats) = run(&scratch, &options, &program(5));
    let said = message(&together);
    assert!(said.contains("the swap areas are full"), "{said} {stats:#}");
    assert!(!together.stdout.starts_with(b"xxxxx"), "{together:?}");
    assert!(number(&stats, "/swap_files/peak_bytes") <= 24 << 20, "{stats:#}");
}
