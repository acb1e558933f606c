use super::*;

fn printed(outcome: &Outcome) -> String {
    let origin = Origin { name: "A", address: 0x1000_0000 };
    outcome.display(origin).to_string()
}

#[test]
fn every_outcome_has_its_one_form() {
    let mapping = Mapping {
        start: 0x1000_0000,
        end: 0x1000_3000,
        protection: Protection::READ | Protection::WRITE,
        sharing: Sharing::Private,
    };
    let other = Mapping {
        start: 0x1000_3000,
        end: 0x1000_4000,
        protection: Protection::EXEC,
        sharing: Sharing::Shared,
    };
    let at = |fault, address| Outcome::Fault { fault, address };
    for (outcome, text) in [
        (Outcome::Ok, "ok"),
        (Outcome::Errno(Errno::ENOMEM), "ENOMEM"),
        (Outcome::Errno(Errno::EOVERFLOW), "EOVERFLOW"),
        (Outcome::Errno(Errno(524)), "E524"),
        (Outcome::Bytes(Bytes::new(b"\x00\xffA")), "00ff41"),
        (Outcome::Bytes(Bytes::new(b"")), "0:00000000"),
        (Outcome::Stored(7), "7"),
        (Outcome::Loaded(Bytes::new(b"hi")), "2 6869"),
        (at(Fault::Unmapped, 0x1000_0123), "SIGSEGV MAPERR A+0x123"),
        (at(Fault::Refused, 0x1000_0000), "SIGSEGV ACCERR A+0x0"),
        (at(Fault::Beyond, 0x1000_1fff), "SIGBUS ADRERR A+0x1fff"),
        (Outcome::Maps(Vec::new()), "none"),
        (Outcome::Maps(vec![mapping, other]), "+0x0 +0x3000 rw- p; +0x3000 +0x4000 --x s"),
        (Outcome::Broken("I3 frame 7".to_owned()), "I3 frame 7"),
        (Outcome::Killed, "SIGKILL"),
        (Outcome::Outside, "outside"),
    ] {
        assert_eq!(printed(&outcome), text);
    }
}

#[test]
fn more_than_32_bytes_are_summed() {
    let shown = Outcome::Bytes(Bytes::new(&[0xab; 32]));
    assert_eq!(printed(&shown), "ab".repeat(32));
    // The check value of CRC-32 is that of the digits 1 to 9; here they come four times.
    let summed = Outcome::Bytes(Bytes::new(b"123456789123456789123456789123456789"));
    assert_eq!(printed(&summed), "36:3e29169c");
    assert_eq!(crc32fast::hash(b"123456789"), 0xcbf4_3926);
}
