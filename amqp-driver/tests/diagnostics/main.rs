//! Diagnostics: the texts and predicates of errors, reports with frames, statistics, and what the
//! features report.

mod errors;
mod figures;
#[cfg(feature = "metrics")]
mod metered;
#[cfg(feature = "tracing")]
mod traced;
