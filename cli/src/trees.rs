//! Finds the managed trees of this machine by their control memory: every process of a tree, its supervisor
//! and its launcher hold a descriptor of it.

use pagefault_control::{AttachError, Control, Mapped};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;

/// The supervisor's process name.
const SUPERVISOR: &str = "pagefault-super";

/// A managed tree.
pub struct Tree {
    /// The shared memory, by a descriptor of one of its holders.
    pub path: PathBuf,
    /// Its identity: the inode number of the shared memory.
    pub id: u64,
    /// The user ID of its owner.
    pub user: u32,
    /// All processes that hold it.
    holders: Vec<Holder>,
}

struct Holder {
    pid: u32,
    path: PathBuf,
    is_supervisor: bool,
}

/// Why no tree was found.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}: no such process")]
    NoProcess(u32),
    #[error("{0}: not in a managed tree; `pagefault top` lists them")]
    NotManaged(u32),
    #[error("{0}: permission denied ({1})")]
    Forbidden(u32, io::Error),
    #[error("{0}: {1}")]
    Attach(u32, AttachError),
}

/// All trees that this user may see, the oldest first.
pub fn all() -> Vec<Tree> {
    let mut found: BTreeMap<u64, Tree> = BTreeMap::new();
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    for pid in processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()) {
        for (path, id) in held_by(pid).unwrap_or_default() {
            let user = fs::metadata(format!("/proc/{pid}")).map_or(0, |process| process.uid());
            let tree = found.entry(id).or_insert_with(|| Tree {
                path: path.clone(),
                id,
                user,
                holders: Vec::new(),
            });
            tree.holders.push(Holder { pid, path, is_supervisor: name(pid) == SUPERVISOR });
        }
    }
    let mut trees: Vec<Tree> = found.into_values().collect();
    for tree in &mut trees {
        tree.holders.sort_by_key(|holder| holder.pid);
        // The supervisor lasts as long as the tree.
        if let Some(supervisor) = tree.holders.iter().find(|holder| holder.is_supervisor) {
            tree.path.clone_from(&supervisor.path);
        }
    }
    trees.sort_by_key(Tree::first_pid);
    trees
}

/// Parses a process ID of the command line.
pub fn pid(text: &str) -> Result<u32, &'static str> {
    text.parse().ok().filter(|pid| *pid > 0).ok_or("a process ID is a positive number")
}

/// The tree of a process: the command's, its supervisor's or a member's.
pub fn of(pid: u32) -> Result<Tree, Error> {
    if !PathBuf::from(format!("/proc/{pid}")).exists() {
        return Err(Error::NoProcess(pid));
    }
    match held_by(pid) {
        Err(error) => return Err(Error::Forbidden(pid, error)),
        Ok(held) if held.is_empty() => return Err(Error::NotManaged(pid)),
        Ok(_) => {}
    }
    let holds = |tree: &Tree| tree.holders.iter().any(|holder| holder.pid == pid);
    all().into_iter().find(holds).ok_or(Error::NotManaged(pid))
}

/// The control memories that a process holds: paths and inode numbers.
fn held_by(pid: u32) -> io::Result<Vec<(PathBuf, u64)>> {
    let shared = format!("/memfd:{}", pagefault_control::NAME);
    let mut held: Vec<(PathBuf, u64)> = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))?.filter_map(Result::ok) {
        let path = entry.path();
        let is_shared = fs::read_link(&path)
            .is_ok_and(|link| link.to_str().is_some_and(|link| link.starts_with(&shared)));
        if is_shared
            && let Ok(file) = fs::metadata(&path)
            && !held.iter().any(|(_, id)| *id == file.ino())
        {
            held.push((path, file.ino()));
        }
    }
    Ok(held)
}

/// Kills every other process that holds a tree's memory. Returns whether there was one.
pub fn kill_holders(id: u64) -> bool {
    let Ok(processes) = fs::read_dir("/proc") else { return false };
    let own = std::process::id() as i32;
    let numbers = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let mut found = false;
    for number in numbers.filter(|number: &i32| *number != own) {
        if let Some(holder) = hold(number as u32, id) {
            found |= pidfd_send_signal(&holder, Signal::KILL).is_ok();
        }
    }
    found
}

/// A pidfd of a process that holds a tree's memory: by the time of the signal, its number may name another
/// process.
fn hold(pid: u32, id: u64) -> Option<OwnedFd> {
    let process = pidfd_open(Pid::from_raw(pid as i32)?, PidfdFlags::empty()).ok()?;
    held_by(pid).ok()?.iter().any(|(_, inode)| *inode == id).then_some(process)
}

/// Whether a process holds the tree memory behind a descriptor.
pub fn holds(pid: u32, memory: &OwnedFd) -> bool {
    rustix::fs::fstat(memory).is_ok_and(|memory| hold(pid, memory.st_ino).is_some())
}

/// A process's name.
pub fn name(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim_end().to_owned()
}

impl Tree {
    /// Maps it for reading; stores stay private.
    pub fn look(&self) -> Result<Mapped, Error> {
        Control::look(&self.path).map_err(|error| Error::Attach(self.first_pid(), error))
    }

    /// Maps it shared, for changes.
    pub fn attach(&self) -> Result<Mapped, Error> {
        Control::attach(&self.path).map_err(|error| Error::Attach(self.first_pid(), error))
    }

    /// A pidfd of one of its processes.
    pub fn hold(&self, pid: u32) -> Option<OwnedFd> {
        hold(pid, self.id)
    }

    /// The lowest number among its processes: the command's, while it waits for the program.
    pub fn first_pid(&self) -> u32 {
        self.holders.first().map_or(0, |holder| holder.pid)
    }

    /// The program that the command runs, or the oldest remaining process.
    pub fn program(&self, control: &Control) -> String {
        let pids = control.slots.all_taken().map(|(_, slot)| slot.pid.load(Relaxed));
        let Some(pid) = pids.filter(|pid| *pid != 0).min() else { return String::from("?") };
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<String> = line
            .split(|byte| *byte == 0)
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .collect();
        let line = words.join(" ");
        if line.trim().is_empty() { name(pid) } else { line.trim().to_owned() }
    }
}
