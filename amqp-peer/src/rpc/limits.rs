//! The bounds of calls.

use std::time::Duration;

/// The bounds of the calls of a peer, in both directions.
///
/// ```
/// use amqp_peer::rpc::Limits;
///
/// let limits = Limits::default().concurrent(8).calls(100);
/// assert_eq!(limits.concurrent, 8);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The calls of this peer that wait for their results. One more fails with
    /// [`CallError::TooMany`](super::CallError::TooMany). Default 1,024.
    pub calls: usize,
    /// The bytes of their arguments. One call may exceed it. Default 64 MiB.
    pub call_bytes: usize,
    /// The handlers that run at a time. Default 64. A handler keeps its place while it calls another
    /// peer: calls that nest deeper than this, back and forth, end by their time limits.
    pub concurrent: usize,
    /// The requests that wait for a handler to end. One more is refused: its call fails with
    /// [`CallError::Busy`](super::CallError::Busy), a signal is dropped. Default 1,024.
    pub queued: usize,
    /// The requests of one caller that wait, run, or have a reply that waits for room in the outbox.
    /// Default 128, so that a caller cannot take all places to wait, and that requests are not all
    /// that is in flight on its link. It bounds no handlers: one caller may have all of
    /// [`concurrent`](Self::concurrent) run.
    pub per_caller: usize,
    /// The bytes of all requests that wait or run. One request may exceed it. Default 64 MiB.
    pub request_bytes: usize,
    /// The bytes of the requests of one caller that are acknowledged only after they have run, so that
    /// its peer sends them again to another process of this one. Further requests are acknowledged
    /// when they arrive: handlers that take long do not stop the link. Default 4 MiB, a quarter of the
    /// [window of a link](crate::Limits::window_bytes).
    pub unsettled_bytes: usize,
    /// The bytes of the replies that wait for room in the outbox. One reply may exceed it; any other
    /// beyond is replaced by [`CallError::TooLarge`](super::CallError::TooLarge). Default 64 MiB.
    pub waiting_bytes: usize,
    /// The replies that are kept for a request that comes again. Default 4,096.
    pub replies: usize,
    /// The bytes of these replies. A longer one is not kept. Default 16 MiB.
    pub reply_bytes: usize,
    /// The time for which a reply is kept. Default ten minutes.
    pub reply_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            calls: 1024,
            call_bytes: 64 << 20,
            concurrent: 64,
            queued: 1024,
            per_caller: 128,
            request_bytes: 64 << 20,
            unsettled_bytes: 4 << 20,
            waiting_bytes: 64 << 20,
            replies: 4096,
            reply_bytes: 16 << 20,
            reply_time: Duration::from_secs(600),
        }
    }
}

impl Limits {
    /// Sets [`calls`](Self::calls).
    #[must_use]
    pub const fn calls(mut self, calls: usize) -> Self {
        self.calls = calls;
        self
    }

    /// Sets [`call_bytes`](Self::call_bytes).
    #[must_use]
    pub const fn call_bytes(mut self, bytes: usize) -> Self {
        self.call_bytes = bytes;
        self
    }

    /// Sets [`concurrent`](Self::concurrent); 0 counts as 1.
    #[must_use]
    pub const fn concurrent(mut self, handlers: usize) -> Self {
        self.concurrent = if handlers == 0 { 1 } else { handlers };
        self
    }

    /// Sets [`queued`](Self::queued).
    #[must_use]
    pub const fn queued(mut self, requests: usize) -> Self {
        self.queued = requests;
        self
    }

    /// Sets [`per_caller`](Self::per_caller); 0 counts as 1.
    #[must_use]
    pub const fn per_caller(mut self, requests: usize) -> Self {
        self.per_caller = if requests == 0 { 1 } else { requests };
        self
    }

    /// Sets [`request_bytes`](Self::request_bytes).
    #[must_use]
    pub const fn request_bytes(mut self, bytes: usize) -> Self {
        self.request_bytes = bytes;
        self
    }

    /// Sets [`unsettled_bytes`](Self::unsettled_bytes).
    #[must_use]
    pub const fn unsettled_bytes(mut self, bytes: usize) -> Self {
        self.unsettled_bytes = bytes;
        self
    }

    /// Sets [`waiting_bytes`](Self::waiting_bytes).
    #[must_use]
    pub const fn waiting_bytes(mut self, bytes: usize) -> Self {
        self.waiting_bytes = bytes;
        self
    }

    /// Sets [`replies`](Self::replies).
    #[must_use]
    pub const fn replies(mut self, replies: usize) -> Self {
        self.replies = replies;
        self
    }

    /// Sets [`reply_bytes`](Self::reply_bytes).
    #[must_use]
    pub const fn reply_bytes(mut self, bytes: usize) -> Self {
        self.reply_bytes = bytes;
        self
    }

    /// Sets [`reply_time`](Self::reply_time).
    #[must_use]
    pub const fn reply_time(mut self, time: Duration) -> Self {
        self.reply_time = time;
        self
    }
}
