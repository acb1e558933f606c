//! Real programs, each under a limit well below its need.

use crate::harness::{Scratch, assert_limited, compile, full, have, number, python, write_lines};

#[test]
fn sort_with_two_threads() {
    let scratch = Scratch::new("sort");
    let (bytes, memory, buffer) =
        if full() { (200 << 20, "256M", "600M") } else { (12 << 20, "20M", "60M") };
    write_lines(&scratch.path("lines"), bytes);
    assert_limited(&scratch.compare(memory, &["sort", "--parallel=2", "-S", buffer, "lines"]));
}

#[test]
fn python_dictionary() {
    if !have("python3") {
        return;
    }
    let scratch = Scratch::new("dictionary");
    let (strings, memory) = if full() { ("2000000", "200M") } else { ("200000", "28M") };
    let program = "
import hashlib, sys
d = {}
for i in range(int(sys.argv[1])):
    d['key %d' % (i * 7919 % 15485863)] = 'value %d' % i
h = hashlib.sha256()
for k in sorted(d):
    h.update(('%s=%s' % (k, d[k])).encode())
print(h.hexdigest())
";
    assert_limited(&scratch.compare(memory, &[python(), "-c", program, strings]));
}

#[test]
fn xz_round_trip() {
    if !have("xz") {
        return;
    }
    let scratch = Scratch::new("xz");
    let (bytes, memory) = if full() { (8 << 20, "64M") } else { (1 << 20, "14M") };
    write_lines(&scratch.path("lines"), bytes);
    let compress = ["xz", "-9", "-T1", "--keep", "--stdout", "lines"];
    assert_limited(&scratch.compare(memory, &compress));
    let program = "xz -9 -T1 < lines | xz -d | cmp - lines && echo same";
    let stats = scratch.compare("256M", &["sh", "-c", program]);
    assert!(number(&stats, "/programs") >= 4, "{stats:#}");
}

#[test]
fn zstd_round_trip() {
    if !have("zstd") {
        return;
    }
    let scratch = Scratch::new("zstd");
    let (bytes, memory) = if full() { (16 << 20, "88M") } else { (1 << 20, "17M") };
    write_lines(&scratch.path("lines"), bytes);
    let compress = ["zstd", "-19", "--long=27", "--single-thread", "-q", "--stdout", "lines"];
    assert_limited(&scratch.compare(memory, &compress));
    let program = "zstd -19 --long=27 --single-thread -q -k -f lines -o lines.zst
        zstd -d --long=27 -q -c lines.zst | cmp - lines && echo same";
    scratch.compare(memory, &["sh", "-c", program]);
}

#[test]
fn sqlite_in_memory() {
    if !have("sqlite3") {
        return;
    }
    let scratch = Scratch::new("sqlite");
    let (rows, memory) = if full() { (2_000_000, "120M") } else { (150_000, "12M") };
    let sql = format!(
        "create table t(a integer, b text);
         insert into t with recursive c(x) as (select 1 union all select x+1 from c where x<{rows})
           select x, hex(x*7919%1000003)||' some text to fill the row' from c;
         create index i on t(b);
         select count(distinct b), sum(a) from t;
         select a, b from t order by b, a limit 20;
         update t set b = b||a where a % 7 = 0;
         select sum(length(b)), min(b), max(b) from t;"
    );
    assert_limited(&scratch.compare(memory, &["sqlite3", ":memory:", &sql]));
}

/// One buffer, larger than the limit, that system calls read into and write from.
#[test]
fn system_calls_into_absent_pages() {
    let scratch = Scratch::new("dd");
    write_lines(&scratch.path("lines"), 24 << 20);
    // The transfer rate would differ from run to run.
    let program = ["dd", "if=lines", "bs=24M", "iflag=fullblock", "status=none"];
    assert_limited(&scratch.compare("8M", &program));
}

#[test]
fn growing_by_hundreds_of_mebibytes() {
    if !have("python3") {
        return;
    }
    let scratch = Scratch::new("grow");
    let (mebibytes, memory) = if full() { ("600", "128M") } else { ("80", "24M") };
    let program = "
import sys, zlib
b = bytearray()
for i in range(int(sys.argv[1])):
    b += bytes([i % 251]) * (1 << 20)
print(len(b), zlib.crc32(b))
del b[1000:-1000]
print(len(b), zlib.crc32(b))
";
    assert_limited(&scratch.compare(memory, &[python(), "-c", program, mebibytes]));
}

/// mmap, mremap and mprotect by the program itself.
#[test]
fn mappings_of_the_program() {
    if !have("perl") || !have("python3") {
        return;
    }
    let scratch = Scratch::new("mappings");
    let program = "
import mmap, zlib
flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
m = mmap.mmap(-1, 8 << 20, flags=flags)
for i in range(0, 8 << 20, 4096):
    m[i:i+8] = b'%8d' % i
m.resize(40 << 20)
for i in range(8 << 20, 40 << 20, 4096):
    m[i:i+8] = b'%8d' % i
print(zlib.crc32(m))
m.madvise(mmap.MADV_DONTNEED, 4 << 20, 4 << 20)
print(zlib.crc32(m))
m.resize(6 << 20)
print(len(m), zlib.crc32(m))
";
    assert_limited(&scratch.compare("12M", &[python(), "-c", program]));
}

/// Parent and children change what they share, and none sees the others' changes, in memory or
/// from swap.
#[test]
fn forked_processes() {
    if !have("python3") {
        return;
    }
    let scratch = Scratch::new("fork");
    let program = "
import os, hashlib
data = [bytes([i % 251]) * 4000 + str(i).encode() for i in range(4000)]
def digest():
    h = hashlib.md5()
    for d in data:
        h.update(d)
    return h.hexdigest()
before = digest()
for n in range(3):
    child = os.fork()
    if child == 0:
        ok = digest() == before
        for i in range(n, 4000, 3):
            data[i] = b'child %d' % n * 500
        mine = digest()
        grandchild = os.fork()
        if grandchild == 0:
            os._exit(0 if digest() == mine else 3)
        _, status = os.waitpid(grandchild, 0)
        os._exit(0 if ok and status == 0 and digest() == mine != before else 1)
    for i in range(n * 100, n * 100 + 50):
        data[i] = data[i] + b'x'
    before = digest()
    _, status = os.waitpid(child, 0)
    print(n, status, digest() == before, before)
";
    let stats = scratch.compare("12M", &[python(), "-c", program]);
    assert_limited(&stats);
    assert_eq!(number(&stats, "/forks"), 6);
}

#[test]
fn threads_that_share_memory() {
    if !have("python3") {
        return;
    }
    let scratch = Scratch::new("threads");
    let program = "
import threading, zlib
parts = {}
def work(n):
    blocks = [zlib.compress(bytes([n, i % 256]) * 3000, 0) for i in range(1200)]
    parts[n] = zlib.crc32(b''.join(zlib.decompress(b) for b in blocks))
threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
for t in threads: t.start()
for t in threads: t.join()
print(sorted(parts.items()))
";
    assert_limited(&scratch.compare("14M", &[python(), "-c", program]));
}

#[test]
fn a_shell_and_its_many_children() {
    let scratch = Scratch::new("shell");
    let program = "
for i in 1 2 3 4 5 6 7 8 9 10; do (echo sub $i); done
exec 3> third; echo through three >&3; exec 3>&-; cat third
ls / | sort | head -n 3
x=$(wc -c < third); echo $x
exit 7";
    let shell = if have("bash") { "bash" } else { "sh" };
    let stats = scratch.compare("16M", &[shell, "-c", program]);
    assert!(number(&stats, "/forks") >= 10, "{stats:#}");
}

/// The manager's descriptors are not the program's to close or to replace.
#[test]
fn a_program_that_closes_everything() {
    if !have("python3") {
        return;
    }
    let scratch = Scratch::new("close");
    let program = "
import os
os.closerange(3, 4096)
for fd in range(900, 1024):
    try:
        os.close(fd)
    except OSError:
        pass
x = [b'%d' % i * 600 for i in range(9000)]
print(sum(map(len, x)), os.open('/dev/null', os.O_RDONLY))
";
    assert_limited(&scratch.compare("12M", &[python(), "-c", program]));
}

/// The manager works for threads whose stacks it manages.
#[test]
fn coroutines_on_stacks_from_the_heap() {
    let scratch = Scratch::new("coroutines");
    let Some(program) = compile(&scratch, "coroutines") else { return };
    let stats = scratch.compare("3M", &[&program]);
    assert_limited(&stats);
    assert_eq!(number(&stats, "/forks"), 4);
}

/// The kernel refuses more memory than any machine has, unless it is mapped without a reservation.
#[test]
fn mappings_of_more_than_any_machine_has() {
    let scratch = Scratch::new("vast");
    let Some(program) = compile(&scratch, "vast") else { return };
    let stats = scratch.compare("1M", &[&program]);
    // A host with strict overcommit refuses them all.
    if std::fs::read_to_string("/proc/sys/vm/overcommit_memory")
        .is_ok_and(|mode| mode.trim() != "2")
    {
        assert_limited(&stats);
    }
}

/// An allocator that replaces `malloc`, with its tables in managed memory.
#[test]
fn allocators_of_the_programs_own() {
    let scratch = Scratch::new("allocator");
    let Some(program) = compile(&scratch, "allocator") else { return };
    let mut found = 0;
    for (library, symbol) in [
        ("libjemalloc.so.2", "mallctl"),
        ("libmimalloc.so.2", "mi_malloc"),
        ("libtcmalloc_minimal.so.4", "tc_malloc"),
    ] {
        let preload = format!("LD_PRELOAD={library}");
        let command = ["env", &preload, &program, symbol];
        // The program fails if it has another `malloc`.
        if scratch.plain(&command).output().unwrap().status.success() {
            found += 1;
            assert_limited(&scratch.compare("12M", &command));
        }
    }
    if found == 0 {
        eprintln!("skipped: neither jemalloc nor mimalloc nor tcmalloc is installed");
    }
}

/// Pages that move away from a mapping that stays (`MREMAP_DONTUNMAP`).
#[test]
fn mappings_that_are_left_by_their_pages() {
    let scratch = Scratch::new("leaving");
    let Some(program) = compile(&scratch, "leaving") else { return };
    assert_limited(&scratch.compare("4M", &[&program]));
}

/// The manager's own threads keep no process alive.
#[test]
fn the_last_thread_ends_the_process() {
    let scratch = Scratch::new("last");
    let Some(program) = compile(&scratch, "last_thread") else { return };
    assert_limited(&scratch.compare("8M", &[&program]));
}
