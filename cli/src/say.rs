//! Messages on standard error and results on standard output; a failed write is ignored.

use std::fmt;
use std::io::{self, Write};

/// Writes a message in one piece. If standard error is closed or full, the message is lost and the
/// command goes on.
pub fn say(message: fmt::Arguments<'_>) {
    let _ = io::stderr().write_all(message.to_string().as_bytes());
}

/// Writes a result to standard output. Its reader may have gone: that is no error.
pub fn print(result: &str) {
    let _ = io::stdout().write_all(result.as_bytes());
}

/// `eprintln!` that does not panic, with our name in front.
#[macro_export]
macro_rules! complain {
    ($($message:tt)*) => {
        $crate::say::say(format_args!("pagefault: {}\n", format_args!($($message)*)))
    };
}
