use super::*;

const EXTENT: u64 = PAGES as u64 * PAGE_SIZE;

#[test]
fn a_twentieth_of_the_file_system_is_left_to_others() {
    let space = |free| Ok(Space { total: 100 << 20, free });
    let growth = Growth::new(c"/there", Manners::Considerate);
    assert!(growth.may_grow(|| space((5 << 20) + EXTENT)));
    assert!(!growth.may_grow(|| space((5 << 20) + EXTENT - 1)));
    assert!(!growth.may_grow(|| Err(Errno::IO)));
    assert_eq!(growth.shortage(), None);
    growth.refuse(Some(ShortageKind::FileSystem));
    let shortage = growth.shortage().unwrap();
    assert_eq!(shortage.kind, ShortageKind::FileSystem);
    assert!(shortage.to_string().contains("/there"), "{shortage}");
    // Somebody made room.
    growth.found();
    assert_eq!(growth.shortage(), None);
}

#[test]
fn a_given_size_is_the_users_business() {
    let growth = Growth::new(c"/there", Manners::Given);
    assert!(growth.may_grow(|| unreachable!("not looked at")));
    growth.note(IoError::Full);
    assert_eq!(growth.shortage().unwrap().kind, ShortageKind::Disk);
}
