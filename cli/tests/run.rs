//! `pagefault run` with real programs, whose output must be that of a plain run, and with
//! everything that cannot be run.
//!
//! The sizes are such that all of it takes a minute or two; with `PAGEFAULT_FULL=1` in the
//! environment the programs get hundreds of megabytes.

#[path = "run/browser.rs"]
mod browser;
#[path = "run/cgroup.rs"]
mod cgroup;
#[path = "run/delivery.rs"]
mod delivery;
#[path = "run/files.rs"]
mod files;
#[path = "run/forks.rs"]
mod forks;
#[path = "run/harness.rs"]
mod harness;
#[path = "run/killed.rs"]
mod killed;
#[path = "run/kinds.rs"]
mod kinds;
#[path = "run/passive.rs"]
mod passive;
#[path = "run/pool.rs"]
mod pool;
#[path = "run/programs.rs"]
mod programs;
#[path = "run/refusals.rs"]
mod refusals;
#[path = "run/signals.rs"]
mod signals;
#[path = "run/sites.rs"]
mod sites;
#[path = "run/statistics.rs"]
mod statistics;
#[path = "run/watch.rs"]
mod watch;
