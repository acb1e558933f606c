//! A task: a thread of control with a kernel stack.

use crate::entry::TrapFrame;
use crate::frames::Frames;
use crate::machine::Pc;
use crate::process::Thread;
use crate::stack::Stack;
use crate::times::Meter;
use alloc::sync::Arc;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU32, Ordering};
use pagefault::AddressSpace;
use pagefault::machine::{Frame, Machine, OutOfFrames};

/// A thread of control.
pub struct Task {
    /// Its number, the thread's identity for programs too; 0 is the first CPU's idle task.
    pub id: u32,
    /// The kernel stack; an idle task's is the one that its CPU began on, which is not its own.
    stack: Option<Stack>,
    /// The stack pointer while the task is not running.
    pub(crate) saved: UnsafeCell<u64>,
    /// The address space that the task runs in. Changed by the task itself alone.
    space: UnsafeCell<Option<Arc<AddressSpace<Pc>>>>,
    /// What programs know of it; kernel tasks have none.
    pub thread: Option<Thread>,
    /// The processor time that it has used.
    pub meter: Meter,
    /// The CPUs that it may run on, as a set of bits.
    pub cpus: AtomicU32,
}

/// All CPUs.
const EVERY_CPU: u32 = u32::MAX;

// SAFETY: `saved` is used by the scheduler under its lock; `space` by the task itself, and by the
// scheduler on its CPU while it switches from or to the task.
unsafe impl Send for Task {}
// SAFETY: as for `Send`.
unsafe impl Sync for Task {}

static NEXT: AtomicU32 = AtomicU32::new(1);

/// A number for a new task.
pub fn next_id() -> u32 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Task {
    /// The task that a CPU's boot code becomes, on its boot stack.
    pub fn idle(id: u32) -> Self {
        let (saved, space) = (UnsafeCell::new(0), UnsafeCell::new(None));
        Self {
            id,
            stack: None,
            saved,
            space,
            thread: None,
            meter: Meter::default(),
            cpus: AtomicU32::new(EVERY_CPU),
        }
    }

    /// Whether it is what a CPU does when it has nothing to do.
    pub const fn is_idle(&self) -> bool {
        self.stack.is_none()
    }

    /// Whether it may run on a CPU.
    pub fn may_run_on(&self, cpu: u32) -> bool {
        self.cpus.load(Ordering::Relaxed) & 1 << cpu != 0
    }

    /// A task that begins with what `frame` says.
    pub fn new(
        frames: &'static Frames,
        id: u32,
        frame: &TrapFrame,
        space: Option<Arc<AddressSpace<Pc>>>,
        thread: Option<Thread>,
    ) -> Result<Self, OutOfFrames> {
        let stack = Stack::new(frames, crate::kernel().manager.machine().reference())?;
        let saved = prepare(&stack, frame);
        let (saved, space) = (UnsafeCell::new(saved), UnsafeCell::new(space));
        Ok(Self {
            id,
            stack: Some(stack),
            saved,
            space,
            thread,
            meter: Meter::default(),
            cpus: AtomicU32::new(EVERY_CPU),
        })
    }

    /// A task that runs a function of the kernel, which never returns.
    pub fn kernel(frames: &'static Frames, run: extern "C" fn() -> !) -> Result<Self, OutOfFrames> {
        let mut frame = TrapFrame::kernel(run as usize as u64);
        let stack = Stack::new(frames, crate::kernel().manager.machine().reference())?;
        frame.rsp = stack.top() - 8;
        let (saved, space) = (UnsafeCell::new(prepare(&stack, &frame)), UnsafeCell::new(None));
        let stack = Some(stack);
        Ok(Self {
            id: next_id(),
            stack,
            saved,
            space,
            thread: None,
            meter: Meter::default(),
            cpus: AtomicU32::new(EVERY_CPU),
        })
    }

    /// A thread whose first steps are a function of the kernel, which ends by going to its program.
    pub fn new_in_kernel(
        frames: &'static Frames,
        id: u32,
        run: extern "C" fn() -> !,
        space: Arc<AddressSpace<Pc>>,
        thread: Thread,
    ) -> Result<Self, OutOfFrames> {
        let mut task = Self::kernel(frames, run)?;
        task.id = id;
        task.space = UnsafeCell::new(Some(space));
        task.thread = Some(thread);
        Ok(task)
    }

    /// The top of the kernel stack.
    pub fn stack_top(&self) -> u64 {
        self.stack.as_ref().map_or(0, Stack::top)
    }

    /// The address space that the task runs in.
    ///
    /// To be called by the task itself, or by the scheduler while it switches.
    pub fn space(&self) -> Option<&Arc<AddressSpace<Pc>>> {
        // SAFETY: only the task itself changes it, which is not happening now.
        unsafe { (*self.space.get()).as_ref() }
    }

    /// Makes the running task use another address space, and returns the former.
    pub fn replace_space(
        &self,
        space: Option<Arc<AddressSpace<Pc>>>,
    ) -> Option<Arc<AddressSpace<Pc>>> {
        debug_assert_eq!(crate::cpu::task_id(), self.id);
        x86_64::instructions::interrupts::without_interrupts(|| {
            // SAFETY: the running task changes its own, and the scheduler cannot come between.
            let old = unsafe { core::mem::replace(&mut *self.space.get(), space) };
            crate::scheduler::load_space(self);
            old
        })
    }
}

/// Makes the stack that a further CPU begins on, and returns its top. It is kept for ever.
pub fn boot_stack(frames: &'static Frames, reference: Frame) -> Result<u64, OutOfFrames> {
    let stack = core::mem::ManuallyDrop::new(Stack::new(frames, reference)?);
    Ok(stack.top())
}

/// Puts a trap frame on a stack that nobody uses yet, and below it what the switch takes up; returns
/// the stack pointer to switch to.
fn prepare(stack: &Stack, frame: &TrapFrame) -> u64 {
    let at = stack.top() - size_of::<TrapFrame>() as u64;
    let switch = at - 7 * 8;
    // SAFETY: both lie in the stack, which is mapped in every page table and which nobody uses yet;
    // `at` has the frame's alignment.
    unsafe {
        (at as *mut TrapFrame).write(frame.clone());
        let start = crate::scheduler::task_start as extern "C" fn() as usize as u64;
        (switch as *mut [u64; 7]).write([0, 0, 0, 0, 0, 0, start]);
    }
    switch
}

/// The machine's number of frames that are free, for reports.
pub fn free_frames() -> u32 {
    crate::kernel().manager.machine().free_frames()
}
