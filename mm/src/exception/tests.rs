//! Exact matches only, the kernel before its modules, no instruction twice.

use super::{DuplicateInstruction, ExceptionTable, ExceptionTables};
use pagefault_machine::VirtAddr;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn table(pairs: &[(u64, u64)]) -> Result<ExceptionTable, DuplicateInstruction> {
    let mut builder = ExceptionTable::builder();
    for (ip, fixup) in pairs {
        builder.add(VirtAddr(*ip), VirtAddr(*fixup));
    }
    builder.build()
}

#[test]
fn the_kernel_is_searched_before_its_modules() {
    let mut tables = ExceptionTables::new(table(&[(10, 100)]).unwrap());
    let first = tables.add_module(table(&[(10, 200), (20, 201)]).unwrap());
    let second = tables.add_module(table(&[(20, 300), (30, 301)]).unwrap());
    let fixup = |tables: &ExceptionTables, ip| tables.fixup(VirtAddr(ip)).map(VirtAddr::value);
    assert_eq!([10, 20, 30].map(|ip| fixup(&tables, ip)), [Some(100), Some(201), Some(301)]);
    assert_eq!(tables.remove_module(first).map(|table| table.len()), Some(2));
    assert_eq!([10, 20, 30].map(|ip| fixup(&tables, ip)), [Some(100), Some(300), Some(301)]);
    assert_eq!(tables.remove_module(first), None);
    let third = tables.add_module(ExceptionTable::default());
    assert_ne!(third, second);
    assert!(tables.remove_module(third).is_some_and(|table| table.is_empty()));
    tables.remove_module(second);
    assert_eq!([10, 20, 30].map(|ip| fixup(&tables, ip)), [Some(100), None, None]);
}

#[test]
fn an_instruction_listed_twice_is_refused() {
    assert_eq!(table(&[(3, 1), (2, 1), (3, 2), (2, 1)]), Err(DuplicateInstruction(VirtAddr(2))));
    assert!(table(&[]).unwrap().is_empty());
}

proptest! {
    #[test]
    fn every_listed_instruction_is_found_and_no_other(
        pairs in prop::collection::btree_map(0u64..200, any::<u64>(), 0..60),
        seed in any::<u64>(),
    ) {
        let pairs: BTreeMap<u64, u64> = pairs;
        let mut shuffled: std::vec::Vec<_> = pairs.iter().map(|(ip, fixup)| (*ip, *fixup)).collect();
        shuffled.sort_by_key(|(ip, _)| (ip ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let table = table(&shuffled).unwrap();
        prop_assert_eq!(table.len(), pairs.len());
        for ip in 0..201 {
            prop_assert_eq!(table.fixup(VirtAddr(ip)), pairs.get(&ip).copied().map(VirtAddr));
        }
    }
}
