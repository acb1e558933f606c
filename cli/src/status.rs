//! What the subcommands that run programs have in common: their exit statuses, and the form of their
//! statistics.

/// The status where pagefault itself failed, as of `env` and `timeout`.
pub const FAILED: u8 = 125;
/// The status where the program was found and cannot be run.
pub const CANNOT_RUN: u8 = 126;
/// The status where the program was not found.
pub const NOT_FOUND: u8 = 127;

/// The form of the statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// For programs: one object.
    Json,
}
