//! The lock of the crate: that of `std`, and in tests one that can be explored in every order.

#[cfg(not(test))]
pub(crate) use std::sync::{Mutex, MutexGuard};

#[cfg(test)]
pub(crate) use crate::interleavings::lock::{Mutex, MutexGuard};
