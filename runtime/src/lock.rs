//! The runtime's locks.

use pagefault_linux::lock::FutexMutex;

/// A mutual-exclusion lock.
pub type Mutex<T> = lock_api::Mutex<FutexMutex, T>;
