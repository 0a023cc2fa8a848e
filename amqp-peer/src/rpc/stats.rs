//! The numbers of calls.

/// The numbers of the calls of a peer, in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// The calls of this peer that wait for their results.
    pub calls: usize,
    /// The handlers that run.
    pub running: usize,
    /// The requests that wait for a handler to end.
    pub queued: usize,
    /// The requests that are remembered after their end.
    pub kept: usize,
    /// The replies for which no call was waiting, in total.
    pub late: u64,
    /// The replies from another peer than the callee, in total.
    pub forged: u64,
    /// The signals that were refused, and the messages that were not requests, in total. A refused
    /// call is answered.
    pub refused: u64,
}
