//! A Linux process as a machine for the pagefault memory manager, through userfaultfd.

pub mod store;
