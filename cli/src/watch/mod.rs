//! Watches a run: a thread of the launcher drains the events that the runtimes write.
//!
//! | module | what it does |
//! |---|---|
//! | [`members`] | the processes seen: names, mappings |
//! | [`sample`] | samples of the counters |
//! | [`report`] | `--report`: aggregates the events, writes the page |
//! | [`chrome`] | `--trace`: writes the events as a trace for Perfetto |
//!
//! Events are aggregated and dropped. Only a trace keeps them, and writes them as they come.

mod chrome;
mod members;
mod report;
mod sample;

pub use report::Run;
pub use sample::{COUNTED, Sample};

use crate::complain;
use members::Members;
use pagefault_control::{Config, Happening, Mapped, MappedRing, Next, Plan, RECORDS};
use report::{Gathered, Watched};
use rustix::time::{ClockId, clock_gettime};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The interval at which slow rings are drained.
const PAUSE: Duration = Duration::from_millis(40);
/// The same while a program is new, or events come fast. The mappings of a program that ends sooner cannot be read,
/// so its functions have no names.
const SHORT_PAUSE: Duration = Duration::from_millis(4);
/// How long a program is new.
const NEW: Duration = Duration::from_millis(200);
/// How often the counters are read.
const SAMPLE: Duration = Duration::from_millis(100);
/// An incomplete record older than this belongs to a dead writer.
const PATIENCE: Duration = Duration::from_millis(200);

/// Where the events go. Files are opened at the start, so that a bad path fails before the program runs.
#[derive(Default)]
pub struct Outputs {
    trace: Option<(PathBuf, File)>,
    report: Option<(PathBuf, File)>,
}

impl Outputs {
    /// Opens the requested files.
    pub fn open(trace: Option<&Path>, report: Option<&Path>) -> Result<Self, (PathBuf, io::Error)> {
        let open = |path: &Path| match File::create(path) {
            Ok(file) => Ok((path.to_owned(), file)),
            Err(error) => Err((path.to_owned(), error)),
        };
        Ok(Self { trace: trace.map(open).transpose()?, report: report.map(open).transpose()? })
    }

    /// Whether the runtimes must write events.
    pub const fn want_events(&self) -> bool {
        self.trace.is_some() || self.report.is_some()
    }
}

/// The watching thread.
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Option<Watched>>,
}

impl Watch {
    /// Begins to watch a tree. The process must not fork afterwards.
    pub fn start(shared: &OwnedFd, config: &Config, outputs: Outputs) -> io::Result<Option<Self>> {
        if !outputs.want_events() {
            return Ok(None);
        }
        Self::spawn(shared, config, outputs).map(Some)
    }

    // Apart, because a report in the making takes much stack, which `ulimit -s` may not leave to every run.
    #[inline(never)]
    fn spawn(shared: &OwnedFd, config: &Config, outputs: Outputs) -> io::Result<Self> {
        let watcher = Watcher::new(shared.try_clone()?, config, outputs)?;
        let stop = Arc::new(AtomicBool::new(false));
        let asked = stop.clone();
        let thread = std::thread::Builder::new()
            .name("pagefault-watch".to_owned())
            .spawn(move || watcher.run(&asked))?;
        Ok(Self { stop, thread })
    }

    /// Reads the last events and completes the trace. Returns the data of the report, if one was
    /// requested.
    pub fn finish(self) -> Option<Watched> {
        self.stop.store(true, Release);
        self.thread.thread().unpark();
        // If the thread panicked, it has printed a message; the run itself succeeded.
        self.thread.join().ok().flatten()
    }
}

/// The reader's side of a slot's ring.
struct Reader {
    ring: MappedRing,
    /// The process of the last event, by its own ID.
    last: Option<(u32, usize)>,
    /// Since when the next record has been incomplete.
    unfinished: Option<Instant>,
    /// The count of lost events at the last reading.
    lost: u64,
}

/// The state of the thread.
struct Watcher {
    file: OwnedFd,
    control: Mapped,
    plan: Plan,
    /// The start of the run.
    begin: u64,
    readers: BTreeMap<u32, Reader>,
    /// The count of slots ever taken at the last reading.
    begun: u32,
    /// The count of programs and forks at the last reading, and when it last grew.
    started: u64,
    newest: Instant,
    members: Members,
    trace: Option<chrome::Trace>,
    report: Option<Gathered>,
    lost: u64,
}

impl Watcher {
    fn new(file: OwnedFd, config: &Config, outputs: Outputs) -> io::Result<Self> {
        let control = Mapped::new(&file).map_err(io::Error::other)?;
        let begin = now();
        let areas = config.swap.len();
        let trace =
            outputs.trace.map(|(path, file)| chrome::Trace::begin(path, file, begin, areas));
        Ok(Self {
            file,
            control,
            plan: config.plan(),
            begin,
            readers: BTreeMap::new(),
            begun: 0,
            started: 0,
            newest: Instant::now(),
            members: Members::default(),
            trace,
            report: outputs.report.map(|(path, file)| Gathered::begin(path, file, begin)),
            lost: 0,
        })
    }

    fn run(mut self, stop: &AtomicBool) -> Option<Watched> {
        let mut due = Instant::now();
        loop {
            let last = stop.load(Acquire);
            if last {
                self.control.stop_observing();
            }
            let drained = self.drain();
            if last || Instant::now() >= due {
                self.sample();
                due = Instant::now() + self.report.as_ref().map_or(SAMPLE, Gathered::period);
            }
            if last {
                break;
            }
            if drained < RECORDS / 4 {
                std::thread::park_timeout(self.pause(drained));
            }
        }
        self.end()
    }

    /// How long to wait before the rings are drained again, after so many events.
    fn pause(&mut self, drained: usize) -> Duration {
        let counters = &self.control.counters;
        let started = counters.programs.value() + counters.forks.value();
        if started != self.started {
            (self.started, self.newest) = (started, Instant::now());
        }
        let is_soon = self.newest.elapsed() < NEW || drained > RECORDS / 8;
        if is_soon { SHORT_PAUSE } else { PAUSE }
    }

    /// Drains the rings. Returns the number of events.
    fn drain(&mut self) -> usize {
        self.find_readers();
        let mut readers = std::mem::take(&mut self.readers);
        let mut drained = 0;
        readers.retain(|slot, reader| {
            // Read first: all events before the process's end are then in the ring.
            let ended = !self.control.slots.get(*slot).is_some_and(|slot| slot.is_taken());
            let some = self.drain_one(*slot, reader);
            drained += some;
            let kept = some > 0 || !ended || reader.unfinished.is_some();
            if !kept {
                self.forget(*slot);
            }
            kept
        });
        self.readers = readers;
        drained
    }

    /// Maps the rings of new processes.
    fn find_readers(&mut self) {
        let begun = self.control.slots.begun();
        if begun == self.begun {
            return;
        }
        let most = pagefault_control::MOST_PROCESSES as u32;
        let new = begun.wrapping_sub(self.begun).min(most);
        // A short-lived process may have freed its slot already.
        let passed = (0..new).map(|step| begun.wrapping_sub(1 + step) % most);
        let taken = self.control.slots.all_taken().map(|(slot, _)| slot);
        let slots: Vec<u32> = passed.chain(taken).collect();
        self.begun = begun;
        for slot in slots {
            if !self.readers.contains_key(&slot)
                && let Ok(ring) = MappedRing::new(&self.file, self.plan, slot)
            {
                let lost = ring.lost();
                self.readers.insert(slot, Reader { ring, last: None, unfinished: None, lost });
            }
        }
    }

    fn drain_one(&mut self, slot: u32, reader: &mut Reader) -> usize {
        let mut drained = 0;
        // A ring that fills as fast as it is read must not starve the others.
        while drained < RECORDS {
            match reader.ring.read() {
                Next::Event(event) => {
                    reader.unfinished = None;
                    drained += 1;
                    self.take(slot, reader, &event);
                }
                Next::Nothing => {
                    reader.unfinished = None;
                    break;
                }
                Next::Unfinished => {
                    let since = *reader.unfinished.get_or_insert_with(Instant::now);
                    if since.elapsed() < PATIENCE {
                        break;
                    }
                    reader.unfinished = None;
                    reader.ring.skip();
                }
            }
        }
        let lost = reader.ring.lost();
        self.lost += lost.saturating_sub(reader.lost);
        reader.lost = lost;
        drained
    }

    fn take(&mut self, slot: u32, reader: &mut Reader, event: &Happening) {
        let index = match reader.last {
            Some((process, index)) if process == event.process => index,
            _ => {
                let index = self.members.find(&self.control, slot, event.process);
                reader.last = Some((event.process, index));
                index
            }
        };
        if let Some(trace) = &mut self.trace {
            trace.event(self.members.at(index), event);
        }
        if let Some(report) = &mut self.report {
            report.event(index, &mut self.members, event);
        }
    }

    /// Frees the memory of the ring of a process that has ended.
    fn forget(&self, slot: u32) {
        use rustix::fs::{FallocateFlags, fallocate};
        let range = self.plan.ring(slot);
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        // The first page keeps the counters, which the slot's next process continues. If the host
        // refuses, only memory is wasted.
        let start = range.start + rustix::param::page_size() as u64;
        let _ = fallocate(&self.file, hole, start, range.end - start);
    }

    fn sample(&mut self) {
        let sample = Sample::take(&self.control, now().saturating_sub(self.begin));
        self.members.look(&self.control, &sample);
        if let Some(trace) = &mut self.trace {
            trace.sample(&sample, &self.members);
            trace.flush();
        }
        if let Some(report) = &mut self.report {
            report.sample(sample);
        }
    }

    fn end(mut self) -> Option<Watched> {
        if let Some(trace) = self.trace.take()
            && let Err((path, error)) = trace.end(self.lost)
        {
            complain!("--trace {}: {error}", path.display());
        }
        let length = now().saturating_sub(self.begin);
        let (members, lost) = (self.members, self.lost);
        self.report.map(|gathered| Watched { gathered, members, length, lost })
    }
}

/// `CLOCK_MONOTONIC` in nanoseconds, the runtimes' clock.
fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
