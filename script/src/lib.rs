//! One language of memory operations, run on every pagefault machine and on the host kernel.
