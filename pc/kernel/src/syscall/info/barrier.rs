//! membarrier: makes the other CPUs see what this one has stored.
//!
//! A CPU that answers an interrupt has finished its stores and will read again: every command is a
//! round of interrupts to the CPUs that run the program, or all programs. The rounds are those that
//! forget translations, which is more than is asked for.

use super::super::Result;
use crate::errno::Errno;
use crate::{process, shootdown};
use core::sync::atomic::Ordering;

const QUERY: u32 = 0;
const GLOBAL: u32 = 1;
const GLOBAL_EXPEDITED: u32 = 1 << 1;
const REGISTER_GLOBAL_EXPEDITED: u32 = 1 << 2;
const PRIVATE_EXPEDITED: u32 = 1 << 3;
const REGISTER_PRIVATE_EXPEDITED: u32 = 1 << 4;
const PRIVATE_EXPEDITED_SYNC_CORE: u32 = 1 << 5;
const REGISTER_PRIVATE_EXPEDITED_SYNC_CORE: u32 = 1 << 6;
const GET_REGISTRATIONS: u32 = 1 << 9;

const KNOWN: u32 = GLOBAL
    | GLOBAL_EXPEDITED
    | REGISTER_GLOBAL_EXPEDITED
    | PRIVATE_EXPEDITED
    | REGISTER_PRIVATE_EXPEDITED
    | PRIVATE_EXPEDITED_SYNC_CORE
    | REGISTER_PRIVATE_EXPEDITED_SYNC_CORE
    | GET_REGISTRATIONS;

pub(super) fn membarrier(command: u32, flags: u32) -> Result {
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let registered = &process::current().barriers;
    match command {
        QUERY => Ok(KNOWN.into()),
        GLOBAL | GLOBAL_EXPEDITED => {
            for process in process::all() {
                let space = process.space.lock().clone();
                if let Some(space) = space {
                    shootdown::flush_all(space.space());
                }
            }
            Ok(0)
        }
        REGISTER_GLOBAL_EXPEDITED
        | REGISTER_PRIVATE_EXPEDITED
        | REGISTER_PRIVATE_EXPEDITED_SYNC_CORE => {
            registered.fetch_or(command, Ordering::Relaxed);
            Ok(0)
        }
        // Each is registered by the next bit.
        PRIVATE_EXPEDITED | PRIVATE_EXPEDITED_SYNC_CORE => {
            if registered.load(Ordering::Relaxed) & command << 1 == 0 {
                return Err(Errno::EPERM);
            }
            shootdown::flush_all(process::space().space());
            Ok(0)
        }
        GET_REGISTRATIONS => Ok(registered.load(Ordering::Relaxed).into()),
        _ => Err(Errno::EINVAL),
    }
}
