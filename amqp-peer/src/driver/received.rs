//! A received message, and its acceptance.

use std::{fmt, mem, sync::Arc};

use amqp_driver::Acker;

use super::{
    inbox,
    shared::{Settled, Shared},
};
use crate::{
    event::Sender,
    machine::{self, Token},
    message::{Message, MessageId},
};

/// A received message, to be [accepted](Self::accept): until then, it is with its sender as well,
/// which sends it again after the loss of a link or of this process.
///
/// Dropping it without accepting it gives it back: the sender sends it again, behind those under
/// way, and it arrives once more.
#[must_use = "a message that is not accepted is sent again"]
pub struct Received {
    /// The sender.
    pub from: Sender,
    /// The identifier of the message.
    pub id: MessageId,
    /// The message. Its time to live is what remained when it was sent.
    pub message: Message,
    /// Whether the message was sent before. It was not accepted then.
    pub is_repeated: bool,
    claim: Claim,
}

/// The way in which a message is accepted.
enum Claim {
    Link(Arc<Shared>, Token),
    /// A message of a plain client, from the inbox.
    Inbox(Box<Acker>),
    /// It is accepted or given back.
    Settled,
}

impl Received {
    pub(super) fn of_link(received: machine::Received, shared: &Arc<Shared>) -> Self {
        Self {
            from: received.from,
            id: received.id,
            message: received.message,
            is_repeated: received.is_repeated,
            claim: Claim::Link(Arc::clone(shared), received.token),
        }
    }

    pub(super) fn of_inbox(
        from: Sender,
        id: MessageId,
        message: Message,
        is_repeated: bool,
        acker: Acker,
    ) -> Self {
        Self {
            from,
            id,
            message,
            is_repeated,
            claim: Claim::Inbox(Box::new(acker)),
        }
    }

    /// Accepts the message, and returns it: it is acknowledged to the sender, and not given again.
    /// With a storage, the acknowledgement of a persistent message waits until that is stored.
    pub fn accept(mut self) -> Message {
        self.settle(true);
        mem::take(&mut self.message)
    }

    /// Gives the message back, as dropping it does.
    pub fn requeue(self) {
        drop(self);
    }

    fn settle(&mut self, is_accepted: bool) {
        match mem::replace(&mut self.claim, Claim::Settled) {
            Claim::Link(shared, token) => {
                shared.trace.settled(&self.from, self.id, is_accepted);
                shared.settle(if is_accepted {
                    Settled::Accepted(token)
                } else {
                    Settled::Requeued(token)
                });
            }
            Claim::Inbox(acker) => inbox::settle(*acker, is_accepted),
            Claim::Settled => {}
        }
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        self.settle(false);
    }
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Received")
            .field("from", &self.from)
            .field("id", &self.id)
            .field("message", &self.message)
            .field("is_repeated", &self.is_repeated)
            .finish_non_exhaustive()
    }
}
