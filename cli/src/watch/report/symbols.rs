//! Names of functions, from the symbol tables of their files.

use super::places::{Cost, Place};
use object::{Object, ObjectSegment, ObjectSymbol, SymbolKind};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// A function, or a place outside all known functions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Function {
    /// Its name, if known.
    pub name: Option<String>,
    /// Its file.
    pub file: Option<PathBuf>,
    /// Without a name, the offset in the file; without a file, the address.
    pub offset: Option<u64>,
}

/// Faults by function, the most first.
pub fn by_function(places: &[(Place, Cost)]) -> Vec<(Function, Cost)> {
    let mut tables: HashMap<&Path, Table> = HashMap::new();
    let mut functions: HashMap<Function, Cost> = HashMap::new();
    for (place, cost) in places {
        let function = match place {
            Place::File(file, offset) => {
                let table = tables.entry(file).or_insert_with(|| Table::read(file));
                let name = table.name(*offset);
                let offset = name.is_none().then_some(*offset);
                Function { name, file: Some(file.clone()), offset }
            }
            Place::Memory(address) => Function { name: None, file: None, offset: Some(*address) },
        };
        let sum = functions.entry(function).or_default();
        sum.faults += cost.faults;
        sum.time += cost.time;
    }
    let mut all: Vec<_> = functions.into_iter().collect();
    all.sort_by(|(f, a), (g, b)| {
        b.faults.cmp(&a.faults).then(b.time.cmp(&a.time)).then_with(|| f.name.cmp(&g.name))
    });
    all
}

/// The functions of a file.
#[derive(Default)]
struct Table {
    /// Start, end and name of each, by address.
    functions: Vec<(u64, u64, String)>,
    /// Offset in the file, length and address of each segment.
    segments: Vec<(u64, u64, u64)>,
}

impl Table {
    /// The functions of a file; none if it cannot be read or has no symbols.
    fn read(path: &Path) -> Self {
        // A device that is mapped need not have an end.
        let is_file = std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
        let bytes = if is_file { std::fs::read(path) } else { return Self::default() };
        let Ok(bytes) = bytes else { return Self::default() };
        let Ok(file) = object::File::parse(&*bytes) else { return Self::default() };
        let mut functions: Vec<(u64, u64, String)> = file
            .symbols()
            .chain(file.dynamic_symbols())
            .filter(|symbol| symbol.is_definition() && symbol.kind() == SymbolKind::Text)
            .filter_map(|symbol| {
                let start = symbol.address();
                Some((start, start.saturating_add(symbol.size()), symbol.name().ok()?.to_owned()))
            })
            .collect();
        functions.sort();
        functions.dedup_by_key(|(start, ..)| *start);
        let segments = file
            .segments()
            .map(|segment| {
                let (offset, len) = segment.file_range();
                (offset, len, segment.address())
            })
            .collect();
        Self { functions, segments }
    }

    fn name(&self, offset: u64) -> Option<String> {
        let inside = |(start, len, _): &&(u64, u64, u64)| offset.wrapping_sub(*start) < *len;
        let (start, _, address) = self.segments.iter().find(inside)?;
        let address = address.wrapping_add(offset - start);
        let next = self.functions.partition_point(|(start, ..)| *start <= address);
        let (_, end, name) = self.functions.get(next.checked_sub(1)?)?;
        (address < *end).then(|| demangled(name))
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
        let found = by_function(&[(place.unwrap(), cost), (Place::Memory(7), Cost::default())]);
        assert_eq!(found.len(), 2);
        let name = found[0].0.name.as_deref().unwrap();
        assert!(name.ends_with("names_are_as_in_the_source"), "{name}");
        assert_eq!(found[0].1, cost);
        assert_eq!(found[1].0, Function { name: None, file: None, offset: Some(7) });
    }
}
