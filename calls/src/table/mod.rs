//! The table, by subject; a call's row is found by its number.

mod absent;
mod events;
mod files;
mod ipc;
mod memory;
mod sockets;
mod system;
mod tasks;
mod time;
mod words;

use crate::call::Call;

/// One more than the largest number in the table.
pub const NUMBERS: u32 = 470;

/// The call with this number, or `None` where the table knows nothing of it.
///
/// Numbers with x32's bit, `0x4000_0000`, are not known.
pub fn describe(nr: u32) -> Option<&'static Call> {
    TABLE.get(nr as usize)?.as_ref()
}

/// Which arguments of the call with this number are descriptors of the caller's, a bit for each: a quick look.
pub fn descriptors(nr: u32) -> u8 {
    DESCRIPTORS.get(nr as usize).copied().unwrap_or(0)
}

static DESCRIPTORS: [u8; NUMBERS as usize] = {
    let mut masks = [0; NUMBERS as usize];
    let mut nr = 0;
    while nr < masks.len() {
        if let Some(call) = &TABLE[nr] {
            masks[nr] = call.descriptors();
        }
        nr += 1;
    }
    masks
};

static TABLE: [Option<Call>; NUMBERS as usize] = {
    let subjects = [
        files::CALLS,
        events::CALLS,
        sockets::CALLS,
        memory::CALLS,
        tasks::CALLS,
        time::CALLS,
        ipc::CALLS,
        system::CALLS,
        absent::CALLS,
    ];
    let mut table = [const { None }; NUMBERS as usize];
    let mut subject = 0;
    while subject < subjects.len() {
        let mut row = 0;
        while row < subjects[subject].len() {
            let call = subjects[subject][row];
            assert!(table[call.nr as usize].is_none(), "two rows with one number");
            table[call.nr as usize] = Some(call);
            row += 1;
        }
        subject += 1;
    }
    table
};
