//! Swap files.

use super::*;
use std::ffi::CString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

/// A directory of the test's own, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("pagefault-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_temporary_file_keeps_what_a_table_keeps_and_leaves_no_name() {
    let directory = Scratch::new("temporary");
    let file = SwapFile::temporary(&directory.0, Some(500 * PAGE_SIZE)).unwrap();
    compare_with_model(&file, 500, 5_000);
    assert_eq!(file.stats(), FileStats { pages: 0 });
    assert_eq!(fs::read_dir(&directory.0).unwrap().count(), 0);
}

#[test]
fn freed_runs_give_their_blocks_back() {
    let directory = Scratch::new("punch");
    let path = directory.0.join("swap");
    let file = SwapFile::open(&path, None).unwrap();
    let blocks = || std::os::unix::fs::MetadataExt::blocks(&fs::metadata(&path).unwrap());
    for slot in 1..1024 {
        file.write(slot, &page(1)).unwrap();
    }
    file.flush().unwrap();
    let full = blocks();
    assert!(full >= 1023 * 8);
    for slot in 1..1000 {
        file.discard(slot);
    }
    assert!(blocks() < full / 4, "{} of {full} blocks are left", blocks());
    for slot in 1000..1024 {
        assert_eq!(read(&file, slot), Ok(page(1)));
    }
}

#[test]
fn a_page_that_comes_back_other_than_it_was_written_is_an_error_that_names_the_file() {
    let directory = Scratch::new("lying");
    let path = directory.0.join("swap");
    let file = SwapFile::open(&path, None).unwrap();
    (1..100).for_each(|slot| file.write(slot, &page(slot.into())).unwrap());
    file.flush().unwrap();
    assert_eq!(file.damage(), None);
    let disk = fs::OpenOptions::new().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&disk, &[0xee], 51 * PAGE_SIZE + 700).unwrap();
    assert_eq!(read(&file, 50), Ok(page(50)));
    assert_eq!(read(&file, 51), Err(IoError::Device));
    let damage = file.damage().unwrap().to_string();
    assert!(damage.contains(path.to_str().unwrap()), "{damage}");
    assert_eq!(file.failure(), Some(Failure { slot: 51, cause: Cause::Checksum }));
    (52..100).for_each(|slot| assert_eq!(read(&file, slot), Ok(page(slot.into()))));
    // A page that is written anew is whole again.
    file.write(51, &page(7)).unwrap();
    file.flush().unwrap();
    assert_eq!(read(&file, 51), Ok(page(7)));
}

#[test]
fn the_last_failed_read_tells_its_slot_and_its_cause() {
    let directory = Scratch::new("failing");
    let path = directory.0.join("swap");
    let file = SwapFile::open(&path, None).unwrap();
    file.write(7, &page(1)).unwrap();
    file.flush().unwrap();
    assert_eq!(file.failure(), None);
    assert_eq!(read(&file, 8), Err(IoError::Device));
    assert_eq!(file.failure(), Some(Failure { slot: 8, cause: Cause::Empty }));
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(0).unwrap();
    assert_eq!(read(&file, 7), Err(IoError::Device));
    let cause = Cause::Host(rustix::io::Errno::IO.raw_os_error());
    assert_eq!(file.failure(), Some(Failure { slot: 7, cause }));
    assert!(file.failure().unwrap().to_string().starts_with("slot 7: "));

    let ram = CompressedRam::new(8, 1 << 20).unwrap();
    assert_eq!((read(&ram, 3), ram.failure().map(|it| it.slot)), (Err(IoError::Device), Some(3)));
}

#[test]
fn threads_share_a_file() {
    let directory = Scratch::new("threads");
    let file = SwapFile::temporary(&directory.0, Some(2000 * PAGE_SIZE)).unwrap();
    thread::scope(|scope| {
        for part in 0..4 {
            let file = &file;
            scope.spawn(move || {
                // Their slots lie between each other's, so that they share runs and clusters.
                let slots = || (1..2000_u32).filter(move |slot| slot % 4 == part);
                for round in 0..3_u64 {
                    slots()
                        .for_each(|slot| file.write(slot, &page(u64::from(slot) + round)).unwrap());
                    for slot in slots() {
                        assert_eq!(read(file, slot), Ok(page(u64::from(slot) + round)));
                        if slot % 3 == 0 {
                            file.discard(slot);
                            file.write(slot, &page(u64::from(slot) * 2)).unwrap();
                            assert_eq!(read(file, slot), Ok(page(u64::from(slot) * 2)));
                        }
                    }
                }
            });
        }
    });
    (1..2000).for_each(|slot| file.discard(slot));
    assert_eq!(file.stats(), FileStats { pages: 0 });
}

#[test]
fn a_fork_leaves_each_side_its_own_pages() {
    let directory = Scratch::new("fork");
    let path = directory.0.join("swap");
    let file = SwapFile::open(&path, None).unwrap();
    let blocks = || std::os::unix::fs::MetadataExt::blocks(&fs::metadata(&path).unwrap());
    let as_in = |round: u64| {
        (1..1000_u32).all(|slot| {
            let last = if u64::from(slot % 50) < round { u64::from(slot % 50) } else { round };
            read(&file, slot) == Ok(page(u64::from(slot) + last))
        })
    };
    // Slot n was last written in round n % 50, each round after another fork.
    for round in 0..50_u64 {
        for slot in (1..1000).filter(|slot| u64::from(slot % 50) >= round) {
            file.write(slot, &page(u64::from(slot) + round)).unwrap();
        }
        file.before_fork().unwrap();
        if round % 10 > 0 {
            file.fork_failed();
            continue;
        }
        in_child(std::panic::AssertUnwindSafe(|| {
            let inherited = as_in(round);
            // The child's own pages, all over what it shares and where it shares nothing.
            (1..1000).for_each(|slot| file.write(slot, &page(u64::from(slot) + 77)).unwrap());
            let own = (1..1000).all(|slot| read(&file, slot) == Ok(page(u64::from(slot) + 77)));
            (1..1000).for_each(|slot| file.discard(slot));
            // Nothing is filled on, so that nothing is held.
            inherited && own && file.before_fork().is_ok()
        }));
        assert!(as_in(round), "round {round}");
    }
    (1..1000).for_each(|slot| file.discard(slot));
    file.write(1, &page(3)).unwrap();
    file.flush().unwrap();
    assert_eq!((file.stats(), read(&file, 1)), (FileStats { pages: 1 }, Ok(page(3))));
    // The signature, the page, and nothing that a child had.
    assert!(blocks() <= 16, "{} blocks", blocks());
}

#[test]
fn a_small_file_is_used_to_its_last_page() {
    let directory = Scratch::new("small");
    for pages in [2, 3, 64, 65, 127, 200] {
        let file = SwapFile::temporary(&directory.0, Some(u64::from(pages) * PAGE_SIZE)).unwrap();
        assert_eq!(file.slots(), pages);
        for round in 0..3 {
            for slot in 1..pages {
                assert_eq!(file.write(slot, &page(u64::from(slot) + round)), Ok(()));
            }
            for slot in (1..pages).filter(|slot| u64::from(*slot) % 3 != round) {
                assert_eq!(read(&file, slot), Ok(page(u64::from(slot) + round)));
                file.discard(slot);
            }
        }
    }
}

#[test]
fn a_process_that_forked_does_not_disturb_the_other() {
    let directory = Scratch::new("two");
    let path = directory.0.join("swap");
    let first = SwapFile::open(&path, None).unwrap();
    // The path is in use, so that the second owner gets a file of its own beside it.
    let second = SwapFile::open(&path, None).unwrap();
    first.write(1, &page(1)).unwrap();
    second.write(1, &page(2)).unwrap();
    assert_eq!(read(&first, 1), Ok(page(1)));
    assert_eq!(read(&second, 1), Ok(page(2)));
    assert_eq!(fs::read_dir(&directory.0).unwrap().count(), 1);
}

#[test]
fn a_named_file_is_private_and_taken_only_if_nothing_is_lost() {
    let directory = Scratch::new("named");
    let path = directory.0.join("swap");
    drop(SwapFile::open(&path, Some(1 << 20)).unwrap());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    // Former swap is taken again, and an empty file is.
    drop(SwapFile::open(&path, None).unwrap());
    fs::write(&path, "").unwrap();
    drop(SwapFile::open(&path, None).unwrap());

    let thesis = directory.0.join("thesis");
    fs::write(&thesis, "years of work").unwrap();
    let refused = SwapFile::open(&thesis, None).err();
    let name = CString::new(thesis.to_str().unwrap()).unwrap();
    assert_eq!(refused, Some(OpenError::NotEmpty(name.as_c_str().into())));
    assert_eq!(fs::read(&thesis).unwrap(), b"years of work");
}

#[test]
fn what_cannot_be_swap_is_refused_by_name() {
    let directory = Scratch::new("refused");
    let refused = |path: &str, bytes| {
        let path = directory.0.join(path);
        SwapFile::open(&path, bytes).err().map(|error| error.to_string()).unwrap()
    };
    assert!(refused(".", None).ends_with("is a directory; name a file in it"));
    assert!(refused("no/such", None).contains("No such file or directory"));
    assert!(refused("/dev/null", None).contains("neither a file nor a block device"));
    assert!(refused("small", Some(4096)).contains("give at least 8192 bytes"));
    let error = SwapFile::temporary(&directory.0.join("none"), None).err().unwrap();
    assert!(error.to_string().contains("No such file or directory"));
}

#[test]
fn kept_descriptors_are_high_and_known_while_they_live() {
    let before = rustix::fs::memfd_create("kept", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let kept = descriptor::keep(before);
    let number = rustix::fd::AsRawFd::as_raw_fd(&rustix::fd::AsFd::as_fd(&kept));
    assert!(descriptor::is_kept(number));
    assert!(number > 100);
    assert_eq!(descriptor::next_kept(number), Some(number));
    assert!(!descriptor::is_kept(0));
    assert!(!descriptor::is_kept(-1));
}

/// Runs `f` in a forked child, for what concerns the whole process.
fn in_child(f: impl FnOnce() -> bool + std::panic::UnwindSafe) {
    // SAFETY: the child runs `f` alone and leaves by `_exit`.
    match unsafe { libc::fork() } {
        0 => {
            let ok = std::panic::catch_unwind(f).unwrap_or(false);
            // SAFETY: leaves without running the parent's destructors.
            unsafe { libc::_exit(if ok { 0 } else { 1 }) }
        }
        child => {
            let mut status = 0;
            // SAFETY: waits for the child just made.
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            assert_eq!(status, 0, "the child was killed or found something wrong");
        }
    }
}

fn limit_files_to(bytes: u64) {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Fsize);
    limit.current = Some(bytes);
    setrlimit(Resource::Fsize, limit).unwrap();
}

#[test]
fn a_limit_on_file_sizes_is_obeyed_and_named() {
    in_child(|| {
        let file = SwapFile::temporary(&std::env::temp_dir(), Some(1 << 20)).unwrap();
        limit_files_to(8 * PAGE_SIZE);
        // A write beyond would be a signal that ends the process.
        let within = (1..8).all(|slot| file.write(slot, &page(1)) == Ok(()));
        let beyond = file.write(8, &page(2));
        let shortage = file.shortage().unwrap();
        within
            && beyond == Err(IoError::Full)
            && shortage.kind == ShortageKind::FileSizeLimit
            && shortage.to_string().contains("ulimit -f")
            && read(&file, 7) == Ok(page(1))
    });
    in_child(|| {
        limit_files_to(8 * PAGE_SIZE);
        let refused = SwapFile::temporary(&std::env::temp_dir(), Some(1 << 20)).err().unwrap();
        let capped = SwapFile::temporary(&std::env::temp_dir(), Some(8 * PAGE_SIZE)).unwrap();
        refused.to_string().contains("ulimit -f") && capped.slots() == 8
    });
}
