//! A simulated computer for the pagefault memory manager.
