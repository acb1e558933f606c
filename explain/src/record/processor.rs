//! The processor whose accesses are recorded.

use super::decision::Facts;
use super::story::{Story, changes};
use super::{Watched, actions, decision, sentences, words};
use crate::model::{self, Phase, Step, Tlb};
use pagefault::Mm;
use pagefault::entry::Verdict;
use pagefault::exception::{ExceptionTable, ExceptionTables};
use pagefault::machine::{
    Access, Context, DeviceMemory, Mode, PAGE_SIZE, PageFault, Protection, VirtAddr,
};
use pagefault_script::Window;
use pagefault_script::ast::Arch;
use pagefault_script::managed::sim::map_for_kernel;
use pagefault_script::managed::{Processor, Stopped};
use pagefault_sim::{Architecture, Cpu, Registers};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// The instruction of the kernel that copies from and to programs: the only one that may fault.
const COPY: VirtAddr = VirtAddr(0x1000_0000);
/// Where the kernel continues after that fault.
const FIXUP: VirtAddr = VirtAddr(0x1000_0040);
/// An instruction of the kernel that may not fault.
const OTHER: VirtAddr = VirtAddr(0x1000_1000);

/// Makes the accesses one page at a time, and records them.
pub(super) struct Recording<A: Architecture> {
    story: Rc<RefCell<Story<A>>>,
    arch: Arch,
    exceptions: ExceptionTables,
}

/// Who makes an access, and how.
#[derive(Clone, Copy)]
struct Attempt {
    access: Access,
    mode: Mode,
    ip: VirtAddr,
    what: What,
}

/// The purpose of an access.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    /// To move bytes.
    Bytes,
    /// To translate an address ahead of need.
    Prefetch,
}

/// Why an access failed.
enum Failed {
    /// The kernel continues at its fixup.
    Fixup,
    Stopped(Stopped),
}

impl Failed {
    /// The error of an instruction without a fixup.
    fn stopped(self) -> Stopped {
        match self {
            Self::Stopped(stopped) => stopped,
            Self::Fixup => Stopped::Bug("a fixup for an instruction that has none".into()),
        }
    }
}

/// The bytes of an access.
enum Bytes<'a> {
    Load(&'a mut [u8]),
    Store(&'a [u8]),
    Fetch,
}

impl Bytes<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Load(bytes) => bytes.len(),
            Self::Store(bytes) => bytes.len(),
            Self::Fetch => 1,
        }
    }
}

impl<A: Architecture> Recording<A> {
    pub(super) fn new(story: Rc<RefCell<Story<A>>>, arch: Arch) -> Self {
        let mut builder = ExceptionTable::builder();
        builder.add(COPY, FIXUP);
        // A single pair is no duplicate.
        let table = builder.build().unwrap_or_default();
        Self { story, arch, exceptions: ExceptionTables::new(table) }
    }

    /// Makes an access page by page; an error comes with the number of bytes moved before it.
    fn access(
        &self,
        mm: &Arc<Mm<Watched<A>>>,
        address: u64,
        mut bytes: Bytes<'_>,
        (mode, ip): (Mode, VirtAddr),
    ) -> Result<(), (usize, Failed)> {
        let access = match bytes {
            Bytes::Load(_) => Access::Read,
            Bytes::Store(_) => Access::Write,
            Bytes::Fetch => Access::Execute,
        };
        self.story.borrow_mut().tell_victim();
        let attempt = Attempt { access, mode, ip, what: What::Bytes };
        let (mut done, length) = (0, bytes.len());
        while done < length {
            let at = VirtAddr(address.wrapping_add(done as u64));
            let n = (length - done).min(PAGE_SIZE as usize - at.page_offset());
            self.on_page(mm, at, n, attempt, |cpu| match &mut bytes {
                Bytes::Load(into) => {
                    cpu.load_bytes(mm.space().inner(), at, mode, &mut into[done..done + n])
                }
                Bytes::Store(from) => {
                    cpu.store_bytes(mm.space().inner(), at, mode, &from[done..done + n])
                }
                Bytes::Fetch => cpu.fetch(mm.space().inner(), at, mode).map(drop),
            })
            .map_err(|failed| (done, failed))?;
            done += n;
        }
        Ok(())
    }

    /// Repeats an access to one page until it succeeds or a fault is refused.
    fn on_page(
        &self,
        mm: &Arc<Mm<Watched<A>>>,
        at: VirtAddr,
        bytes: usize,
        attempt: Attempt,
        mut perform: impl FnMut(&Cpu<A>) -> Result<(), PageFault>,
    ) -> Result<(), Failed> {
        let mut phase = Phase::Access;
        loop {
            let (cpu, mut seen) = self.look(mm, at, bytes, attempt);
            let Err(fault) = perform(&cpu) else {
                self.story.borrow_mut().accessed(mm, at, phase, seen);
                return Ok(());
            };
            self.story.borrow_mut().faulted(&mut seen, &fault);
            let verdict = self.correct(mm, &fault, seen);
            if let Verdict::Fixup(_) = verdict {
                return Err(Failed::Fixup);
            }
            match Stopped::by(verdict, fault.address.value()) {
                None => phase = Phase::Again,
                Some(stopped) => return Err(Failed::Stopped(stopped)),
            }
        }
    }

    /// What the processor is about to find.
    fn look(
        &self,
        mm: &Arc<Mm<Watched<A>>>,
        at: VirtAddr,
        bytes: usize,
        attempt: Attempt,
    ) -> (Cpu<A>, model::Access) {
        let story = self.story.borrow();
        let registers =
            Registers { ip: attempt.ip, sp: VirtAddr::ZERO, context: Context::MaySleep };
        let cpu = story.sim.cpu(story.cpu).with(registers);
        let space = mm.space().inner();
        cpu.switch(space);
        let tlb = match cpu.translation(at) {
            None => Tlb::Miss,
            Some(cached) if !cached.rights.allow(attempt.access, attempt.mode) => Tlb::Forbids,
            Some(cached) if attempt.access == Access::Write && !cached.dirty && A::DIRTY != 0 => {
                Tlb::Clean
            }
            Some(_) => Tlb::Hit,
        };
        let walks = matches!(tlb, Tlb::Miss | Tlb::Clean);
        let walk = if walks { words::walk::<A>(&space.walk(at)) } else { Vec::new() };
        let kind = match attempt.what {
            What::Bytes => words::kind(attempt.access),
            What::Prefetch => "prefetch",
        };
        let seen = model::Access {
            cpu: story.cpu,
            kind: kind.into(),
            mode: words::mode(attempt.mode).into(),
            address: format!("{:#x}", at.value()),
            place: story.names.place(story.process(), at.value()),
            bytes: bytes as u64,
            tlb,
            walk,
            fault: None,
        };
        (cpu, seen)
    }

    /// Passes a fault to the memory manager, and records what it decided and did.
    fn correct(&self, mm: &Arc<Mm<Watched<A>>>, fault: &PageFault, seen: model::Access) -> Verdict {
        let facts = Facts::gather(mm, fault);
        let before = {
            let mut story = self.story.borrow_mut();
            story.tap.drain();
            let before = story.snapshot();
            let (sentence, spec) = sentences::hardware::<A>(&seen, &facts);
            let step = story.draft(Phase::Hardware, sentence, spec);
            let way = vec!["machine".to_owned()];
            let step = Step { access: Some(seen.clone()), way, ..step };
            story.add(step, before.clone());
            before
        };
        let manager = self.story.borrow().manager.clone();
        let verdict = manager.page_fault(Some(mm), fault, &self.exceptions);
        let mut story = self.story.borrow_mut();
        let notes = story.tap.drain();
        let after = story.snapshot();
        let outcome = decision::Outcome::of(&notes, verdict);
        let decided = decision::decide(&story, mm, fault, &facts, &outcome);
        let step = story.draft(Phase::Decision, decided.sentence, &decided.spec);
        let ends = outcome.ends(&decided.questions);
        let questions = decided.questions;
        let access = Some(seen);
        let step = Step { questions, way: decided.way.clone(), access: access.clone(), ..step };
        story.add(step, before.clone());

        let mut actions = actions::describe(&story, &notes, &before, &after);
        let counts = changes(&before, &after);
        let (sentence, spec) = sentences::outcome(&story, mm, fault, &facts, &outcome, &after);
        let phase = match verdict {
            Verdict::Resume => Phase::Correction,
            _ => Phase::Refusal,
        };
        actions.extend(sentences::why_no_flush(&facts, &outcome, &actions));
        let step = story.draft(phase, sentence, &spec);
        let mode = A::mode(fault.address);
        let shown = outcome.correction.is_some();
        let now = decision::entry_of(mm, fault.address);
        let step = Step {
            access,
            way: decided.way.into_iter().chain(ends).collect(),
            correction: outcome.name().map(str::to_owned),
            major: outcome.major,
            before: shown.then(|| words::entry::<A>(facts.entry, mode)),
            after: shown.then(|| words::entry::<A>(now, mode)),
            actions,
            counts,
            ..step
        };
        story.add(step, after);
        verdict
    }
}

impl<A: Architecture> Story<A> {
    /// An access was made.
    fn accessed(
        &mut self,
        mm: &Arc<Mm<Watched<A>>>,
        at: VirtAddr,
        phase: Phase,
        mut seen: model::Access,
    ) {
        if !seen.walk.is_empty() {
            // Again, with the bits that the walk has set.
            seen.walk = words::walk::<A>(&mm.space().inner().walk(at));
        }
        let (sentence, spec) = sentences::access(phase, &seen, decision::entry_of(mm, at));
        let step = self.draft(phase, sentence, spec);
        let way = if phase == Phase::Again { vec!["resume".to_owned()] } else { Vec::new() };
        let after = self.snapshot();
        self.add(Step { access: Some(seen), way, ..step }, after);
    }

    /// An access faulted.
    fn faulted(&mut self, seen: &mut model::Access, fault: &PageFault) {
        self.faults += 1;
        let at = fault.address.value();
        seen.address = format!("{at:#x}");
        seen.place = self.names.place(self.process(), at);
        seen.fault = Some(model::Fault {
            number: self.faults,
            address: format!("{at:#x}"),
            code: format!("{:#x}", fault.code.bits()),
            bits: words::code(fault.code),
        });
    }
}

impl<A: Architecture> Processor<Watched<A>> for Recording<A> {
    fn window(&self) -> Window {
        Window::of(self.arch)
    }

    fn load(
        &mut self,
        mm: &Arc<Mm<Watched<A>>>,
        address: u64,
        bytes: &mut [u8],
    ) -> Result<(), Stopped> {
        self.as_user(mm, address, Bytes::Load(bytes))
    }

    fn store(
        &mut self,
        mm: &Arc<Mm<Watched<A>>>,
        address: u64,
        bytes: &[u8],
    ) -> Result<(), Stopped> {
        self.as_user(mm, address, Bytes::Store(bytes))
    }

    fn fetch(&mut self, mm: &Arc<Mm<Watched<A>>>, address: u64) -> Result<(), Stopped> {
        self.as_user(mm, address, Bytes::Fetch)
    }

    /// The simulated processor executes nothing, so code that cannot be written stays as it is: a refused
    /// store would distract from the lesson.
    fn plant(&mut self, mm: &Arc<Mm<Watched<A>>>, address: u64) -> Result<(), Stopped> {
        let at = VirtAddr(address);
        match mm.maps(at..VirtAddr(address + 1)).first() {
            Some(region) if region.protection.contains(Protection::WRITE) => {
                self.store(mm, address, &[0xc3])
            }
            _ => Ok(()),
        }
    }

    fn copy_to_user(&mut self, mm: &Arc<Mm<Watched<A>>>, address: u64, bytes: &[u8]) -> usize {
        if !mm.access_ok(VirtAddr(address), bytes.len() as u64) {
            return bytes.len();
        }
        match self.access(mm, address, Bytes::Store(bytes), (Mode::Kernel, COPY)) {
            Ok(()) => 0,
            Err((done, _)) => bytes.len() - done,
        }
    }

    fn copy_from_user(
        &mut self,
        mm: &Arc<Mm<Watched<A>>>,
        address: u64,
        bytes: &mut [u8],
    ) -> usize {
        let length = bytes.len();
        if !mm.access_ok(VirtAddr(address), length as u64) {
            return length;
        }
        match self.access(mm, address, Bytes::Load(bytes), (Mode::Kernel, COPY)) {
            Ok(()) => 0,
            Err((done, _)) => length - done,
        }
    }

    fn prefetch(
        &mut self,
        mm: &Arc<Mm<Watched<A>>>,
        code: u64,
        address: u64,
    ) -> Result<(), Stopped> {
        let (at, ip) = (VirtAddr(address), VirtAddr(code));
        let attempt = Attempt { access: Access::Read, mode: Mode::User, ip, what: What::Prefetch };
        let made = self
            .on_page(mm, at, 0, attempt, |cpu| cpu.prefetch(mm.space().inner(), at, Mode::User));
        made.map_err(Failed::stopped)
    }

    fn kernel_load(
        &mut self,
        mm: &Arc<Mm<Watched<A>>>,
        address: u64,
        bytes: &mut [u8],
    ) -> Result<(), Stopped> {
        self.as_kernel(mm, address, Bytes::Load(bytes))
    }

    fn kernel_store(
        &mut self,
        mm: &Arc<Mm<Watched<A>>>,
        address: u64,
        bytes: &[u8],
    ) -> Result<(), Stopped> {
        self.as_kernel(mm, address, Bytes::Store(bytes))
    }

    fn kernel_map(&mut self, address: u64, length: u64) -> bool {
        map_for_kernel(&self.story.borrow().sim, address, length)
    }

    fn run_on(&mut self, cpu: u64) {
        let mut story = self.story.borrow_mut();
        story.cpu = cpu as u32 % story.sim.cpus();
    }

    fn device(&mut self, pages: u32) -> Option<Arc<dyn DeviceMemory>> {
        let mut story = self.story.borrow_mut();
        let device = story.sim.device(pages)?;
        story.device_made(&device);
        Some(Arc::new(device))
    }

    fn opened(&mut self, _file: u32, mapping: u64) {
        self.story.borrow_mut().opened(mapping);
    }

    fn fail_allocation(&mut self, nth: u64) {
        self.story.borrow().sim.fail_nth_allocation(nth);
    }

    fn check(&self) -> Result<(), String> {
        self.story.borrow().sim.check_tlbs().map_err(|violation| violation.to_string())
    }

    fn started(&mut self, mm: &Arc<Mm<Watched<A>>>) {
        self.story.borrow_mut().started(mm);
    }

    fn chosen(&mut self, mm: &Arc<Mm<Watched<A>>>) {
        self.story.borrow_mut().chosen(mm);
    }

    fn ended(&mut self, mm: &Arc<Mm<Watched<A>>>) {
        self.story.borrow_mut().ended(mm);
    }
}

impl<A: Architecture> Recording<A> {
    fn as_user(
        &self,
        mm: &Arc<Mm<Watched<A>>>,
        address: u64,
        bytes: Bytes<'_>,
    ) -> Result<(), Stopped> {
        self.unexpected(mm, address, bytes, (Mode::User, VirtAddr::ZERO))
    }

    fn as_kernel(
        &self,
        mm: &Arc<Mm<Watched<A>>>,
        address: u64,
        bytes: Bytes<'_>,
    ) -> Result<(), Stopped> {
        self.unexpected(mm, address, bytes, (Mode::Kernel, OTHER))
    }

    /// An access without a fixup.
    fn unexpected(
        &self,
        mm: &Arc<Mm<Watched<A>>>,
        address: u64,
        bytes: Bytes<'_>,
        who: (Mode, VirtAddr),
    ) -> Result<(), Stopped> {
        self.access(mm, address, bytes, who).map_err(|(_, failed)| failed.stopped())
    }
}
