//! The state of the computer between two steps.

use super::words::{self, entry_says, letters, rights};
use super::{Story, Watched};
use crate::model::{
    Area, Cached, CpuTlb, FrameUse, PageEntry, Process, Region, State, Translation,
};
use pagefault::machine::{Entry, Frame, Machine, Mode, PAGE_SIZE, Protection, SwapSlot, VirtAddr};
use pagefault::{FrameReport, GUARD, Mm, PageOwner, RegionReport};
use pagefault_sim::Architecture;
use std::collections::HashMap;
use std::sync::Arc;

impl<A: Architecture> Story<A> {
    /// The state of the computer now. No operation may be in progress.
    pub(super) fn snapshot(&self) -> State {
        let living: Vec<_> = self
            .spaces
            .iter()
            .filter_map(|(name, mm)| Some((name.as_str(), mm.upgrade()?)))
            .collect();
        let processes: Vec<Process> =
            living.iter().map(|(name, mm)| self.process_now(name, mm)).collect();
        let (page_cache, swap_cache) = self.caches();
        let queues = self.manager.queue_report();
        let numbers = |frames: &[Frame]| frames.iter().map(|frame| frame.0).collect();
        let mut counters = Vec::new();
        self.manager.counters().visit(|name, value| {
            if value > 0 {
                counters.push((name.to_owned(), value));
            }
        });
        State {
            frames: self.frames(&living, &processes),
            processes,
            free: self.sim.free_frames(),
            page_cache,
            swap_cache,
            swap: self.swap(),
            tlbs: (0..self.sim.cpus()).map(|cpu| self.tlb(cpu, &living)).collect(),
            small_queue: numbers(&queues.small),
            main_queue: numbers(&queues.main),
            counters,
        }
    }

    fn process_now(&self, name: &str, mm: &Arc<Mm<Watched<A>>>) -> Process {
        let space = mm.space().inner();
        let regions = mm.maps(VirtAddr::ZERO..A::TASK_SIZE);
        let mut pages = Vec::new();
        for region in &regions {
            mm.pages(region.range.clone(), |page| {
                pages.push(self.page(name, page.address, page.entry));
            });
        }
        let usage = mm.usage();
        Process {
            name: name.into(),
            space: pagefault::machine::Space::id(space),
            root: space.root().0,
            regions: regions.iter().map(|region| self.region(name, region)).collect(),
            pages,
            tables: space.tables().len() as u32,
            anonymous: usage.anonymous,
            file: usage.file,
            minor: usage.minor,
            major: usage.major,
        }
    }

    fn region(&self, process: &str, region: &RegionReport) -> Region {
        let (start, end) = (region.range.start.value(), region.range.end.value());
        let marks = [
            (region.grows_down, "stack"),
            (region.locked, "locked"),
            (region.nonlinear, "nonlinear"),
        ];
        let content = match region.object {
            None => "anonymous".into(),
            Some(object) => self.file_name(object),
        };
        Region {
            start: format!("{start:#x}"),
            end: format!("{end:#x}"),
            place: self.names.place(process, start),
            pages: (end - start) / PAGE_SIZE,
            rights: format!(
                "{}{}",
                letters(region.protection),
                if region.shared { 's' } else { 'p' }
            ),
            content,
            index: region.index,
            marks: marks.iter().filter(|(is, _)| *is).map(|(_, mark)| (*mark).into()).collect(),
            family: region.family,
        }
    }

    fn page(&self, process: &str, address: VirtAddr, entry: Entry) -> PageEntry {
        PageEntry {
            address: format!("{:#x}", address.value()),
            place: self.names.place(process, address.value()),
            word: words::hex::<A>(words::raw::<A>(entry, Mode::User)),
            says: entry_says(entry),
            frame: entry.frame().map(|frame| frame.0),
            kind: match entry {
                Entry::Present { protection: Protection::READ, .. } => "present",
                Entry::Present { protection, .. } if protection.is_empty() => "none",
                Entry::Present { .. } => "present",
                Entry::Swap(GUARD) => "guard",
                Entry::Swap(_) => "swap",
                Entry::File(_) => "file",
                Entry::None => "empty",
            }
            .into(),
            writable: entry.is_writable(),
        }
    }

    /// Every frame in use, and its use.
    fn frames(
        &self,
        living: &[(&str, Arc<Mm<Watched<A>>>)],
        processes: &[Process],
    ) -> Vec<FrameUse> {
        let mut mapped: HashMap<u32, Vec<String>> = HashMap::new();
        for process in processes {
            for page in &process.pages {
                if let Some(frame) = page.frame {
                    let by = format!("{}:{}", process.name, page.place);
                    mapped.entry(frame).or_default().push(by);
                }
            }
        }
        let mut tables = HashMap::new();
        let kernel = ("kernel", self.sim.kernel());
        let spaces = living.iter().map(|(name, mm)| (*name, mm.space().inner())).chain([kernel]);
        for (name, space) in spaces {
            for table in space.tables() {
                let level = words::level_name::<A>(table.level);
                tables.insert(table.frame.0, format!("{name}'s {level}"));
            }
        }
        let devices = self.sim.config().device_frames;
        (0..self.sim.frames() + devices)
            .filter_map(|number| {
                let by = mapped.remove(&number).unwrap_or_default();
                self.frame_use(Frame(number), tables.remove(&number), by)
            })
            .collect()
    }

    fn frame_use(&self, frame: Frame, table: Option<String>, by: Vec<String>) -> Option<FrameUse> {
        let plain = |kind: &str, owner: String, mapped_by: Vec<String>| FrameUse {
            frame: frame.0,
            kind: kind.into(),
            owner,
            refs: 1,
            maps: mapped_by.len() as u32,
            dirty: false,
            mapped_by,
        };
        if let Some(owner) = table {
            return Some(plain("table", owner, Vec::new()));
        }
        if self.sim.zero_frame() == Some(frame) {
            return Some(plain("zeros", "the shared frame of zeros".into(), by));
        }
        if let Some(page) = self.device_page(frame.0) {
            return Some(FrameUse { refs: 0, ..plain("device", page.into(), by) });
        }
        match self.manager.frame_report(frame) {
            Some(report) => Some(FrameUse {
                frame: frame.0,
                kind: match report.owner {
                    PageOwner::File(_) => "file",
                    _ => "anonymous",
                }
                .into(),
                owner: self.owner(&report),
                refs: report.refs,
                maps: report.maps,
                dirty: report.dirty,
                mapped_by: by,
            }),
            None if self.sim.is_allocated(frame) => {
                Some(plain("kernel", "the kernel's own".into(), Vec::new()))
            }
            None => None,
        }
    }

    /// The page's owner and its index there.
    pub(super) fn owner(&self, report: &FrameReport) -> String {
        match report.owner {
            PageOwner::File(file) => format!("{} page {}", self.file_name(file), report.index),
            PageOwner::Anonymous(family) => format!("anonymous, family {family}"),
            PageOwner::Nobody => match report.slot {
                Some(slot) => format!("slot {}", slot_name(slot)),
                None => "nobody yet".into(),
            },
        }
    }

    fn caches(&self) -> (Vec<Cached>, Vec<Cached>) {
        let (mut files, mut slots) = (Vec::new(), Vec::new());
        let reports =
            (0..self.sim.frames()).filter_map(|number| self.manager.frame_report(Frame(number)));
        for report in reports {
            let (frame, dirty) = (report.frame.0, report.dirty);
            if let Some(slot) = report.slot {
                slots.push((slot, Cached { key: slot_name(slot), frame, dirty }));
            } else if let (PageOwner::File(file), true) = (report.owner, report.in_page_cache) {
                let key = format!("{} page {}", self.file_name(file), report.index);
                files.push(((file, report.index), Cached { key, frame, dirty }));
            }
        }
        files.sort_by_key(|(place, _)| *place);
        slots.sort_by_key(|(slot, _)| *slot);
        let bare = |cached: (_, Cached)| cached.1;
        (files.into_iter().map(bare).collect(), slots.into_iter().map(|(_, c)| c).collect())
    }

    fn swap(&self) -> Vec<Area> {
        let areas = self.manager.swap_areas();
        let area = |number: u8, slots: u32| Area {
            area: number,
            slots,
            used: self
                .manager
                .slot_report(number)
                .into_iter()
                .map(|(slot, references)| (slot.offset, references))
                .collect(),
        };
        areas.statistics().map(|statistics| area(statistics.area, statistics.slots)).collect()
    }

    fn tlb(&self, number: u32, living: &[(&str, Arc<Mm<Watched<A>>>)]) -> CpuTlb {
        let cpu = self.sim.cpu(number);
        let loaded = cpu.loaded();
        let process = living
            .iter()
            .find(|(_, mm)| pagefault::machine::Space::id(mm.space()) == loaded)
            .map_or("", |(name, _)| name);
        let mut translations = cpu.translations();
        translations.sort_by_key(|translation| translation.page);
        let entries = translations.iter().map(|translation| {
            let address = translation.page * PAGE_SIZE;
            let dirty = if translation.dirty { "d" } else { "" };
            let global = if translation.global { "g" } else { "" };
            Translation {
                address: format!("{address:#x}"),
                place: self.names.place(process, address),
                frame: translation.frame.0,
                rights: format!("{}{dirty}{global}", rights(translation.rights)),
            }
        });
        CpuTlb { cpu: number, process: process.into(), entries: entries.collect() }
    }
}

/// `AREA:SLOT`.
pub(super) fn slot_name(slot: SwapSlot) -> String {
    format!("{}:{}", slot.area, slot.offset)
}
