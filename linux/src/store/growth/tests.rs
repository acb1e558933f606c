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
    // An error of the device says nothing about room.
    growth.note(IoError::Device);
    assert_eq!((growth.shortage(), growth.at_its_end()), (None, None));
    growth.note(IoError::Full);
    assert_eq!(growth.shortage().unwrap().kind, ShortageKind::Disk);
}

#[test]
fn a_full_file_system_is_not_looked_at_for_each_page() {
    let growth = Growth::new(c"/there", Manners::Considerate);
    let looks = |pages: u32| (0..pages).filter(|_| !growth.is_known_short()).count();
    assert_eq!(looks(100), 100);
    growth.refuse(Some(ShortageKind::FileSystem));
    growth.freed();
    // The first one looks, and then one of so many: somebody else may make room.
    assert_eq!(looks(UNSEEN * 10), 10);
    assert_eq!(looks(UNSEEN / 2), 1);
    assert_eq!(looks(UNSEEN / 2), 0);
    growth.freed();
    assert_eq!(looks(UNSEEN / 2), 1);
    // The next page finds what was freed.
    growth.freed();
    assert_eq!(looks(1), 1);
    growth.found();
    assert_eq!(looks(100), 100);
}
