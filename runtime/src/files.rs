//! Descriptors: the runtime's own, and the host's facts about the program's.

use crate::member::Member;
use crate::memory;
use crate::process::{boot, control};
use crate::sys::{self, Errno, Result};
use crate::thread::Thread;
use core::ffi::CStr;
use core::sync::atomic::AtomicI32;
use core::sync::atomic::Ordering::Relaxed;
use linux_raw_sys::general as nr;
use pagefault_control::{MOST_AREAS, Slot};
use pagefault_linux::store::descriptor;
use rustix::fd::{AsRawFd, FromRawFd, OwnedFd};

/// `SOCK_STREAM`.
const STREAM: u32 = 1;

fn slot() -> Option<&'static Slot> {
    control()?.slots.get(Thread::current().member().slot())
}

/// The same before there is a thread.
fn first_slot() -> Option<&'static Slot> {
    control()?.slots.get(boot().slot)
}

/// The socket to the supervisor.
pub fn socket(member: &Member) -> u64 {
    let slot = control().and_then(|control| control.slots.get(member.slot()));
    slot.map_or(boot().socket_fd, |slot| slot.socket_fd.load(Relaxed)) as u32 as u64
}

/// How many descriptors a program may inherit for its runtime.
const INHERITED: usize = 3 + MOST_AREAS;

/// The descriptors that a program inherits for its runtime; `u32::MAX` for each missing one.
pub fn shared() -> [u32; INHERITED] {
    let numbers = |slot| inherited(slot).map(|word| word.load(Relaxed) as u32);
    slot().map_or([u32::MAX; INHERITED], numbers)
}

/// The fields of a slot that name them, the control memory first.
fn inherited(slot: &Slot) -> [&AtomicI32; INHERITED] {
    let own = [&slot.control_fd, &slot.socket_fd, &slot.code_fd];
    core::array::from_fn(|number| match own.get(number) {
        Some(own) => *own,
        None => &slot.swap_fds[number - own.len()],
    })
}

/// The swap file of an area.
pub fn swap(area: usize) -> i32 {
    slot().map_or(-1, |slot| slot.swap_fds[area].load(Relaxed))
}

/// Whether a descriptor is the runtime's.
pub fn is_kept(number: u32) -> bool {
    shared().contains(&number) && control().is_some() || descriptor::is_kept(number as i32)
}

/// The lowest descriptor at or above `from` that is the runtime's.
pub fn next_kept(from: u32) -> Option<u32> {
    let own = shared().into_iter().filter(|number| control().is_some() && *number >= from);
    let kept = i32::try_from(from).ok().and_then(descriptor::next_kept).map(|kept| kept as u32);
    own.filter(|number| *number != u32::MAX).chain(kept).min()
}

/// Whether a number can be that of a descriptor of the runtime's: a quick test.
pub fn may_be_kept(number: u32) -> bool {
    number as i32 >= descriptor::lowest()
}

/// The process whose descriptors a directory lists.
pub enum Owner {
    /// This process.
    Own,
    /// Another process of the tree, by its slot.
    Other(&'static Slot),
}

impl Owner {
    /// Whether a number belongs to the owner's runtime. Another process publishes where its own
    /// begin: the program's may lie on both sides.
    pub fn keeps(&self, number: u32) -> bool {
        let slot = match self {
            Self::Own => return is_kept(number),
            Self::Other(slot) => slot,
        };
        let is_shared = inherited(slot).iter().any(|word| word.load(Relaxed) as u32 == number);
        let (number, from) = (u64::from(number), slot.kept_from.load(Relaxed));
        is_shared
            || (from..from + OURS).contains(&number)
            || number >= slot.nofile_most.load(Relaxed)
    }
}

/// Whose descriptors a directory lists, if it is such a directory and its owner one of the tree.
pub fn owner_of_list(directory: u32) -> Option<Owner> {
    control()?;
    if !is_of_proc(directory) {
        return None;
    }
    let mut path = [0_u8; 64];
    let path = link_of(directory, &mut path)?;
    let (process, rest) = path.strip_prefix("/proc/")?.split_once('/')?;
    if !matches!(rest.rsplit('/').next()?, "fd" | "fdinfo") {
        return None;
    }
    let mut own = [0_u8; 16];
    if process == link(c"/proc/self", &mut own)? {
        return Some(Owner::Own);
    }
    other_owner(process.parse().ok()?)
}

/// Whose descriptors those of a process are, if it is one of the tree.
pub fn owner(process: u32) -> Option<Owner> {
    if process == sys::process_id() { Some(Owner::Own) } else { other_owner(process) }
}

fn other_owner(process: u32) -> Option<Owner> {
    if crate::process::has_numbers_of_its_own() {
        return None;
    }
    control()?.slots.of(process).map(Owner::Other)
}

/// Whose descriptors those of the process are for which a descriptor stands (`pidfd_open`).
pub fn owner_of_pidfd(number: u32) -> Option<Owner> {
    if crate::process::has_numbers_of_its_own() {
        return None;
    }
    let (mut name, mut bytes) = ([0_u8; 40], [0_u8; 512]);
    let name = path(&mut name, format_args!("/proc/self/fdinfo/{number}\0"))?;
    let len = read_start(name, &mut bytes)?;
    let text = core::str::from_utf8(&bytes[..len]).ok()?;
    owner(text.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()?)
}

/// Gives a descriptor of the runtime's another number. The old one is free then.
pub fn move_away(number: u32) -> Result<()> {
    let Some(slot) = slot() else { return Err(Errno::EBADF) };
    // No other thread uses one of the memory manager's meanwhile.
    let _rest = memory::rest();
    let is_it = |word: &&AtomicI32| word.load(Relaxed) as u32 == number;
    match inherited(slot).into_iter().find(is_it) {
        Some(word) => word.store(duplicate(number)?, Relaxed),
        None => {
            descriptor::move_away(number as i32).map_err(|errno| Errno(errno.raw_os_error()))?;
            memory::serve::say();
        }
    }
    // SAFETY: the runtime has another number for it.
    let _ = unsafe { sys::call(nr::__NR_close, [number.into()]) };
    Ok(())
}

/// A new number for a descriptor that an exec keeps, above the old one if possible.
fn duplicate(number: u32) -> Result<i32> {
    let duplicate = |lowest: u64| {
        let args = [number.into(), u64::from(nr::F_DUPFD), lowest];
        // SAFETY: a new number for a descriptor of ours.
        unsafe { sys::call(nr::__NR_fcntl, args) }
    };
    let above = u64::from(number) + 1;
    let moved = descriptor::with_room(|| duplicate(above).or_else(|_| duplicate(3)))? as i32;
    descriptor::note(moved);
    Ok(moved)
}

/// The bound of the program's descriptor numbers.
pub fn limit() -> u64 {
    slot().map_or(u64::MAX, |slot| slot.nofile_soft.load(Relaxed))
}

/// If a limit of descriptors is higher than this, ours lie below it: a descriptor table is as long
/// as its highest number, and every fork copies it.
const HIGH: u64 = 4096;
/// By how much the host's hard limit is above the program's, if rights permit.
const OURS: u64 = 64;

/// Puts the runtime's descriptors above the program's limit.
pub fn begin() {
    if let Some(slot) = first_slot() {
        let own = inherited(slot).map(|word| word.load(Relaxed));
        own.into_iter().filter(|number| *number >= 0).for_each(descriptor::note);
        let from = slot.nofile_soft.load(Relaxed).min(HIGH - OURS);
        slot.kept_from.store(from, Relaxed);
        slot.nofile_most.store(slot.nofile_soft.load(Relaxed), Relaxed);
        descriptor::set_floor(from as i32);
    }
}

/// Makes the limit of descriptors the program's, once the runtime has its own.
pub fn begin_program() {
    let Some(slot) = first_slot() else { return };
    let soft = slot.nofile_soft.load(Relaxed);
    descriptor::with_limit(|own| {
        let own = host_words(&own);
        let _ = set_host_limit([soft.min(own[1]), own[1]]);
    });
}

/// Reads and changes the program's limit of descriptors: the soft and the hard one.
///
/// The host's soft limit is the program's, except while the runtime needs more. Its hard limit is
/// above the program's, if rights permit, so that the runtime's descriptors fit there.
pub fn exchange_limit(new: Option<[u64; 2]>) -> Result<[u64; 2]> {
    let Some(slot) = slot() else { return Err(Errno::ENOSYS) };
    descriptor::with_limit(|own| {
        let was = [slot.nofile_soft.load(Relaxed), slot.nofile_hard.load(Relaxed)];
        let Some([soft, hard]) = new else { return Ok(was) };
        if soft > hard {
            return Err(Errno::EINVAL);
        }
        let own = host_words(&own);
        if hard > was[1] {
            // Only the host knows whether the program has the right.
            set_host_limit([soft, hard.saturating_add(OURS)])
                .or_else(|_| set_host_limit([soft, hard]))?;
        } else {
            set_host_limit([soft.min(own[1]), own[1]])?;
        }
        slot.nofile_soft.store(soft, Relaxed);
        slot.nofile_most.fetch_max(soft, Relaxed);
        slot.nofile_hard.store(hard, Relaxed);
        Ok(was)
    })
}

fn host_words(limit: &rustix::process::Rlimit) -> [u64; 2] {
    [limit.current.unwrap_or(u64::MAX), limit.maximum.unwrap_or(u64::MAX)]
}

fn set_host_limit(limit: [u64; 2]) -> Result<()> {
    let args = [0, u64::from(nr::RLIMIT_NOFILE), (&raw const limit) as u64, 0];
    // SAFETY: the structure is ours.
    unsafe { sys::call(nr::__NR_prlimit64, args) }.map(drop)
}

/// What an exec does with a descriptor.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum OnExec {
    Keep,
    Close,
}

/// Sets what an exec does with a descriptor.
pub fn set_on_exec(number: u32, on_exec: OnExec) {
    let flags = if on_exec == OnExec::Close { nr::FD_CLOEXEC } else { 0 };
    let args = [number.into(), u64::from(nr::F_SETFD), flags.into()];
    // SAFETY: the descriptor is ours.
    let _ = unsafe { sys::call(nr::__NR_fcntl, args) };
}

/// The mode of a file; 0 if there is none.
pub fn mode(number: u32) -> u32 {
    let mut stat = [0_u64; 32];
    // SAFETY: the structure is 144 bytes.
    match unsafe { sys::call(nr::__NR_fstat, [number.into(), (&raw mut stat) as u64]) } {
        Ok(_) => stat[3] as u32,
        Err(_) => 0,
    }
}

/// The major number of a device.
pub fn device_major(number: u32) -> u64 {
    let mut stat = [0_u64; 32];
    // SAFETY: the structure is 144 bytes.
    match unsafe { sys::call(nr::__NR_fstat, [number.into(), (&raw mut stat) as u64]) } {
        // `st_rdev` is the sixth word.
        Ok(_) => stat[5] >> 8 & 0xfff,
        Err(_) => 0,
    }
}

/// Whether a descriptor is a terminal.
pub fn is_terminal(number: u32) -> bool {
    let mut termios = [0_u64; 16];
    let args = [number.into(), u64::from(linux_raw_sys::ioctl::TCGETS), (&raw mut termios) as u64];
    // SAFETY: the structure is 36 bytes.
    unsafe { sys::call(nr::__NR_ioctl, args) }.is_ok()
}

/// Whether a number is that of a descriptor.
pub fn is_open(number: u32) -> bool {
    // SAFETY: the flags are asked for.
    unsafe { sys::call(nr::__NR_fcntl, [number.into(), u64::from(nr::F_GETFD), 0]) }.is_ok()
}

/// Whether a pipe keeps the bounds of writes.
pub fn is_packet_pipe(number: u32) -> bool {
    // SAFETY: the flags are asked for.
    let flags = unsafe { sys::call(nr::__NR_fcntl, [number.into(), u64::from(nr::F_GETFL), 0]) };
    flags.is_ok_and(|flags| flags as u32 & nr::O_DIRECT != 0)
}

/// Whether a socket is a stream.
pub fn is_stream(number: u32) -> bool {
    let (mut kind, mut len) = (0_u32, 4_u32);
    let (level, name) = (linux_raw_sys::net::SOL_SOCKET, linux_raw_sys::net::SO_TYPE);
    let args =
        [number.into(), level.into(), name.into(), (&raw mut kind) as u64, (&raw mut len) as u64];
    // SAFETY: both words are ours.
    let asked = unsafe { sys::call(nr::__NR_getsockopt, args) };
    asked.is_ok() && kind == STREAM
}

/// Whether files of a file system give no rights.
pub fn is_on_nosuid(number: u32) -> bool {
    /// `ST_NOSUID`.
    const NOSUID: u64 = 2;
    // The flags are the eleventh word.
    file_system(number).is_some_and(|stat| stat[10] & NOSUID != 0)
}

/// Whether a file is of the host's `proc`, and not another of that name.
pub fn is_of_proc(number: u32) -> bool {
    /// `PROC_SUPER_MAGIC`.
    const PROC: u64 = 0x9fa0;
    file_system(number).is_some_and(|stat| stat[0] == PROC)
}

/// The host's record of a file's file system (`struct statfs`); its type is the first word.
fn file_system(number: u32) -> Option<[u64; 16]> {
    let mut stat = [0_u64; 16];
    // SAFETY: the structure is 120 bytes.
    let asked = unsafe { sys::call(nr::__NR_fstatfs, [number.into(), (&raw mut stat) as u64]) };
    asked.is_ok().then_some(stat)
}

/// Whether a file has capabilities of its own.
pub fn has_capabilities(number: u32) -> bool {
    let mut bytes = [0_u8; 32];
    let Some(path) = path(&mut bytes, format_args!("/proc/self/fd/{number}\0")) else {
        return false;
    };
    let name = c"security.capability";
    let args = [path.as_ptr() as u64, name.as_ptr() as u64, 0, 0];
    // SAFETY: both names are ours, and nothing is written.
    unsafe { sys::call(nr::__NR_getxattr, args) }.is_ok()
}

/// Reads the beginning of a file of the host's; how many bytes there were.
pub fn read_start(path: &CStr, to: &mut [u8]) -> Option<usize> {
    with_file(path, |file| read(file, to))
}

/// Opens a file of the host's, whatever the program's limit of descriptors.
pub fn open(path: &CStr, mode: u32) -> Option<OwnedFd> {
    let flags = u64::from(mode | nr::O_CLOEXEC);
    descriptor::with_room(|| {
        // SAFETY: the path is ours, and the descriptor nobody else's.
        unsafe {
            let file = sys::call(nr::__NR_open, [path.as_ptr() as u64, flags, 0]).ok()?;
            Some(OwnedFd::from_raw_fd(file as i32))
        }
    })
}

/// Opens a file of the host's for a while, to read it.
pub fn with_file<T>(path: &CStr, work: impl FnOnce(u64) -> Option<T>) -> Option<T> {
    let file = open(path, nr::O_RDONLY)?;
    work(file.as_raw_fd() as u64)
}

/// Reads from a file of the host's.
pub fn read(file: u64, to: &mut [u8]) -> Option<usize> {
    // SAFETY: the buffer is ours.
    let len = unsafe { sys::call(nr::__NR_read, [file, to.as_mut_ptr() as u64, to.len() as u64]) };
    len.ok().map(|len| len as usize)
}

/// The process of whose memory (`/proc/PID/mem`) a descriptor is.
pub fn process_of_memory(number: u32) -> Option<u64> {
    let mut path = [0_u8; 64];
    let names = link_of(number, &mut path)?.strip_prefix("/proc/")?.strip_suffix("/mem")?;
    // That of a thread is PID/task/TID.
    names.split('/').next()?.parse().ok()
}

/// The path of a descriptor's file, as far as it fits.
pub fn link_of(number: u32, to: &mut [u8]) -> Option<&str> {
    let mut link = [0_u8; 32];
    let link = path(&mut link, format_args!("/proc/self/fd/{number}\0"))?;
    read_link(link.as_ptr() as u64, to)
}

/// A path, which ends with a zero, where there is room for it.
pub fn path<'a>(bytes: &'a mut [u8], path: core::fmt::Arguments<'_>) -> Option<&'a CStr> {
    core::fmt::write(&mut Cursor { bytes, len: 0 }, path).ok()?;
    CStr::from_bytes_until_nul(bytes).ok()
}

/// What a symbolic link of the host's says.
pub fn link<'a>(path: &CStr, to: &'a mut [u8]) -> Option<&'a str> {
    read_link(path.as_ptr() as u64, to)
}

/// What a symbolic link says; the path at this address is ours.
fn read_link(path: u64, to: &mut [u8]) -> Option<&str> {
    let args = [path, to.as_mut_ptr() as u64, to.len() as u64];
    // SAFETY: both buffers are ours.
    let len = unsafe { sys::call(nr::__NR_readlink, args) }.ok()?;
    core::str::from_utf8(&to[..len as usize]).ok()
}

/// Where the next access to a file begins.
pub fn position(number: u32) -> Option<u64> {
    /// `SEEK_CUR`.
    const HERE: u64 = 1;
    // SAFETY: the position stays as it is.
    unsafe { sys::call(nr::__NR_lseek, [number.into(), 0, HERE]) }.ok()
}

/// Makes the next access to a file begin elsewhere.
pub fn set_position(number: u32, position: u64) {
    /// `SEEK_SET`.
    const AT: u64 = 0;
    // SAFETY: the program asked for an access that moves the position.
    let _ = unsafe { sys::call(nr::__NR_lseek, [number.into(), position, AT]) };
}

struct Cursor<'a> {
    bytes: &'a mut [u8],
    len: usize,
}

impl core::fmt::Write for Cursor<'_> {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        let room = self.bytes.get_mut(self.len..self.len + text.len()).ok_or(core::fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len += text.len();
        Ok(())
    }
}
