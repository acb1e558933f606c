//! The memory manager on a simulated computer. One program, so that the manager is compiled once for
//! it and not once for each file.

mod abandoned;
mod advice;
mod ahead;
mod alone;
mod around;
mod common;
mod contention;
mod device;
mod ending;
mod failures;
mod flushes;
mod formatted;
mod hostile;
mod interleavings;
mod marks;
mod merging;
mod model;
mod pinning;
mod placing;
mod reading;
mod replacement;
mod requirements;
mod sharing;
mod standby;
mod victims;
mod waiting;
mod worn;
