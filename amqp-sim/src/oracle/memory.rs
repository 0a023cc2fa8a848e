//! Memory.

use amqp_driver::{Connection, core::Limits};

/// What a message or a frame may exceed a limit by, in bytes: a limit is checked before one more is
/// accepted.
const SLACK: u64 = 256 << 10;

/// Succeeds if a connection is within its limits: output that is not sent, and deliveries that were
/// not taken. One message may exceed each.
///
/// # Errors
/// The limit that is exceeded, in words.
pub fn check_memory(connection: &Connection, limits: &Limits) -> Result<(), String> {
    let stats = connection.stats();
    let output = limits.output_high + limits.output_backlog + limits.unsent_requests;
    let bounds = [
        ("output", stats.buffered, output),
        ("untaken messages", stats.untaken, limits.undelivered),
    ];
    for (name, used, limit) in bounds {
        if used > limit as u64 + SLACK {
            return Err(format!("{used} bytes of {name}, the limit is {limit}"));
        }
    }
    Ok(())
}
