//! Linux's page-fault handling as a library: regions, faults, fork, page cache, reverse maps, swap and reclaim.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod avl;
mod interval;
mod tree;
