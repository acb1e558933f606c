//! Foreign signals, and our own on an unguarded access.

mod toy;

use pagefault_linux::Delivery;
use pagefault_machine::Protection;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use toy::page;

/// Runs `f` in a forked child and returns its wait status.
fn in_child(f: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child runs the little that `f` does and leaves by `_exit`.
    match unsafe { libc::fork() } {
        0 => {
            let limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            // SAFETY: no core file is wanted.
            unsafe { libc::setrlimit(libc::RLIMIT_CORE, &limit) };
            let status = f();
            // SAFETY: leaves without running the parent's destructors.
            unsafe { libc::_exit(status) }
        }
        child => {
            let mut status = 0;
            // SAFETY: waits for the child just made.
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            status
        }
    }
}

fn touch_forbidden(delivery: Delivery) -> i32 {
    let run = toy::run(4, 16, delivery);
    run.toy.protect(Protection::empty());
    let host = run.toy.space.host_address(page(1) + 24).unwrap();
    // SAFETY: the address is mapped on the host; that the access is a signal is the point.
    unsafe { host.read_volatile() };
    0
}

#[test]
fn an_illegal_access_kills_by_default() {
    for delivery in [Delivery::Inline, Delivery::Threads(1)] {
        let status = in_child(|| touch_forbidden(delivery));
        assert!(libc::WIFSIGNALED(status), "{status:#x}");
        assert_eq!(libc::WTERMSIG(status), libc::SIGSEGV);
    }
}

static CODE: AtomicI32 = AtomicI32::new(0);
static ADDRESS: AtomicU64 = AtomicU64::new(0);
static EXPECTED: AtomicU64 = AtomicU64::new(0);

extern "C" fn on_segv(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the siginfo of a fault, as its sender made it; the child leaves.
    unsafe {
        CODE.store((*info).si_code, Relaxed);
        ADDRESS.store((*info).si_addr() as u64, Relaxed);
        let right = CODE.load(Relaxed) == 2 && ADDRESS.load(Relaxed) == EXPECTED.load(Relaxed);
        libc::_exit(if right { 7 } else { 8 });
    }
}

fn handle_segv() {
    // SAFETY: the handler has the signature that SA_SIGINFO asks for.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_segv as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        assert_eq!(libc::sigaction(libc::SIGSEGV, &action, std::ptr::null_mut()), 0);
    }
}

#[test]
fn the_programs_own_handler_learns_code_and_address() {
    // Installed before the machine's handlers, and so chained to.
    let status = in_child(|| {
        handle_segv();
        let run = toy::run(4, 16, Delivery::Inline);
        run.toy.protect(Protection::empty());
        let host = run.toy.space.host_address(page(1) + 24).unwrap();
        EXPECTED.store(host as u64, Relaxed);
        // SAFETY: as in `touch_forbidden`.
        unsafe { host.read_volatile() };
        0
    });
    assert_eq!((libc::WIFEXITED(status), libc::WEXITSTATUS(status)), (true, 7));
    // Installed after them, and so found by asking.
    let status = in_child(|| {
        let run = toy::run(4, 16, Delivery::Inline);
        run.toy.protect(Protection::empty());
        handle_segv();
        let host = run.toy.space.host_address(page(1) + 24).unwrap();
        EXPECTED.store(host as u64, Relaxed);
        // SAFETY: as in `touch_forbidden`.
        unsafe { host.read_volatile() };
        0
    });
    assert_eq!((libc::WIFEXITED(status), libc::WEXITSTATUS(status)), (true, 7));
}

static LATER: AtomicI32 = AtomicI32::new(0);
static CHAINED: AtomicUsize = AtomicUsize::new(0);

/// Hands every signal on to the handler that was there before, as crash reporters do.
extern "C" fn on_segv_later(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    if LATER.fetch_add(1, Relaxed) > 0 {
        // SAFETY: the child leaves.
        unsafe { libc::_exit(9) };
    }
    // SAFETY: the previous handler was installed with SA_SIGINFO.
    let previous: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) =
        unsafe { std::mem::transmute(CHAINED.load(Relaxed)) };
    previous(signal, info, context);
}

#[test]
fn a_later_handler_that_hands_on_gets_a_signal_once() {
    let handle_later = || {
        // SAFETY: the handler has the signature that SA_SIGINFO asks for.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            let mut before: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_segv_later as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
            assert_eq!(libc::sigaction(libc::SIGSEGV, &action, &mut before), 0);
            CHAINED.store(before.sa_sigaction, Relaxed);
        }
    };
    for is_ours in [true, false] {
        let status = in_child(|| {
            handle_segv();
            let run = toy::run(4, 16, Delivery::Inline);
            run.toy.protect(Protection::empty());
            handle_later();
            let flags = MapFlags::PRIVATE;
            // SAFETY: a fresh mapping; as in `touch_forbidden`.
            unsafe {
                let null = std::ptr::null_mut();
                let foreign = mmap_anonymous(null, 4096, ProtFlags::empty(), flags).unwrap();
                let ours = run.toy.space.host_address(page(1) + 24).unwrap();
                let touched = if is_ours { ours } else { foreign.cast() };
                EXPECTED.store(touched as u64, Relaxed);
                touched.read_volatile();
            }
            0
        });
        assert_eq!((libc::WIFEXITED(status), libc::WEXITSTATUS(status)), (true, 7), "{is_ours}");
    }
}

#[test]
fn other_peoples_faults_stay_theirs() {
    let status = in_child(|| {
        handle_segv();
        let _run = toy::run(4, 16, Delivery::Inline);
        // SAFETY: a fresh mapping; that reading it is a signal is the point.
        unsafe {
            let flags = MapFlags::PRIVATE;
            let page = mmap_anonymous(std::ptr::null_mut(), 4096, ProtFlags::empty(), flags);
            let page = page.unwrap().cast::<u8>();
            EXPECTED.store(page as u64, Relaxed);
            page.read_volatile();
        }
        0
    });
    assert_eq!((libc::WIFEXITED(status), libc::WEXITSTATUS(status)), (true, 7));
}

#[test]
fn a_signal_that_somebody_sends_is_passed_on() {
    let status = in_child(|| {
        // SAFETY: back to the default from what Rust's runtime installed.
        unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
        let _run = toy::run(4, 16, Delivery::Inline);
        // SAFETY: sends a signal to this thread.
        unsafe { libc::raise(libc::SIGBUS) };
        0
    });
    assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGBUS, "{status:#x}");
}

#[test]
fn a_stack_overflow_is_still_reported_as_one() {
    #[allow(unconditional_recursion)]
    fn endless(depth: u64) -> u64 {
        std::hint::black_box(endless(std::hint::black_box(depth + 1)) + 1)
    }
    let status = in_child(|| {
        let _run = toy::run(4, 16, Delivery::Inline);
        let thread = std::thread::spawn(|| endless(0));
        i32::from(thread.join().is_ok())
    });
    // The runtime's own handler prints its message and aborts.
    assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGABRT, "{status:#x}");
}

#[test]
fn a_user_without_rights_has_inline_delivery() {
    let status = in_child(|| {
        // SAFETY: gives up root in the child, in that order.
        unsafe {
            if libc::geteuid() == 0 && (libc::setgid(65534) != 0 || libc::setuid(65534) != 0) {
                return 9;
            }
        }
        let run = toy::run(64, 16, Delivery::Inline);
        for index in 0..64 {
            run.toy.space.store(page(index), &[7; 8]).unwrap();
        }
        let probe = pagefault_linux::Probe::new().unwrap();
        i32::from(probe.require_kernel_faults().is_ok())
    });
    let sysctl = std::fs::read_to_string("/proc/sys/vm/unprivileged_userfaultfd").unwrap();
    let allowed = i32::from(sysctl.trim() == "1");
    assert_eq!((libc::WIFEXITED(status), libc::WEXITSTATUS(status)), (true, allowed));
}
