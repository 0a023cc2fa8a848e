//! Diagnostics: the texts and predicates of errors, reports with frames, statistics, and what the
//! features report.

#[cfg(feature = "opentelemetry")]
mod contexts;
mod errors;
mod figures;
#[cfg(feature = "metrics")]
mod metered;
