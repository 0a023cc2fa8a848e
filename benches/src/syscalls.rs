//! System calls per message: this program is run again in strace, which counts them.
//!
//! A run has calls that do not depend on the messages, so two runs are counted, and the difference
//! is that of their messages. strace stops the program at each call, which changes how many messages
//! share one: the counts compare clients, and are no exact figures.

use std::env;
use std::process::Command;

use crate::Result;
use crate::cases::{Case, cases};
use crate::target::Target;

/// The word on the command line that makes this program run one case and nothing else.
pub(crate) const COMMAND: &str = "pass";

/// One run of a case.
#[derive(Debug)]
pub(crate) struct Pass {
    pub(crate) name: String,
    pub(crate) target: Target,
    pub(crate) count: u64,
}

impl Pass {
    pub(crate) fn run(&self) -> Result<()> {
        let cases = [cases(&self.target, false), cases(&self.target, true)];
        let case = cases
            .iter()
            .flatten()
            .find(|case| case.to_string() == self.name);
        case.ok_or("there is no case of that name")?
            .run(&self.target, self.count)?;
        Ok(())
    }
}

/// Whether system calls can be counted.
pub(crate) fn check() -> Result<()> {
    let found = Command::new("strace").arg("--version").output();
    found.map_err(|error| format!("--syscalls needs strace, which does not run: {error}"))?;
    Ok(())
}

/// Counts the calls per message of a case that has that many messages in a measurement.
pub(crate) fn count(case: &Case, target: &Target, measured: u64) -> Result<f64> {
    let few = (measured / 20).clamp(100, 20_000).next_multiple_of(1000);
    let many = 3 * few;
    let calls = calls(case, target, many)? - calls(case, target, few)?;
    Ok((calls / (many - few) as f64).max(0.0))
}

fn calls(case: &Case, target: &Target, count: u64) -> Result<f64> {
    let output = Command::new("strace")
        .args(["-f", "-c", "-qq", "-o", "/dev/stdout"])
        .arg(env::current_exe()?)
        .args([COMMAND, &case.to_string(), &target.uri])
        .arg(if target.counts() { "sink" } else { "broker" })
        .arg(count.to_string())
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    // Share, seconds, microseconds per call, calls, errors where there are any, and the name.
    let total = said.lines().rev().find(|line| line.ends_with(" total"));
    total
        .and_then(|line| line.split_whitespace().nth(3)?.parse().ok())
        .filter(|_| output.status.success())
        .ok_or_else(|| {
            let errors = String::from_utf8_lossy(&output.stderr);
            format!("strace counted nothing of {case}: {said}{errors}").into()
        })
}
