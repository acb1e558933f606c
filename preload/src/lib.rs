//! The shared object that `pagefault run` loads into a program.
//!
//! It takes the place of the program's `malloc` and of its calls that change mappings, so that the
//! program's heap and its private anonymous mappings are *managed*: their pages come and go by the
//! memory manager's word. Everything else goes to the host's kernel as it is.
//!
//! | module | what it holds |
//! |---|---|
//! | `start` | the constructor: what happens before the program's `main` |
//! | `shared` | the memory shared with the command, and the end of a program that cannot go on |
//! | `interpose` | the functions that take the place of libc's |
//! | `heap` | the program's `malloc`: arenas and large mappings, all managed |
//! | `managed` | which addresses are managed, and every change to them |
//! | `manager` | the memory manager of this process |
//! | `private` | the manager's own heap, never managed |
//! | `fork` | what surrounds a process fork |
//! | `guard` | being inside of the manager |
//! | `thread` | two words of each thread |
//! | `stack` | stacks for the manager's work where the program's is managed |
//! | `module` | whose code an address is in |
//! | `sys` | system calls, past libc |
//!
//! Lock order: libc's list of streams, the heap's arenas, the table of large mappings, the gate and
//! the managed ranges, the memory manager's own locks, the private heap.

// The tests must not take libc's place in their own process, and so leave its callers out.
#![cfg_attr(test, allow(dead_code))]

#[cfg(not(target_arch = "x86_64"))]
compile_error!("the manager inside of a program exists for x86-64 alone");

#[cfg(not(test))]
mod fork;
mod guard;
mod heap;
#[cfg(not(test))]
mod interpose;
mod managed;
mod manager;
mod module;
mod private;
mod ranges;
mod shared;
mod stack;
#[cfg(not(test))]
mod start;
mod sys;
mod thread;
