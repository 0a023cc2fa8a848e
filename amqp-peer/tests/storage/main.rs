//! Storages: their conformance, their faults, and random changes.

mod mutants;
mod suite;
