//! Storages: their conformance, their faults, and random changes.

mod damage;
mod data;
#[cfg(unix)]
mod full;
mod killed;
#[cfg(target_os = "linux")]
mod large;
mod model;
mod mutants;
mod random;
#[cfg(unix)]
mod refused;
mod suite;
