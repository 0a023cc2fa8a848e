//! The channel that all publishes share.

use std::collections::{BTreeMap, VecDeque};

use amqp_client::{
    Body, Unconfirmed,
    core::{
        ApiMisuse, ChannelId, Hold, PublishError as Refused, PublishSeq,
        client::{ChannelMut, Outcome, Returned},
        protocol::{basic, confirm},
    },
};

use super::{
    Answer, Client, Error, Promise, PublishError,
    channels::{Purpose, Task},
};

#[derive(Default)]
pub(super) struct Publisher {
    /// None until there is something to publish, and when it was closed.
    channel: Option<ChannelId>,
    open: bool,
    /// What waits for the channel.
    queue: VecDeque<Publish>,
    /// The bodies in there, in bytes.
    queued: usize,
    /// What waits for its confirm.
    sent: BTreeMap<PublishSeq, Promise>,
    /// Those of them that came back.
    returned: BTreeMap<PublishSeq, Returned>,
}

struct Publish {
    promise: Promise,
    method: basic::Publish,
    properties: basic::Properties,
    body: Body,
}

impl Publisher {
    pub(super) fn on_returned(&mut self, returned: Returned) {
        if let Some(seq) = returned.seq {
            self.returned.insert(seq, returned);
        }
    }

    /// Who is to be told, and what.
    pub(super) fn on_settled(
        &mut self,
        first: PublishSeq,
        last: PublishSeq,
        outcome: &Outcome,
    ) -> Vec<(Promise, Result<Answer, Error>)> {
        let settled: Vec<_> = self.sent.range(first..=last).map(|(seq, _)| *seq).collect();
        let tell = |seq| {
            let promise = self.sent.remove(&seq)?;
            let result = match (outcome, self.returned.remove(&seq)) {
                (Outcome::Nacked, _) => Err(Unconfirmed::Nacked),
                (_, Some(returned)) => Err(Unconfirmed::Returned(Box::new(returned.into()))),
                (Outcome::Acked, None) => Ok(Answer::Published),
                (Outcome::NotSent(reason), None) => Err(Unconfirmed::NotSent(reason.clone())),
                (Outcome::Unknown(reason), None) => Err(Unconfirmed::Unknown(reason.clone())),
            };
            Some((promise, result.map_err(Error::from)))
        };
        settled.into_iter().filter_map(tell).collect()
    }

    /// Forgets its channel, which has ended and whose publishes have been settled; false if it is
    /// another one's.
    pub(super) fn forget(&mut self, id: ChannelId) -> bool {
        let ours = self.channel == Some(id);
        if ours {
            self.channel = None;
            self.open = false;
            self.sent.clear();
            self.returned.clear();
        }
        ours
    }

    fn push_back(&mut self, next: Publish) {
        self.queued += next.body.len();
        self.queue.push_back(next);
    }

    fn push_front(&mut self, next: Publish) {
        self.queued += next.body.len();
        self.queue.push_front(next);
    }

    fn pop_front(&mut self) -> Option<Publish> {
        let next = self.queue.pop_front()?;
        self.queued -= next.body.len();
        Some(next)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Client {
    /// Publishes a message: the promise is fulfilled when the server has confirmed it. Before the
    /// connection is open the message waits.
    ///
    /// To direct reply-to, whose consumer must be on the same channel, this cannot publish.
    ///
    /// # Errors
    /// [`PublishError::Full`] with the body when there is no room, or the server wants none now, and
    /// [`PublishError::Closed`]. All else is told under the promise: [`Unconfirmed`] says what is
    /// known of the message.
    pub fn publish(
        &mut self,
        publish: basic::Publish,
        properties: basic::Properties,
        body: impl Into<Body>,
    ) -> Result<Promise, PublishError> {
        let body = body.into();
        if let Some(reason) = self.machine.close_reason() {
            return Err(PublishError::Closed(reason.clone()));
        }
        if let Some(hold) = self.hold() {
            let body = body.into_bytes();
            return Err(PublishError::Full { hold, body });
        }
        let promise = self.promise(Task::Publish);
        self.publisher.push_back(Publish {
            promise,
            method: publish,
            properties,
            body,
        });
        self.assign();
        Ok(promise)
    }

    /// What holds publishes back now; none when one would be accepted. It changes with the answers
    /// of the server, and with what has been written.
    #[must_use]
    pub fn hold(&mut self) -> Option<Hold> {
        let limits = self.machine.limits();
        let publisher = &self.publisher;
        if publisher.sent.len() + publisher.queue.len() >= limits.unconfirmed {
            return Some(Hold::TooManyUnconfirmed);
        }
        if publisher.queued >= limits.output_high {
            return Some(Hold::OutputFull);
        }
        if self.machine.is_blocked() {
            return Some(Hold::ConnectionBlocked);
        }
        let channel = publisher.channel.and_then(|id| self.machine.channel(id));
        channel.and_then(|channel| channel.hold())
    }

    /// Sends what waits, as far as there is room.
    pub(super) fn publish_queued(&mut self) {
        if self.publisher.channel.is_none() && !self.publisher.queue.is_empty() {
            if let Some(id) = self.idle.pop_first() {
                self.slots.remove(&id);
                self.begin_publishing(id);
            } else {
                match self.machine.open_channel() {
                    Ok((id, request)) => {
                        self.publisher.channel = Some(id);
                        self.requests.insert(request, Purpose::OpenPublisher(id));
                    }
                    // One will be free, or there will be none to wait for.
                    Err(_) if !self.requests.is_empty() => {}
                    Err(misuse) => self.fail_queued(&misuse.into()),
                }
            }
        }
        while self.publisher.open
            && let Some(id) = self.publisher.channel
            && let Some(mut channel) = self.machine.channel(id)
            && let Some(mut next) = self.publisher.pop_front()
        {
            match channel.publish(&next.method, &next.properties, next.body) {
                Ok(seq) => {
                    // It has one, in confirm mode.
                    let sent = seq.map(|seq| (seq, next.promise));
                    self.publisher.sent.extend(sent);
                }
                Err(Refused::HeldBack { body, .. }) => {
                    next.body = body;
                    return self.publisher.push_front(next);
                }
                Err(Refused::Misuse(misuse)) => self.finish(next.promise, Err(misuse.into())),
            }
        }
    }

    /// That open channel is to be its own.
    pub(super) fn begin_publishing(&mut self, id: ChannelId) {
        let channel = self.machine.channel(id);
        let closed = ApiMisuse::ChannelNotOpen;
        let select = |mut channel: ChannelMut<'_>| channel.call(&confirm::Select::default());
        match channel.ok_or(closed).and_then(select) {
            // What follows it is confirmed.
            Ok(request) => {
                self.requests.insert(request, Purpose::Aside);
                self.publisher.channel = Some(id);
                self.publisher.open = true;
            }
            Err(misuse) => self.fail_queued(&misuse.into()),
        }
    }

    /// There is no channel to be had.
    pub(super) fn fail_queued(&mut self, error: &Error) {
        self.publisher.channel = None;
        while let Some(next) = self.publisher.pop_front() {
            self.finish(next.promise, Err(error.clone()));
        }
    }
}
