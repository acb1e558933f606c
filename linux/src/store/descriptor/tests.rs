use super::*;
use rustix::process::{Rlimit, setrlimit};

#[test]
fn a_descriptor_is_replaced_under_a_number_that_may_no_longer_be_used() {
    // In a child, since the limit is the whole process's.
    // SAFETY: the child runs the little that is below and leaves by `_exit`.
    match unsafe { libc::fork() } {
        0 => {
            let ok = std::panic::catch_unwind(replaced_above_the_limit).unwrap_or(false);
            // SAFETY: leaves without running the parent's destructors.
            unsafe { libc::_exit(if ok { 0 } else { 1 }) }
        }
        child => {
            let mut status = 0;
            // SAFETY: waits for the child just made.
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            assert_eq!(status, 0);
        }
    }
}

fn replaced_above_the_limit() -> bool {
    let of = |name: &'static core::ffi::CStr| {
        let memory = rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::io::write(&memory, name.to_bytes()).unwrap();
        memory
    };
    let kept = keep(of(c"old"));
    let number = kept.as_fd().as_raw_fd();
    let maximum = getrlimit(Resource::Nofile).maximum;
    let low = Rlimit { current: Some(number as u64 - 100), maximum };
    setrlimit(Resource::Nofile, low).unwrap();
    kept.replace(&of(c"new")).unwrap();
    let mut content = [0; 8];
    let read = rustix::io::pread(&kept, &mut content, 0).unwrap();
    &content[..read] == b"new" && !is_kept(number) && is_kept(kept.as_fd().as_raw_fd())
}
