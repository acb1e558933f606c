//! Buffers that end at an unmapped page, and calls in processes of their own.

use pagefault_calls::{Access, Area, Kind, NUMBERS, Reader, describe, visit};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

const PAGE: usize = 4096;

/// A call's name, and what prepares its arguments.
pub type Case = (&'static str, fn(&mut Call));

/// One call's arguments and their buffers.
#[derive(Default)]
pub struct Call {
    args: Vec<Arg>,
    buffers: Vec<Buffer>,
    /// The machine may lack what the call is about.
    optional: bool,
}

enum Arg {
    Number(u64),
    Buffer(usize),
}

struct Buffer {
    bytes: Vec<u8>,
    access: Access,
    /// Pointers inside: at which offset, to which buffer.
    links: Vec<(usize, usize)>,
    /// By how many bytes it is shortened.
    cut: usize,
    /// The kernel tells of a missing byte.
    told: bool,
    /// The kernel tells if it cannot write.
    written: bool,
    /// The table may name more than this.
    loose: bool,
}

pub enum Outcome {
    Proven,
    Unavailable(String),
    Wrong(String),
}

impl Call {
    /// A number.
    pub fn n(&mut self, number: impl TryInto<i128>) -> &mut Call {
        let number = number.try_into().unwrap_or_else(|_| panic!("fits"));
        self.args.push(Arg::Number(number as u64));
        self
    }

    /// A buffer that the kernel reads.
    pub fn i(&mut self, bytes: impl AsRef<[u8]>) -> &mut Call {
        let buffer = self.hide(bytes, Access::Read);
        self.args.push(Arg::Buffer(buffer));
        self
    }

    /// A buffer that it writes.
    pub fn o(&mut self, len: usize) -> &mut Call {
        let buffer = self.hide(vec![0; len], Access::Write);
        self.args.push(Arg::Buffer(buffer));
        self
    }

    /// A buffer that it reads and writes.
    pub fn io(&mut self, bytes: impl AsRef<[u8]>) -> &mut Call {
        let buffer = self.hide(bytes, Access::ReadWrite);
        self.args.push(Arg::Buffer(buffer));
        self
    }

    /// A string.
    pub fn s(&mut self, text: &str) -> &mut Call {
        let text = [text.as_bytes(), &[0]].concat();
        self.i(text)
    }

    /// The machine, or the kernel, may lack what the call is about: it may fail without a look.
    pub fn optional(&mut self) -> &mut Call {
        self.optional = true;
        self
    }

    /// A buffer of no argument; other buffers link to it.
    pub fn hide(&mut self, bytes: impl AsRef<[u8]>, access: Access) -> usize {
        self.buffers.push(Buffer {
            bytes: bytes.as_ref().to_vec(),
            access,
            links: Vec::new(),
            cut: 1,
            told: true,
            written: access != Access::Read,
            loose: false,
        });
        self.buffers.len() - 1
    }

    fn last(&mut self) -> &mut Buffer {
        self.buffers.last_mut().expect("a buffer")
    }

    /// The last buffer holds a pointer to `inner` at `offset`.
    pub fn link(&mut self, offset: usize, inner: usize) -> &mut Call {
        self.last().links.push((offset, inner));
        self
    }

    /// The last buffer is cut by so many bytes: it must stay aligned, or its end is padding.
    pub fn cut(&mut self, cut: usize) -> &mut Call {
        self.last().cut = cut;
        self
    }

    /// The kernel does not tell if a byte of the last buffer is missing.
    pub fn untold(&mut self) -> &mut Call {
        self.last().told = false;
        self.last().written = false;
        self
    }

    /// The kernel does not tell if a byte of that buffer is missing.
    pub fn untell(&mut self, buffer: usize) -> &mut Call {
        self.buffers[buffer].told = false;
        self.buffers[buffer].written = false;
        self
    }

    /// The table cannot know which way that buffer goes.
    pub fn both_ways(&mut self, buffer: usize) -> &mut Call {
        self.buffers[buffer].access = Access::ReadWrite;
        self.buffers[buffer].written = false;
        self
    }

    /// The kernel does not tell that it could not write the last buffer, or has no reason to.
    pub fn unwritten(&mut self) -> &mut Call {
        self.last().written = false;
        self
    }

    /// The table names the most that there could be, which is more than this call's.
    pub fn loose(&mut self) -> &mut Call {
        self.last().loose = true;
        self
    }
}

/// The defect of a buffer in one run.
#[derive(Clone, Copy, PartialEq)]
enum Flaw {
    None,
    Short(usize),
    ReadOnly(usize),
}

/// The result of a run.
enum Run {
    Result(i64),
    /// The error of an optional call, other than `EFAULT`.
    Lacks(i64),
    Disagrees(String),
    Died(i32),
}

/// Makes the case's call whole, and with each flaw that the kernel must notice.
pub fn prove(case: &Case) -> Outcome {
    let whole = match run(case, Flaw::None) {
        Run::Result(result) | Run::Lacks(result) => result,
        Run::Disagrees(why) => return Outcome::Wrong(why),
        Run::Died(status) => return Outcome::Wrong(format!("ended with status {status:#x}")),
    };
    if whole == -i64::from(libc::EFAULT) {
        return Outcome::Wrong("EFAULT with whole buffers".into());
    }
    let missing = [libc::ENOSYS, libc::EOPNOTSUPP, libc::EPERM, libc::EACCES, libc::ENOPKG];
    if missing.iter().any(|&errno| whole == -i64::from(errno)) {
        return unavailable(whole);
    }
    // The buffers are the same in every run; only a child may prepare them.
    let mut flaws = 0;
    for index in 0.. {
        let short = run(case, Flaw::Short(index));
        match short {
            Run::Died(OUT_OF_BUFFERS) => break,
            Run::Died(NOT_TOLD) => continue,
            Run::Result(result) if refused(result, whole) => flaws += 1,
            Run::Lacks(result) if result == whole => return unavailable(whole),
            other => return Outcome::Wrong(describe_run("short", index, whole, other)),
        }
        match run(case, Flaw::ReadOnly(index)) {
            Run::Died(NOT_TOLD) => {}
            Run::Result(result) if refused(result, whole) => flaws += 1,
            other => return Outcome::Wrong(describe_run("read-only", index, whole, other)),
        }
    }
    if flaws == 0 {
        return Outcome::Wrong("no buffer that the kernel tells of".into());
    }
    Outcome::Proven
}

fn unavailable(result: i64) -> Outcome {
    Outcome::Unavailable(std::io::Error::from_raw_os_error(-result as i32).to_string())
}

/// `EFAULT`, or a transfer that ended early.
fn refused(result: i64, whole: i64) -> bool {
    result == -i64::from(libc::EFAULT) || (0 <= result && result < whole)
}

fn describe_run(flaw: &str, index: usize, whole: i64, run: Run) -> String {
    match run {
        Run::Result(result) | Run::Lacks(result) => {
            format!("buffer {index} {flaw}: {result}, whole: {whole}")
        }
        Run::Disagrees(why) => format!("buffer {index} {flaw}: {why}"),
        Run::Died(status) => format!("buffer {index} {flaw}: ended with status {status:#x}"),
    }
}

const OUT_OF_BUFFERS: i32 = 101 << 8;
const NOT_TOLD: i32 = 102 << 8;

/// Shared with the child: whether it has an answer, the call's result, a message.
#[repr(C)]
struct Answer {
    kind: u64,
    result: i64,
    len: usize,
    text: [u8; 1024],
}

/// Makes the call in a child, so that whatever it changes ends with it.
fn run(case: &Case, flaw: Flaw) -> Run {
    let answer = map(PAGE, libc::MAP_SHARED).cast::<Answer>();
    // SAFETY: the child makes system calls and allocates, which glibc allows after fork.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "{}", std::io::Error::last_os_error());
    if child == 0 {
        // SAFETY: the mapping is shared, zeroed, and longer than the structure.
        let answer = unsafe { &mut *answer };
        in_child(case, flaw, answer);
    }
    let mut status = 0;
    // SAFETY: status is a local.
    while unsafe { libc::waitpid(child, &mut status, 0) } != child {}
    // SAFETY: the child has ended.
    let (kind, result) = unsafe { ((*answer).kind, (*answer).result) };
    let run = match kind {
        1 => Run::Result(result),
        2 => {
            // SAFETY: as above; the child wrote a length within the array.
            let text = unsafe { (&(*answer).text)[..(*answer).len].to_vec() };
            Run::Disagrees(String::from_utf8_lossy(&text).into_owned())
        }
        3 => Run::Lacks(result),
        // A program took its place.
        _ if status == 0 => Run::Result(0),
        _ => Run::Died(status),
    };
    // SAFETY: mapped above; nothing refers to it any more.
    unsafe { libc::munmap(answer.cast(), PAGE) };
    run
}

fn in_child(case: &Case, flaw: Flaw, answer: &mut Answer) -> ! {
    let exit = |status: i32| -> ! {
        // SAFETY: ends the child.
        unsafe { libc::_exit(status) }
    };
    // SAFETY: a call that hangs ends the child.
    unsafe { libc::alarm(120) };
    let mut call = Call::default();
    case.1(&mut call);
    match flaw {
        Flaw::Short(index) | Flaw::ReadOnly(index) => match call.buffers.get(index) {
            None => exit(OUT_OF_BUFFERS >> 8),
            Some(buffer) => {
                let asked = if flaw == Flaw::Short(index) { buffer.told } else { buffer.written };
                if !asked {
                    exit(NOT_TOLD >> 8);
                }
            }
        },
        Flaw::None => {}
    }
    if LACKING.load(Ordering::Relaxed) {
        (answer.result, answer.kind) = (-i64::from(libc::EPERM), 3);
        exit(0);
    }
    let placed = place(&call, flaw);
    let mut args = [0; 6];
    for (arg, given) in args.iter_mut().zip(&call.args) {
        *arg = match given {
            Arg::Number(number) => *number,
            Arg::Buffer(index) => placed[*index].0 as u64,
        };
    }
    let nr = (0..NUMBERS)
        .filter_map(describe)
        .find(|call| call.name == case.0)
        .unwrap_or_else(|| panic!("{} is in the table", case.0))
        .nr;
    if flaw == Flaw::None
        && let Err(why) = agrees(nr, &args, &call, &placed)
    {
        let len = why.len().min(answer.text.len());
        answer.text[..len].copy_from_slice(&why.as_bytes()[..len]);
        answer.len = len;
        answer.kind = 2;
        exit(0);
    }
    // SAFETY: the arguments are the case's, which are harmless in a process of their own.
    let (result, me) = unsafe {
        let me = libc::getpid();
        let result = libc::syscall(nr.into(), args[0], args[1], args[2], args[3], args[4], args[5]);
        (result, me)
    };
    // SAFETY: no arguments; a child that the call made ends here.
    if unsafe { libc::syscall(libc::SYS_getpid) } != i64::from(me) {
        exit(0);
    }
    answer.result = match result {
        -1 => -i64::from(std::io::Error::last_os_error().raw_os_error().unwrap_or(0)),
        // modify_ldt answers an int.
        result @ 0xffff_f001..=0xffff_ffff => i64::from(result as i32),
        result => result,
    };
    let lacks = call.optional && answer.result < 0 && answer.result != -i64::from(libc::EFAULT);
    answer.kind = if lacks { 3 } else { 1 };
    exit(0);
}

/// Puts each buffer before an unmapped page; returns where, and how long.
fn place(call: &Call, flaw: Flaw) -> Vec<(usize, usize)> {
    let placed: Vec<_> = call
        .buffers
        .iter()
        .enumerate()
        .map(|(index, buffer)| {
            let len = buffer.bytes.len();
            let room = len.next_multiple_of(PAGE);
            let base = map(room + PAGE, libc::MAP_PRIVATE) as usize;
            // SAFETY: the last page of the mapping that was just made.
            unsafe { libc::munmap((base + room) as *mut _, PAGE) };
            // SAFETY: the same page, so that nothing else comes to lie there.
            unsafe {
                libc::mmap(
                    (base + room) as *mut _,
                    PAGE,
                    libc::PROT_NONE,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
                    -1,
                    0,
                )
            };
            let cut = if flaw == Flaw::Short(index) { buffer.cut } else { 0 };
            (base + room - len + cut, len)
        })
        .collect();
    for (index, buffer) in call.buffers.iter().enumerate() {
        let mut bytes = buffer.bytes.clone();
        for &(offset, inner) in &buffer.links {
            bytes[offset..offset + 8].copy_from_slice(&placed[inner].0.to_ne_bytes());
        }
        let cut = if flaw == Flaw::Short(index) { buffer.cut } else { 0 };
        let kept = bytes.len() - cut;
        // SAFETY: so many bytes are mapped and writable from there on.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), placed[index].0 as *mut u8, kept) };
        if buffer.access == Access::Read || flaw == Flaw::ReadOnly(index) {
            let room = bytes.len().next_multiple_of(PAGE);
            let base = placed[index].0 - cut + bytes.len() - room;
            // SAFETY: pages of this buffer alone; for an empty one there are none.
            unsafe { libc::mprotect(base as *mut _, room, libc::PROT_READ) };
        }
    }
    placed
}

/// A page that is mapped and present.
pub fn map_page() -> usize {
    let page = map(PAGE, libc::MAP_PRIVATE);
    // SAFETY: the page was just mapped.
    unsafe { page.write(1) };
    page as usize
}

fn map(len: usize, kind: i32) -> *mut u8 {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping of anonymous memory.
    let base = unsafe {
        libc::mmap(std::ptr::null_mut(), len, protection, kind | libc::MAP_ANONYMOUS, -1, 0)
    };
    assert_ne!(base, libc::MAP_FAILED);
    base.cast()
}

/// Reads from the buffers alone.
struct Placed<'a>(&'a [(usize, usize)]);

impl Reader for Placed<'_> {
    fn read(&mut self, address: u64, into: &mut [u8]) -> Option<()> {
        let (start, end) = (address as usize, address as usize + into.len());
        let (at, len) =
            self.0.iter().find(|(at, len)| (*at & !(PAGE - 1)) <= start && end <= at + len)?;
        let _ = (at, len);
        // SAFETY: from the start of a buffer's page to its end all is mapped.
        into.copy_from_slice(unsafe { std::slice::from_raw_parts(start as *const u8, into.len()) });
        Some(())
    }
}

/// Whether the visit names each buffer exactly, in the right direction.
fn agrees(nr: u32, args: &[u64; 6], call: &Call, placed: &[(usize, usize)]) -> Result<(), String> {
    let mut areas = Vec::new();
    let _ = visit(nr, args, &mut Placed(placed), &mut |area: Area| {
        areas.push(area);
        ControlFlow::Continue(())
    });
    for (index, (buffer, &(start, len))) in call.buffers.iter().zip(placed).enumerate() {
        let end = start + len;
        let mut here: Vec<_> = areas
            .iter()
            .filter(|area| area.kind != Kind::Guess)
            .filter(|area| (start..end).contains(&(area.start as usize)))
            .collect();
        here.sort_by_key(|area| area.start);
        let covered = here.iter().fold(start, |covered, area| {
            if area.start as usize <= covered { covered.max(area.end() as usize) } else { covered }
        });
        if covered < end || (covered > end && !buffer.loose) {
            let named = covered - start;
            return Err(format!("buffer {index} has {len} bytes, the table names {named}"));
        }
        let reads = here.iter().any(|area| area.access != Access::Write);
        let writes = here.iter().any(|area| area.access.writes());
        let fits = match buffer.access {
            Access::Read => reads && !writes,
            Access::Write => writes,
            Access::ReadWrite => reads && writes,
        };
        if !fits {
            return Err(format!("buffer {index} is {:?}, the table says {here:?}", buffer.access));
        }
    }
    Ok(())
}

/// Set by a case, in its child: something that it needs is missing.
static LACKING: AtomicBool = AtomicBool::new(false);

/// The case needs a right that we have not, or something that is not here.
pub fn lacking() {
    LACKING.store(true, Ordering::Relaxed);
}

/// Its own namespace, so that nothing is left behind.
pub fn apart(namespace: i32) -> bool {
    let made = done(libc::SYS_unshare, &[namespace as u64]) == 0
        || done(libc::SYS_unshare, &[(namespace | libc::CLONE_NEWUSER) as u64]) == 0;
    if !made {
        lacking();
    }
    made
}

/// A system call, to prepare another.
pub fn done(nr: i64, args: &[u64]) -> i64 {
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    // SAFETY: as the caller says.
    unsafe { libc::syscall(nr, all[0], all[1], all[2], all[3], all[4], all[5]) }
}

/// A pipe.
pub fn pipe() -> (i32, i32) {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    unsafe { libc::pipe(ends.as_mut_ptr()) };
    (ends[0], ends[1])
}

pub fn write(fd: i32, bytes: &[u8]) {
    // SAFETY: a live slice.
    unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
}

/// The end to read from of a pipe that holds so many bytes.
pub fn pipe_with(len: usize) -> i32 {
    let (reader, writer) = pipe();
    write(writer, &vec![7; len]);
    reader
}

/// A file in memory that holds so many bytes, its position at the start.
pub fn file(len: usize) -> i32 {
    // SAFETY: a string with its NUL.
    let fd = unsafe { libc::memfd_create(c"case".as_ptr(), 0) };
    write(fd, &vec![7; len]);
    // SAFETY: no memory.
    unsafe { libc::lseek(fd, 0, libc::SEEK_SET) };
    fd
}

/// Words, as bytes.
pub fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// Halves of words, as bytes.
pub fn halves(halves: &[u32]) -> Vec<u8> {
    halves.iter().flat_map(|half| half.to_ne_bytes()).collect()
}

/// A descriptor of this process.
pub fn pidfd() -> i32 {
    // SAFETY: no memory.
    unsafe { libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0) as i32 }
}
