//! The narrow waist of pagefault: addresses, frames, page-table entries and the traits a machine implements.
#![no_std]
#![forbid(unsafe_code)]
