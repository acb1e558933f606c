//! `pagefault doctor`: what this machine offers, and what follows.

pub mod advice;
