//! Managed memory.
use crate::frame::{Info, Registers};
use crate::thread::Thread;

/// What is to be done about a fault.
pub enum Answer {
    /// The access may be tried again.
    Resume,
    /// The program gets a signal.
    Signal(Info),
}

pub fn start() {}
pub fn fault(info: &Info, _registers: &Registers) -> Answer {
    Answer::Signal(*info)
}
pub struct Pins;
pub fn pin_words(_: &[Option<u64>]) -> Pins {
    Pins
}
pub struct Fork;
pub fn before_fork() -> Fork {
    Fork
}
pub fn after_fork_in_parent(_: Fork) {}
pub fn after_fork_in_child(_: Fork) {}
pub fn end_thread(_: &Thread) {}
