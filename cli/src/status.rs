//! The exit statuses and the statistics format of the subcommands that run programs.

/// The status if pagefault itself failed, as for `env` and `timeout`.
pub const FAILED: u8 = 125;
/// The status if the program was found but cannot be run.
pub const CANNOT_RUN: u8 = 126;
/// The status if the program was not found.
pub const NOT_FOUND: u8 = 127;

/// The form of the statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// For programs: one object.
    Json,
}
