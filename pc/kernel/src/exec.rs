//! Starting a program: its segments are mapped, and come in by faults.

use crate::entry::TrapFrame;
use crate::errno::Errno;
use crate::fs::{self, Follow};
use crate::layout::TASK_SIZE;
use crate::machine::Pc;
use crate::process::{self, Process};
use crate::{cpu, kernel, random, user};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use elf::abi::{ET_DYN, ET_EXEC, PF_R, PF_W, PF_X, PT_INTERP, PT_LOAD};
use elf::endian::LittleEndian;
use elf::file::{FileHeader, parse_ident};
use elf::segment::{ProgramHeader, SegmentTable};
use pagefault::machine::{PAGE_SIZE, Protection, VirtAddr};
use pagefault::{
    AddressSpace, File, FileAccess, Layout, MapOptions, MapRequest, Placement, Sharing, Source,
};

/// The top of the stack, which grows down on its own.
const STACK_TOP: u64 = TASK_SIZE;
/// How far below the stack's top other mappings begin.
const STACK_ROOM: u64 = 64 << 20;
/// Where a program goes that can run anywhere.
const DYNAMIC_BASE: u64 = 0x5555_5555_4000;
/// The most bytes of the name that a process goes by.
const COMM_LIMIT: usize = 15;
/// The most bytes of arguments and environment, with a pointer to each (Linux: a quarter of the
/// stack's limit).
pub const ARGUMENT_LIMIT: usize = 2 << 20;
/// The most bytes of one of them, with its end (Linux: `MAX_ARG_STRLEN`).
pub const LONGEST_ARGUMENT: usize = 128 << 10;
/// The most program headers of a file: they fill 64 KiB.
const HEADERS: u16 = 1170;

/// The arguments and environment of a program.
#[derive(Clone, Debug, Default)]
pub struct Arguments {
    /// The arguments, the program's name first.
    pub arguments: Vec<Vec<u8>>,
    /// The environment.
    pub environment: Vec<Vec<u8>>,
}

/// A program that is ready to be loaded.
pub struct Program {
    file: File<Pc>,
    header: FileHeader<LittleEndian>,
    segments: Vec<ProgramHeader>,
    interpreter: Option<File<Pc>>,
    name: String,
    arguments: Arguments,
}

impl Program {
    /// Opens a program and reads its headers; a script names its interpreter in its first line.
    pub fn open(path: &str, mut arguments: Arguments) -> Result<Self, Errno> {
        let mut path = String::from(path);
        for _ in 0..4 {
            let node = fs::find(&path, Follow::Yes)?;
            if node.mode() & 0o111 == 0 {
                return Err(Errno::EACCES);
            }
            let file = node.content().map_err(|_| Errno::EACCES)?;
            let mut start = [0; 128];
            let n = file.read_at(0, &mut start)?;
            let Some(line) = start[..n].strip_prefix(b"#!") else {
                return Self::read(file, path, arguments);
            };
            path = interpret(line, &path, &mut arguments)?;
        }
        Err(Errno::ELOOP)
    }

    fn read(file: File<Pc>, name: String, arguments: Arguments) -> Result<Self, Errno> {
        let (header, segments) = headers(&file)?;
        let mut interpreter = None;
        if let Some(segment) = segments.iter().find(|segment| segment.p_type == PT_INTERP) {
            let mut path = alloc::vec![0; segment.p_filesz.min(4096) as usize];
            file.read_at(segment.p_offset, &mut path)?;
            path.retain(|byte| *byte != 0);
            let path = String::from_utf8(path).map_err(|_| Errno::ENOEXEC)?;
            interpreter = Some(fs::find(&path, Follow::Yes)?.content()?);
        }
        let size: usize = arguments
            .arguments
            .iter()
            .chain(&arguments.environment)
            .map(|text| text.len() + 9)
            .sum();
        if size > ARGUMENT_LIMIT {
            return Err(Errno::E2BIG);
        }
        Ok(Self { file, header, segments, interpreter, name, arguments })
    }

    /// Makes the address space that the program begins with, still empty.
    pub fn space() -> Result<Arc<AddressSpace<Pc>>, Errno> {
        let range = VirtAddr(65536)..VirtAddr(TASK_SIZE);
        let mut layout = Layout::over(range);
        layout.mmap_base = VirtAddr(STACK_TOP - STACK_ROOM);
        Ok(Arc::new(AddressSpace::new(&kernel().manager, layout)?))
    }

    /// Gives a process the program's names.
    pub fn introduce(&self, process: &Process) {
        let mut comm = String::from(self.name.rsplit('/').next().unwrap_or_default());
        while comm.len() > COMM_LIMIT {
            comm.pop();
        }
        *process.comm.lock() = comm;
        *process.name.lock() = self.name.clone();
        let arguments = self.arguments.arguments.iter();
        *process.command_line.lock() = arguments.flat_map(|text| terminated(text)).collect();
    }

    /// Maps the program into the address space that is loaded, and returns the registers that it
    /// begins with.
    pub fn load(&self, space: &AddressSpace<Pc>) -> Result<TrapFrame, Errno> {
        let base = if self.header.e_type == ET_DYN { DYNAMIC_BASE } else { 0 };
        let end = map_segments(space, &self.file, &self.segments, base)?;
        let mut entry = base.wrapping_add(self.header.e_entry);
        let own_entry = entry;
        let mut interpreter_base = 0;
        if let Some(interpreter) = &self.interpreter {
            let (header, segments) = headers(interpreter)?;
            interpreter_base = room_for(space, &segments)?;
            map_segments(space, interpreter, &segments, interpreter_base)?;
            entry = interpreter_base.wrapping_add(header.e_entry);
        }
        if entry >= TASK_SIZE {
            return Err(Errno::ENOEXEC);
        }
        let stack = self.stack(space, base, own_entry, interpreter_base)?;
        space.begin_heap(VirtAddr(end.next_multiple_of(PAGE_SIZE)), 0);
        Ok(TrapFrame::user(entry, stack))
    }

    /// Maps the stack and writes what a program finds on it; returns the stack pointer.
    fn stack(
        &self,
        space: &AddressSpace<Pc>,
        base: u64,
        entry: u64,
        interpreter: u64,
    ) -> Result<u64, Errno> {
        let mut request = MapRequest::anonymous(PAGE_SIZE);
        request.placement = Placement::Fixed(VirtAddr(STACK_TOP - PAGE_SIZE));
        request.options = MapOptions::GROWSDOWN;
        space.mmap(&request)?;
        let mut at = STACK_TOP - 16;
        let mut push = |bytes: &[u8]| {
            at -= bytes.len() as u64;
            user::write(at, bytes).map(|()| at)
        };
        let name = push(&terminated(self.name.as_bytes()))?;
        let mut seed = [0; 16];
        random::fill(&mut seed);
        let seed = push(&seed)?;
        let mut pointers = |texts: &[Vec<u8>]| {
            texts.iter().map(|text| push(&terminated(text))).collect::<Result<Vec<_>, _>>()
        };
        let arguments = pointers(&self.arguments.arguments)?;
        let environment = pointers(&self.arguments.environment)?;
        let headers = self.segments.iter().find(|segment| {
            segment.p_type == PT_LOAD
                && (segment.p_offset..segment.p_offset + segment.p_filesz)
                    .contains(&self.header.e_phoff)
        });
        let headers = headers
            .map_or(0, |segment| base + segment.p_vaddr + self.header.e_phoff - segment.p_offset);
        let auxiliary = [
            (3, headers),
            (4, u64::from(self.header.e_phentsize)),
            (5, u64::from(self.header.e_phnum)),
            (6, PAGE_SIZE),
            (7, interpreter),
            (9, entry),
            (11, 0),
            (12, 0),
            (13, 0),
            (14, 0),
            (16, u64::from(core::arch::x86_64::__cpuid(1).edx)),
            (17, 100),
            (23, 0),
            (25, seed),
            (31, name),
            (0, 0),
        ];
        let mut words = alloc::vec![arguments.len() as u64];
        words.extend(arguments.into_iter().chain([0]).chain(environment).chain([0]));
        words.extend(auxiliary.into_iter().flat_map(|(key, value)| [key, value]));
        let bytes: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
        let stack = (at - bytes.len() as u64) & !15;
        user::write(stack, &bytes)?;
        Ok(stack)
    }
}

impl TrapFrame {
    /// The registers that a program begins with.
    pub fn user(entry: u64, stack: u64) -> Self {
        let mut frame = Self::kernel(entry);
        (frame.cs, frame.ss) = (cpu::USER_CODE, cpu::USER_DATA);
        frame.rsp = stack;
        frame
    }

    /// The registers that a kernel task begins with; the stack pointer is the caller's to set.
    pub const fn kernel(entry: u64) -> Self {
        let mut vectors = [0; 512];
        // The control words: every exception masked.
        (vectors[0], vectors[1]) = (0x7f, 0x03);
        (vectors[24], vectors[25]) = (0x80, 0x1f);
        Self {
            vectors,
            r15: 0,
            r14: 0,
            r13: 0,
            r12: 0,
            r11: 0,
            r10: 0,
            r9: 0,
            r8: 0,
            rdi: 0,
            rsi: 0,
            rbp: 0,
            rbx: 0,
            rdx: 0,
            rcx: 0,
            rax: 0,
            vector: 0,
            error: 0,
            rip: entry,
            cs: 0x08,
            rflags: 0x202,
            rsp: 0,
            ss: 0x10,
        }
    }
}

fn terminated(text: &[u8]) -> Vec<u8> {
    let mut bytes = text.to_vec();
    bytes.push(0);
    bytes
}

/// Puts a script's interpreter before the arguments, and returns its path.
fn interpret(line: &[u8], script: &str, arguments: &mut Arguments) -> Result<String, Errno> {
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let text = core::str::from_utf8(line).map_err(|_| Errno::ENOEXEC)?.trim();
    let (path, option) = match text.split_once(' ') {
        Some((path, option)) => (path, Some(option.trim())),
        None => (text, None),
    };
    let mut before = alloc::vec![path.as_bytes().to_vec()];
    before.extend(option.map(|option| option.as_bytes().to_vec()));
    before.push(script.as_bytes().to_vec());
    let rest = arguments.arguments.drain(..).skip(1);
    before.extend(rest);
    arguments.arguments = before;
    Ok(String::from(path))
}

/// Reads a file's ELF header and program headers.
fn headers(file: &File<Pc>) -> Result<(FileHeader<LittleEndian>, Vec<ProgramHeader>), Errno> {
    let mut bytes = [0; 64];
    if file.read_at(0, &mut bytes)? != bytes.len() {
        return Err(Errno::ENOEXEC);
    }
    let ident = parse_ident::<LittleEndian>(&bytes).map_err(|_| Errno::ENOEXEC)?;
    let header = FileHeader::parse_tail(ident, &bytes[16..]).map_err(|_| Errno::ENOEXEC)?;
    let is_ours =
        header.class == elf::file::Class::ELF64 && header.e_machine == elf::abi::EM_X86_64;
    if !is_ours
        || !matches!(header.e_type, ET_EXEC | ET_DYN)
        || header.e_phentsize != 56
        || header.e_phnum > HEADERS
    {
        return Err(Errno::ENOEXEC);
    }
    let mut table = process::buffer(usize::from(header.e_phnum) * 56)?;
    if file.read_at(header.e_phoff, &mut table)? != table.len() {
        return Err(Errno::ENOEXEC);
    }
    let segments = SegmentTable::new(header.endianness, header.class, &table).iter().collect();
    Ok((header, segments))
}

/// Finds room for all segments of a file that can go anywhere.
fn room_for(space: &AddressSpace<Pc>, segments: &[ProgramHeader]) -> Result<u64, Errno> {
    let ends = segments.iter().filter(|s| s.p_type == PT_LOAD).map(|s| s.p_vaddr + s.p_memsz);
    let mut request = MapRequest::anonymous(ends.max().ok_or(Errno::ENOEXEC)?);
    request.protection = Protection::empty();
    Ok(space.mmap(&request)?.value())
}

/// Maps the loadable segments; returns the end of the last.
fn map_segments(
    space: &AddressSpace<Pc>,
    file: &File<Pc>,
    segments: &[ProgramHeader],
    base: u64,
) -> Result<u64, Errno> {
    let mut end = 0;
    for segment in segments.iter().filter(|segment| segment.p_type == PT_LOAD) {
        let is_sane = segment.p_memsz >= segment.p_filesz
            && segment.p_vaddr % PAGE_SIZE == segment.p_offset % PAGE_SIZE
            && segment
                .p_vaddr
                .checked_add(segment.p_memsz)
                .is_some_and(|end| end < TASK_SIZE - base);
        if !is_sane {
            return Err(Errno::ENOEXEC);
        }
        map_segment(space, file, segment, base)?;
        end = end.max(base + segment.p_vaddr + segment.p_memsz);
    }
    Ok(end)
}

fn map_segment(
    space: &AddressSpace<Pc>,
    file: &File<Pc>,
    segment: &ProgramHeader,
    base: u64,
) -> Result<(), Errno> {
    let start = (base + segment.p_vaddr) & !(PAGE_SIZE - 1);
    let before = base + segment.p_vaddr - start;
    let file_end = base + segment.p_vaddr + segment.p_filesz;
    let memory_end = base + segment.p_vaddr + segment.p_memsz;
    let mut protection = Protection::empty();
    protection.set(Protection::READ, segment.p_flags & PF_R != 0);
    protection.set(Protection::WRITE, segment.p_flags & PF_W != 0);
    protection.set(Protection::EXECUTE, segment.p_flags & PF_X != 0);
    let mut fresh = start;
    if segment.p_filesz > 0 {
        space.mmap(&MapRequest {
            length: before + segment.p_filesz,
            protection,
            sharing: Sharing::Private,
            placement: Placement::Fixed(VirtAddr(start)),
            source: Source::File {
                file,
                offset: segment.p_offset - before,
                access: FileAccess::READ,
            },
            options: MapOptions::empty(),
        })?;
        fresh = file_end.next_multiple_of(PAGE_SIZE);
        if segment.p_memsz > segment.p_filesz && protection.contains(Protection::WRITE) {
            // The rest of the file's last page is memory that starts as zeros, up to its very end:
            // the dynamic linker's first allocations are there.
            let rest = (fresh - file_end) as usize;
            user::write(file_end, &[0; PAGE_SIZE as usize][..rest])?;
        }
    }
    if memory_end > fresh {
        let mut request = MapRequest::anonymous(memory_end - fresh);
        request.protection = protection;
        request.placement = Placement::Fixed(VirtAddr(fresh));
        space.mmap(&request)?;
    }
    Ok(())
}
