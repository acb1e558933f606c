//! What a fault costs in the manager itself, by the correction it receives.
//!
//! `cargo bench -p pagefault --bench fault` measures time; with `-- --instructions` after it, the
//! instructions per fault are counted under valgrind, twice with different numbers of faults whose
//! difference is taken. The machine underneath does next to nothing (`plain.rs`): no trap, no flush,
//! and no page is zeroed, copied, read or written.

#[path = "fault/plain.rs"]
mod plain;

use criterion::{BatchSize, Criterion, Throughput};
use pagefault::entry::Verdict;
use pagefault::exception::ExceptionTables;
use pagefault::machine::{Access, PAGE_SIZE, PageFault, VirtAddr};
use pagefault::swap::area::Priority;
use pagefault::{
    AddressSpace, Config, File, FileAccess, Layout, Manager, MapRequest, Placement, Sharing, Source,
};
use plain::{Bits, Blank, Plain};
use std::hint::black_box;
use std::process::Command;
use std::sync::Arc;

const BASE: u64 = 0x1000_0000;

/// What is measured.
#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    work: Work,
    prepare: fn(&mut Bench, u64),
}

#[derive(Clone, Copy)]
enum Work {
    /// A fault at every page.
    Faults(Access),
    /// A read fault at every sixteenth page; the others come with it.
    Around,
    Fork,
    Unmap,
    /// Pushing every page out.
    Reclaim,
    /// The same on a machine that sets no accessed and no dirty bits.
    BlindReclaim,
    /// Pinning every page, each on its own, and letting it go.
    Pin(Access),
}

const KINDS: [Kind; 16] = [
    Kind { name: "anonymous write", work: Work::Faults(Access::Write), prepare: Bench::anonymous },
    Kind { name: "zero-page read", work: Work::Faults(Access::Read), prepare: Bench::anonymous },
    Kind { name: "write after it", work: Work::Faults(Access::Write), prepare: Bench::zeros },
    Kind { name: "cached file page", work: Work::Faults(Access::Read), prepare: Bench::cached },
    Kind { name: "with fault-around", work: Work::Around, prepare: Bench::cached_around },
    Kind { name: "private file write", work: Work::Faults(Access::Write), prepare: Bench::private },
    Kind { name: "copy-on-write", work: Work::Faults(Access::Write), prepare: Bench::shared },
    Kind { name: "sole-owner reuse", work: Work::Faults(Access::Write), prepare: Bench::left },
    Kind { name: "swap-in, read", work: Work::Faults(Access::Read), prepare: Bench::swapped },
    Kind { name: "swap-in, write", work: Work::Faults(Access::Write), prepare: Bench::swapped },
    Kind { name: "eviction", work: Work::Reclaim, prepare: Bench::stored },
    Kind { name: "eviction, no bits set", work: Work::BlindReclaim, prepare: Bench::stored },
    Kind { name: "fork, a mapped page", work: Work::Fork, prepare: Bench::stored },
    Kind { name: "unmap", work: Work::Unmap, prepare: Bench::stored },
    Kind { name: "pin to read", work: Work::Pin(Access::Read), prepare: Bench::stored },
    Kind { name: "pin to write", work: Work::Pin(Access::Write), prepare: Bench::stored },
];

/// A machine, a process and what belongs to it.
struct Bench {
    manager: Arc<Manager<Plain>>,
    space: AddressSpace<Plain>,
    children: Vec<AddressSpace<Plain>>,
    files: Vec<File<Plain>>,
    tables: ExceptionTables,
    pages: u64,
}

impl Bench {
    fn new(kind: Kind, pages: u64) -> Self {
        let fault_around = if matches!(kind.work, Work::Around) { 16 } else { 1 };
        // Each page has a fault of its own.
        let config = Config { fault_around, read_ahead: 1, ..Config::default() };
        let bits = if matches!(kind.work, Work::BlindReclaim) { Bits::Absent } else { Bits::Set };
        let machine = Arc::new(Plain::new(4 * pages as u32 + 1024, bits));
        let manager = Manager::new(machine, config);
        manager.swap_on(Box::new(Blank(4 * pages + 16)), Priority::Descending).unwrap();
        let layout = Layout::over(VirtAddr(0x1_0000)..VirtAddr(plain::REACH));
        let space = AddressSpace::new(&manager, layout).unwrap();
        let (children, files, tables) = Default::default();
        let mut bench = Self { manager, space, children, files, tables, pages };
        (kind.prepare)(&mut bench, pages);
        bench
    }

    fn map(&self, sharing: Sharing, source: Source<'_, Plain>) {
        let placement = Placement::Fixed(VirtAddr(BASE));
        let request = MapRequest {
            sharing,
            source,
            placement,
            ..MapRequest::anonymous(self.pages * PAGE_SIZE)
        };
        self.space.mm().mmap(&request).unwrap();
    }

    fn anonymous(&mut self, _pages: u64) {
        self.map(Sharing::Private, Source::Anonymous);
        // The first store makes the region's family.
        self.fault(0, Access::Write);
        self.space.mm().madvise(VirtAddr(BASE), PAGE_SIZE, pagefault::Advice::DontNeed).unwrap();
    }

    fn zeros(&mut self, pages: u64) {
        self.anonymous(pages);
        (0..pages).for_each(|page| self.fault(page, Access::Read));
    }

    fn stored(&mut self, pages: u64) {
        self.anonymous(pages);
        (0..pages).for_each(|page| self.fault(page, Access::Write));
    }

    fn file(&mut self, sharing: Sharing) {
        let file = File::open(&self.manager, Arc::new(Blank(self.pages)));
        // In the page cache beforehand.
        let mut bytes = vec![0; (self.pages * PAGE_SIZE) as usize];
        file.read_at(0, &mut bytes).unwrap();
        let access = FileAccess::READ | FileAccess::WRITE;
        self.map(sharing, Source::File { file: &file, offset: 0, access });
        self.files.push(file);
    }

    fn cached(&mut self, _pages: u64) {
        self.file(Sharing::Shared);
    }

    fn cached_around(&mut self, _pages: u64) {
        self.file(Sharing::Shared);
    }

    fn private(&mut self, _pages: u64) {
        self.file(Sharing::Private);
        self.fault(0, Access::Write);
        self.space.mm().madvise(VirtAddr(BASE), PAGE_SIZE, pagefault::Advice::DontNeed).unwrap();
    }

    fn shared(&mut self, pages: u64) {
        self.stored(pages);
        let child = self.space.fork().unwrap();
        self.children.push(child);
    }

    fn left(&mut self, pages: u64) {
        self.stored(pages);
        drop(self.space.fork().unwrap());
    }

    fn swapped(&mut self, pages: u64) {
        self.stored(pages);
        while self.manager.reclaim(pages as usize) > 0 {}
    }

    fn fault(&self, page: u64, access: Access) {
        let fault = PageFault::user(VirtAddr(BASE + page * PAGE_SIZE), access);
        let verdict = self.manager.page_fault(Some(self.space.mm()), &fault, &self.tables);
        assert_eq!(verdict, Verdict::Resume);
    }
}

/// The part that is measured; valgrind counts only in here.
#[inline(never)]
fn measured(bench: &mut Bench, work: Work) {
    let pages = bench.pages;
    match work {
        Work::Faults(access) => (0..pages).for_each(|page| bench.fault(page, access)),
        Work::Around => (0..pages).step_by(16).for_each(|page| bench.fault(page, Access::Read)),
        Work::Fork => bench.children.extend(bench.space.fork()),
        Work::Unmap => bench.space.mm().munmap(VirtAddr(BASE), pages * PAGE_SIZE).unwrap(),
        Work::Reclaim | Work::BlindReclaim => {
            // With bits the pages look used at first, so that each is spared once.
            while bench.manager.reclaim(pages as usize) > 0 {}
        }
        Work::Pin(access) => {
            for page in (0..pages).map(|page| VirtAddr(BASE + page * PAGE_SIZE)) {
                drop(bench.space.mm().pin(page..page + PAGE_SIZE, access).unwrap());
            }
        }
    }
}

fn time(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fault");
    const PAGES: u64 = 4096;
    group.throughput(Throughput::Elements(PAGES));
    for kind in KINDS {
        group.bench_function(kind.name, |bencher| {
            bencher.iter_batched_ref(
                || Bench::new(kind, PAGES),
                |bench| measured(black_box(bench), kind.work),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

/// Counts instructions per page of every kind and prints a table.
fn count_instructions() {
    println!("| correction | instructions |");
    println!("|---|---|");
    for (number, kind) in KINDS.iter().enumerate() {
        let (few, many) = (1024, 3072);
        match (run_counted(number, few), run_counted(number, many)) {
            (Some(a), Some(b)) => {
                println!("| {} | {} |", kind.name, (b.saturating_sub(a)) / (many - few));
            }
            _ => {
                println!("valgrind cannot be run: no instructions counted");
                return;
            }
        }
    }
}

/// The instructions of one kind with so many pages, in a process of its own under valgrind.
fn run_counted(kind: usize, pages: u64) -> Option<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg("--toggle-collect=fault::measured*")
        .arg(std::env::current_exe().ok()?)
        .args(["--count", &kind.to_string(), &pages.to_string()])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = text.lines().find(|line| line.contains("Collected"))?;
    line.rsplit(' ').next()?.parse().ok()
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[1..] {
        ["--count", kind, pages, ..] => {
            let kind = KINDS[kind.parse::<usize>().unwrap_or(0)];
            let mut bench = Bench::new(kind, pages.parse().unwrap_or(1));
            measured(&mut bench, kind.work);
        }
        _ if args.iter().any(|arg| arg == "--instructions") => count_instructions(),
        _ => {
            let mut criterion = Criterion::default().configure_from_args();
            time(&mut criterion);
            criterion.final_summary();
        }
    }
}
