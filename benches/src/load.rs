//! The loads of every client.

/// The body of every message.
pub(crate) const BODY: [u8; 16] = *b"sixteen bytes...";

/// Every so many deliveries, all up to then are acknowledged.
pub(crate) const ACK_EVERY: u64 = 100;

/// The number of publishes in flight where that helps a client most.
pub(crate) const IN_FLIGHT: usize = 1000;

/// How many channels are many.
pub(crate) const MANY_CHANNELS: u16 = 1000;

/// Compares the server's count with the number sent.
pub(crate) fn check(what: &str, arrived: u64, sent: u64) -> crate::Result<()> {
    if arrived == sent {
        return Ok(());
    }
    Err(format!("{arrived} {what} arrived of {sent}").into())
}
