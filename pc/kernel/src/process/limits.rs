//! Who a process is, what it may use, and what follows from the one for the other.

use super::Process;
use crate::errno::Errno;
use crate::machine::Pc;
use core::sync::atomic::Ordering;
use linux_raw_sys::general as nr;
use pagefault::AddressSpace;

/// A limit, and how far the process may raise it (`setrlimit`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The limit.
    pub soft: u64,
    /// The most that it may become.
    pub hard: u64,
}

/// How many limits there are.
pub const COUNT: usize = nr::RLIM_NLIMITS as usize;

/// The most open files that any process may have (Linux: `fs.nr_open`). The numbers are kept in the
/// kernel's heap.
pub const MOST_OPEN: u64 = 65536;

/// A process's limits, by number.
#[derive(Clone, Debug)]
pub struct LimitTable([Limit; COUNT]);

impl Default for LimitTable {
    fn default() -> Self {
        let unlimited = Limit { soft: u64::MAX, hard: u64::MAX };
        let mut table = [unlimited; COUNT];
        table[nr::RLIMIT_STACK as usize].soft = 8 << 20;
        table[nr::RLIMIT_NOFILE as usize] = Limit { soft: 1024, hard: 4096 };
        table[nr::RLIMIT_MEMLOCK as usize] = Limit { soft: 8 << 20, hard: 8 << 20 };
        Self(table)
    }
}

impl LimitTable {
    /// A limit by its number, if there is one of that number.
    pub fn get(&self, resource: u32) -> Option<Limit> {
        self.0.get(resource as usize).copied()
    }

    /// The soft limit.
    pub fn soft(&self, resource: u32) -> u64 {
        self.get(resource).map_or(u64::MAX, |limit| limit.soft)
    }
}

/// The users and groups that a process acts as, and its rights.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Real, effective and saved user.
    pub users: [u32; 3],
    /// Real, effective and saved group.
    pub groups: [u32; 3],
    /// The rights that it has now, a bit each (`capabilities(7)`).
    pub effective: u64,
    /// Those that it can take up again.
    pub permitted: u64,
}

/// The rights of the superuser.
const ALL_RIGHTS: u64 = (1 << 41) - 1;

/// The right to lock memory.
pub const CAP_IPC_LOCK: u32 = 14;
/// The right to be any user.
pub const CAP_SETUID: u32 = 7;
/// The right to be any group.
pub const CAP_SETGID: u32 = 6;
/// The right to turn swap on and off.
pub const CAP_SYS_ADMIN: u32 = 21;
/// The right to raise limits.
pub const CAP_SYS_RESOURCE: u32 = 24;

impl Default for Identity {
    fn default() -> Self {
        Self { users: [0; 3], groups: [0; 3], effective: ALL_RIGHTS, permitted: ALL_RIGHTS }
    }
}

impl Identity {
    /// Whether it has a right now.
    pub const fn may(&self, right: u32) -> bool {
        self.effective & 1 << right != 0
    }

    /// What the change of users means for the rights (`capabilities(7)`): they go with the last user
    /// 0, and are not in effect while the effective user is another.
    pub fn follow_users(&mut self, before: [u32; 3]) {
        if before.contains(&0) && !self.users.contains(&0) {
            (self.permitted, self.effective) = (0, 0);
        }
        if before[1] == 0 && self.users[1] != 0 {
            self.effective = 0;
        } else if before[1] != 0 && self.users[1] == 0 {
            self.effective = self.permitted;
        }
    }
}

impl Process {
    /// Whether the process has a right.
    pub fn may(&self, right: u32) -> bool {
        self.identity.lock().may(right)
    }

    /// A soft limit.
    pub fn limit(&self, resource: u32) -> u64 {
        self.limits.lock().soft(resource)
    }

    /// Changes a limit.
    pub fn set_limit(&self, resource: u32, new: Limit) -> Result<(), Errno> {
        if new.soft > new.hard {
            return Err(Errno::EINVAL);
        }
        let may_raise = self.may(CAP_SYS_RESOURCE);
        if resource == nr::RLIMIT_NOFILE && new.hard > MOST_OPEN {
            return Err(Errno::EPERM);
        }
        {
            let mut limits = self.limits.lock();
            let limit = limits.0.get_mut(resource as usize).ok_or(Errno::EINVAL)?;
            if new.hard > limit.hard && !may_raise {
                return Err(Errno::EPERM);
            }
            *limit = new;
        }
        let space = self.space.lock().clone();
        if let Some(space) = space {
            self.apply_limits(&space);
        }
        Ok(())
    }

    /// Tells an address space what the process may use of it.
    pub fn apply_limits(&self, space: &AddressSpace<Pc>) {
        let soft = |resource| self.limit(resource);
        let unlimited = self.may(CAP_IPC_LOCK);
        let locked = if unlimited { u64::MAX } else { soft(nr::RLIMIT_MEMLOCK) };
        let limits = space.limits();
        limits.stack.store(soft(nr::RLIMIT_STACK), Ordering::Relaxed);
        limits.address_space.store(soft(nr::RLIMIT_AS), Ordering::Relaxed);
        limits.data.store(soft(nr::RLIMIT_DATA), Ordering::Relaxed);
        limits.locked.store(locked, Ordering::Relaxed);
    }
}
