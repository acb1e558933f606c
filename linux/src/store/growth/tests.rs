use super::*;

fn considerate() -> Growth {
    Growth::new(c"/there", Manners::Considerate)
}

#[test]
fn a_twentieth_of_the_file_system_is_left_to_others() {
    let space = |free| Ok(Space { total: 100 << 20, free });
    let growth = considerate();
    assert_eq!(growth.take(PAGE_SIZE, || space((5 << 20) + PAGE_SIZE)), Ok(()));
    assert_eq!(growth.shortage(), None);
    assert_eq!(growth.take(PAGE_SIZE, || space(5 << 20)), Err(IoError::Full));
    let shortage = growth.shortage().unwrap();
    assert_eq!(shortage.kind, ShortageKind::FileSystem);
    assert!(shortage.to_string().contains("/there"), "{shortage}");
    // Somebody made room.
    assert_eq!(growth.take(PAGE_SIZE, || space(50 << 20)), Ok(()));
    assert_eq!(growth.shortage(), None);
}

#[test]
fn the_file_system_is_not_looked_at_for_each_page() {
    let growth = considerate();
    let mut looks = 0;
    for _ in 0..1000 {
        let look = || {
            looks += 1;
            Ok(Space { total: 1 << 40, free: 1 << 39 })
        };
        growth.take(PAGE_SIZE, look).unwrap();
    }
    assert_eq!(looks, 1);
}

#[test]
fn a_given_size_is_the_users_business() {
    let growth = Growth::new(c"/there", Manners::Given);
    assert_eq!(growth.take(PAGE_SIZE, || unreachable!("not looked at")), Ok(()));
    growth.note(IoError::Full);
    assert_eq!(growth.shortage().unwrap().kind, ShortageKind::Disk);
}
