//! Storages: their conformance, their faults, and random changes.

mod damage;
mod data;
#[cfg(unix)]
mod full;
mod mutants;
#[cfg(unix)]
mod refused;
mod suite;
