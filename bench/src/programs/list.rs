//! The programs, and what each needs.

use std::process::Command;

/// A program to measure: shell commands in their own directory.
pub struct Program {
    /// Its name in the table.
    pub name: &'static str,
    /// The commands that it needs.
    pub needs: &'static [&'static str],
    /// Makes its input, again before each run that changes it; not measured.
    pub prepare: &'static str,
    /// The measured command. Its standard output must be equal in all runs.
    pub command: &'static str,
    /// The resident limit, in MiB.
    pub limit: u64,
    /// Options of `pagefault run` besides the limit.
    pub options: &'static [&'static str],
}

impl Program {
    /// The first missing requirement: a command, or a module of Debian's Python.
    pub fn missing(&self) -> Option<&'static str> {
        let is_missing = |name: &&&str| {
            let test = match name.strip_prefix("import ") {
                Some(_) => format!("/usr/bin/python3 -c '{name}'"),
                None => format!("command -v {name}"),
            };
            let found = Command::new("sh").arg("-c").arg(test).output();
            !found.is_ok_and(|found| found.status.success())
        };
        self.needs.iter().find(is_missing).copied()
    }
}

const NUMBERS: &str = "test -e numbers || seq 9999999 | shuf --random-source=/dev/zero > numbers";

const GRAPH: &str = concat!(
    "test -e graph || { cat > graph.c << 'END'\n",
    include_str!("graph.c"),
    "END\ngcc -O2 -o graph graph.c; }"
);

/// All programs.
pub static ALL: &[Program] = &[
    Program {
        name: "sort, 75 MB of numbers",
        needs: &["sort", "shuf"],
        prepare: NUMBERS,
        command: "sort --parallel=2 -S 400M numbers",
        limit: 64,
        options: &[],
    },
    Program {
        name: "python3, dictionary of 1,000,000 strings",
        needs: &["/usr/bin/python3"],
        prepare: "",
        command: "/usr/bin/python3 -c 'd = {str(i): str(i * 7) for i in range(1000000)}
print(sum(len(d[k]) for k in d))'",
        limit: 120,
        options: &[],
    },
    Program {
        name: "python3, the same, the limit never reached",
        needs: &["/usr/bin/python3"],
        prepare: "",
        command: "/usr/bin/python3 -c 'd = {str(i): str(i * 7) for i in range(1000000)}
print(sum(len(d[k]) for k in d))'",
        limit: 1024,
        options: &[],
    },
    Program {
        name: "sqlite3 in memory, 1,000,000 rows",
        needs: &["sqlite3"],
        prepare: "",
        command: "sqlite3 :memory: 'create table t as with recursive c(x) as (select 1 union all \
                  select x + 1 from c where x < 1000000) select x, hex(x * x) || x y from c; \
                  create index i on t(y); select count(*), max(y), sum(length(y)) from t;'",
        limit: 48,
        options: &[],
    },
    Program {
        name: "xz -6",
        needs: &["xz", "shuf"],
        prepare: NUMBERS,
        command: "head -c 12000000 numbers | xz -6 -T1 -c",
        limit: 48,
        options: &[],
    },
    Program {
        name: "zstd -19 --long=26",
        needs: &["zstd", "shuf"],
        prepare: NUMBERS,
        command: "head -c 8000000 numbers | zstd -q -19 --long=26 -c",
        limit: 48,
        options: &[],
    },
    Program {
        name: "busybox (static), sort of 300,000 lines",
        needs: &["busybox"],
        prepare: "",
        command: "busybox seq 300000 | busybox sort -n -r",
        limit: 16,
        options: &[],
    },
    Program {
        name: "Go, 300 MB with its collector",
        needs: &["go"],
        prepare: "test -e fill || { cat > fill.go <<'END'
package main

import (
\t\"fmt\"
\t\"runtime\"
)

func main() {
\tblocks := make([][]byte, 300)
\tdone := make(chan int)
\tfor i := range blocks {
\t\tgo func(i int) {
\t\t\tb := make([]byte, 1<<20)
\t\t\tfor j := range b {
\t\t\t\tb[j] = byte(i * j)
\t\t\t}
\t\t\tblocks[i] = b
\t\t\tdone <- 1
\t\t}(i)
\t}
\tfor range blocks {
\t\t<-done
\t}
\truntime.GC()
\tsum := 0
\tfor _, b := range blocks {
\t\tfor _, c := range b {
\t\t\tsum += int(c)
\t\t}
\t}
\tfmt.Println(sum)
}
END
HOME=$PWD go build -o fill fill.go; }",
        command: "./fill",
        limit: 128,
        options: &[],
    },
    Program {
        name: "node, 2,000,000 objects",
        needs: &["node"],
        prepare: "",
        command:
            "node -e 'const a = []; for (let i = 0; i < 2000000; i++) a.push({i, s: String(i)});
let t = 0; for (const x of a) t += x.s.length + x.i % 3; console.log(t)'",
        limit: 160,
        options: &[],
    },
    Program {
        name: "java, a heap of 200 MB",
        needs: &["java", "javac"],
        prepare: "test -e Fill.class || { cat > Fill.java <<'END'
public class Fill {
    public static void main(String[] arguments) {
        byte[][] blocks = new byte[200][];
        for (int i = 0; i < blocks.length; i++) {
            blocks[i] = new byte[1 << 20];
            for (int j = 0; j < blocks[i].length; j++) blocks[i][j] = (byte) (i * j);
        }
        long sum = 0;
        for (byte[] block : blocks) for (byte b : block) sum += b;
        System.out.println(sum);
    }
}
END
javac Fill.java; }",
        command: "java -Xmx600m Fill",
        limit: 160,
        options: &[],
    },
    Program {
        name: "gcc -O2, a long file",
        needs: &["gcc"],
        prepare: "test -e long.c || for i in $(seq 1500); do echo \"int f$i(int a, int b) { int s = \
                  0; for (int i = 0; i < a; i++) s += (i ^ b) * $i; return s; }\"; done > long.c",
        command: "gcc -O2 -S -o - long.c",
        limit: 40,
        options: &[],
    },
    Program {
        name: "perl, a hash of 500,000",
        needs: &["perl"],
        prepare: "",
        command: "perl -e 'my %h; $h{$_} = $_ * 3 for 1 .. 500000; my $s = 0; $s += $h{$_} for \
                  keys %h; print \"$s\\n\"'",
        limit: 48,
        options: &[],
    },
    Program {
        name: "sh, 500 programs one after the other",
        needs: &["sh"],
        prepare: "",
        command: "i=0; while [ $i -lt 500 ]; do /bin/true; i=$((i + 1)); done; echo $i",
        limit: 16,
        options: &[],
    },
    Program {
        name: "python3, four processes",
        needs: &["/usr/bin/python3"],
        prepare: "",
        command: "/usr/bin/python3 -c 'from multiprocessing import Pool
def work(k): return sum(len(x) for x in {str(i + k): str(i * k) for i in range(150000)}.values())
if __name__ == \"__main__\": print(Pool(4).map(work, range(8)))'",
        limit: 96,
        options: &[],
    },
    Program {
        name: "numpy, sort of 200 MB",
        needs: &["import numpy"],
        prepare: "",
        command: "/usr/bin/python3 -c 'import numpy
a = numpy.random.default_rng(1).integers(0, 1 << 60, 25000000); a.sort()
print(a[::1000000], int(a.sum() % 1000003))'",
        limit: 128,
        options: &[],
    },
    Program {
        name: "rustc, a file of 400 functions",
        needs: &["rustc"],
        prepare: "test -e long.rs || { for i in $(seq 400); do echo \"pub fn f$i(a: &[u64]) -> Vec<u64> { \
                  let mut v: Vec<u64> = a.iter().map(|x| x.wrapping_mul($i)).collect(); v.sort(); v }\"; done; \
                  echo 'fn main() { println!(\"{:?}\", f1(&[3, 2, 1])); }'; } > long.rs",
        command: "rustc -O -A dead_code long.rs -o long.out && ./long.out",
        limit: 80,
        options: &[],
    },
    Program {
        name: "make -j2, 60 files of C",
        needs: &["make", "gcc"],
        prepare: "test -e project/Makefile || { mkdir -p project; for i in $(seq 60); do \
                  echo \"#include <stdio.h>\nint f$i(int a) { char b[64]; return snprintf(b, 64, \\\"%d\\\", a * $i); }\" \
                  > project/f$i.c; done; printf 'all: $(patsubst %%.c,%%.o,$(wildcard *.c))\\n' > project/Makefile; }",
        command: "cd project && rm -f *.o && make -s -j2 CFLAGS=-O2 all && ls | wc -l",
        limit: 16,
        options: &[],
    },
    Program {
        name: "git gc, 3,000 commits",
        needs: &["git"],
        prepare: "test -d repository || { mkdir repository && cd repository && git init -q . && { for i in $(seq 3000); do \
                  echo \"commit refs/heads/main\"; echo \"committer a <a@a> $i +0000\"; echo 'data 1'; echo c; \
                  echo \"M 644 inline f$((i % 50))\"; t=$(seq $i $((i + 300))); echo \"data ${#t}\"; echo \"$t\"; done; } \
                  | git fast-import --quiet; }",
        command: "rm -rf copy && cp -r repository copy && cd copy && git -c gc.autoDetach=false gc -q --aggressive && \
                  git fsck 2>&1 && git rev-parse main && git cat-file -p main:f7 | cksum",
        limit: 24,
        options: &[],
    },
    Program {
        name: "jq, 300,000 objects",
        needs: &["jq"],
        prepare: r#"test -e objects || seq 300000 | sed 's/.*/{"i": &, "s": "&7"}/' > objects"#,
        command: "jq -s 'sort_by(.s) | [range(0; length; 30000) as $i | .[$i]]' objects",
        limit: 80,
        options: &[],
    },
    Program {
        name: "redis, 250 MB: writes during BGSAVE, the dump loaded again",
        needs: &["redis-server", "redis-cli", "redis-benchmark"],
        prepare: "",
        command: include_str!("redis.sh"),
        limit: 160,
        options: &[],
    },
    Program {
        name: "PostgreSQL, pgbench with its sums",
        needs: &["/usr/lib/postgresql/*/bin/initdb", "pgbench", "setpriv"],
        prepare: include_str!("postgresql-prepare.sh"),
        command: include_str!("postgresql.sh"),
        limit: 24,
        options: &[],
    },
    Program {
        name: "memcached, 100,000 values checked",
        needs: &["memcached", "/usr/bin/python3"],
        prepare: "",
        command: include_str!("memcached.sh"),
        limit: 48,
        options: &[],
    },
    Program {
        name: "graph of 1,048,576 vertices, breadth first",
        needs: &["gcc"],
        prepare: GRAPH,
        command: "./graph search",
        limit: 40,
        options: &[],
    },
    Program {
        name: "the same graph, page rank",
        needs: &["gcc"],
        prepare: GRAPH,
        command: "./graph rank",
        limit: 44,
        options: &[],
    },
    Program {
        name: "memtester, 16 MB",
        needs: &["memtester"],
        prepare: "",
        command: "memtester 16M 1 > log; status=$?; grep -ac FAILURE log; exit $status",
        limit: 24,
        options: &[],
    },
    Program {
        name: "gdb with --delivery=threads",
        needs: &["gdb", "gcc"],
        prepare: "test -e debugged || { echo 'char m[1]; int main(void) { char *p = __builtin_malloc(40 << 20); \
                  for (int i = 0; i < 40 << 20; i++) p[i] = i >> 12; m[0] = p[9 << 20]; __builtin_trap(); }' > debugged.c; \
                  gcc -g -o debugged debugged.c; }",
        command: "gdb -q -batch -ex run -ex 'p/x p[5<<20]@4' -ex 'p/x p[30000000]' ./debugged 2>&1 | grep '^[$]'",
        limit: 16,
        options: &["--delivery=threads"],
    },
];
