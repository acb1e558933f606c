//! Who a process is, what it has a right to, and its limits.

use super::{Arguments, Result};
use crate::errno::Errno;
use crate::process::limits::{CAP_SETGID, CAP_SETUID, CAP_SYS_RESOURCE, Identity, Limit};
use crate::process::{self, Process};
use crate::user;
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_raw_sys::general as nr;

pub(super) fn call(number: u32, arguments: Arguments) -> Option<Result> {
    let Arguments { a, b, c, d, .. } = arguments;
    let (x, y, z) = (a as u32, b as u32, c as u32);
    Some(match number {
        nr::__NR_getuid => Ok(identity().users[0].into()),
        nr::__NR_geteuid => Ok(identity().users[1].into()),
        nr::__NR_getgid => Ok(identity().groups[0].into()),
        nr::__NR_getegid => Ok(identity().groups[1].into()),
        nr::__NR_getresuid => write_ids(identity().users, [a, b, c]),
        nr::__NR_getresgid => write_ids(identity().groups, [a, b, c]),
        nr::__NR_setuid => change(Which::Users, |may, now| one(may, now, x)),
        nr::__NR_setgid => change(Which::Groups, |may, now| one(may, now, x)),
        nr::__NR_setreuid => change(Which::Users, |may, now| real(may, now, [x, y])),
        nr::__NR_setregid => change(Which::Groups, |may, now| real(may, now, [x, y])),
        nr::__NR_setresuid => change(Which::Users, |may, now| all(may, now, [x, y, z])),
        nr::__NR_setresgid => change(Which::Groups, |may, now| all(may, now, [x, y, z])),
        // No file asks for them: the former is told, and it changes nothing.
        nr::__NR_setfsuid => Ok(identity().users[1].into()),
        nr::__NR_setfsgid => Ok(identity().groups[1].into()),
        nr::__NR_getgroups => Ok(0),
        nr::__NR_setgroups if !process::current().may(CAP_SETGID) => Err(Errno::EPERM),
        nr::__NR_setgroups => Ok(0),
        nr::__NR_capget => capabilities(a, b),
        nr::__NR_capset => set_capabilities(a, b),
        nr::__NR_prlimit64 => prlimit(x, y, c, d),
        nr::__NR_getrlimit => prlimit(0, x, 0, b),
        nr::__NR_setrlimit => prlimit(0, x, b, 0),
        _ => return None,
    })
}

fn identity() -> Identity {
    process::current().identity.lock().clone()
}

fn write_ids(ids: [u32; 3], addresses: [u64; 3]) -> Result {
    for (id, at) in ids.into_iter().zip(addresses) {
        user::write(at, &id.to_le_bytes())?;
    }
    Ok(0)
}

/// Which three numbers are changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Users,
    Groups,
}

type Ids = core::result::Result<[u32; 3], Errno>;

/// Whether the caller may take any number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum May {
    Any,
    Own,
}

fn change(which: Which, new: impl FnOnce(May, [u32; 3]) -> Ids) -> Result {
    let process = process::current();
    {
        let mut identity = process.identity.lock();
        let right = if which == Which::Users { CAP_SETUID } else { CAP_SETGID };
        let may = if identity.may(right) { May::Any } else { May::Own };
        let before = if which == Which::Users { identity.users } else { identity.groups };
        let after = new(may, before)?;
        match which {
            Which::Users => {
                identity.users = after;
                identity.follow_users(before);
            }
            Which::Groups => identity.groups = after,
        }
    }
    process.apply_limits(process::space());
    Ok(0)
}

/// No number: it stays as it is.
const SAME: u32 = u32::MAX;

fn one(may: May, now: [u32; 3], id: u32) -> Ids {
    match may {
        _ if id == SAME => Err(Errno::EINVAL),
        May::Any => Ok([id; 3]),
        May::Own if id == now[0] || id == now[2] => Ok([now[0], id, now[2]]),
        May::Own => Err(Errno::EPERM),
    }
}

fn real(may: May, now: [u32; 3], [real, effective]: [u32; 2]) -> Ids {
    let may_be_real = may == May::Any || [SAME, now[0], now[1]].contains(&real);
    let may_be_effective = may == May::Any || effective == SAME || now.contains(&effective);
    if !may_be_real || !may_be_effective {
        return Err(Errno::EPERM);
    }
    let pick = |new, old| if new == SAME { old } else { new };
    let after = [pick(real, now[0]), pick(effective, now[1])];
    let saves = real != SAME || effective != SAME && effective != now[0];
    Ok([after[0], after[1], if saves { after[1] } else { now[2] }])
}

fn all(may: May, now: [u32; 3], wanted: [u32; 3]) -> Ids {
    let allowed = |id: &u32| may == May::Any || *id == SAME || now.contains(id);
    if !wanted.iter().all(allowed) {
        return Err(Errno::EPERM);
    }
    let mut after = now;
    for (id, wanted) in after.iter_mut().zip(wanted) {
        *id = if wanted == SAME { *id } else { wanted };
    }
    Ok(after)
}

const CAPABILITY_VERSION: u32 = 0x2008_0522;

/// Reads the version and the process that rights are of.
fn header(at: u64) -> core::result::Result<Arc<Process>, Errno> {
    let [version, target] = words(user::read::<8>(at)?);
    if version != CAPABILITY_VERSION {
        user::write(at, &CAPABILITY_VERSION.to_le_bytes())?;
        return Err(Errno::EINVAL);
    }
    find(target)
}

fn words<const N: usize, const M: usize>(bytes: [u8; N]) -> [u32; M] {
    let word = |i: usize| {
        let mut word = [0; 4];
        word.copy_from_slice(&bytes[4 * i..4 * i + 4]);
        u32::from_le_bytes(word)
    };
    core::array::from_fn(word)
}

/// A process by number; 0 is the running one.
fn find(id: u32) -> core::result::Result<Arc<Process>, Errno> {
    if id == 0 { Ok(process::current().clone()) } else { process::find(id).ok_or(Errno::ESRCH) }
}

fn capabilities(at: u64, to: u64) -> Result {
    let process = header(at)?;
    if to != 0 {
        let Identity { effective, permitted, .. } = process.identity.lock().clone();
        // Effective, permitted and inheritable, 32 bits of each, and then the upper ones.
        let halves = |shift: u32| [(effective >> shift) as u32, (permitted >> shift) as u32, 0];
        let words = halves(0).into_iter().chain(halves(32));
        let bytes: Vec<u8> = words.flat_map(u32::to_le_bytes).collect();
        user::write(to, &bytes)?;
    }
    Ok(0)
}

fn set_capabilities(at: u64, from: u64) -> Result {
    let process = header(at)?;
    if process.id != process::current().id {
        return Err(Errno::EPERM);
    }
    let words: [u32; 6] = words(user::read::<24>(from)?);
    let whole = |i: usize| u64::from(words[i]) | u64::from(words[i + 3]) << 32;
    let (effective, permitted) = (whole(0), whole(1));
    {
        let mut identity = process.identity.lock();
        if permitted & !identity.permitted != 0 || effective & !permitted != 0 {
            return Err(Errno::EPERM);
        }
        (identity.effective, identity.permitted) = (effective, permitted);
    }
    process.apply_limits(process::space());
    Ok(0)
}

fn prlimit(pid: u32, resource: u32, new: u64, old: u64) -> Result {
    let target = find(pid)?;
    let before = target.limits.lock().get(resource).ok_or(Errno::EINVAL)?;
    let new = match new {
        0 => None,
        at => Some(Limit { soft: user::read_u64(at)?, hard: user::read_u64(at.wrapping_add(8))? }),
    };
    let is_own = target.id == process::current().id;
    if !is_own && !process::current().may(CAP_SYS_RESOURCE) {
        return Err(Errno::EPERM);
    }
    if let Some(new) = new {
        target.set_limit(resource, new)?;
    }
    if old != 0 {
        user::write(old, &before.soft.to_le_bytes())?;
        user::write(old.wrapping_add(8), &before.hard.to_le_bytes())?;
    }
    Ok(0)
}
