//! The output of one channel that is queued behind a message larger than a frame.

use alloc::{boxed::Box, collections::VecDeque};

use bytes::BytesMut;

use crate::body::Body;

/// The queued output of a channel: everything behind a message that does not fit into one frame, or
/// behind a cork. It takes memory only while there is any.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    /// `Some` while output is queued or held, or the channel has a place in the round-robin.
    queue: Option<Box<Queue>>,
    /// The total number of bytes ever sent or dropped.
    gone: u64,
}

/// The output of a channel that has a backlog.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) items: VecDeque<Item>,
    /// Whether the channel may send nothing: a transaction is being committed.
    pub(super) corked: bool,
    /// Whether the channel takes its turn in the round-robin.
    pub(super) scheduled: bool,
    /// The size of the items, in bytes.
    len: usize,
    /// The size of the queued requests, in bytes; at most `len`.
    pub(super) requests: usize,
}

/// The memory of the queue that ran empty last, for the next backlog of any channel.
#[derive(Debug, Default)]
pub(super) struct Spare(Option<Box<Queue>>);

/// The number of items that the spare queue has room for at most.
const SPARE_ITEMS: usize = 16;

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
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.queue().is_none_or(|queue| queue.items.is_empty())
    }

    #[inline]
    fn queue(&self) -> Option<&Queue> {
        self.queue.as_deref()
    }

    /// The queue. `Some` while output is queued or held.
    pub(super) fn queue_mut(&mut self) -> Option<&mut Queue> {
        self.queue.as_deref_mut()
    }

    /// The queue, which is made if there is none.
    pub(super) fn open(&mut self, spare: &mut Spare) -> &mut Queue {
        self.queue
            .get_or_insert_with(|| spare.0.take().unwrap_or_default())
    }

    /// Releases the memory of the queue, unless it is in use.
    pub(super) fn shrink(&mut self, spare: &mut Spare) {
        let idle = |it: &mut Box<Queue>| it.items.is_empty() && !it.corked && !it.scheduled;
        if let Some(mut queue) = self.queue.take_if(idle)
            && queue.items.capacity() <= SPARE_ITEMS
        {
            queue.requests = 0;
            spare.0 = Some(queue);
        }
    }

    /// The queued output, in bytes.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.queue().map_or(0, |queue| queue.len)
    }

    /// The size of the queued requests, in bytes.
    pub(super) fn requests(&self) -> usize {
        self.queue().map_or(0, |queue| queue.requests)
    }

    /// The position of the end of the backlog, in bytes since the channel was opened.
    pub(crate) fn position(&self) -> u64 {
        self.gone + self.len() as u64
    }

    /// Whether all output before `position` was sent or dropped.
    pub(crate) const fn has_left(&self, position: u64) -> bool {
        self.gone >= position
    }

    /// Whether frames of the channel go to the ready lane.
    #[inline]
    pub(super) fn is_bypassed(&self) -> bool {
        self.queue()
            .is_none_or(|queue| queue.items.is_empty() && !queue.corked)
    }

    /// Records that `len` bytes were sent or dropped.
    pub(super) fn leave(&mut self, len: usize) {
        self.gone += len as u64;
        if let Some(queue) = &mut self.queue {
            queue.len = queue.len.saturating_sub(len);
        }
    }

    /// The items of an ended channel.
    pub(super) fn into_items(self) -> VecDeque<Item> {
        self.queue.map(|queue| queue.items).unwrap_or_default()
    }
}

impl Queue {
    /// Records that `len` bytes were appended.
    pub(super) const fn wait(&mut self, len: usize) {
        self.len += len;
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
