//! Threads that meet in every order that a few thousand seeds find: the same page faulted twice
//! (spec B21), and faults against everything that takes pages away. What a task stored is there in
//! the end, every invariant holds, and nothing is left over.

mod advice;
mod devices;
mod files;
mod reclaim;
mod scene;
mod standby;
mod stores;
mod verbs;
