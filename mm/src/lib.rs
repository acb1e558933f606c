//! Linux's page-fault handling as a library: regions, faults, fork, page cache, reverse maps, swap and reclaim.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod avl;
pub mod exception;
mod interval;
mod swap {
    pub mod area;
    pub mod owners;
    pub mod slots;
}
mod tree;
