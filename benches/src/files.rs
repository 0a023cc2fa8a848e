//! The limit of open files, which bounds the connections.

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::Result;

/// Files that are open beside those of the connections.
const SPARE: u64 = 64;

/// Raises the limit to the highest that the system allows; returns that.
pub(crate) fn raise_limit() -> Result<u64> {
    let mut limits = getrlimit(Resource::Nofile);
    limits.current = limits.maximum;
    setrlimit(Resource::Nofile, limits)?;
    Ok(limits.current.unwrap_or(u64::MAX))
}

/// Raises the limit, for that many connections with so many files each; returns how many of them
/// fit. If these are fewer, a line on standard error says so.
pub(crate) fn raise_for(connections: u32, files: u64) -> Result<u32> {
    let most = raise_limit()?;
    let fit = u32::try_from(most.saturating_sub(SPARE) / files).unwrap_or(u32::MAX);
    if fit < connections {
        eprintln!("{fit} connections instead of {connections}: only {most} files may be open");
    }
    Ok(fit.min(connections))
}
