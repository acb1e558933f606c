//! Memory: mappings, locks, policies.

use super::words::*;
use linux_raw_sys::errno::EPERM;

const fn nodes(maxnode: u8) -> Len {
    Len::Bits { arg: maxnode, width: Width::U64, less: 1 }
}

pub(super) const CALLS: &[Call] = &[
    call(9, "mmap", [ADDRESS, V, V, V, FD, V]).ours(Subject::Memory),
    call(10, "mprotect", [ADDRESS, V, V]).ours(Subject::Memory),
    call(11, "munmap", [ADDRESS, V]).ours(Subject::Memory),
    call(12, "brk", [ADDRESS]).ours(Subject::Memory),
    call(25, "mremap", [ADDRESS, V, V, V, ADDRESS]).ours(Subject::Memory),
    call(26, "msync", [ADDRESS, V, V]).ours(Subject::Memory),
    call(27, "mincore", [ADDRESS, V, Arg::Out(Len::Pages { arg: 1 })]).ours(Subject::Memory),
    call(28, "madvise", [ADDRESS, V, V]).ours(Subject::Memory),
    call(149, "mlock", [ADDRESS, V]).ours(Subject::Memory),
    call(150, "munlock", [ADDRESS, V]).ours(Subject::Memory),
    call(151, "mlockall", [V]).ours(Subject::Memory),
    call(152, "munlockall", []).ours(Subject::Memory),
    call(325, "mlock2", [ADDRESS, V, V]).ours(Subject::Memory),
    call(216, "remap_file_pages", [ADDRESS, V, V, V, V]).ours(Subject::Memory),
    call(329, "pkey_mprotect", [ADDRESS, V, V, V]).ours(Subject::Memory),
    call(330, "pkey_alloc", [V, V]),
    call(331, "pkey_free", [V]),
    call(440, "process_madvise", [FD, Arg::IovecArray { count: 2 }, V, V, V]).ours(Subject::Memory),
    call(448, "process_mrelease", [FD, V]).ours(Subject::Memory),
    call(453, "map_shadow_stack", [ADDRESS, V, V]).ours(Subject::Memory),
    call(462, "mseal", [ADDRESS, V, V]).ours(Subject::Memory),
    call(310, "process_vm_readv", [V, iovec(2, Dir::Out), V, Arg::IovecArray { count: 4 }, V, V])
        .ours(Subject::Memory),
    call(311, "process_vm_writev", [V, iovec(2, Dir::In), V, Arg::IovecArray { count: 4 }, V, V])
        .ours(Subject::Memory),
    // Programs take EPERM for the sysctl's doing.
    call(323, "userfaultfd", [V]).refused(EPERM),
    call(29, "shmget", [V, V, V]),
    call(30, "shmat", [V, ADDRESS, V]).ours(Subject::Memory),
    call(67, "shmdt", [ADDRESS]).ours(Subject::Memory),
    // Where memory lies.
    call(237, "mbind", [ADDRESS, V, V, Arg::In(nodes(4)), V, V]).ours(Subject::Memory),
    call(238, "set_mempolicy", [V, Arg::In(nodes(2)), V]).again(),
    // With MPOL_F_NODE | MPOL_F_ADDR it reads the page at the address.
    call(239, "get_mempolicy", [output(4), Arg::Out(nodes(2)), V, input(1), V]).again(),
    call(256, "migrate_pages", [V, V, Arg::In(nodes(1)), Arg::In(nodes(1))]),
    call(
        279,
        "move_pages",
        [
            V,
            V,
            Arg::In(each(1, Width::U64, 8)),
            Arg::In(each(1, Width::U64, 4)),
            Arg::Out(each(1, Width::U64, 4)),
            V,
        ],
    )
    .ours(Subject::Memory),
    call(450, "set_mempolicy_home_node", [ADDRESS, V, V, V]).ours(Subject::Memory),
];
