//! Parses a whole script before anything runs.

mod scope;

use crate::ast::{
    Address, Advice, Arch, Begin, Content, Failing, Line, LockAll, Locking, MapFlags, Mmap, Moving,
    Mremap, Op, Protection, Range, Script, Sharing, Sizes, SwapOn, SyncFlag,
};
use crate::print::{LOCK_WORDS, MAP_WORDS, PROTECTION_LETTERS};
use crate::words::{Word, split};
use scope::Scope;
use std::fmt::{self, Display, Formatter};

/// The longest file that can be made with `seed=`, in bytes.
pub const LONGEST_SEEDED_FILE: u64 = 1 << 30;

/// The most processes that may be alive at once.
pub const MOST_PROCESSES: usize = 64;

/// Parses a whole script.
///
/// Names are checked too: an address must use a name that the process or one it was forked from
/// has bound by then, a process must be alive, a file must have been made.
pub fn parse(text: &str) -> Result<Script, ParseError> {
    let mut sizes = Sizes::default();
    let mut lines = Vec::new();
    let mut scope = Scope::new();
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        let located = |(word, expected): (&str, Expected)| ParseError {
            line: number,
            word: word.to_owned(),
            expected,
        };
        let mut words = Words::new(split(line).map_err(located)?, sizes.arch.page());
        if words.is_empty() {
            continue;
        }
        let sized = lines.is_empty() && size(&mut words, &mut sizes).map_err(located)?;
        scope.page = sizes.arch.page();
        if !sized {
            let line =
                operation_line(&mut words, &mut scope, number, sizes.cpus).map_err(located)?;
            lines.push(line);
        }
        words.end().map_err(located)?;
    }
    Ok(Script { sizes, lines })
}

/// Why a script does not parse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// The line's number, from 1.
    pub line: usize,
    /// The wrong word; empty if the line ended too early.
    pub word: String,
    /// The expected word.
    pub expected: Expected,
}

impl Display for ParseError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { line, word, expected } = self;
        if word.is_empty() {
            write!(f, "line {line}: the line ends where {expected} should stand")
        } else {
            write!(f, "line {line}: {word:?} where {expected} should stand")
        }
    }
}

impl std::error::Error for ParseError {}

/// What was expected instead of a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// An operation.
    Operation,
    /// A number that fits 64 bits.
    Number,
    /// A number from 1.
    Positive,
    /// A byte, 0 to 255.
    Byte,
    /// A name: letters, digits and `_`, not starting with a digit.
    Name,
    /// An address relative to a name that this process has bound.
    BoundName,
    /// A string.
    String,
    /// A string of at most 65,536 bytes.
    ShortString,
    /// An escape sequence.
    Escape,
    /// The quote that ends a string.
    ClosingQuote,
    /// A protection.
    Protection,
    /// `private` or `shared`.
    Sharing,
    /// `anon` or `file=`.
    Content,
    /// A flag of `mmap`, not given yet.
    MapFlag,
    /// `maymove` or `dontunmap`, `at=`, `as`, in this order.
    RemapWord,
    /// A word of `mlockall`, not given yet.
    LockWord,
    /// An advice.
    Advice,
    /// A flag of `msync`.
    Sync,
    /// `frame`, `read` or `write`.
    Failing,
    /// A process that is alive.
    LiveProcess,
    /// The name of no living process.
    NewProcess,
    /// One of at most 64 processes.
    FewerProcesses,
    /// A file that has been made.
    KnownFile,
    /// The name of no file.
    NewFile,
    /// `seed=`
    Seed,
    /// A length of at most a gigabyte, because the file has a seed.
    SeededLength,
    /// A kind of processor.
    Arch,
    /// The number of a processor.
    Cpu,
    /// A number of pages.
    Pages,
    /// Nothing more.
    End,
}

impl Display for Expected {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Operation => "an operation",
            Self::Number => "a number below 2^64",
            Self::Positive => "a number from 1 on",
            Self::Byte => "a byte from 0 to 255",
            Self::Name => "a name",
            Self::BoundName => "NAME, NAME+OFFSET or NAME+3p+8 with a name this process has bound",
            Self::String => "a string in double quotes",
            Self::ShortString => "a string of at most 65536 bytes",
            Self::Escape => r#"\n, \t, \\, \" or \x and two hex digits"#,
            Self::ClosingQuote => "a string with its closing quote",
            Self::Protection => "a word of r, w and x, or -",
            Self::Sharing => "private or shared",
            Self::Content => "anon or file=",
            Self::MapFlag => "at=, off=, noreplace, growsdown, noreserve or populate, once each",
            Self::RemapWord => "maymove or dontunmap, at= or as NAME, in this order",
            Self::LockWord => "current, future or onfault, once each",
            Self::Advice => "an advice of madvise",
            Self::Sync => "sync, async or invalidate",
            Self::Failing => "frame, read or write",
            Self::LiveProcess => "a process that is alive",
            Self::NewProcess => "a name that no living process has",
            Self::FewerProcesses => "one of at most 64 living processes",
            Self::KnownFile => "a file that was made before",
            Self::NewFile => "a name that no file has",
            Self::Seed => "seed=",
            Self::SeededLength => "a length of at most 0x40000000",
            Self::Arch => "x86-64, ia32, pae or alpha",
            Self::Cpu => "the number of a processor, from 0",
            Self::Pages => "a number of pages",
            Self::End => "the end of the line",
        })
    }
}

type Fault<'a> = (&'a str, Expected);

/// The remaining words of a line.
struct Words<'a> {
    words: std::iter::Peekable<std::vec::IntoIter<Word<'a>>>,
    /// The meaning of the suffix `p`.
    page: u64,
}

impl<'a> Words<'a> {
    fn new(words: Vec<Word<'a>>, page: u64) -> Self {
        Self { words: words.into_iter().peekable(), page }
    }

    fn is_empty(&mut self) -> bool {
        self.words.peek().is_none()
    }

    /// The next word, if it is not a string.
    fn peek(&mut self) -> Option<&'a str> {
        match self.words.peek() {
            Some(Word::Bare(word)) => Some(word),
            _ => None,
        }
    }

    fn bare(&mut self, expected: Expected) -> Result<&'a str, Fault<'a>> {
        match self.words.next() {
            Some(Word::Bare(word)) => Ok(word),
            other => Err((other.map_or("", |word| word.source()), expected)),
        }
    }

    fn string(&mut self) -> Result<Vec<u8>, Fault<'a>> {
        match self.words.next() {
            Some(Word::Quoted { bytes, .. }) => Ok(bytes),
            other => Err((other.map_or("", |word| word.source()), Expected::String)),
        }
    }

    /// The next word, if it is `wanted`.
    fn takes(&mut self, wanted: &str) -> bool {
        let there = self.peek() == Some(wanted);
        if there {
            self.words.next();
        }
        there
    }

    /// The rest of the next word after `key`, if the word starts with it.
    fn keyed(&mut self, key: &str) -> Option<&'a str> {
        let value = self.peek()?.strip_prefix(key)?;
        self.words.next();
        Some(value)
    }

    fn number(&mut self) -> Result<u64, Fault<'a>> {
        number(self.bare(Expected::Number)?, self.page)
    }

    fn end(&mut self) -> Result<(), Fault<'a>> {
        match self.words.next() {
            None => Ok(()),
            Some(word) => Err((word.source(), Expected::End)),
        }
    }
}

/// Parses `frames N`, `swap N`, `cpus N`, `readahead N` or `arch NAME`. Returns whether the line
/// was one of these.
fn size<'a>(words: &mut Words<'a>, sizes: &mut Sizes) -> Result<bool, Fault<'a>> {
    if words.takes("arch") {
        let word = words.bare(Expected::Arch)?;
        sizes.arch = Arch::named(word).ok_or((word, Expected::Arch))?;
        return Ok(true);
    }
    if words.takes("readahead") {
        let word = words.bare(Expected::Pages)?;
        sizes.read_ahead = Some(word.parse().map_err(|_| (word, Expected::Pages))?);
        return Ok(true);
    }
    let size = match words.peek() {
        Some("frames") => &mut sizes.frames,
        Some("swap") => &mut sizes.swap,
        Some("cpus") => &mut sizes.cpus,
        _ => return Ok(false),
    };
    let may_be_zero = words.takes("swap");
    if !may_be_zero {
        words.bare(Expected::Operation)?;
    }
    *size = if may_be_zero { words.number()? } else { positive(words)? };
    Ok(true)
}

fn operation_line<'a>(
    words: &mut Words<'a>,
    scope: &mut Scope,
    number: usize,
    cpus: u64,
) -> Result<Line, Fault<'a>> {
    if let Some(process) = words.peek().and_then(|word| word.strip_suffix(':')) {
        words.bare(Expected::Operation)?;
        scope.switch(process)?;
    }
    let word = words.bare(Expected::Operation)?;
    let process = scope.current(word)?.to_owned();
    let op = operation(word, words, scope, cpus)?;
    Ok(Line { number, process, op })
}

fn operation<'a>(
    word: &'a str,
    words: &mut Words<'a>,
    scope: &mut Scope,
    cpus: u64,
) -> Result<Op, Fault<'a>> {
    Ok(match word {
        "mmap" => Op::Mmap(mmap(words, scope)?),
        "brk" => {
            let bound = name(words.bare(Expected::Name)?)?;
            scope.bind(bound);
            Op::Brk(bound.to_owned(), words.number()?)
        }
        "munmap" => Op::Munmap(range(words, scope)?),
        "mprotect" => Op::Mprotect(range(words, scope)?, protection(words)?, begin(words)),
        "msync" => Op::Msync(range(words, scope)?, sync(words)?),
        "mlock" => Op::Mlock(range(words, scope)?, locking(words)),
        "mlockall" => Op::MlockAll(lock_all(words)?),
        "munlockall" => Op::MunlockAll,
        "mseal" => Op::Mseal(range(words, scope)?),
        "munlock" => Op::Munlock(range(words, scope)?),
        "mremap" => Op::Mremap(mremap(words, scope)?),
        "madvise" => Op::Madvise(range(words, scope)?, advice(words)?),
        "remap_file_pages" => Op::RemapFilePages(range(words, scope)?, words.number()?),
        "mincore" => Op::Mincore(range(words, scope)?),
        "file" => {
            let (name, length, seed) = file(words, scope)?;
            Op::File { name, length, seed }
        }
        "device" => {
            let (name, length, seed) = file(words, scope)?;
            Op::Device { name, length, seed }
        }
        "truncate" => Op::Truncate(known_file(words, scope)?, words.number()?),
        "pwrite" => Op::Pwrite(known_file(words, scope)?, words.number()?, words.string()?),
        "pread" => Op::Pread(known_file(words, scope)?, words.number()?, words.number()?),
        "fsync" => Op::Fsync(known_file(words, scope)?),
        "write" => Op::Write(next_address(words, scope)?, words.string()?),
        "fill" => Op::Fill(range(words, scope)?, byte(words)?),
        "read" => Op::Read(range(words, scope)?),
        "exec" => Op::Exec(next_address(words, scope)?),
        "to_user" => Op::ToUser(next_address(words, scope)?, words.string()?),
        "from_user" => Op::FromUser(range(words, scope)?),
        "poke" => Op::Poke(next_address(words, scope)?, words.string()?),
        "peek" => Op::Peek(range(words, scope)?),
        "kernel_map" => {
            let bound = name(words.bare(Expected::Name)?)?;
            let length = words.number()?;
            scope.bind_everywhere(bound);
            Op::KernelMap(bound.to_owned(), length)
        }
        "kernel_read" => Op::KernelRead(range(words, scope)?),
        "kernel_write" => Op::KernelWrite(next_address(words, scope)?, words.string()?),
        "prefetch" => {
            let code = next_address(words, scope)?;
            Op::Prefetch { code, address: next_address(words, scope)? }
        }
        "cpu" => Op::Cpu(cpu(words, cpus)?),
        "fork" => Op::Fork(scope.fork(words.bare(Expected::Name)?)?),
        "exit" => {
            scope.exit();
            Op::Exit
        }
        "reclaim" => Op::Reclaim(words.number()?),
        "maps" => Op::Maps(scope.bound(words.bare(Expected::BoundName)?)?),
        "check" => Op::Check,
        "swapon" => Op::SwapOn(swap_on(words)?),
        "swapoff" => Op::SwapOff(words.number()?),
        "fail" => Op::Fail { what: failing(words)?, nth: positive(words)? },
        _ => return Err((word, Expected::Operation)),
    })
}

fn mmap<'a>(words: &mut Words<'a>, scope: &mut Scope) -> Result<Mmap, Fault<'a>> {
    let bound = name(words.bare(Expected::Name)?)?;
    let length = words.number()?;
    let protection = protection(words)?;
    let sharing = match words.bare(Expected::Sharing)? {
        "private" => Sharing::Private,
        "shared" => Sharing::Shared,
        word => return Err((word, Expected::Sharing)),
    };
    let mut content = content(words, scope)?;
    let (mut at, mut flags, mut offset_said) = (None, MapFlags::empty(), false);
    while let Some(word) = words.peek() {
        if let (Content::File { offset, .. }, false, Some(value)) =
            (&mut content, offset_said, word.strip_prefix("off="))
        {
            *offset = number(value, scope.page)?;
            offset_said = true;
        } else if let (None, Some(value)) = (&at, word.strip_prefix("at=")) {
            at = Some(address(value, scope)?);
        } else {
            let flag =
                MAP_WORDS.iter().find(|(flag, known)| *known == word && !flags.contains(*flag));
            flags |= flag.ok_or((word, Expected::MapFlag))?.0;
        }
        words.bare(Expected::MapFlag)?;
    }
    scope.bind(bound);
    Ok(Mmap { name: bound.to_owned(), length, protection, sharing, content, at, flags })
}

fn content<'a>(words: &mut Words<'a>, scope: &Scope) -> Result<Content, Fault<'a>> {
    if words.takes("anon") {
        return Ok(Content::Anonymous);
    }
    match words.keyed("file=") {
        Some(name) => Ok(Content::File { name: scope.file(name)?, offset: 0 }),
        None => Err((words.bare(Expected::Content)?, Expected::Content)),
    }
}

fn mremap<'a>(words: &mut Words<'a>, scope: &mut Scope) -> Result<Mremap, Fault<'a>> {
    let address_word = next_address(words, scope)?;
    let (old, new) = (words.number()?, words.number()?);
    let moving = match words.takes("maymove") {
        true => Moving::May,
        false if words.takes("dontunmap") => Moving::Leaving,
        false => Moving::Stay,
    };
    let at = match words.keyed("at=") {
        Some(value) => Some(address(value, scope)?),
        None => None,
    };
    let bind = if words.takes("as") {
        let bound = name(words.bare(Expected::Name)?)?;
        scope.bind(bound);
        Some(bound.to_owned())
    } else {
        None
    };
    match words.peek() {
        Some(word) => Err((word, Expected::RemapWord)),
        None => Ok(Mremap { address: address_word, old, new, moving, at, bind }),
    }
}

fn file<'a>(
    words: &mut Words<'a>,
    scope: &mut Scope,
) -> Result<(String, u64, Option<u64>), Fault<'a>> {
    let name = scope.make_file(words.bare(Expected::Name)?)?;
    let word = words.bare(Expected::Number)?;
    let length = number(word, words.page)?;
    let seed = match (words.is_empty(), words.keyed("seed=")) {
        (true, _) => None,
        (false, Some(value)) => Some(number(value, words.page)?),
        (false, None) => return Err((words.bare(Expected::Seed)?, Expected::Seed)),
    };
    if seed.is_some() && length > LONGEST_SEEDED_FILE {
        return Err((word, Expected::SeededLength));
    }
    Ok((name, length, seed))
}

fn swap_on<'a>(words: &mut Words<'a>) -> Result<SwapOn, Fault<'a>> {
    fn pages(word: &str) -> Result<u32, Fault<'_>> {
        word.parse().map_err(|_| (word, Expected::Pages))
    }
    let size = pages(words.bare(Expected::Pages)?)?;
    let bad = words.keyed("bad=").map_or(Ok(Vec::new()), |list| {
        list.split(',').map(pages).collect::<Result<Vec<u32>, _>>()
    })?;
    Ok(SwapOn { pages: size, bad, on_file: words.takes("file") })
}

fn known_file<'a>(words: &mut Words<'a>, scope: &Scope) -> Result<String, Fault<'a>> {
    scope.file(words.bare(Expected::KnownFile)?)
}

fn range<'a>(words: &mut Words<'a>, scope: &Scope) -> Result<Range, Fault<'a>> {
    Ok(Range { address: next_address(words, scope)?, length: words.number()? })
}

fn next_address<'a>(words: &mut Words<'a>, scope: &Scope) -> Result<Address, Fault<'a>> {
    address(words.bare(Expected::BoundName)?, scope)
}

/// `NAME`, `NAME+OFFSET`, `NAME+3p+8`.
fn address<'a>(word: &'a str, scope: &Scope) -> Result<Address, Fault<'a>> {
    let mut parts = word.split('+');
    let name = scope.bound(parts.next().unwrap_or(""))?;
    let offset = parts.try_fold(0_u64, |sum, part| {
        sum.checked_add(number(part, scope.page)?).ok_or((word, Expected::Number))
    })?;
    Ok(Address { name, offset })
}

fn protection<'a>(words: &mut Words<'a>) -> Result<Protection, Fault<'a>> {
    let word = words.bare(Expected::Protection)?;
    if word == "-" {
        return Ok(Protection::empty());
    }
    let mut protection = Protection::empty();
    for letter in word.split("").filter(|letter| !letter.is_empty()) {
        let bit = PROTECTION_LETTERS
            .iter()
            .find(|(bit, known)| *known == letter && !protection.contains(*bit));
        protection |= bit.ok_or((word, Expected::Protection))?.0;
    }
    Ok(protection)
}

fn begin(words: &mut Words<'_>) -> Begin {
    if words.takes("growsdown") { Begin::Stack } else { Begin::Address }
}

fn locking(words: &mut Words<'_>) -> Locking {
    if words.takes("onfault") { Locking::OnFault } else { Locking::AtOnce }
}

fn lock_all<'a>(words: &mut Words<'a>) -> Result<LockAll, Fault<'a>> {
    let mut what = LockAll::empty();
    while !words.is_empty() {
        let word = words.bare(Expected::LockWord)?;
        let flag = LOCK_WORDS.iter().find(|(flag, known)| *known == word && !what.contains(*flag));
        what |= flag.ok_or((word, Expected::LockWord))?.0;
    }
    Ok(what)
}

fn advice<'a>(words: &mut Words<'a>) -> Result<Advice, Fault<'a>> {
    let word = words.bare(Expected::Advice)?;
    Advice::ALL
        .into_iter()
        .find(|advice| advice.to_string() == word)
        .ok_or((word, Expected::Advice))
}

fn sync<'a>(words: &mut Words<'a>) -> Result<SyncFlag, Fault<'a>> {
    let word = words.bare(Expected::Sync)?;
    [SyncFlag::Sync, SyncFlag::Async, SyncFlag::Invalidate]
        .into_iter()
        .find(|sync| sync.to_string() == word)
        .ok_or((word, Expected::Sync))
}

fn failing<'a>(words: &mut Words<'a>) -> Result<Failing, Fault<'a>> {
    let word = words.bare(Expected::Failing)?;
    [Failing::Frame, Failing::Read, Failing::Write]
        .into_iter()
        .find(|what| what.to_string() == word)
        .ok_or((word, Expected::Failing))
}

fn byte<'a>(words: &mut Words<'a>) -> Result<u8, Fault<'a>> {
    let word = words.bare(Expected::Byte)?;
    u8::try_from(number(word, words.page)?).map_err(|_| (word, Expected::Byte))
}

fn cpu<'a>(words: &mut Words<'a>, cpus: u64) -> Result<u64, Fault<'a>> {
    let word = words.bare(Expected::Cpu)?;
    match number(word, words.page)? {
        number if number < cpus => Ok(number),
        _ => Err((word, Expected::Cpu)),
    }
}

fn positive<'a>(words: &mut Words<'a>) -> Result<u64, Fault<'a>> {
    let word = words.bare(Expected::Positive)?;
    match number(word, words.page)? {
        0 => Err((word, Expected::Positive)),
        number => Ok(number),
    }
}

/// Decimal or `0x` hexadecimal; with the suffix `p`, in pages.
fn number(word: &str, page: u64) -> Result<u64, Fault<'_>> {
    let (digits, unit) = match word.strip_suffix('p') {
        Some(digits) => (digits, page),
        None => (word, 1),
    };
    let (digits, radix) = match digits.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None => (digits, 10),
    };
    let plain = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    plain
        .then(|| u64::from_str_radix(digits, radix).ok())
        .flatten()
        .and_then(|number| number.checked_mul(unit))
        .ok_or((word, Expected::Number))
}

/// A name: letters, digits and `_`, not starting with a digit.
fn name(word: &str) -> Result<&str, Fault<'_>> {
    let good = word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && word.bytes().next().is_some_and(|b| !b.is_ascii_digit());
    if good { Ok(word) } else { Err((word, Expected::Name)) }
}

#[cfg(test)]
mod tests;
