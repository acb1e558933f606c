//! The shared object that pagefault run loads into a program.
