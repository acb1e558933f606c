//! Scripts on a machine over the memory manager, ours or your own: every operation goes to the
//! memory manager, every load and store to the machine's [`Processor`].
//!
//! To run scripts on a machine of your own, implement [`Processor`] for whatever makes its accesses
//! (three methods; [`until_done`] has the loop of a trap handler), and add it to a [`Catalogue`]:
//! `script/examples/own_machine.rs` does, and runs the corpus.

mod calls;
mod forced;
#[cfg(feature = "hosts")]
mod linux;
mod processor;
pub mod sim;

pub use processor::{Processor, Stopped, until_done};

use crate::Window;
use crate::ast::{self, MapFlags};
use crate::machine::{
    Action, Call, Catalogue, Entry, Failures, File, Machine, Mmap, Process, READ_AT_ONCE, Setup,
    Simulates, StartError, content, pipe_count,
};
use crate::outcome::{Bytes, Errno, Fault, Outcome};
use pagefault::entry::{SegvCode, Signal};
use pagefault::error::FileError;
use pagefault::machine::{self as waist, Protection, VirtAddr};
use pagefault::oom::{Candidate, Choice, Standing};
use pagefault::swap::area::Priority;
use pagefault::swap::header::{FormattedError, Header, Medium};
use pagefault::{
    AddressSpace, Config, FileAccess, Layout, Manager, MapOptions, MapRequest, Mm, NonlinearPolicy,
    Placement, Sharing, Source,
};
use pagefault_sim::{SimDisk, SimFile};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Adds our machines to a catalogue.
pub fn add_to(catalogue: &mut Catalogue) {
    catalogue.add(Entry {
        name: "sim",
        simulates: Simulates::Processors,
        failures: Failures::Injected,
        start: Box::new(|setup| sim::start(setup, pagefault_sim::Config::default())),
    });
    // With as little help from the processor as in a Linux process.
    let bare = pagefault_sim::Config {
        zero_frame: false,
        accessed_bits: false,
        dirty_bits: false,
        ..pagefault_sim::Config::default()
    };
    catalogue.add(Entry {
        name: "sim-bare",
        simulates: Simulates::Processors,
        failures: Failures::Injected,
        start: Box::new(move |setup| sim::start(setup, bare)),
    });
    #[cfg(feature = "hosts")]
    catalogue.add(Entry {
        name: "linux",
        simulates: Simulates::Nothing,
        failures: Failures::Refused,
        start: Box::new(|setup| Ok(Box::new(linux::start(setup)?))),
    });
}

/// A file of a script.
struct Opened<M: waist::Machine> {
    content: Arc<SimFile>,
    file: pagefault::File<M>,
}

/// A machine with its memory manager, processes and files.
pub struct Managed<M: waist::Machine, P> {
    // Address spaces and files are dropped before the processor, whose handlers they use.
    processes: BTreeMap<Process, AddressSpace<M>>,
    files: BTreeMap<u32, Opened<M>>,
    manager: Arc<Manager<M>>,
    disk: Arc<SimDisk>,
    processor: P,
}

/// The configuration in which answers equal the host's: pieces of files become regions of their own
/// (J10), and overcommit is practically unlimited.
pub fn config() -> Config {
    Config {
        nonlinear: NonlinearPolicy::Regions,
        overcommit: pagefault::Overcommit::Always,
        ..Config::default()
    }
}

impl<M: waist::Machine, P: Processor<M>> Managed<M, P> {
    /// A machine with the script's swap area and the first process.
    pub fn new(manager: Arc<Manager<M>>, processor: P, setup: &Setup) -> Result<Self, StartError> {
        let slots = u32::try_from(setup.sizes.swap).map_err(|_| StartError::Sizes)?;
        let disk = Arc::new(SimDisk::new(slots.max(1)));
        if slots > 1 {
            manager
                .swap_on(Box::new(disk.clone()), Priority::Descending)
                .map_err(|_| StartError::Sizes)?;
        }
        let mut managed =
            Self { processes: BTreeMap::new(), files: BTreeMap::new(), manager, disk, processor };
        let end = managed.processor.window().user_end;
        let layout = Layout::over(VirtAddr(0x1_0000)..VirtAddr(end));
        let first = AddressSpace::new(&managed.manager, layout).map_err(|_| StartError::Sizes)?;
        managed.processor.started(first.mm());
        managed.processes.insert(Process::FIRST, first);
        Ok(managed)
    }

    fn mmap(&self, mm: &Arc<Mm<M>>, call: &Mmap) -> Outcome {
        let file = call.file.map(|(file, offset)| (&self.files[&file.0].file, offset));
        let mut options = MapOptions::empty();
        options.set(MapOptions::NORESERVE, call.flags.contains(MapFlags::NORESERVE));
        options.set(MapOptions::GROWSDOWN, call.flags.contains(MapFlags::GROWSDOWN));
        options.set(MapOptions::POPULATE, call.flags.contains(MapFlags::POPULATE));
        let at = VirtAddr(call.address);
        let noreplace = call.flags.contains(MapFlags::NOREPLACE);
        let request = MapRequest {
            length: call.length,
            protection: protection(call.protection),
            sharing: match call.sharing {
                ast::Sharing::Private => Sharing::Private,
                ast::Sharing::Shared => Sharing::Shared,
            },
            placement: if noreplace { Placement::FixedNoReplace(at) } else { Placement::Fixed(at) },
            source: match file {
                None => Source::Anonymous,
                Some((file, offset)) => {
                    Source::File { file, offset, access: FileAccess::READ | FileAccess::WRITE }
                }
            },
            options,
        };
        answer(mm.mmap(&request), |error| error.errno())
    }

    fn execute(&mut self, mm: &Arc<Mm<M>>, address: u64) -> Outcome {
        match self.processor.plant(mm, address) {
            Ok(()) | Err(Stopped::Signal(..)) => {}
            Err(stopped) => return failed(stopped),
        }
        match self.processor.fetch(mm, address) {
            Ok(()) => Outcome::Ok,
            Err(stopped) => failed(stopped),
        }
    }

    fn load(&mut self, mm: &Arc<Mm<M>>, address: u64, length: u64) -> Outcome {
        pieces(address, length, |at, bytes| self.processor.load(mm, at, bytes))
    }

    fn store(&mut self, mm: &Arc<Mm<M>>, address: u64, bytes: &[u8]) -> Outcome {
        match self.processor.store(mm, address, bytes) {
            Ok(()) => Outcome::Ok,
            Err(stopped) => failed(stopped),
        }
    }

    fn fill(&mut self, mm: &Arc<Mm<M>>, address: u64, length: u64, byte: u8) -> Outcome {
        let mut done = 0;
        while done < length {
            let piece = PIECE.min(length - done);
            let bytes = vec![byte; piece as usize];
            if let Err(stopped) = self.processor.store(mm, address.wrapping_add(done), &bytes) {
                return failed(stopped);
            }
            done += piece;
        }
        Outcome::Ok
    }

    fn write_user(&mut self, mm: &Arc<Mm<M>>, address: u64, bytes: &[u8]) -> Outcome {
        let copied = bytes.len() - self.processor.copy_to_user(mm, address, bytes);
        match pipe_count(copied as u64, bytes.len() as u64) {
            Some(count) => Outcome::Stored(count),
            None => Outcome::Errno(Errno::EFAULT),
        }
    }

    fn read_user(&mut self, mm: &Arc<Mm<M>>, address: u64, length: u64) -> Outcome {
        let mut bytes = Vec::new();
        while let Some(at) = next_piece(&mut bytes, length) {
            let from = address.wrapping_add(at as u64);
            let left = self.processor.copy_from_user(mm, from, &mut bytes[at..]);
            if left > 0 {
                bytes.truncate(bytes.len() - left);
                break;
            }
        }
        match pipe_count(bytes.len() as u64, length) {
            Some(count) => Outcome::Loaded(Bytes::new(&bytes[..count as usize])),
            None => Outcome::Errno(Errno::EFAULT),
        }
    }

    fn fork(&mut self, process: Process, child: Process) -> Outcome {
        match self.processes[&process].fork() {
            Ok(copy) => {
                self.processor.started(copy.mm());
                self.processes.insert(child, copy);
                Outcome::Ok
            }
            Err(error) => Outcome::Errno(Errno(error.errno().number())),
        }
    }

    fn end(&mut self, process: Process) {
        if let Some(space) = self.processes.remove(&process) {
            self.processor.ended(space.mm());
        }
    }

    fn pwrite(&self, file: File, offset: u64, bytes: &[u8]) -> Outcome {
        if offset.saturating_add(bytes.len() as u64) > LAST_OFFSET {
            return Outcome::Errno(Errno::EINVAL);
        }
        answer(self.files[&file.0].file.write_all_at(offset, bytes), |error| error.errno())
    }

    fn pread(&self, file: File, offset: u64, length: u64) -> Outcome {
        let opened = &self.files[&file.0].file;
        let failed = |error: FileError| Outcome::Errno(Errno(error.errno().number()));
        let there = match opened.len() {
            Ok(end) => length.min(end.saturating_sub(offset)),
            Err(error) => return failed(error),
        };
        // What the last call asks for, wherever the file ends: none may pass the last offset.
        let asked = (there - there % READ_AT_ONCE).saturating_add(READ_AT_ONCE).min(length);
        if offset.saturating_add(asked) > LAST_OFFSET {
            return Outcome::Errno(Errno::EINVAL);
        }
        let mut bytes = vec![0; there as usize];
        match opened.read_at(offset, &mut bytes) {
            Ok(n) => Outcome::Bytes(Bytes::new(&bytes[..n])),
            Err(error) => failed(error),
        }
    }

    fn create(&mut self, file: File, length: u64, seed: Option<u64>) -> Outcome {
        if length > LAST_OFFSET {
            // As on the host, the file still exists, and is empty.
            if !self.files.contains_key(&file.0) {
                self.create_with(file, SimFile::zeros(0));
            }
            return Outcome::Errno(Errno::EINVAL);
        }
        let store = match seed {
            Some(seed) => SimFile::new((0..length).map(|index| content(index, seed)).collect()),
            None => SimFile::zeros(length),
        };
        self.create_with(file, store);
        Outcome::Ok
    }

    fn create_with(&mut self, file: File, store: SimFile) {
        let content = Arc::new(store);
        let file_of_manager = pagefault::File::open(&self.manager, content.clone());
        self.processor.opened(file.0, file_of_manager.id());
        self.files.insert(file.0, Opened { content, file: file_of_manager });
    }

    /// Gives the processor's device its content, and opens it.
    fn create_device(&mut self, file: File, length: u64, seed: Option<u64>) -> Outcome {
        let pages = u32::try_from(length.div_ceil(waist::PAGE_SIZE)).ok();
        let device = pages.and_then(|pages| self.processor.device(pages));
        let opened = match &device {
            Some(memory) => pagefault::File::device(&self.manager, memory.clone()),
            None => pagefault::File::shared(&self.manager, 0),
        };
        self.processor.opened(file.0, opened.id());
        let content_of_none = Arc::new(SimFile::zeros(0));
        self.files.insert(file.0, Opened { content: content_of_none, file: opened });
        let Some(device) = device else { return Outcome::Errno(Errno::ENOMEM) };
        for index in 0..length.div_ceil(waist::PAGE_SIZE) {
            let Ok(frame) = device.frame(index) else { return Outcome::Errno(Errno::EIO) };
            let start = index * waist::PAGE_SIZE;
            let end = length.min(start + waist::PAGE_SIZE);
            let byte = |at| seed.map_or(0, |seed| content(at, seed));
            let bytes: Vec<u8> = (start..end).map(byte).collect();
            self.manager.machine().write(frame, 0, &bytes);
        }
        Outcome::Ok
    }

    fn check(&self) -> Outcome {
        if let Err(violation) = self.manager.check() {
            return Outcome::Broken(violation.to_string());
        }
        match self.processor.check() {
            Ok(()) => Outcome::Ok,
            Err(what) => Outcome::Broken(what),
        }
    }

    /// Makes a call once.
    fn attempt(&mut self, process: Process, call: &Call<'_>) -> Outcome {
        // It may have been killed to free memory for another one.
        let Some(space) = self.processes.get(&process) else { return Outcome::Errno(Errno::ESRCH) };
        let mm = space.mm().clone();
        let outcome = match call {
            Call::Mmap(mmap) => self.mmap(&mm, mmap),
            Call::Store { address, bytes } => self.store(&mm, *address, bytes),
            Call::Fill { address, length, byte } => self.fill(&mm, *address, *length, *byte),
            Call::Load { address, length } => self.load(&mm, *address, *length),
            Call::Execute { address } => self.execute(&mm, *address),
            Call::ToUser { address, bytes } => self.write_user(&mm, *address, bytes),
            Call::FromUser { address, length } => self.read_user(&mm, *address, *length),
            Call::Poke { address, bytes } => forced::poke(&mm, *address, bytes),
            Call::Peek { address, length } => forced::peek(&mm, *address, *length),
            Call::KernelMap { address, length } => {
                match self.processor.kernel_map(*address, *length) {
                    true => Outcome::Ok,
                    false => Outcome::Errno(Errno::ENOMEM),
                }
            }
            Call::KernelLoad { address, length } => {
                pieces(*address, *length, |at, bytes| self.processor.kernel_load(&mm, at, bytes))
            }
            Call::KernelStore { address, bytes } => {
                match self.processor.kernel_store(&mm, *address, bytes) {
                    Ok(()) => Outcome::Ok,
                    Err(stopped) => failed(stopped),
                }
            }
            Call::Prefetch { code, address } => {
                match self.processor.prefetch(&mm, *code, *address) {
                    Ok(()) => Outcome::Ok,
                    Err(stopped) => failed(stopped),
                }
            }
            Call::Cpu { number } => {
                self.processor.run_on(*number);
                Outcome::Ok
            }
            Call::Fork { child } => self.fork(process, *child),
            Call::Exit => {
                self.end(process);
                Outcome::Ok
            }
            other => calls::manage(&mm, other),
        };
        drop(mm);
        if matches!(outcome, Outcome::Oops { .. }) {
            self.end(process);
        }
        outcome
    }

    /// Kills a process, because one needs a frame and none is free (spec F25).
    fn make_room_for(&mut self, process: Process) -> Room {
        let candidates: Vec<Candidate<'_, M>> = self
            .processes
            .values()
            .map(|space| Candidate {
                mm: space.mm(),
                standing: Standing::Running,
                tables: 0,
                adjustment: 0,
            })
            .collect();
        let chosen = match self.manager.choose_victim(&candidates) {
            Choice::Kill(place) => self.processes.keys().nth(place).copied(),
            Choice::Wait | Choice::Nobody => None,
        };
        let chosen = chosen.unwrap_or(process);
        if let Some(space) = self.processes.get(&chosen) {
            self.processor.chosen(space.mm());
        }
        self.end(chosen);
        if chosen == process { Room::ByItsOwnEnd } else { Room::ByAnothers }
    }

    fn swap_on(&self, area: &ast::SwapOn) -> Outcome {
        let header = Header { last_page: area.pages.saturating_sub(1), bad: area.bad.clone() };
        let mut first = Box::new([0; waist::PAGE_SIZE as usize]);
        let disk = SimDisk::new(area.pages.max(1));
        if header.write(&mut first).is_err() {
            return Outcome::Errno(Errno::EINVAL);
        }
        disk.set_header(&first);
        let medium = if area.on_file { Medium::File } else { Medium::Disk };
        let added = self.manager.swap_on_formatted(Box::new(disk), medium, Priority::Descending);
        match added {
            Ok(_) => Outcome::Ok,
            Err(FormattedError::Refused(_)) => Outcome::Errno(Errno::EPERM),
            Err(_) => Outcome::Errno(Errno::EINVAL),
        }
    }

    fn swap_off(&self, area: u64) -> Outcome {
        let Ok(area) = u8::try_from(area) else { return Outcome::Errno(Errno::EINVAL) };
        answer(self.manager.swap_off(area), |error| error.errno())
    }

    fn fail(&mut self, what: ast::Failing, nth: u64) -> Outcome {
        match what {
            ast::Failing::Frame => self.processor.fail_allocation(nth),
            ast::Failing::Read => {
                self.disk.fail_nth_read(nth);
                self.files.values().for_each(|opened| opened.content.fail_nth_read(nth));
            }
            ast::Failing::Write => {
                self.disk.fail_nth_write(nth);
                self.files.values().for_each(|opened| opened.content.fail_nth_write(nth));
            }
        }
        Outcome::Ok
    }
}

impl<M: waist::Machine, P: Processor<M>> Machine for Managed<M, P> {
    fn window(&self) -> Window {
        self.processor.window()
    }

    fn perform(&mut self, process: Process, call: &Call<'_>) -> Outcome {
        loop {
            let outcome = self.attempt(process, call);
            // Only stores and loads end like this, and both may be restarted.
            if outcome != Outcome::Killed || self.make_room_for(process) == Room::ByItsOwnEnd {
                return outcome;
            }
        }
    }

    fn act(&mut self, action: &Action<'_>) -> Outcome {
        match *action {
            Action::CreateFile { file, length, seed } => self.create(file, length, seed),
            Action::CreateDevice { file, length, seed } => self.create_device(file, length, seed),
            Action::Truncate { file, length } => {
                answer(self.files[&file.0].file.truncate(length), |error| error.errno())
            }
            Action::Pwrite { file, offset, bytes } => self.pwrite(file, offset, bytes),
            Action::Pread { file, offset, length } => self.pread(file, offset, length),
            Action::Fsync { file } => {
                answer(self.files[&file.0].file.sync(), |error| error.errno())
            }
            Action::Reclaim { pages } => {
                self.manager.reclaim(pages.min(u64::from(u32::MAX)) as usize);
                Outcome::Ok
            }
            Action::Check => self.check(),
            Action::SwapOn { area } => self.swap_on(area),
            Action::SwapOff { area } => self.swap_off(area),
            Action::Fail { what, nth } => self.fail(what, nth),
        }
    }

    fn stats(&mut self) -> Vec<(&'static str, u64)> {
        let mut stats = Vec::new();
        self.manager.counters().visit(|name, value| stats.push((name, value)));
        stats
    }
}

/// The process whose end frees the needed memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Room {
    ByItsOwnEnd,
    ByAnothers,
}

/// The signal of an illegal instruction, with the code for an illegal operand.
const SIGILL: i32 = 4;
const ILL_ILLOPN: i32 = 2;

/// No file reaches further.
const LAST_OFFSET: u64 = i64::MAX as u64;

/// The bytes of one piece of a long access. The length may be absurd; such an access stops long before
/// its end.
const PIECE: u64 = 1 << 20;

/// The outcome of a load, made piece by piece.
fn pieces(
    address: u64,
    length: u64,
    mut load: impl FnMut(u64, &mut [u8]) -> Result<(), Stopped>,
) -> Outcome {
    let mut bytes = Vec::new();
    while let Some(at) = next_piece(&mut bytes, length) {
        if let Err(stopped) = load(address.wrapping_add(at as u64), &mut bytes[at..]) {
            return failed(stopped);
        }
    }
    Outcome::Bytes(Bytes::new(&bytes))
}

/// Makes room for the next piece and returns its start; `None` when all bytes are there.
fn next_piece(bytes: &mut Vec<u8>, length: u64) -> Option<usize> {
    let at = bytes.len();
    let piece = PIECE.min(length - at as u64) as usize;
    bytes.resize(at + piece, 0);
    (piece > 0).then_some(at)
}

fn answer<T, E: Copy>(
    result: Result<T, E>,
    errno: impl Fn(E) -> pagefault::error::Errno,
) -> Outcome {
    Outcome::of(result.map_err(|error| Errno(errno(error).number())))
}

fn failed(stopped: Stopped) -> Outcome {
    match stopped {
        Stopped::Signal(signal, address) => {
            let fault = match signal {
                Signal::Segv(SegvCode::MapErr) => Fault::Unmapped,
                Signal::Segv(SegvCode::AccErr) => Fault::Refused,
                Signal::Bus => Fault::Beyond,
                Signal::Illegal => Fault::Other { signal: SIGILL, code: ILL_ILLOPN },
            };
            Outcome::Fault { fault, address }
        }
        Stopped::OutOfMemory => Outcome::Killed,
        Stopped::Bug(what) => Outcome::Broken(what),
        Stopped::Oops(oops, address) => Outcome::Oops { oops, address },
    }
}

fn protection(protection: ast::Protection) -> Protection {
    Protection::from_bits_truncate(protection.bits())
}
