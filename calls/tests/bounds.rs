//! Lengths at which the kernel stops to look.

use pagefault_calls::{Area, Kind, Reader, describe, visit};
use std::collections::HashMap;
use std::ops::ControlFlow;

/// Words by their addresses; all other memory is missing.
struct Words(HashMap<u64, u64>);

impl Reader for Words {
    fn read(&mut self, address: u64, into: &mut [u8]) -> Option<()> {
        for (at, byte) in (address..).zip(into) {
            let word = self.0.get(&(at & !7))?;
            *byte = word.to_le_bytes()[(at & 7) as usize];
        }
        Some(())
    }
}

/// The areas of a call, by number and arguments, over memory that holds these words.
fn areas(name: &str, args: [u64; 6], words: &[(u64, u64)]) -> Vec<Area> {
    let named = |nr: &u32| describe(*nr).is_some_and(|call| call.name == name);
    let nr = (0..600).find(named).expect("a call of that name");
    let mut areas = Vec::new();
    let mut words = Words(words.iter().copied().collect());
    let flow = visit(nr, &args, &mut words, &mut |area| {
        areas.push(area);
        ControlFlow::Continue(())
    });
    assert!(flow.is_continue());
    areas
}

fn spans(areas: &[Area]) -> Vec<(u64, u64)> {
    areas.iter().map(|area| (area.start, area.len)).collect()
}

/// The kernel never has more of an address than a `sockaddr_storage`.
#[test]
fn an_address_of_a_socket_has_128_bytes() {
    let named = areas("getsockname", [3, 0x20_0000, 0x10_0000, 0, 0, 0], &[(0x10_0000, 4096)]);
    assert!(spans(&named).contains(&(0x20_0000, 128)), "{named:?}");
    let named = areas("getsockname", [3, 0x20_0000, 0x10_0000, 0, 0, 0], &[(0x10_0000, 16)]);
    assert!(spans(&named).contains(&(0x20_0000, 16)), "{named:?}");
}

/// A negative length among vectors is an error, whatever follows.
#[test]
fn vectors_end_at_a_negative_length() {
    let vectors = [
        (0x10_0000, 0x20_0000),
        (0x10_0008, 8),
        (0x10_0010, 0x30_0000),
        (0x10_0018, 1 << 63),
        (0x10_0020, 0x40_0000),
        (0x10_0028, 8),
    ];
    let named = areas("readv", [3, 0x10_0000, 3, 0, 0, 0], &vectors);
    assert_eq!(spans(&named), [(0x10_0000, 48), (0x20_0000, 8)]);
}

/// The thread's number is written, and cleared at its end, after the call has returned.
#[test]
fn clone3_keeps_the_address_of_the_childs_number() {
    const CHILD_CLEARTID: u64 = 0x20_0000;
    let mut words: Vec<(u64, u64)> = (0..11).map(|i| (0x10_0000 + i * 8, 0)).collect();
    words[0].1 = CHILD_CLEARTID;
    words[2].1 = 0x30_0000;
    let named = areas("clone3", [0x10_0000, 88, 0, 0, 0, 0], &words);
    let later: Vec<_> = named.iter().filter(|area| area.kind == Kind::Later).collect();
    assert_eq!(later.len(), 1, "{named:?}");
    assert_eq!((later[0].start, later[0].len), (0x30_0000, 4));
    words[0].1 = 0;
    let named = areas("clone3", [0x10_0000, 88, 0, 0, 0, 0], &words);
    assert!(named.iter().all(|area| area.kind != Kind::Later), "{named:?}");
}

/// A handle of a file has at most 128 bytes; the kernel refuses a larger room before it looks.
#[test]
fn a_handle_of_a_file_has_128_bytes() {
    let handle = |room| {
        let words = [(0x10_0000, room)];
        spans(&areas("open_by_handle_at", [3, 0x10_0000, 0, 0, 0, 0], &words))
    };
    assert_eq!(handle(128), [(0x10_0000, 8), (0x10_0008, 128)]);
    assert_eq!(handle(129), [(0x10_0000, 8)]);
}

/// Notice by a thread of the program's brings a cookie along.
#[test]
fn mq_notify_reads_the_cookie_of_a_thread() {
    let notice = |how: u64| {
        let mut words: Vec<(u64, u64)> = (0..8).map(|i| (0x10_0000 + i * 8, 0)).collect();
        words[0].1 = 0x20_0000;
        words[1].1 = how << 32;
        spans(&areas("mq_notify", [3, 0x10_0000, 0, 0, 0, 0], &words))
    };
    assert_eq!(notice(2), [(0x10_0000, 64), (0x20_0000, 32)]);
    assert_eq!(notice(0), [(0x10_0000, 64)]);
}

/// A thread's name has 15 bytes, whether or not a NUL follows.
#[test]
fn prctl_reads_fifteen_bytes_of_a_name() {
    const PR_SET_NAME: u64 = 15;
    let name = [
        (0x10_0000, u64::from_le_bytes(*b"a thread")),
        (0x10_0008, u64::from_le_bytes(*b"'s name!")),
    ];
    let named = areas("prctl", [PR_SET_NAME, 0x10_0000, 0, 0, 0, 0], &name);
    assert_eq!(spans(&named), [(0x10_0000, 15)]);
}
