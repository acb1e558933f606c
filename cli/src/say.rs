//! What is said on standard error, whether or not it can be.

use std::fmt;
use std::io::{self, Write};

/// Writes a message, as one piece. Where standard error is closed or full there is nobody to be told,
/// and what the command does does not depend on it.
pub fn say(message: fmt::Arguments<'_>) {
    let _ = io::stderr().write_all(message.to_string().as_bytes());
}

/// `eprintln!` that does not panic, with our name in front.
#[macro_export]
macro_rules! complain {
    ($($message:tt)*) => {
        $crate::say::say(format_args!("pagefault: {}\n", format_args!($($message)*)))
    };
}
