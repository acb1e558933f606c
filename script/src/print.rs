//! Prints a script so that [`parse`](crate::parse::parse) gives the same script.

use crate::ast::{
    Address, Advice, Begin, Content, Failing, Line, LockAll, Locking, MapFlags, Mmap, Moving,
    Mremap, Op, PAGE, Protection, Range, Script, Sharing, Sizes, SwapOn, SyncFlag,
};
use std::fmt::{self, Display, Formatter};

impl Display for Script {
    /// Prints the sizes that differ from the default, then every line with its process.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (ours, default) = (self.sizes, Sizes::default());
        if ours.arch != default.arch {
            writeln!(f, "arch {}", ours.arch.name())?;
        }
        for (word, size, default) in [
            ("frames", ours.frames, default.frames),
            ("swap", ours.swap, default.swap),
            ("cpus", ours.cpus, default.cpus),
        ] {
            if size != default {
                writeln!(f, "{word} {size}")?;
            }
        }
        if let Some(pages) = ours.read_ahead {
            writeln!(f, "readahead {pages}")?;
        }
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl Display for Line {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.process, self.op)
    }
}

impl Display for Op {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mmap(mmap) => mmap.fmt(f),
            Self::Munmap(range) => write!(f, "munmap {range}"),
            Self::Mprotect(range, protection, Begin::Address) => {
                write!(f, "mprotect {range} {protection}")
            }
            Self::Mprotect(range, protection, Begin::Stack) => {
                write!(f, "mprotect {range} {protection} growsdown")
            }
            Self::Msync(range, sync) => write!(f, "msync {range} {sync}"),
            Self::Mlock(range, Locking::AtOnce) => write!(f, "mlock {range}"),
            Self::Mlock(range, Locking::OnFault) => write!(f, "mlock {range} onfault"),
            Self::MlockAll(what) => {
                let words = LOCK_WORDS.iter().filter(|(flag, _)| what.contains(*flag));
                f.write_str("mlockall")?;
                words.into_iter().try_for_each(|(_, word)| write!(f, " {word}"))
            }
            Self::MunlockAll => f.write_str("munlockall"),
            Self::Mseal(range) => write!(f, "mseal {range}"),
            Self::Munlock(range) => write!(f, "munlock {range}"),
            Self::Mremap(mremap) => mremap.fmt(f),
            Self::Madvise(range, advice) => write!(f, "madvise {range} {advice}"),
            Self::Brk(name, length) => write!(f, "brk {name} {length}"),
            Self::RemapFilePages(range, page) => write!(f, "remap_file_pages {range} {page}"),
            Self::Mincore(range) => write!(f, "mincore {range}"),
            Self::File { name, length, seed } => {
                write!(f, "file {name} {}", Number(*length))?;
                seed.map_or(Ok(()), |seed| write!(f, " seed={seed}"))
            }
            Self::Device { name, length, seed } => {
                write!(f, "device {name} {}", Number(*length))?;
                seed.map_or(Ok(()), |seed| write!(f, " seed={seed}"))
            }
            Self::Truncate(file, length) => write!(f, "truncate {file} {}", Number(*length)),
            Self::Pwrite(file, offset, bytes) => {
                write!(f, "pwrite {file} {} {}", Number(*offset), Quoted(bytes))
            }
            Self::Pread(file, offset, length) => {
                write!(f, "pread {file} {} {}", Number(*offset), Number(*length))
            }
            Self::Fsync(file) => write!(f, "fsync {file}"),
            Self::Write(address, bytes) => write!(f, "write {address} {}", Quoted(bytes)),
            Self::Fill(range, byte) => write!(f, "fill {range} {byte}"),
            Self::Read(range) => write!(f, "read {range}"),
            Self::Exec(address) => write!(f, "exec {address}"),
            Self::ToUser(address, bytes) => write!(f, "to_user {address} {}", Quoted(bytes)),
            Self::FromUser(range) => write!(f, "from_user {range}"),
            Self::Poke(address, bytes) => write!(f, "poke {address} {}", Quoted(bytes)),
            Self::Peek(range) => write!(f, "peek {range}"),
            Self::KernelMap(name, length) => write!(f, "kernel_map {name} {}", Number(*length)),
            Self::KernelRead(range) => write!(f, "kernel_read {range}"),
            Self::KernelWrite(address, bytes) => {
                write!(f, "kernel_write {address} {}", Quoted(bytes))
            }
            Self::Prefetch { code, address } => write!(f, "prefetch {code} {address}"),
            Self::Cpu(number) => write!(f, "cpu {number}"),
            Self::Fork(child) => write!(f, "fork {child}"),
            Self::Exit => f.write_str("exit"),
            Self::Reclaim(pages) => write!(f, "reclaim {pages}"),
            Self::Maps(name) => write!(f, "maps {name}"),
            Self::Check => f.write_str("check"),
            Self::SwapOn(SwapOn { pages, bad, on_file }) => {
                write!(f, "swapon {pages}")?;
                for (number, page) in bad.iter().enumerate() {
                    write!(f, "{}{page}", if number == 0 { " bad=" } else { "," })?;
                }
                f.write_str(if *on_file { " file" } else { "" })
            }
            Self::SwapOff(area) => write!(f, "swapoff {area}"),
            Self::Fail { what, nth } => write!(f, "fail {what} {nth}"),
        }
    }
}

impl Display for Mmap {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (name, protection) = (&self.name, self.protection);
        write!(f, "mmap {name} {} {protection}", Number(self.length))?;
        f.write_str(match self.sharing {
            Sharing::Private => " private",
            Sharing::Shared => " shared",
        })?;
        match &self.content {
            Content::Anonymous => f.write_str(" anon")?,
            Content::File { name, offset } => write!(f, " file={name} off={}", Number(*offset))?,
        }
        if let Some(at) = &self.at {
            write!(f, " at={at}")?;
        }
        for (flag, word) in MAP_WORDS {
            if self.flags.contains(flag) {
                write!(f, " {word}")?;
            }
        }
        Ok(())
    }
}

/// The words of `mmap` that stand alone.
pub(crate) const MAP_WORDS: [(MapFlags, &str); 4] = [
    (MapFlags::NOREPLACE, "noreplace"),
    (MapFlags::GROWSDOWN, "growsdown"),
    (MapFlags::NORESERVE, "noreserve"),
    (MapFlags::POPULATE, "populate"),
];

/// The words of `mlockall`.
pub(crate) const LOCK_WORDS: [(LockAll, &str); 3] =
    [(LockAll::CURRENT, "current"), (LockAll::FUTURE, "future"), (LockAll::ON_FAULT, "onfault")];

impl Display for Mremap {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (old, new) = (Number(self.old), Number(self.new));
        write!(f, "mremap {} {old} {new}", self.address)?;
        f.write_str(match self.moving {
            Moving::Stay => "",
            Moving::May => " maymove",
            Moving::Leaving => " dontunmap",
        })?;
        if let Some(at) = &self.at {
            write!(f, " at={at}")?;
        }
        if let Some(name) = &self.bind {
            write!(f, " as {name}")?;
        }
        Ok(())
    }
}

impl Display for Address {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        let (pages, bytes) = (self.offset / PAGE, self.offset % PAGE);
        if pages > 0 {
            write!(f, "+{pages}p")?;
        }
        if bytes > 0 {
            write!(f, "+{bytes}")?;
        }
        Ok(())
    }
}

impl Display for Range {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.address, Number(self.length))
    }
}

impl Display for Protection {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("-");
        }
        for (bit, letter) in PROTECTION_LETTERS {
            if self.contains(bit) {
                f.write_str(letter)?;
            }
        }
        Ok(())
    }
}

/// The letters of a protection in the order in which they are printed.
pub(crate) const PROTECTION_LETTERS: [(Protection, &str); 3] =
    [(Protection::READ, "r"), (Protection::WRITE, "w"), (Protection::EXEC, "x")];

impl Display for SyncFlag {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sync => "sync",
            Self::Async => "async",
            Self::Invalidate => "invalidate",
        })
    }
}

impl Display for Advice {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Normal => "normal",
            Self::Random => "random",
            Self::Sequential => "sequential",
            Self::WillNeed => "willneed",
            Self::DontNeed => "dontneed",
            Self::Free => "free",
            Self::Remove => "remove",
            Self::DontFork => "dontfork",
            Self::DoFork => "dofork",
            Self::Cold => "cold",
            Self::PageOut => "pageout",
            Self::PopulateRead => "populate_read",
            Self::PopulateWrite => "populate_write",
            Self::DontNeedLocked => "dontneed_locked",
            Self::WipeOnFork => "wipeonfork",
            Self::KeepOnFork => "keeponfork",
            Self::DontDump => "dontdump",
            Self::DoDump => "dodump",
            Self::GuardInstall => "guard_install",
            Self::GuardRemove => "guard_remove",
        })
    }
}

impl Display for Failing {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Frame => "frame",
            Self::Read => "read",
            Self::Write => "write",
        })
    }
}

/// A number of bytes, in pages if it is whole pages.
struct Number(u64);

impl Display for Number {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("0"),
            n if n % PAGE == 0 => write!(f, "{}p", n / PAGE),
            n if n < PAGE => write!(f, "{n}"),
            n => write!(f, "{n:#x}"),
        }
    }
}

/// Bytes as a string of the language.
struct Quoted<'a>(&'a [u8]);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for &byte in self.0 {
            match byte {
                b'\n' => f.write_str("\\n")?,
                b'\t' => f.write_str("\\t")?,
                b'\\' => f.write_str("\\\\")?,
                b'"' => f.write_str("\\\"")?,
                b' '..=b'~' => write!(f, "{}", char::from(byte))?,
                _ => write!(f, "\\x{byte:02x}")?,
            }
        }
        f.write_str("\"")
    }
}
