//! Names of functions, from the symbol tables of their files.
//!
//! | a file with | gives |
//! |---|---|
//! | symbols, exported ones, or a debug file in `/usr/lib/debug` | names |
//! | an unwind table alone (`.eh_frame_hdr`), as stripped programs have | where functions begin |
//! | a map `/tmp/perf-PID.map`, which a JIT compiler writes if asked | names of generated code |
//!
//! Only the names of the places that faulted are read.

mod jit;
mod unwind;

use super::places::{Cost, Place};
use object::read::elf::ElfFile64;
use object::{Object, ObjectSection, ObjectSegment, ObjectSymbol, ReadCache, SymbolKind};
use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

/// The directory of the debug files that belong to a build.
const DEBUG: &str = "/usr/lib/debug/.build-id";

/// A function, or a place outside all known functions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Function {
    /// Its name, if known.
    pub name: Option<String>,
    /// Its file.
    pub file: Option<PathBuf>,
    /// Where it is without a name.
    pub at: Option<At>,
}

/// What is known of a place without a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum At {
    /// The function begins at this offset in the file.
    Function(u64),
    /// The instruction is at this offset in the file; without a file, at this address.
    Instruction(u64),
}

/// Faults by function, the most first.
pub fn by_function(places: &[(Place, Cost)]) -> Vec<(Function, Cost)> {
    let mut in_files: HashMap<&Path, Vec<(u64, Cost)>> = HashMap::new();
    let mut generated: HashMap<u32, Vec<(u64, Cost)>> = HashMap::new();
    for (place, cost) in places {
        match place {
            Place::File(file, offset) => in_files.entry(file).or_default().push((*offset, *cost)),
            Place::Memory(pid, address) => {
                generated.entry(*pid).or_default().push((*address, *cost));
            }
        }
    }
    let mut functions: HashMap<Function, Cost> = HashMap::new();
    let mut count = |function: Function, cost: Cost| {
        let sum = functions.entry(function).or_default();
        sum.faults += cost.faults;
        sum.time += cost.time;
    };
    for (file, places) in in_files {
        named(file, &places, &mut count);
    }
    for (pid, places) in generated {
        let map = jit::Map::of(pid);
        for (address, cost) in places {
            let name = map.name(address);
            let at = name.is_none().then_some(At::Instruction(address));
            count(Function { name, file: None, at }, cost);
        }
    }
    let mut all: Vec<_> = functions.into_iter().collect();
    all.sort_by(|(f, a), (g, b)| {
        b.faults.cmp(&a.faults).then(b.time.cmp(&a.time)).then_with(|| f.name.cmp(&g.name))
    });
    all
}

/// Counts the places in a file by their functions.
fn named(path: &Path, places: &[(u64, Cost)], count: &mut impl FnMut(Function, Cost)) {
    let cache = cache(path);
    let file = cache.as_ref().and_then(|cache| ElfFile64::parse(cache).ok());
    let debug = file.as_ref().and_then(debug_file);
    let with_names = debug.as_ref().and_then(|cache| ElfFile64::parse(cache).ok());
    let table = file.as_ref().map(|file| Table::read(file, with_names.as_ref()));
    for (offset, cost) in places {
        let found = table.as_ref().map(|table| table.find(*offset));
        let (name, at) = found.unwrap_or((None, At::Instruction(*offset)));
        let at = name.is_none().then_some(at);
        count(Function { name, file: Some(path.to_owned()), at }, *cost);
    }
}

/// A file from which parts are read as needed.
fn cache(path: &Path) -> Option<ReadCache<File>> {
    // A device that is mapped need not have an end.
    let is_file = std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
    is_file.then(|| File::open(path).ok()).flatten().map(ReadCache::new)
}

/// The separate file with the symbols of a stripped one.
fn debug_file(file: &Elf) -> Option<ReadCache<File>> {
    let hex: Vec<String> =
        file.build_id().ok()??.iter().map(|byte| format!("{byte:02x}")).collect();
    let (first, rest) = hex.split_first()?;
    cache(&Path::new(DEBUG).join(first).join(rest.concat() + ".debug"))
}

type Elf<'file> = ElfFile64<'file, object::Endianness, &'file ReadCache<File>>;
type Symbol<'file> = <Elf<'file> as Object<'file>>::Symbol<'file>;

/// The functions of a file.
struct Table<'file> {
    /// By address.
    functions: Vec<Symbol<'file>>,
    /// Where functions begin, by address.
    begins: Vec<u64>,
    /// Offset in the file, length and address of each segment.
    segments: Vec<(u64, u64, u64)>,
}

impl<'file> Table<'file> {
    fn read(file: &'file Elf<'file>, debug: Option<&'file Elf<'file>>) -> Self {
        let own = file.symbols().chain(file.dynamic_symbols());
        let more = debug.into_iter().flat_map(|debug| debug.symbols());
        let mut functions: Vec<Symbol> = own
            .chain(more)
            .filter(|symbol| symbol.is_definition() && symbol.kind() == SymbolKind::Text)
            .collect();
        functions.sort_by_key(ObjectSymbol::address);
        let begins = file
            .section_by_name(".eh_frame_hdr")
            .and_then(|section| unwind::begins(section.data().ok()?, section.address()));
        let segment = |segment: object::read::elf::ElfSegment64<'file, 'file, _, _>| {
            let (offset, len) = segment.file_range();
            (offset, len, segment.address())
        };
        let segments = file.segments().map(segment).collect();
        Self { functions, begins: begins.unwrap_or_default(), segments }
    }

    /// The name of the function at an offset in the file, or what is known without a name.
    fn find(&self, offset: u64) -> (Option<String>, At) {
        let inside = |(start, len, _): &&(u64, u64, u64)| offset.wrapping_sub(*start) < *len;
        let Some((start, _, address)) = self.segments.iter().find(inside) else {
            return (None, At::Instruction(offset));
        };
        let address = address.wrapping_add(offset - start);
        let next = self.begins.partition_point(|begin| *begin <= address);
        let begin = next.checked_sub(1).and_then(|last| self.begins.get(last));
        // The function's beginning, as an offset like the instruction's.
        let begin = begin.and_then(|begin| offset.checked_sub(address - begin));
        (self.name(address), begin.map_or(At::Instruction(offset), At::Function))
    }

    fn name(&self, address: u64) -> Option<String> {
        let next = self.functions.partition_point(|symbol| symbol.address() <= address);
        let start = self.functions.get(next.checked_sub(1)?)?.address();
        let same = self.functions[..next].iter().rev().take_while(|one| one.address() == start);
        let names = same
            .filter(|symbol| address - start < symbol.size())
            .filter_map(|symbol| symbol.name().ok());
        // Of several names the one meant for users: malloc, not __libc_malloc.
        let inner = |name: &&str| (name.len() - name.trim_start_matches('_').len(), name.len());
        names.min_by_key(inner).map(demangled)
    }
}

/// A demangled name.
fn demangled(name: &str) -> String {
    if let Ok(rust) = rustc_demangle::try_demangle(name) {
        return format!("{rust:#}");
    }
    let plain = |symbol: cpp_demangle::Symbol<&str>| symbol.demangle().ok();
    cpp_demangle::Symbol::new(name).ok().and_then(plain).unwrap_or_else(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_in_the_source() {
        assert_eq!(demangled("memcpy"), "memcpy");
        assert_eq!(
            demangled("_ZN4core3fmt5Write9write_str17h0123456789abcdefE"),
            "core::fmt::Write::write_str"
        );
        assert_eq!(
            demangled("_ZNSt6vectorIiSaIiEE9push_backEOi"),
            "std::vector<int, std::allocator<int> >::push_back(int&&)"
        );
    }

    #[test]
    fn a_function_of_this_program_is_found_by_its_place() {
        // The test is a program with symbols, mapped by the kernel.
        let address = names_are_as_in_the_source as fn() as usize as u64;
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let place = maps.lines().find_map(|line| {
            let mut words = line.split_whitespace();
            let (start, end) = words.next()?.split_once('-')?;
            let number = |text: &str| u64::from_str_radix(text, 16).unwrap();
            let offset = number(words.nth(1)?);
            let inside = (number(start)..number(end)).contains(&address);
            let file = PathBuf::from(words.nth(2)?);
            inside.then(|| Place::File(file, address - number(start) + offset))
        });
        let cost = Cost { faults: 3, time: 5 };
        let found = by_function(&[(place.unwrap(), cost), (Place::Memory(0, 7), Cost::default())]);
        assert_eq!(found.len(), 2);
        let name = found[0].0.name.as_deref().unwrap();
        assert!(name.ends_with("names_are_as_in_the_source"), "{name}");
        assert_eq!(found[0].1, cost);
        assert_eq!(found[1].0, Function { name: None, file: None, at: Some(At::Instruction(7)) });
    }
}
