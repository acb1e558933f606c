//! A random run: each operation is done on the machine and on the model, and both must agree.

use crate::common::{BASE, Label, Numbers, PAGE, World};
use crate::model::oracle::{Bytes, Expected, Object, Slot, WINDOW, Window};
use pagefault::entry::{SegvCode, Signal, Verdict};
use pagefault::machine::{Mode, Protection, VirtAddr};
use pagefault::swap::area::Priority;
use pagefault::{AddressSpace, File};
use pagefault_sim::{Architecture, Computer, SimDisk, SimFile};
use std::sync::Arc;

/// The parameters of a run, besides the machine.
#[derive(Clone, Copy)]
pub struct Shape {
    pub processes: usize,
    pub steps: u64,
    pub disk_slots: u32,
    /// How often the invariants are walked.
    pub check_every: u64,
    /// Compares every byte after each step, to find where a difference begins.
    pub verify_always: bool,
}

pub struct Process<A: Architecture> {
    pub space: AddressSpace<Computer<A>>,
    pub window: Window,
}

pub struct OpenFile<A: Architecture> {
    pub object: usize,
    pub file: File<Computer<A>>,
    /// Its backing; shared memory has none.
    pub store: Option<SimFile>,
}

pub struct Run<A: Architecture> {
    pub world: World<A>,
    pub numbers: Numbers,
    pub processes: Vec<Process<A>>,
    pub objects: Vec<Object>,
    pub files: Vec<OpenFile<A>>,
    pub disks: Vec<(u8, SimDisk)>,
    pub shape: Shape,
    pub nonlinear: pagefault::NonlinearPolicy,
}

pub fn address(page: usize) -> VirtAddr {
    BASE + page as u64 * PAGE
}

impl<A: Architecture> Run<A> {
    pub fn new(
        machine: pagefault_sim::Config,
        config: pagefault::Config,
        shape: Shape,
        seed: u64,
    ) -> Self {
        let nonlinear = config.nonlinear;
        let world = World::<A>::new(machine, config);
        let disks = vec![
            world.add_disk(shape.disk_slots, Priority::Given(5)),
            world.add_disk(shape.disk_slots, Priority::Descending),
        ];
        let first = Process { space: world.process(), window: Window::new() };
        let mut run = Self {
            world,
            numbers: Numbers::new(seed),
            processes: vec![first],
            objects: Vec::new(),
            files: Vec::new(),
            disks,
            shape,
            nonlinear,
        };
        run.open_files(seed);
        run
    }

    fn open_files(&mut self, seed: u64) {
        for length in [9 * PAGE + 700, 3 * PAGE] {
            let store = SimFile::pattern(length, seed);
            let file = File::open(&self.world.manager, Arc::new(store.clone()));
            self.objects.push(Object { bytes: store.contents() });
            let object = self.objects.len() - 1;
            self.files.push(OpenFile { object, file, store: Some(store) });
        }
        let file = File::shared(&self.world.manager, 7 * PAGE + 5);
        self.objects.push(Object { bytes: vec![0; 7 * PAGE as usize + 5] });
        self.files.push(OpenFile { object: self.objects.len() - 1, file, store: None });
    }

    /// Does all steps and takes everything apart again.
    pub fn go(mut self, label: &mut Label) {
        for step in 0..self.shape.steps {
            label.step = step;
            self.step();
            if step % self.shape.check_every == 0 {
                self.world.check();
            }
            if self.shape.verify_always {
                self.verify_everything();
            }
        }
        self.verify_everything();
        self.world.check();
        self.processes.clear();
        self.verify_files();
        self.files.clear();
        self.world.check_empty();
        for (_, disk) in &self.disks {
            assert_eq!(disk.stats().stored, 0, "pages left on a disk");
        }
    }

    pub fn pick(&mut self) -> usize {
        self.numbers.below(self.processes.len() as u64) as usize
    }

    pub fn cpu(&mut self) -> u32 {
        self.numbers.below(u64::from(self.world.sim.cpus())) as u32
    }

    /// A range of up to `most` pages of the window: its first page and length.
    pub fn range(&mut self, most: u64) -> (usize, usize) {
        let first = self.numbers.below(WINDOW as u64);
        let pages = 1 + self.numbers.below(most.min(WINDOW as u64 - first));
        (first as usize, pages as usize)
    }

    pub fn store(&mut self) {
        let (who, cpu) = (self.pick(), self.cpu());
        let page = self.numbers.below(WINDOW as u64) as usize;
        let expected = self.processes[who].window.expect(page, Protection::WRITE, &self.objects);
        let offset = self.store_offset(who, page);
        let bytes = [self.numbers.below(256) as u8, self.numbers.below(256) as u8];
        let Process { space, window } = &mut self.processes[who];
        let done = self.world.store(space.mm(), cpu, address(page) + offset as u64, &bytes);
        agree(done, expected);
        if expected == Expected::Fine {
            window.store(page, offset, &bytes, &mut self.objects);
        }
    }

    /// An offset for a store of two bytes: before the end of a shared object, because bytes past
    /// the end on the last page are not kept (spec D5).
    pub fn store_offset(&mut self, who: usize, page: usize) -> usize {
        let valid = match &self.processes[who].window.0[page] {
            Some(Slot { shared: true, object: Some((object, index)), .. }) => {
                self.objects[*object].valid(*index)
            }
            _ => PAGE as usize,
        };
        // An object that ends after one byte is left at its first byte by itself: never made here.
        let limit = valid.max(2) - 1;
        [0, limit - 1, self.numbers.below(limit as u64) as usize][self.numbers.below(3) as usize]
    }

    pub fn load(&mut self) {
        let (who, cpu) = (self.pick(), self.cpu());
        let page = self.numbers.below(WINDOW as u64) as usize;
        self.load_page(who, cpu, page);
    }

    /// Loads a whole page and compares it.
    fn load_page(&mut self, who: usize, cpu: u32, page: usize) {
        let any = Protection::all();
        let expected = self.processes[who].window.expect(page, any, &self.objects);
        let Process { space, window } = &mut self.processes[who];
        let mut bytes: Bytes = [0; PAGE as usize];
        agree(self.world.load(space.mm(), cpu, address(page), &mut bytes), expected);
        if expected == Expected::Fine {
            let same = window.load(page, 0, &bytes, &self.objects);
            assert!(same, "process {who}, page {page}: {}", self.difference(who, page, &bytes));
        }
    }

    /// A description of a page with wrong content.
    fn difference(&self, who: usize, page: usize, bytes: &Bytes) -> String {
        let slot = self.processes[who].window.0[page].as_ref();
        let (object, own) = slot.map_or((None, None), |slot| (slot.object, slot.own.as_ref()));
        let wanted = match (own, object) {
            (Some(own), _) => own.first(),
            (None, Some((object, index))) => self.objects[object].page(index),
            (None, None) => [0; PAGE as usize],
        };
        let at = (0..bytes.len()).find(|at| bytes[*at] != wanted[*at]).unwrap_or(0);
        let length = object.map(|(object, _)| self.objects[object].bytes.len());
        format!(
            "object {object:?} of {length:?} bytes, own copy {}, byte {at} is {} and not {}",
            own.is_some(),
            bytes[at],
            wanted[at]
        )
    }

    pub fn fetch(&mut self) {
        let (who, cpu) = (self.pick(), self.cpu());
        let page = self.numbers.below(WINDOW as u64) as usize;
        let needed = if A::NO_EXECUTE { Protection::EXECUTE } else { Protection::all() };
        let expected = self.processes[who].window.expect(page, needed, &self.objects);
        let space = &self.processes[who].space;
        let fetched = self.world.access(space.mm(), cpu, |cpu| {
            cpu.fetch(space.mm().space(), address(page), Mode::User)
        });
        // Without execute permission the page may be brought in before it is refused (spec A16).
        match (fetched, expected) {
            (Err(Verdict::Signal(Signal::Bus)), Expected::Denied) => {}
            (fetched, expected) => agree(fetched.map(drop), expected),
        }
    }

    /// The kernel stores on a process's behalf, across pages.
    pub fn kernel_stores(&mut self) {
        let who = self.pick();
        let (page, pages) = self.range(3);
        // Two bytes at the end of each page and two at the start of the next would need the sizes
        // of objects; whole windows of bytes are stored only where nothing ends in between.
        let ends = (page..page + pages).any(|at| self.is_cut(who, at));
        if ends {
            return;
        }
        let first = self.numbers.below(PAGE - 8);
        let length = ((pages - 1) as u64 * PAGE + 8) as usize;
        let fill = self.numbers.below(256) as u8;
        let Process { space, window } = &mut self.processes[who];
        let left = space.mm().copy_to_user(address(page) + first, &vec![fill; length]);
        let mut missing = length;
        let mut at = page as u64 * PAGE + first;
        while missing > 0 {
            let here = (at / PAGE) as usize;
            let n = missing.min((PAGE - at % PAGE) as usize);
            if here >= WINDOW
                || window.expect(here, Protection::WRITE, &self.objects) != Expected::Fine
            {
                break;
            }
            window.store(here, (at % PAGE) as usize, &vec![fill; n], &mut self.objects);
            missing -= n;
            at += n as u64;
        }
        assert_eq!(left, missing, "bytes not copied to process {who}");
    }

    fn is_cut(&self, who: usize, page: usize) -> bool {
        match self.processes[who].window.0.get(page) {
            Some(Some(Slot { shared: true, object: Some((object, index)), .. })) => {
                let valid = self.objects[*object].valid(*index);
                valid != 0 && valid != PAGE as usize
            }
            _ => false,
        }
    }

    pub fn kernel_loads(&mut self) {
        let who = self.pick();
        let (page, pages) = self.range(3);
        let mut bytes = vec![0xee; pages * PAGE as usize];
        let Process { space, window } = &mut self.processes[who];
        let left = space.mm().copy_from_user(address(page), &mut bytes);
        let mut good = 0;
        for at in page..page + pages {
            if window.expect(at, Protection::all(), &self.objects) != Expected::Fine {
                break;
            }
            let here = &bytes[good * PAGE as usize..][..PAGE as usize];
            assert!(window.load(at, 0, here, &self.objects), "process {who}, page {at}");
            good += 1;
        }
        assert_eq!(left, (pages - good) * PAGE as usize, "bytes not copied from process {who}");
        assert!(bytes[good * PAGE as usize..].iter().all(|byte| *byte == 0), "tail not zeroed");
    }

    fn verify_everything(&mut self) {
        for who in 0..self.processes.len() {
            for page in 0..WINDOW {
                self.load_page(who, 0, page);
            }
        }
    }

    /// Compares every file through the page cache and, once written back, in its store.
    pub fn verify_files(&mut self) {
        for OpenFile { object, file, store } in &self.files {
            let expected = &self.objects[*object].bytes;
            let mut bytes = vec![0xee; expected.len() + 10];
            assert_eq!(file.read_at(0, &mut bytes), Ok(expected.len()));
            assert!(bytes[..expected.len()] == expected[..], "file {object} differs");
            if let Some(store) = store {
                file.sync().unwrap();
                assert!(store.contents() == *expected, "store {object} differs");
            }
        }
    }
}

#[track_caller]
fn agree(done: Result<(), Verdict>, expected: Expected) {
    let wanted = match expected {
        Expected::Fine => Ok(()),
        Expected::NotMapped => Err(Verdict::Signal(Signal::Segv(SegvCode::MapErr))),
        Expected::Denied => Err(Verdict::Signal(Signal::Segv(SegvCode::AccErr))),
        Expected::PastTheEnd => Err(Verdict::Signal(Signal::Bus)),
    };
    assert_eq!(done, wanted);
}
