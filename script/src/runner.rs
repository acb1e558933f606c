//! Runs a script on a machine. Names become numbers only here.

use crate::ast::{
    Address, Begin, Content, Line, Mmap, Moving, Mremap, Op, Range, Script, SyncFlag,
};
use crate::layout::{Fit, Layout, Placed};
use crate::machine::{Action, Call, File, Machine, Process, Setup, Target};
use crate::outcome::{Errno, Origin, Outcome};
use std::collections::HashMap;

/// A running script: an iterator that runs one line at a time.
pub struct Run<'a> {
    lines: std::slice::Iter<'a, Line>,
    machine: &'a mut dyn Machine,
    layout: Layout,
    processes: HashMap<&'a str, Living<'a>>,
    forked: u32,
    files: HashMap<&'a str, File>,
}

/// The answer to a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The line's number in its file.
    pub number: usize,
    /// The result, as printed after the number.
    pub text: String,
}

/// A process of the script.
struct Living<'a> {
    process: Process,
    names: HashMap<&'a str, Bound>,
    /// The name of its heap.
    heap: Option<&'a str>,
}

/// The range of a name.
#[derive(Clone, Copy, Debug)]
struct Bound {
    address: u64,
    /// Rounded up to a page.
    length: u64,
}

/// The parameters of a machine for `script`.
pub fn setup(script: &Script, seed: u64) -> Setup {
    let device_pages = script.device_pages();
    Setup { sizes: script.sizes, files: script.files().count(), device_pages, seed }
}

impl<'a> Run<'a> {
    /// A run of `script` on a fresh machine (see [`setup`]).
    pub fn new(script: &'a Script, machine: &'a mut dyn Machine) -> Self {
        let null = Bound { address: 0, length: 0 };
        let first =
            Living { process: Process::FIRST, names: HashMap::from([("null", null)]), heap: None };
        let files = script.files().zip(0..).map(|(name, n)| (name, File(n)));
        Self {
            lines: script.lines.iter(),
            layout: Layout::over(machine.window()),
            machine,
            processes: HashMap::from([("p0", first)]),
            forked: 0,
            files: files.collect(),
        }
    }

    /// The machine below.
    pub fn machine(&mut self) -> &mut dyn Machine {
        self.machine
    }

    fn line(&mut self, line: &'a Line) -> Answer {
        let name = subject(&line.op);
        let outcome = self.operation(&line.process, &line.op);
        let address = name.map_or(0, |name| self.bound(&line.process, name).address);
        let origin = Origin { name: name.unwrap_or(""), address };
        if matches!(outcome, Outcome::Killed | Outcome::Oops { .. }) {
            self.processes.remove(line.process.as_str());
        }
        Answer { number: line.number, text: outcome.display(origin).to_string() }
    }

    fn operation(&mut self, who: &'a str, op: &'a Op) -> Outcome {
        if let Some(action) = self.action(op) {
            return self.machine.act(&action);
        }
        // Its fork failed, or it was killed.
        let Some(living) = self.processes.get(who) else {
            return Outcome::Errno(Errno::ESRCH);
        };
        let process = living.process;
        match op {
            Op::Mmap(mmap) => self.mmap(who, process, mmap),
            Op::Mremap(mremap) => self.mremap(who, process, mremap),
            Op::Brk(name, length) => self.brk(who, process, name, *length),
            Op::KernelMap(name, length) => self.kernel_map(process, name, *length),
            Op::Fork(child) => self.fork(who, process, child),
            Op::Exit => {
                self.processes.remove(who);
                self.machine.perform(process, &Call::Exit)
            }
            _ => match self.call(who, op) {
                Some(call) => self.machine.perform(process, &call),
                None => Outcome::Outside,
            },
        }
    }

    /// The call of `op`, if it belongs to no process.
    fn action(&self, op: &'a Op) -> Option<Action<'a>> {
        let file = |name: &str| self.files.get(name).copied();
        Some(match op {
            Op::File { name, length, seed } => {
                Action::CreateFile { file: file(name)?, length: *length, seed: *seed }
            }
            Op::Device { name, length, seed } => {
                Action::CreateDevice { file: file(name)?, length: *length, seed: *seed }
            }
            Op::Truncate(name, length) => Action::Truncate { file: file(name)?, length: *length },
            Op::Pwrite(name, offset, bytes) => {
                Action::Pwrite { file: file(name)?, offset: *offset, bytes }
            }
            Op::Pread(name, offset, length) => {
                Action::Pread { file: file(name)?, offset: *offset, length: *length }
            }
            Op::Fsync(name) => Action::Fsync { file: file(name)? },
            Op::Reclaim(pages) => Action::Reclaim { pages: *pages },
            Op::Check => Action::Check,
            Op::SwapOn(area) => Action::SwapOn { area },
            Op::SwapOff(area) => Action::SwapOff { area: *area },
            Op::Fail { what, nth } => Action::Fail { what: *what, nth: *nth },
            _ => return None,
        })
    }

    /// The plain calls; `None` if the call would leave the window.
    fn call(&self, who: &str, op: &'a Op) -> Option<Call<'a>> {
        if let Some(range) = op.user_range() {
            return self.call_over(who, op, range);
        }
        let at = |address| self.held(who, address);
        Some(match op {
            Op::MlockAll(what) => Call::MlockAll { what: *what },
            Op::MunlockAll => Call::MunlockAll,
            Op::Write(address, bytes) => Call::Store { address: at(address)?, bytes },
            Op::Exec(address) => Call::Execute { address: at(address)? },
            Op::ToUser(address, bytes) => Call::ToUser { address: at(address)?, bytes },
            Op::Poke(address, bytes) => Call::Poke { address: at(address)?, bytes },
            Op::KernelRead(Range { address, length }) => {
                Call::KernelLoad { address: self.resolve(who, address), length: *length }
            }
            Op::KernelWrite(address, bytes) => {
                Call::KernelStore { address: self.resolve(who, address), bytes }
            }
            Op::Prefetch { code, address } => {
                Call::Prefetch { code: at(code)?, address: at(address)? }
            }
            Op::Cpu(number) => Call::Cpu { number: *number },
            Op::Maps(name) => {
                let Bound { address, length } = self.bound(who, name);
                Call::Maps { start: address, end: address.saturating_add(length) }
            }
            _ => return None,
        })
    }

    /// The calls over a range of a program's memory.
    fn call_over(&self, who: &str, op: &'a Op, range: &Range) -> Option<Call<'a>> {
        let (address, length) = (self.held(who, &range.address)?, range.length);
        if self.leaves_window(op, address, length) {
            return None;
        }
        Some(match op {
            Op::Munmap(_) => Call::Munmap { address, length },
            Op::Mprotect(_, protection, begin) => {
                Call::Mprotect { address, length, protection: *protection, begin: *begin }
            }
            Op::Msync(_, sync) => Call::Msync { address, length, sync: *sync },
            Op::Mlock(_, locking) => Call::Mlock { address, length, locking: *locking },
            Op::Mseal(_) => Call::Mseal { address, length },
            Op::Munlock(_) => Call::Munlock { address, length },
            Op::Madvise(_, advice) => Call::Madvise { address, length, advice: *advice },
            Op::RemapFilePages(_, page) => Call::RemapFilePages { address, length, page: *page },
            Op::Mincore(_) => Call::Mincore { address, length },
            Op::Fill(_, byte) => Call::Fill { address, length, byte: *byte },
            Op::Read(_) => Call::Load { address, length },
            Op::Peek(_) => Call::Peek { address, length },
            Op::FromUser(_) => Call::FromUser { address, length },
            _ => return None,
        })
    }

    /// An address that the window holds.
    fn held(&self, who: &str, address: &Address) -> Option<u64> {
        let address = self.resolve(who, address);
        self.layout.window.holds(address).then_some(address)
    }

    /// Whether a call from this address on would reach what does not belong to the script.
    fn leaves_window(&self, op: &Op, address: u64, length: u64) -> bool {
        match op {
            Op::Munmap(_) => self.layout.window.fits(address, length) == Fit::Outside,
            // The first mapping in the range is looked for, wherever that is.
            Op::Mprotect(_, _, Begin::Stack) => self.walks_outside(address, length),
            // What is locked outside may be the host's own, after `mlockall`.
            Op::Msync(_, SyncFlag::Invalidate) => self.walks_outside(address, length),
            Op::Madvise(..) => self.walks_outside(address, length),
            _ => false,
        }
    }

    /// Whether a call that does not check for the end of user space, but walks what is mapped, leaves the window.
    fn walks_outside(&self, address: u64, length: u64) -> bool {
        let round = self.layout.window.page - 1;
        let wraps =
            address.wrapping_add(length.wrapping_add(round)) < address || length > u64::MAX - round;
        self.layout.window.fits(address, length) != Fit::Inside && !wraps
    }

    fn mmap(&mut self, who: &'a str, process: Process, mmap: &'a Mmap) -> Outcome {
        let length = mmap.length;
        let mut flags = mmap.flags;
        let placed = match &mmap.at {
            Some(at) => match self.resolve(who, at) {
                at if self.layout.window.fits(at, length) == Fit::Outside => Placed::NoRoom(at),
                at => Placed::At(at),
            },
            None => {
                flags |= crate::ast::MapFlags::NOREPLACE;
                self.layout.place(length)
            }
        };
        let (address, outcome) = match placed {
            Placed::NoRoom(address) => (address, Outcome::Outside),
            Placed::At(address) => {
                let file = match &mmap.content {
                    Content::Anonymous => None,
                    Content::File { name, offset } => {
                        self.files.get(name.as_str()).map(|&file| (file, *offset))
                    }
                };
                let call = Call::Mmap(crate::machine::Mmap {
                    address,
                    length,
                    protection: mmap.protection,
                    sharing: mmap.sharing,
                    file,
                    flags,
                });
                (address, self.machine.perform(process, &call))
            }
        };
        self.layout.used(address, length);
        self.bind(who, &mmap.name, address, length);
        outcome
    }

    /// `maymove` without a target is done in two steps, on every machine, so that the runner and
    /// not the machine chooses the address: first without MAYMOVE; then, if that finds no room
    /// (ENOMEM), with MAYMOVE and FIXED to a fresh place.
    ///
    /// The errno is that of the plain call. Every other refusal of the first step is a refusal of
    /// the plain call, whose checks do not depend on MAYMOVE. What the first step does (shrink,
    /// grow in place, or nothing), the plain call does in place too. If the window has no fresh
    /// place of this length, the first answer, ENOMEM, stands.
    fn mremap(&mut self, who: &'a str, process: Process, mremap: &'a Mremap) -> Outcome {
        let (old, new) = (mremap.old, mremap.new);
        let address = self.resolve(who, &mremap.address);
        let target = mremap.at.as_ref().map(|at| self.resolve(who, at));
        let window = self.layout.window;
        let outside = |start, length| window.fits(start, length) == Fit::Outside;
        let (end, outcome) = if outside(address, old)
            || outside(address, new)
            || target.is_some_and(|at| outside(at, new) || outside(at, old))
        {
            (address, Outcome::Outside)
        } else {
            let mut call = |target| {
                let call = Call::Mremap { address, old, new, target };
                self.machine.perform(process, &call)
            };
            match (target, mremap.moving) {
                (Some(at), Moving::May) => (at, call(Target::Fixed(at))),
                (Some(at), Moving::Stay) => (at, call(Target::FixedButStay(at))),
                (Some(at), Moving::Leaving) => (at, call(Target::LeavingFixed(at))),
                (None, Moving::Leaving) => match self.layout.place(new) {
                    Placed::At(at) if window.fits(at, new) == Fit::Inside => {
                        (at, call(Target::Leaving(at)))
                    }
                    _ => (address, Outcome::Outside),
                },
                (None, Moving::Stay) => (address, call(Target::Stay)),
                (None, Moving::May) => match call(Target::Stay) {
                    Outcome::Errno(Errno::ENOMEM) => match self.layout.place(new) {
                        Placed::At(at) if window.fits(at, new) == Fit::Inside => {
                            (at, call(Target::Fixed(at)))
                        }
                        _ => (address, Outcome::Errno(Errno::ENOMEM)),
                    },
                    outcome => (address, outcome),
                },
            }
        };
        let result = match outcome {
            Outcome::Ok => end,
            _ => address,
        };
        self.layout.used(result, new);
        if let Some(name) = &mremap.bind {
            self.bind(who, name, result, new);
        }
        outcome
    }

    /// A name other than the heap's starts a new heap.
    fn brk(&mut self, who: &'a str, process: Process, name: &'a str, length: u64) -> Outcome {
        if self.processes.get(who).is_none_or(|living| living.heap != Some(name)) {
            let Placed::At(address) = self.layout.place(length) else { return Outcome::Outside };
            let outcome = self.machine.perform(process, &Call::BeginHeap { address });
            if outcome != Outcome::Ok {
                return outcome;
            }
            self.bind(who, name, address, length);
            if let Some(living) = self.processes.get_mut(who) {
                living.heap = Some(name);
            }
        }
        let start = self.bound(who, name).address;
        if self.layout.window.fits(start, length) != Fit::Inside {
            return Outcome::Outside;
        }
        self.layout.used(start, length);
        self.bind(who, name, start, length);
        self.machine.perform(process, &Call::Brk { address: start + length })
    }

    /// The kernel's part is the same in every address space, and so are its names.
    fn kernel_map(&mut self, process: Process, name: &'a str, length: u64) -> Outcome {
        let Some(address) = self.layout.place_kernel(length) else {
            return Outcome::Errno(Errno::ENOMEM);
        };
        let bound = Bound { address, length: length.next_multiple_of(self.layout.window.page) };
        for living in self.processes.values_mut() {
            living.names.insert(name, bound);
        }
        self.machine.perform(process, &Call::KernelMap { address, length })
    }

    /// The names that a process has bound, with their addresses and lengths in bytes.
    pub fn names(&self, process: &str) -> impl Iterator<Item = (&'a str, u64, u64)> {
        let living = self.processes.get(process).into_iter();
        living
            .flat_map(|living| &living.names)
            .map(|(&name, bound)| (name, bound.address, bound.length))
    }

    fn fork(&mut self, who: &'a str, process: Process, child: &'a str) -> Outcome {
        let number = Process(self.forked + 1);
        let outcome = self.machine.perform(process, &Call::Fork { child: number });
        if let Outcome::Ok = outcome {
            self.forked += 1;
            let parent = self.processes.get(who);
            let names = parent.map(|living| living.names.clone()).unwrap_or_default();
            let heap = parent.and_then(|living| living.heap);
            let living = Living { process: number, names, heap };
            self.processes.insert(child, living);
        } else {
            self.processes.remove(child);
        }
        outcome
    }

    /// Binds `name` to a range. A range that does not fit the window was never mapped, and is
    /// empty.
    fn bind(&mut self, who: &str, name: &'a str, address: u64, length: u64) {
        let length = match self.layout.window.fits(address, length) {
            Fit::Inside => length.next_multiple_of(self.layout.window.page),
            Fit::Invalid | Fit::Outside => 0,
        };
        if let Some(living) = self.processes.get_mut(who) {
            living.names.insert(name, Bound { address, length });
        }
    }

    fn resolve(&self, who: &str, address: &Address) -> u64 {
        let bound = self.bound(who, &address.name);
        bound.address.wrapping_add(address.offset)
    }

    /// The range of a name; empty in a process that was never forked.
    fn bound(&self, who: &str, name: &str) -> Bound {
        let living = self.processes.get(who);
        let bound = living.and_then(|living| living.names.get(name));
        bound.copied().unwrap_or(Bound { address: 0, length: 0 })
    }
}

impl Iterator for Run<'_> {
    type Item = Answer;

    fn next(&mut self) -> Option<Answer> {
        let line = self.lines.next()?;
        Some(self.line(line))
    }
}

/// The name to which addresses in a result are relative.
fn subject(op: &Op) -> Option<&str> {
    match op {
        Op::Munmap(range)
        | Op::Mprotect(range, ..)
        | Op::Msync(range, _)
        | Op::Mlock(range, _)
        | Op::Mseal(range)
        | Op::Munlock(range)
        | Op::Madvise(range, _)
        | Op::RemapFilePages(range, _)
        | Op::Mincore(range)
        | Op::Fill(range, _)
        | Op::Read(range)
        | Op::KernelRead(range)
        | Op::FromUser(range)
        | Op::Peek(range) => Some(&range.address.name),
        Op::Write(address, _)
        | Op::Exec(address)
        | Op::KernelWrite(address, _)
        | Op::ToUser(address, _)
        | Op::Prefetch { address, .. }
        | Op::Poke(address, _) => Some(&address.name),
        Op::Maps(name) | Op::Brk(name, _) => Some(name),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
