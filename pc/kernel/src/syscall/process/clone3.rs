//! What `clone3` is asked for, and what is not answered.

use crate::errno::Errno;
use crate::user;
use linux_raw_sys::general as nr;

/// The words of the structure: flags, pidfd, child's and parent's place for the number, the signal at
/// the end, the stack and its size, the thread pointer, numbers and how many, the cgroup.
pub const WORDS: usize = 11;
/// The size of the structure when it was new.
const FIRST: u64 = 64;

/// The low bits of `clone`'s flags, where that has the signal at the end.
pub const CSIGNAL: u64 = 0xff;

/// Namespaces, descriptors of processes and cgroups, which there are none of.
pub const ABSENT: u64 = nr::CLONE_NEWNS as u64
    | nr::CLONE_NEWCGROUP as u64
    | nr::CLONE_NEWUTS as u64
    | nr::CLONE_NEWIPC as u64
    | nr::CLONE_NEWUSER as u64
    | nr::CLONE_NEWPID as u64
    | nr::CLONE_NEWNET as u64
    | nr::CLONE_NEWTIME as u64
    | nr::CLONE_PIDFD as u64
    | CLONE_INTO_CGROUP;
/// The child has no handlers; what is ignored stays so.
pub const CLONE_CLEAR_SIGHAND: u64 = 1 << 32;
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// Reads and checks the structure.
pub fn read(at: u64, bytes: u64) -> Result<[u64; WORDS], Errno> {
    if bytes < FIRST {
        return Err(Errno::EINVAL);
    }
    if bytes > 4096 {
        return Err(Errno::E2BIG);
    }
    let mut words = [0; WORDS];
    for i in 0..bytes.div_ceil(8) {
        let word = user::read_u64(at.wrapping_add(8 * i))?;
        match words.get_mut(i as usize) {
            Some(known) => *known = word,
            // A newer program's, who asks for more than is known here.
            None if word != 0 => return Err(Errno::E2BIG),
            None => {}
        }
    }
    let [flags, _, _, _, signal, stack, size, _, numbers, count, _] = words;
    let has = |flag: u32| flags & u64::from(flag) != 0;
    let clears = flags & CLONE_CLEAR_SIGHAND != 0;
    let is_unknown = flags >> 34 != 0 || flags & (CSIGNAL & !u64::from(nr::CLONE_NEWTIME)) != 0;
    let is_wrong = is_unknown
        || flags & ABSENT != 0
        || has(nr::CLONE_DETACHED)
        || has(nr::CLONE_SIGHAND) && clears
        || (has(nr::CLONE_THREAD) || has(nr::CLONE_PARENT)) && signal != 0
        || signal > 64
        || (stack == 0) != (size == 0)
        || stack != 0 && !user::access_ok(stack, size as usize)
        || (numbers == 0) != (count == 0)
        // No program may choose the child's number.
        || count > 0;
    if is_wrong { Err(Errno::EINVAL) } else { Ok(words) }
}
