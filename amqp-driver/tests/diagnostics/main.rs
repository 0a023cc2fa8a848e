//! Diagnostics: the texts and predicates of errors, reports with frames, and statistics.

mod errors;
mod figures;
