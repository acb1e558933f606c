//! Calls through the page `[vsyscall]`, as old programs make them.
//!
//! The host makes such a call in the fault of the jump, so it is not dispatched to us. If the
//! stack, or memory that the call writes, is absent, the host treats the access as bad and sends
//! `SIGSEGV` with the thread still at the call. The runtime then makes the call.

use super::Call;
use crate::frame::{Context, Info};
use crate::sys::Errno;
use crate::thread::Thread;
use crate::user;
use linux_raw_sys::general as nr;

/// Where the page is.
const START: u64 = 0xffff_ffff_ff60_0000;

/// The call that begins at an address.
fn number_at(ip: u64) -> Option<u32> {
    match ip.checked_sub(START)? {
        0x000 => Some(nr::__NR_gettimeofday),
        0x400 => Some(nr::__NR_time),
        0x800 => Some(nr::__NR_getcpu),
        _ => None,
    }
}

/// Makes the call at which the host reported a bad access, and returns to its caller. False if
/// there is no such call, or if the access really is bad.
pub fn make(thread: &Thread, context: &mut Context, info: &Info) -> bool {
    let ip = context.registers.rip;
    // If the host has no such page, the access is the instruction's own.
    let is_of_call = info.fields[0] != ip;
    let Some(number) = number_at(ip).filter(|_| is_of_call) else { return false };
    let sp = context.registers.rsp;
    let Ok(caller) = user::read::<u64>(sp) else { return false };
    let args = context.registers.args();
    let raw = Call { thread, context, number, args }.make_pinned(args);
    if raw == -i64::from(Errno::EFAULT.0) {
        return false;
    }
    context.registers.rax = raw as u64;
    context.registers.rip = caller;
    context.registers.rsp = sp + 8;
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_begins_at_its_own_address_alone() {
        assert_eq!(number_at(0xffff_ffff_ff60_0000), Some(nr::__NR_gettimeofday));
        assert_eq!(number_at(0xffff_ffff_ff60_0400), Some(nr::__NR_time));
        assert_eq!(number_at(0xffff_ffff_ff60_0800), Some(nr::__NR_getcpu));
        for other in [0, 0x400, 0xffff_ffff_ff60_0001, 0xffff_ffff_ff60_0c00, u64::MAX] {
            assert_eq!(number_at(other), None);
        }
    }
}
