use super::*;

fn present(frame: u32, protection: Protection) -> Entry {
    Entry::Present { frame: Frame(frame), protection, accessed: false, dirty: true }
}

#[test]
fn every_entry_survives_its_encoding() {
    let mut entries = vec![Entry::None];
    for bits in 0..8 {
        for frame in [0, 1, 77, u32::MAX] {
            entries.push(present(frame, Protection::from_bits_truncate(bits)));
        }
    }
    for (area, offset) in [(0, 0), (0, 1), (31, u32::MAX)] {
        entries.push(Entry::Swap(SwapSlot { area, offset }));
    }
    entries.extend([0, 1, FILE_INDEX_LIMIT].map(Entry::File));
    for entry in &entries {
        assert_eq!(decode(encode(*entry)), *entry);
        assert_eq!(encode(*entry) == 0, entry.is_none());
    }
}

#[test]
fn leaves_are_counted_and_pruned() {
    let table = PageTable::new(4 * LEAF_PAGES).unwrap();
    assert!(table.lock_existing(0).is_none());
    let entry = present(3, Protection::READ);
    for page in [5, LEAF_PAGES + 7] {
        let leaf = table.lock(page);
        assert!(table.replace(&leaf, page, entry).is_none());
    }
    assert_eq!(table.leaves(), 2);
    assert_eq!(table.next(0, LEAF_PAGES), Some(5));
    assert_eq!(table.next(6, LEAF_PAGES), None);
    {
        let leaf = table.lock_existing(5).unwrap();
        assert_eq!(table.replace(&leaf, 5, Entry::None), entry);
    }
    table.prune(1, 4 * LEAF_PAGES);
    assert_eq!(
        table.leaves(),
        2,
        "the first leaf is not wholly in the range, the second not empty"
    );
    table.prune(0, 4 * LEAF_PAGES);
    assert_eq!(table.leaves(), 1);
    assert!(table.lock_existing(5).is_none());
    assert_eq!(table.entry(LEAF_PAGES + 7), entry);
}
