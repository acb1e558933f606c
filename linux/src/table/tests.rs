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
        let leaf = table.lock(page).unwrap();
        assert!(leaf.replace(page, entry).is_none());
    }
    assert_eq!(table.leaves(), 2);
    {
        let leaf = table.lock_existing(5).unwrap();
        assert_eq!(leaf.next(0, LEAF_PAGES), Some(5));
        assert_eq!(leaf.next(6, LEAF_PAGES), None);
        assert_eq!(leaf.replace(5, Entry::None), entry);
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

#[test]
fn a_table_for_all_addresses_has_only_the_chunks_that_are_used() {
    let pages = (1_usize << 47) / PAGE_SIZE as usize;
    let table = PageTable::new(pages).unwrap();
    let entry = present(9, Protection::READ);
    for page in [0, CHUNK_PAGES - 1, CHUNK_PAGES, pages - 1] {
        assert!(table.entry(page).is_none());
        let leaf = table.lock(page).unwrap();
        leaf.replace(page, entry);
        assert_eq!(leaf.entry(page), entry);
    }
    let there = (0..pages / CHUNK_PAGES).filter(|i| table.chunks.get(*i).is_some());
    assert_eq!(there.collect::<Vec<_>>(), [0, 1, pages / CHUNK_PAGES - 1]);
    assert!(size_of::<Chunk>() <= 4 << 20);
    for page in [0, CHUNK_PAGES - 1, CHUNK_PAGES, pages - 1] {
        assert_eq!(table.entry(page), entry);
        table.lock(page).unwrap().replace(page, Entry::None);
    }
    table.prune(0, pages);
    assert_eq!(table.leaves(), 0);
}
