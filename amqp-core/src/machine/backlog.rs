//! What waits on one channel behind a message that does not fit into one frame.

use alloc::collections::VecDeque;

use bytes::BytesMut;

use crate::body::Body;

/// What a channel has still to say behind a message that does not fit into one frame, or while it
/// must be silent.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    pub(super) items: VecDeque<Item>,
    /// Nothing may be sent: a transaction is being committed.
    pub(super) held: bool,
    /// The channel is in the ring.
    pub(super) ringed: bool,
    /// How many bytes were ever put in.
    pub(super) put: u64,
    /// How many bytes ever left, or were dropped; at most `put`.
    pub(super) left: u64,
    /// How many bytes of requests wait; at most `put - left`.
    pub(super) requests: usize,
    /// An event is to tell when there is room for publishes again.
    pub(super) wants_room: bool,
}

#[derive(Debug)]
pub(super) enum Item {
    Frames(Frames),
    /// The rest of a body whose header is in the frames before. At the front, it is a message
    /// that was begun.
    Body(Body),
    /// Nothing behind this leaves until the channel is released.
    Hold,
}

impl Item {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Frames(frames) => frames.bytes.len(),
            Self::Body(body) => body.len(),
            Self::Hold => 0,
        }
    }
}

/// Whole frames.
#[derive(Debug, Default)]
pub(super) struct Frames {
    pub(super) bytes: BytesMut,
    /// The last publish whose first frame is among them; 0 for none.
    pub(super) last_publish: u64,
    /// How many of the bytes are requests.
    pub(super) requests: usize,
}

impl Backlog {
    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// How many bytes wait.
    pub(super) fn len(&self) -> usize {
        usize::try_from(self.put - self.left).unwrap_or(usize::MAX)
    }

    /// Where the next byte will stand in all that ever passed through it.
    pub(crate) const fn position(&self) -> u64 {
        self.put
    }

    /// Whether what was put in before that position has left.
    pub(crate) const fn has_left(&self, position: u64) -> bool {
        self.left >= position
    }

    /// Whether frames of the channel go to the lane of ready frames.
    pub(super) fn is_bypassed(&self) -> bool {
        self.items.is_empty() && !self.held
    }

    /// Appends frames. A run of them is at most about `limit` bytes long: it leaves in one turn.
    pub(super) fn append<T>(
        &mut self,
        limit: usize,
        publish: u64,
        write: impl FnOnce(&mut BytesMut) -> T,
    ) -> T {
        let mut frames = match self.items.pop_back() {
            Some(Item::Frames(frames)) if frames.bytes.len() < limit => frames,
            other => {
                self.items.extend(other);
                Frames::default()
            }
        };
        let written = write(&mut frames.bytes);
        frames.last_publish = publish.max(frames.last_publish);
        self.items.push_back(Item::Frames(frames));
        written
    }
}
