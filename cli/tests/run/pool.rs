//! The compressed memory of a tree: one pool, while processes come and go.

use crate::harness::{SIZED_FILE, Scratch, message, number, python};
use std::fs;
use std::process::Output;

/// The start of each program: pages that compress to less than half, distinguished by a number.
const PAGES: &str = "
import hashlib, mmap, os, signal, sys
def page(n):
    return hashlib.shake_128(b'%d' % n).digest(1500).ljust(4096, b'%d' % (n % 10))
def fill(m, first, count):
    for i in range(count):
        m[i * 4096:i * 4096 + 4096] = page(first + i)
def same(m, first, count):
    return all(m[i * 4096:i * 4096 + 4096] == page(first + i) for i in range(count))
def memory(count):
    return mmap.mmap(-1, count * 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
def wait(children):
    return all([os.waitpid(child, 0)[1] == 0 for child in children])
def fork(do):
    child = os.fork()
    if child == 0:
        os._exit(0 if do() else 1)
    return child
";

/// Runs a program with compressed memory alone, unless a file is named too.
pub fn run(scratch: &Scratch, options: &[&str], program: &str) -> (Output, serde_json::Value) {
    let stats = scratch.path("stats.json");
    let mut all = vec!["--stats=json", "--stats-file", stats.to_str().unwrap()];
    all.extend(options);
    let program = format!("{PAGES}{program}");
    let output = scratch.run(&all, &[python(), "-c", &program]).output().unwrap();
    let stats = serde_json::from_str(&fs::read_to_string(&stats).unwrap()).unwrap();
    scratch.assert_nothing_left();
    (output, stats)
}

#[track_caller]
fn assert_fine((output, stats): (Output, serde_json::Value)) -> serde_json::Value {
    assert_eq!((&*message(&output), output.status.code()), ("", Some(0)), "{stats:#}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "True\n");
    let peak = number(&stats, "/compressed_memory/peak_bytes");
    assert!(peak > 0 && peak <= number(&stats, "/compressed_memory/limit_bytes"), "{stats:#}");
    stats
}

#[test]
fn forty_processes_share_one_pool() {
    let scratch = Scratch::new("forty");
    let program = "
filled, full = os.pipe()
ready, go = os.pipe()
def one(n):
    os.close(go)
    m = memory(512)
    fill(m, n * 1000, 512)
    os.write(full, b'x')
    os.read(ready, 1)
    return same(m, n * 1000, 512)
children = [fork(lambda: one(n)) for n in range(40)]
for _ in children:
    os.read(filled, 1)
os.close(go)
print(wait(children))
";
    // Each writes 2 MiB, and all are there at once; what does not fit the pool goes to the file.
    let options = ["--memory", "48M", "--swap", "ram:12M", "--swap", SIZED_FILE];
    let stats = assert_fine(run(&scratch, &options, program));
    assert_eq!(number(&stats, "/compressed_memory/limit_bytes"), 12 << 20);
    assert!(number(&stats, "/peak_resident_bytes") <= 48 << 20, "{stats:#}");
}

#[test]
fn a_chain_of_forks_reads_what_its_ancestors_compressed() {
    let scratch = Scratch::new("chain");
    let program = "
m = memory(4096)
fill(m, 0, 4096)
def link(depth):
    # A part is this process's own from now on, the rest its ancestors'.
    own = memoryview(m)[depth * 256 * 4096:(depth + 1) * 256 * 4096]
    fill(own, 100000 + depth * 1000, 256)
    if depth < 6 and not wait([fork(lambda: link(depth + 1))]):
        return False
    before = all(same(memoryview(m)[d * 256 * 4096:], 100000 + d * 1000, 256) for d in range(depth + 1))
    rest = (depth + 1) * 256
    return before and same(memoryview(m)[rest * 4096:], rest, 4096 - rest)
print(link(0))
";
    let stats = assert_fine(run(&scratch, &["--memory", "20M", "--swap", "ram:48M"], program));
    // The deepest process reads 5,888 pages of which 5,120 fit.
    assert!(number(&stats, "/swap/0/pages_in") >= 768, "{stats:#}");
}

/// Later processes need the space of killed ones.
#[test]
fn what_killed_processes_had_compressed_is_given_back() {
    let scratch = Scratch::new("killed");
    let program = "
def victim(full):
    m = memory(6144)
    fill(m, os.getpid() * 10000, 6144)
    os.write(full, b'x')
    signal.pause()
keep = memory(1024)
fill(keep, 5, 1024)
for n in range(12):
    ready, full = os.pipe()
    child = fork(lambda: victim(full))
    os.close(full)
    os.read(ready, 1)
    os.close(ready)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
print(same(keep, 5, 1024))
";
    let stats = assert_fine(run(&scratch, &["--memory", "16M", "--swap", "ram:20M"], program));
    // A victim has 2,048 pages more than fit, whatever the policy, so together they need more than the area has.
    assert!(number(&stats, "/swap/0/pages_out") > 12 * 1500, "{stats:#}");
}

/// The supervisor compresses on idle processors, so the first page may take a while.
#[test]
fn the_supervisor_compresses_pages_where_a_processor_is_idle() {
    if std::thread::available_parallelism().is_ok_and(|count| count.get() == 1) {
        eprintln!("skipped: there is one processor, and the supervisor compresses nothing");
        return;
    }
    let scratch = Scratch::new("supervisor-compresses");
    // Children that come and go have mailboxes of their own.
    let program = "
m = memory(4096)
for turn in range(4):
    fill(m, turn, 4096)
    assert same(m, turn, 4096)
    def child():
        good = same(m, turn, 4096)
        fill(m, 100000 + turn, 2048)
        return good and same(m, 100000 + turn, 2048)
    assert wait([fork(child) for n in range(3)])
print(same(m, 3, 4096))
";
    let begin = std::time::Instant::now();
    loop {
        let stats = assert_fine(run(&scratch, &["--memory", "8M", "--swap", "ram:64M"], program));
        if number(&stats, "/compressed_by_supervisor") > 0 {
            return;
        }
        assert!(begin.elapsed().as_secs() < 300, "it never did: {stats:#}");
    }
}

/// Processes that wait for each other and have little each give it to the one that runs.
#[test]
fn a_chain_of_waiting_shells_fits_little_memory() {
    let scratch = Scratch::new("waiting");
    let script = scratch.path("chain.sh");
    let program = "
words=$(seq 1 3000)
if [ $1 -gt 0 ]; then sh $0 $(($1 - 1)); else seq 1 20000 | sort -n | tail -1; fi
echo $1 ${#words}
";
    fs::write(&script, program).unwrap();
    scratch.compare("2M", &["sh", script.to_str().unwrap(), "20"]);
}
