//! Threads in all orders that a few thousand seeds find: the same page faulted twice (spec B21),
//! and faults against everything that removes pages. At the end every stored byte is there, every
//! invariant holds, and nothing leaks.

mod advice;
mod devices;
mod files;
mod reclaim;
mod scene;
mod seals;
mod standby;
mod stores;
mod verbs;
