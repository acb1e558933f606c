//! The runtime's image for programs: a static position-independent executable, laid out as in
//! memory.

use super::loader::Layout;
use object::LittleEndian;
use object::elf::{
    DT_REL, DT_RELA, DT_RELASZ, DT_RELR, EM_X86_64, ET_DYN, FileHeader64, PF_W, PF_X, PT_GNU_RELRO,
    PT_INTERP, PT_LOAD, PT_TLS, ProgramHeader64, R_X86_64_RELATIVE, Rela64,
};
use object::pod;
use object::read::elf::{FileHeader, ProgramHeader};
use rustix::fs::{MemfdFlags, SealFlags};
use std::ops::Range;
use std::os::fd::OwnedFd;

/// The name of the file from which programs map the runtime's code.
const NAME: &str = "pagefault-runtime";
const PAGE: u64 = 4096;
/// A runtime that is longer than this is damaged.
pub const LONGEST: u64 = 64 << 20;
const LE: LittleEndian = LittleEndian;

/// The access rights of a part of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read it.
    Read,
    /// Read and write it.
    Write,
    /// Read and execute it.
    Execute,
}

/// A runtime, ready to be placed.
pub struct Image<'file> {
    /// The segments in the order of addresses, without their trailing zeros.
    segments: Vec<Segment<'file>>,
    /// The length in memory, in whole pages.
    len: u64,
    /// The parts with their access rights, in whole pages.
    parts: Vec<(Range<u64>, Access)>,
    relocations: Vec<Relocation>,
    /// The length of the image's start that is the same in every process, in whole pages.
    same: u64,
    /// The offset of the first instruction.
    entry: u64,
    /// The offsets of the executable part.
    text: Range<u64>,
}

/// A part of the image with its content.
struct Segment<'file> {
    /// Its offset in the image.
    start: u64,
    content: &'file [u8],
}

/// A word that holds an address: both are offsets in the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relocation {
    /// Where the word is.
    pub place: u64,
    /// What it names.
    pub named: u64,
}

/// Why a file is not a runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// A field has an unexpected value.
    #[error("the runtime is damaged")]
    Damaged,
    /// It is another kind of program.
    #[error("the runtime is not a static position-independent executable for x86-64")]
    Kind,
    /// It would need a dynamic linker.
    #[error("the runtime has relocations other than R_X86_64_RELATIVE")]
    Relocations,
    /// It does not have exactly one executable segment, or that one is writable.
    #[error("the runtime must have one executable segment, and none both writable and executable")]
    Segments,
}

impl From<object::read::Error> for ImageError {
    fn from(_: object::read::Error) -> Self {
        Self::Damaged
    }
}

impl<'file> Image<'file> {
    /// Parses a file and lays it out.
    pub fn parse(file: &'file [u8]) -> Result<Self, ImageError> {
        let header = FileHeader64::<LittleEndian>::parse(file)?;
        if header.e_machine(LE) != EM_X86_64 || header.e_type(LE) != ET_DYN {
            return Err(ImageError::Kind);
        }
        let headers = header.program_headers(LE, file)?;
        if headers.iter().any(|header| [PT_INTERP, PT_TLS].contains(&header.p_type(LE))) {
            return Err(ImageError::Kind);
        }
        let (segments, len) = lay_out(headers, file)?;
        let parts = parts(headers, len)?;
        let mut executable = parts.iter().filter(|(_, access)| *access == Access::Execute);
        let (Some((text, _)), None) = (executable.next(), executable.next()) else {
            return Err(ImageError::Segments);
        };
        let (text, entry) = (text.clone(), header.e_entry(LE));
        if !text.contains(&entry) {
            return Err(ImageError::Damaged);
        }
        let relocations = relocations(headers, file, &segments)?;
        let same = same(&segments, &parts, &relocations).min(text.end);
        Ok(Self { segments, len, parts, relocations, same, entry, text })
    }

    /// The length in memory, in whole pages.
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// The offset of the first instruction.
    pub const fn entry(&self) -> u64 {
        self.entry
    }

    /// The offsets of the executable part.
    pub const fn text(&self) -> &Range<u64> {
        &self.text
    }

    /// The length of the image's start that is read-only and the same at every address: whole pages.
    pub const fn same_len(&self) -> u64 {
        self.same
    }

    /// The length without the zeros at its end.
    pub fn filled_len(&self) -> u64 {
        let ends = self.segments.iter().map(|it| it.start + it.content.len() as u64);
        ends.max().unwrap_or(0).max(self.same)
    }

    /// The part that becomes read-only after relocation, in whole pages.
    pub fn constants(&self) -> Range<u64> {
        let is_constant =
            |part: &&(Range<u64>, Access)| part.1 == Access::Read && part.0.start >= self.same;
        self.parts.iter().find(is_constant).map_or(0..0, |(range, _)| range.clone())
    }

    /// The offset from which on memory is written to when the image is relocated; in whole pages.
    pub fn written(&self) -> u64 {
        let constants = self.constants();
        if constants.start == self.same { constants.end } else { self.same }
    }

    /// The words that hold addresses.
    pub fn relocations(&self) -> &[Relocation] {
        &self.relocations
    }

    /// The content, relocated for an address and without the zeros at its end.
    pub fn content(&self, base: u64) -> Vec<u8> {
        let mut bytes = vec![0; self.filled_len() as usize];
        for Segment { start, content } in &self.segments {
            let start = *start as usize;
            bytes[start..start + content.len()].copy_from_slice(content);
        }
        for word in &self.relocations {
            let place = word.place as usize;
            bytes[place..place + 8].copy_from_slice(&(base + word.named).to_le_bytes());
        }
        bytes
    }

    /// The runtime in a sealed file, which programs of several users map: laid out as in memory, and at its
    /// end what loads it.
    pub fn share(&self, layout: &Layout) -> rustix::io::Result<OwnedFd> {
        let file = rustix::fs::memfd_create(NAME, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        rustix::fs::ftruncate(&file, layout.len)?;
        for (mut at, mut bytes) in
            [(0, &self.content(layout.base)[..]), (layout.loader, &layout.content)]
        {
            while !bytes.is_empty() {
                let written = rustix::io::pwrite(&file, bytes, at)?;
                bytes = &bytes[written..];
                at += written as u64;
            }
        }
        let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&file, seals)?;
        Ok(file)
    }
}

type Header = ProgramHeader64<LittleEndian>;

/// Finds the segments. Returns them and the length in memory.
fn lay_out<'file>(
    headers: &[Header],
    file: &'file [u8],
) -> Result<(Vec<Segment<'file>>, u64), ImageError> {
    let (mut segments, mut len) = (Vec::new(), 0);
    for header in headers.iter().filter(|header| header.p_type(LE) == PT_LOAD) {
        let content = header.data(LE, file).map_err(|()| ImageError::Damaged)?;
        let start = header.p_vaddr(LE);
        let end = start.checked_add(header.p_memsz(LE)).filter(|end| *end <= LONGEST);
        let end = end.ok_or(ImageError::Damaged)?;
        len = len.max(end.next_multiple_of(PAGE));
        if start + content.len() as u64 > end {
            return Err(ImageError::Damaged);
        }
        segments.push(Segment { start, content });
    }
    Ok((segments, len))
}

/// The segment that contains `len` bytes at an offset of the image, and their offset in it.
fn find(segments: &[Segment], start: u64, len: u64) -> Option<(usize, usize)> {
    segments.iter().enumerate().find_map(|(index, segment)| {
        let at = start.checked_sub(segment.start)?;
        let end = at.checked_add(len)?;
        (end <= segment.content.len() as u64).then_some((index, at as usize))
    })
}

/// The segments with their access rights, then the parts that become read-only after relocation.
fn parts(headers: &[Header], image_len: u64) -> Result<Vec<(Range<u64>, Access)>, ImageError> {
    let mut parts: Vec<(Range<u64>, Access)> = Vec::new();
    let kinds = [PT_LOAD, PT_GNU_RELRO];
    for header in headers.iter().filter(|header| kinds.contains(&header.p_type(LE))) {
        let start = header.p_vaddr(LE);
        let end = start.checked_add(header.p_memsz(LE)).filter(|end| *end <= image_len);
        let end = end.ok_or(ImageError::Damaged)?;
        let [written, executed] = [PF_W, PF_X].map(|flag| header.p_flags(LE).0 & flag.0 != 0);
        let access = match (header.p_type(LE), written, executed) {
            (PT_LOAD, true, true) => return Err(ImageError::Segments),
            (PT_LOAD, false, true) => Access::Execute,
            (PT_LOAD, true, false) => Access::Write,
            (PT_LOAD, false, false) => Access::Read,
            // Only relocations write to it, and they are done by then.
            _ => {
                let whole = start.next_multiple_of(PAGE)..end / PAGE * PAGE;
                if whole.start < whole.end {
                    parts.push((whole, Access::Read));
                }
                continue;
            }
        };
        parts.push((start / PAGE * PAGE..end.next_multiple_of(PAGE), access));
    }
    Ok(parts)
}

/// The length of the image's start that is read-only and the same at every address.
fn same(segments: &[Segment], parts: &[(Range<u64>, Access)], changed: &[Relocation]) -> u64 {
    let relocated = changed.iter().filter_map(|word| {
        find(segments, word.place, 8).map(|(segment, _)| segments[segment].start)
    });
    let written = parts.iter().filter(|(_, access)| *access == Access::Write);
    let first = relocated.chain(written.map(|(range, _)| range.start)).min();
    first.map_or(0, |first| first / PAGE * PAGE)
}

/// Reads the table of relocations.
fn relocations(
    headers: &[Header],
    file: &[u8],
    segments: &[Segment],
) -> Result<Vec<Relocation>, ImageError> {
    let (mut table, mut len) = (0, 0);
    for header in headers {
        for entry in header.dynamic(LE, file)?.unwrap_or_default() {
            let (tag, value) = (entry.d_tag.get(LE), entry.d_val.get(LE));
            match tag {
                DT_RELA => table = value,
                DT_RELASZ => len = value,
                DT_REL | DT_RELR => return Err(ImageError::Relocations),
                _ => {}
            }
        }
    }
    if len == 0 {
        return Ok(Vec::new());
    }
    let (segment, at) = find(segments, table, len).ok_or(ImageError::Damaged)?;
    let words = &segments[segment].content[at..at + len as usize];
    let (entries, _) = pod::slice_from_bytes::<Rela64<LittleEndian>>(
        words,
        words.len() / size_of::<Rela64<LittleEndian>>(),
    )
    .map_err(|()| ImageError::Damaged)?;
    entries.iter().map(|entry| relocation(entry, segments)).collect()
}

fn relocation(
    entry: &Rela64<LittleEndian>,
    segments: &[Segment],
) -> Result<Relocation, ImageError> {
    if entry.r_type(LE, false) != R_X86_64_RELATIVE {
        return Err(ImageError::Relocations);
    }
    let (place, named) = (entry.r_offset.get(LE), entry.r_addend.get(LE) as u64);
    let (segment, _) = find(segments, place, 8).ok_or(ImageError::Damaged)?;
    let is_inside = named <= LONGEST && segments[segment].start <= place;
    is_inside.then_some(Relocation { place, named }).ok_or(ImageError::Damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The runtime of the tests, which has code, constants, data and a relocation.
    fn file() -> Vec<u8> {
        std::fs::read(env!("PAGEFAULT_JUMP")).unwrap()
    }

    #[test]
    fn a_runtime_is_laid_out_as_its_segments_say() {
        for file in [&*file(), super::super::RUNTIME] {
            let image = Image::parse(file).unwrap();
            assert!(image.len().is_multiple_of(PAGE) && !image.text().is_empty());
            assert!(image.text().contains(&image.entry()));
            let inside = |range: &Range<u64>| {
                range.start.is_multiple_of(PAGE)
                    && range.end.is_multiple_of(PAGE)
                    && range.end <= image.len()
            };
            assert!(image.parts.iter().all(|(range, _)| inside(range)));
            assert!(image.parts.iter().any(|(_, access)| *access == Access::Write));
            let (len, same) = (image.len(), image.same_len());
            assert!(same.is_multiple_of(PAGE) && same >= image.text().end);
            assert!((same..=len).contains(&image.filled_len()));
            let holds = |word: &Relocation| (same..=image.filled_len() - 8).contains(&word.place);
            assert!(image.relocations().iter().all(holds));
            let constants = image.constants();
            assert!(constants.is_empty() || constants.start >= same && constants.end <= len);
            // Its beginning is the file's, and it ends with the code.
            let base = 0x7000_0000_0000;
            let bytes = image.content(base);
            assert_eq!((&bytes[..64], bytes.len() as u64), (&file[..64], image.filled_len()));
            let Some(Relocation { place, named }) = image.relocations().first().copied() else {
                panic!("no relocation")
            };
            assert_eq!(bytes[place as usize..][..8], (base + named).to_le_bytes());
            assert!((same..=image.filled_len().next_multiple_of(PAGE)).contains(&image.written()));
        }
    }

    /// The file that programs map has the image, and the loader behind everything that is written to.
    #[test]
    fn a_shared_runtime_is_its_image_and_its_loader() {
        let file = file();
        let image = Image::parse(&file).unwrap();
        assert!(!image.relocations().is_empty());
        let layout = Layout::new(&image, 0x7000_0000_0000);
        let shared = image.share(&layout).unwrap();
        let mut bytes = vec![0; layout.len as usize];
        assert_eq!(rustix::io::pread(&shared, &mut bytes, 0), Ok(bytes.len()));
        let (before, loader) = bytes.split_at(layout.loader as usize);
        let content = image.content(layout.base);
        assert_eq!(before[..content.len()], content);
        assert!(before[content.len()..].iter().all(|byte| *byte == 0));
        assert_eq!(loader[..layout.content.len()], layout.content);
        let boot = layout.boot;
        assert_eq!(boot.stack_start + boot.stack_len, layout.len);
        assert_eq!(rustix::io::pwrite(&shared, b"x", 0), Err(rustix::io::Errno::PERM));
    }

    #[test]
    fn what_is_no_runtime_is_refused() {
        let changed = |at: usize, value: u8| {
            let mut file = file();
            file[at] = value;
            Image::parse(&file).err()
        };
        assert_eq!(Image::parse(b"").err(), Some(ImageError::Damaged));
        assert_eq!(changed(0, 0), Some(ImageError::Damaged));
        // e_machine: AArch64. e_type: ET_EXEC.
        assert_eq!(changed(18, 0xb7), Some(ImageError::Kind));
        assert_eq!(changed(16, 2), Some(ImageError::Kind));
        // e_entry, in its highest byte.
        assert_eq!(changed(31, 1), Some(ImageError::Damaged));
        // Every segment writable and executable.
        let mut writable = file();
        let headers = u64::from_le_bytes(writable[32..40].try_into().unwrap()) as usize;
        for header in 0..usize::from(writable[56]) {
            writable[headers + header * 56 + 4] = 7;
        }
        assert_eq!(Image::parse(&writable).err(), Some(ImageError::Segments));
    }

    /// However the file is truncated or overwritten, parsing gives an error or an image, and never
    /// panics.
    #[test]
    fn damage_is_never_a_panic() {
        let whole = file();
        for len in 0..whole.len().min(1024) {
            let _ = Image::parse(&whole[..len]);
        }
        for at in 0..1024 {
            for value in [0, 0x7f, 0xff] {
                let mut file = whole.clone();
                file[at] = value;
                if let Ok(image) = Image::parse(&file) {
                    drop(image.content(0x7000_0000_0000));
                    drop(Layout::new(&image, 0));
                }
            }
        }
    }
}
