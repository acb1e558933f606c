//! The programs, and what each needs.

use std::process::Command;

/// A program to measure: shell commands in a directory of their own.
pub struct Program {
    /// Its name in the table.
    pub name: &'static str,
    /// What it needs in the path.
    pub needs: &'static [&'static str],
    /// Makes its input; not measured.
    pub prepare: &'static str,
    /// What is measured. Its standard output is what must be equal.
    pub command: &'static str,
    /// The resident limit, in MiB.
    pub limit: u64,
}

impl Program {
    /// The first thing that it needs and that is not there.
    pub fn missing(&self) -> Option<&'static str> {
        let is_there = |name: &&&str| {
            let found = Command::new("sh").arg("-c").arg(format!("command -v {name}")).output();
            !found.is_ok_and(|found| found.status.success())
        };
        self.needs.iter().find(is_there).copied()
    }
}

const NUMBERS: &str = "test -e numbers || seq 9999999 | shuf --random-source=/dev/zero > numbers";

/// All programs.
pub static ALL: &[Program] = &[
    Program {
        name: "sort, 75 MB of numbers",
        needs: &["sort", "shuf"],
        prepare: NUMBERS,
        command: "sort --parallel=2 -S 400M numbers",
        limit: 64,
    },
    Program {
        name: "python3, dictionary of 1,000,000 strings",
        needs: &["/usr/bin/python3"],
        prepare: "",
        command: "/usr/bin/python3 -c 'd = {str(i): str(i * 7) for i in range(1000000)}
print(sum(len(d[k]) for k in d))'",
        limit: 120,
    },
    Program {
        name: "python3, the same, the limit never reached",
        needs: &["/usr/bin/python3"],
        prepare: "",
        command: "/usr/bin/python3 -c 'd = {str(i): str(i * 7) for i in range(1000000)}
print(sum(len(d[k]) for k in d))'",
        limit: 1024,
    },
    Program {
        name: "sqlite3 in memory, 1,000,000 rows",
        needs: &["sqlite3"],
        prepare: "",
        command: "sqlite3 :memory: 'create table t as with recursive c(x) as (select 1 union all \
                  select x + 1 from c where x < 1000000) select x, hex(x * x) || x y from c; \
                  create index i on t(y); select count(*), max(y), sum(length(y)) from t;'",
        limit: 48,
    },
    Program {
        name: "xz -6",
        needs: &["xz", "shuf"],
        prepare: NUMBERS,
        command: "head -c 12000000 numbers | xz -6 -T1 -c",
        limit: 48,
    },
    Program {
        name: "zstd -19 --long=26",
        needs: &["zstd", "shuf"],
        prepare: NUMBERS,
        command: "head -c 8000000 numbers | zstd -q -19 --long=26 -c",
        limit: 48,
    },
    Program {
        name: "busybox (static), sort of 300,000 lines",
        needs: &["busybox"],
        prepare: "",
        command: "busybox seq 300000 | busybox sort -n -r",
        limit: 16,
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
    },
    Program {
        name: "node, 2,000,000 objects",
        needs: &["node"],
        prepare: "",
        command:
            "node -e 'const a = []; for (let i = 0; i < 2000000; i++) a.push({i, s: String(i)});
let t = 0; for (const x of a) t += x.s.length + x.i % 3; console.log(t)'",
        limit: 160,
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
        command: "java -Xmx400m Fill",
        limit: 160,
    },
    Program {
        name: "gcc -O2, a long file",
        needs: &["gcc"],
        prepare: "test -e long.c || for i in $(seq 1500); do echo \"int f$i(int a, int b) { int s = \
                  0; for (int i = 0; i < a; i++) s += (i ^ b) * $i; return s; }\"; done > long.c",
        command: "gcc -O2 -S -o - long.c",
        limit: 40,
    },
    Program {
        name: "perl, a hash of 500,000",
        needs: &["perl"],
        prepare: "",
        command: "perl -e 'my %h; $h{$_} = $_ * 3 for 1 .. 500000; my $s = 0; $s += $h{$_} for \
                  keys %h; print \"$s\\n\"'",
        limit: 48,
    },
    Program {
        name: "sh, 500 programs one after the other",
        needs: &["sh"],
        prepare: "",
        command: "i=0; while [ $i -lt 500 ]; do /bin/true; i=$((i + 1)); done; echo $i",
        limit: 16,
    },
];
