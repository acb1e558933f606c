//! Calls that the host makes, on the program's own addresses.
//!
//! The table of calls ([`pagefault_calls`]) tells which memory each one touches. A call that
//! changes nothing when it fails is tried at once, and again with its pages pinned. Any other call
//! gets them pinned first. A long transfer goes in pieces, since its pages need not fit into memory
//! all at once.

use super::message::Header;
use super::{Call, Outcome, between, message, wait};
use crate::memory::{PAGE, Pins};
use crate::sys::Errno;
use crate::{entry, files, memory, process, quiescence, user};
use core::ops::ControlFlow;
use linux_raw_sys::general as nr;
use pagefault_calls::{Area, Class, File, Kind, Pieces, Rule, Shape, Traits, USER_END};
use pagefault_machine::Access;

/// The most bytes of a piece of a long transfer.
const PIECE: u64 = 1 << 20;
/// The least: a write to a pipe that is to be atomic is not cut.
const LEAST_PIECE: u64 = 1 << 16;
/// The most bytes that a call transfers (`MAX_RW_COUNT`).
pub(super) const MOST_BYTES: u64 = 0x7fff_f000;
/// The most vectors that one piece takes; the kernel guarantees at least as many.
const VECTORS: usize = 16;
/// The most vectors that a call takes (`UIO_MAXIOV`).
const MOST_VECTORS: u64 = 1024;

impl Call<'_> {
    /// Has the host make the call, or refuses it according to the table.
    pub(super) fn pass(&mut self) -> Outcome {
        if let Some(call) = pagefault_calls::describe(self.number)
            && let Class::Refused(pagefault_calls::Errno(errno)) = call.class
        {
            process::count_refused();
            return Outcome::Raw(-i64::from(errno));
        }
        Outcome::Raw(self.make_pinned(self.args))
    }

    /// Makes the call with these arguments, the pages that it names kept resident.
    pub(super) fn make_pinned(&mut self, args: [u64; 6]) -> i64 {
        if self.is_tried_unpinned() {
            let raw = match wait::is_for_word(self.number, &args) {
                true => self.call_quiescent(&args),
                false => self.call(&args),
            };
            if raw != -i64::from(Errno::EFAULT.0) || memory::current().is_none() {
                return raw;
            }
        }
        match pagefault_calls::split(self.number, &args) {
            Some(pieces) if self.is_long(&pieces, &args) => self.transfer(&pieces, &args),
            Some(pieces) => {
                let raw = self.make_with_pins(&args);
                if self.was_cut(raw) { self.complete(&pieces, &args, raw as u64) } else { raw }
            }
            None => {
                let raw = self.make_with_pins(&args);
                if self.number == nr::__NR_sendfile { self.send_rest(args, raw) } else { raw }
            }
        }
    }

    /// Sends the rest of a file after a reclaim request: the kernel has advanced the position.
    fn send_rest(&self, mut args: [u64; 6], mut raw: i64) -> i64 {
        let mut done = raw;
        while self.was_cut(raw) && (raw as u64) < args[3] {
            args[3] -= raw as u64;
            raw = self.make_with_pins(&args);
            done += raw.max(0);
        }
        done
    }

    /// Whether a reclaim request alone ended a call, after a part of what it was to transfer.
    pub(super) fn was_cut(&self, raw: i64) -> bool {
        self.thread.is_cut.get() && raw > 0 && !self.thread.has_pending()
    }

    /// Makes the rest of a transfer that was cut.
    fn complete(&mut self, pieces: &Pieces, args: &[u64; 6], done: u64) -> i64 {
        if let Shape::Messages { .. } = pieces.shape {
            return self.transfer_messages(args, done);
        }
        let kind = kind_of(args[0] as u32, self.number);
        if pieces.rule(kind) != Rule::Each || message::awaits_control(pieces, args) {
            return done as i64;
        }
        self.transfer_each(kind, pieces, args, done)
    }

    /// Makes the call itself.
    fn call(&self, args: &[u64; 6]) -> i64 {
        self.thread.is_cut.set(false);
        // SAFETY: the program asks for it, of its own memory.
        let raw = unsafe { wait::call(self.number, args, self.thread) };
        if raw == entry::RESTART && wait::always_restarts(self.number, args) {
            return entry::NOT_STARTED;
        }
        raw
    }

    /// Makes the call itself, which stores only to pinned pages.
    fn call_quiescent(&self, args: &[u64; 6]) -> i64 {
        let _quiescent = quiescence::leave(self.thread);
        self.call(args)
    }

    fn has(&self, wanted: Traits) -> bool {
        pagefault_calls::describe(self.number).is_some_and(|call| call.traits.contains(wanted))
    }

    /// Whether the call may wait for long, and the table names all memory that it stores to.
    fn may_wait(&self) -> bool {
        self.has(Traits::BLOCKS) && self.number != nr::__NR_ioctl
    }

    /// Whether to try the call with its pages as they are: it changes nothing if one is absent.
    fn is_tried_unpinned(&self) -> bool {
        self.has(Traits::REPEATABLE)
    }

    pub(super) fn make_with_pins(&self, args: &[u64; 6]) -> i64 {
        self.make_with_pins_by(args, Self::call)
    }

    /// The same, where `make` makes the call itself.
    pub(super) fn make_with_pins_by(
        &self,
        args: &[u64; 6],
        make: impl Fn(&Self, &[u64; 6]) -> i64,
    ) -> i64 {
        if let Some(_noted) = memory::note(self.thread, self.number, *args) {
            return make(self, args);
        }
        let mut pins = Pins::new();
        let most = Pins::most();
        let mut stays_here = !self.may_wait();
        each_area(self.number, args, &mut |area| {
            if pins.len() >= most {
                stays_here = true;
                return ControlFlow::Break(());
            }
            self.pin(&mut pins, &area);
            ControlFlow::Continue(())
        });
        stays_here |= !pins.are_whole();
        // A child that is forked meanwhile gives its copies up.
        self.thread.in_use.set(&raw mut pins);
        let raw = if stays_here { make(self, args) } else { self.call_quiescent(args) };
        self.thread.in_use.set(core::ptr::null_mut());
        raw
    }

    fn pin(&self, pins: &mut Pins, area: &Area) {
        let access = if area.access.writes() { Access::Write } else { Access::Read };
        match area.kind {
            // The kernel assumes that a read-only anonymous page never changes, and refuses a futex
            // in it.
            Kind::Word if pins.add_if(area.start, area.len, Access::Write) => {}
            Kind::Later => memory::keep_resident(self.thread, area.start, area.len),
            _ => pins.add(area.start, area.len, access),
        }
    }

    /// Whether a transfer is longer than a piece.
    fn is_long(&self, pieces: &Pieces, args: &[u64; 6]) -> bool {
        match pieces.shape {
            // The host refuses a buffer that does not end in user space as a whole.
            Shape::Flat { buffer, len } => {
                let [buffer, len] = [buffer, len].map(|arg| args[arg as usize]);
                len > piece_len() && is_in_user_space([buffer, len])
            }
            Shape::Vectors { .. } | Shape::Message { .. } => Vectors::of_call(pieces.shape, args)
                .is_some_and(|vectors| vectors.total > piece_len() || vectors.are_scattered()),
            Shape::Messages { .. } => message::are_many(args),
        }
    }

    /// Makes a long transfer piece by piece.
    fn transfer(&mut self, pieces: &Pieces, args: &[u64; 6]) -> i64 {
        if let Shape::Messages { .. } = pieces.shape {
            return self.transfer_messages(args, 0);
        }
        if let Some(raw) = self.make_gathered(pieces, args) {
            return raw;
        }
        let kind = kind_of(args[0] as u32, self.number);
        match pieces.rule(kind) {
            Rule::Whole => self.make_with_pins(args),
            Rule::Each if !message::awaits_control(pieces, args) => {
                self.transfer_each(kind, pieces, args, 0)
            }
            _ => self.transfer_by(Rule::First, pieces, args, 0),
        }
    }

    /// Makes every piece, after `done` bytes.
    fn transfer_each(&mut self, kind: File, pieces: &Pieces, args: &[u64; 6], done: u64) -> i64 {
        if kind == File::Stream && !pieces.input {
            let send = |call: &Self, pieces: &Pieces, args: &[u64; 6]| {
                call.transfer_by(Rule::Each, pieces, args, done)
            };
            return self.send(args, send);
        }
        self.transfer_by(Rule::Each, pieces, args, done)
    }

    fn transfer_by(&self, rule: Rule, pieces: &Pieces, args: &[u64; 6], mut done: u64) -> i64 {
        let all = match pieces.shape {
            Shape::Flat { len, .. } => args[len as usize].min(MOST_BYTES),
            _ => match Vectors::of_call(pieces.shape, args) {
                Some(vectors) => vectors.total.min(MOST_BYTES),
                None => return self.make_with_pins(args),
            },
        };
        while done < all || all == 0 {
            let (asked, raw) = match self.piece(pieces, args, done, all) {
                Some(made) => made,
                None => return done as i64,
            };
            if matches!(raw, entry::RESTART | entry::NOT_STARTED) {
                // The bytes done so far are the result, as when a signal interrupts the kernel's
                // transfer.
                return if done > 0 { done as i64 } else { raw };
            }
            let asked = if self.was_cut(raw) { raw as u64 } else { asked };
            match Pieces::finished(rule, done, asked, all, raw) {
                Some(result) => return result,
                None => done += raw as u64,
            }
        }
        done as i64
    }

    /// Makes the piece after `done` bytes; returns the bytes that it asked for and its result.
    fn piece(&self, pieces: &Pieces, args: &[u64; 6], done: u64, all: u64) -> Option<(u64, i64)> {
        let most = piece_len();
        let mut piece = pieces.piece(args, done, most)?;
        if done > 0 {
            message::go_on(self.number, &mut piece);
        }
        let asked = most.min(all - done);
        if let Shape::Flat { .. } = pieces.shape {
            return Some((asked, self.make_with_pins(&piece)));
        }
        let mut cut = [[0_u64; 2]; VECTORS];
        let vectors = Vectors::of_call(pieces.shape, args)?;
        let (used, asked) = Pieces::cut(vectors.each(), done, asked, &mut cut);
        if used == 0 {
            return None;
        }
        Some((asked, self.make_with_vectors(pieces, &piece, &cut[..used], done)))
    }
}

/// Names each area of the program's memory that the host uses for a call.
pub fn each_area(number: u32, args: &[u64; 6], f: &mut dyn FnMut(Area) -> ControlFlow<()>) {
    if pagefault_calls::visit(number, args, &mut user::Memory, &mut |area| f(area)).is_continue() {
        between::each_remote_area(number, args, f);
    }
}

/// The bytes of a piece of a long transfer: its pages are half of those that a call may keep resident.
pub(super) fn piece_len() -> u64 {
    let most = (Pins::most() as u64).saturating_mul(PAGE) / 2;
    (most & !(LEAST_PIECE - 1)).clamp(LEAST_PIECE, PIECE)
}

/// Whether a time that the kernel counts down has run out; a null pointer is no time.
pub(super) fn is_over(time: u64) -> bool {
    time != 0 && user::read::<[u64; 2]>(time) == Ok([0, 0])
}

/// Whether a buffer, its start and length, ends in user space.
pub(super) fn is_in_user_space([start, len]: [u64; 2]) -> bool {
    start.checked_add(len).is_some_and(|end| end <= USER_END)
}

/// The program's array of `iovec`.
pub(super) struct Vectors {
    array: u64,
    count: u64,
    /// The sum of the lengths.
    pub(super) total: u64,
}

impl Vectors {
    /// Reads the lengths; `None` where the kernel will refuse the array.
    pub(super) fn read(array: u64, count: u64) -> Option<Self> {
        if count > MOST_VECTORS {
            return None;
        }
        let mut total = 0_u64;
        for index in 0..count {
            let [_, len] = user::read::<[u64; 2]>(array.checked_add(16 * index)?).ok()?;
            if len > i64::MAX as u64 {
                return None;
            }
            total = total.checked_add(len)?;
        }
        Some(Self { array, count, total })
    }

    /// Those of a call; `None` also if it has no array of its own.
    pub(super) fn of_call(shape: Shape, args: &[u64; 6]) -> Option<Self> {
        match shape {
            Shape::Vectors { array, count } => {
                Self::of_buffers(args[array as usize], args[count as usize])
            }
            Shape::Message { header } => Header::read(args[header as usize])?.vectors(),
            Shape::Flat { .. } | Shape::Messages { .. } => None,
        }
    }

    /// The same for buffers of the caller's: the kernel refuses one that does not end in user space.
    pub(super) fn of_buffers(array: u64, count: u64) -> Option<Self> {
        let vectors = Self::read(array, count)?;
        let are_valid = vectors.each().all(is_in_user_space);
        are_valid.then_some(vectors)
    }

    /// Whether they may be in more pages than a call may keep resident.
    pub(super) fn are_scattered(&self) -> bool {
        self.total / PAGE + 2 * self.count > Pins::most() as u64
    }

    /// The vectors, as far as they can be read.
    pub(super) fn each(&self) -> impl Iterator<Item = [u64; 2]> {
        let (array, count) = (self.array, self.count);
        (0..count).map_while(move |index| user::read(array + 16 * index).ok())
    }
}

/// What kind of file a descriptor stands for.
fn kind_of(descriptor: u32, number: u32) -> File {
    if number == nr::__NR_getrandom {
        return File::Memory;
    }
    match files::mode(descriptor) & nr::S_IFMT {
        nr::S_IFREG | nr::S_IFDIR | nr::S_IFBLK => File::Storage,
        nr::S_IFCHR => match files::device_major(descriptor) {
            1 => File::Memory,
            _ if files::is_terminal(descriptor) => File::Terminal,
            _ => File::Messages,
        },
        nr::S_IFIFO if !files::is_packet_pipe(descriptor) => File::Pipe,
        nr::S_IFSOCK if files::is_stream(descriptor) => File::Stream,
        _ => File::Messages,
    }
}
