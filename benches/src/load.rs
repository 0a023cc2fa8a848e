//! What every client is given to do.

/// The body of every message.
pub(crate) const BODY: [u8; 16] = *b"sixteen bytes...";

/// Every so many deliveries, all up to then are acknowledged.
pub(crate) const ACK_EVERY: u64 = 100;

/// How many publishes are in flight where that is what helps a client most.
pub(crate) const IN_FLIGHT: usize = 1000;

/// How many channels are many.
pub(crate) const MANY_CHANNELS: u16 = 1000;

/// Tells the server's counts apart from what was sent.
pub(crate) fn check(what: &str, arrived: u64, sent: u64) -> crate::Result<()> {
    if arrived == sent {
        return Ok(());
    }
    Err(format!("{arrived} {what} arrived of {sent}").into())
}
