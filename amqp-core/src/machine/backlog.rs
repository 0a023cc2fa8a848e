//! The output of one channel that is queued behind a message larger than a frame.

use alloc::collections::VecDeque;

use bytes::BytesMut;

use crate::body::Body;

/// The queued output of a channel: everything behind a message that does not fit into one frame, or
/// behind a cork.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    pub(super) items: VecDeque<Item>,
    /// Whether the channel may send nothing: a transaction is being committed.
    pub(super) corked: bool,
    /// Whether the channel takes its turn in the round-robin.
    pub(super) scheduled: bool,
    /// The total number of bytes ever queued.
    pub(super) put: u64,
    /// The total number of bytes ever sent or dropped; at most `put`.
    pub(super) gone: u64,
    /// The size of the queued requests, in bytes; at most `put - gone`.
    pub(super) requests: usize,
    /// Whether an event was requested when there is room for publishes again.
    pub(super) wants_room: bool,
}

#[derive(Debug)]
pub(super) enum Item {
    Frames(Frames),
    /// The rest of a body; its header is in the preceding frames. At the front, its message has
    /// begun to be sent.
    Body(Body),
    /// Nothing behind this is sent until the channel is released.
    Cork,
}

impl Item {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Frames(frames) => frames.bytes.len(),
            Self::Body(body) => body.len(),
            Self::Cork => 0,
        }
    }
}

/// A run of complete frames.
#[derive(Debug, Default)]
pub(super) struct Frames {
    pub(super) bytes: BytesMut,
    /// The last publish with its first frame in this run; 0 for none.
    pub(super) last_publish: u64,
    /// The part of the bytes that are requests.
    pub(super) requests: usize,
    /// The number of frames.
    pub(super) count: u64,
}

impl Backlog {
    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The queued output, in bytes.
    pub(super) fn len(&self) -> usize {
        usize::try_from(self.put - self.gone).unwrap_or(usize::MAX)
    }

    /// The position of the end of the backlog, in bytes since the channel was opened.
    pub(crate) const fn position(&self) -> u64 {
        self.put
    }

    /// Whether all output before `position` was sent or dropped.
    pub(crate) const fn has_left(&self, position: u64) -> bool {
        self.gone >= position
    }

    /// Whether frames of the channel go to the ready lane.
    pub(super) fn is_bypassed(&self) -> bool {
        self.items.is_empty() && !self.corked
    }

    /// Appends `count` frames. They join the last run if that is shorter than `limit` bytes: a run
    /// is sent in one turn. Another run takes `buffer`, which is empty.
    pub(super) fn append<T>(
        &mut self,
        buffer: &mut BytesMut,
        limit: usize,
        publish: u64,
        count: u64,
        write: impl FnOnce(&mut BytesMut) -> T,
    ) -> T {
        let mut frames = match self.items.pop_back() {
            Some(Item::Frames(frames)) if frames.bytes.len() < limit => frames,
            other => {
                self.items.extend(other);
                Frames {
                    bytes: core::mem::take(buffer),
                    ..Frames::default()
                }
            }
        };
        let written = write(&mut frames.bytes);
        frames.last_publish = publish.max(frames.last_publish);
        frames.count += count;
        self.items.push_back(Item::Frames(frames));
        written
    }
}
