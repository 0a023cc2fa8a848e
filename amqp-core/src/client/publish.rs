//! Publishing, and the conditions that hold it back.

use super::{
    ChannelMut, Checks, Client, PreparedPublish,
    channel_state::{ClientChannel, Mode},
    confirms::BACKLOG,
    fingerprint::{Fingerprint, hash_body},
    reply_to::REPLY_TO,
};
use crate::{
    body::{Body, PropertyList},
    error::{ApiMisuse, Hold, PublishError},
    ids::{ChannelId, PublishSeq},
    limits::Limits,
    machine::{CHAIN_FROM, Channel, Head, Lane, Machine, Message, Open, Output, Route},
    protocol::basic,
    wire::DecodeError,
};

/// A message to publish, apart from its body.
pub(super) trait Outgoing {
    fn method(&self) -> &basic::Publish;

    fn head(&self) -> &impl Head;

    /// Checks that encoded properties decode.
    fn check_properties(&self) -> Result<(), DecodeError>;

    /// Whether it is known to ask for a direct reply.
    fn asks_for_direct_reply(&self) -> bool;

    /// Whether the message is valid on every channel, and cannot be returned.
    #[inline]
    fn is_plain(&self) -> bool {
        let basic::Publish {
            mandatory,
            immediate,
            ..
        } = self.method();
        !(*mandatory || *immediate || self.asks_for_direct_reply())
            && self.check_properties().is_ok()
    }
}

impl<P: PropertyList> Outgoing for Message<'_, basic::Publish, P> {
    #[inline]
    fn method(&self) -> &basic::Publish {
        self.method
    }

    #[inline]
    fn head(&self) -> &impl Head {
        self
    }

    #[inline]
    fn check_properties(&self) -> Result<(), DecodeError> {
        self.properties.check()
    }

    #[inline]
    fn asks_for_direct_reply(&self) -> bool {
        self.properties.reply_to() == Some(REPLY_TO)
    }
}

impl ChannelMut<'_> {
    /// Publishes a message. On a channel in confirm mode it returns the number of the publish, and
    /// [`Event::Settled`] reports the outcome later.
    ///
    /// The method, the content header and the body (section 4.2.6 of the specification) are queued
    /// together, in order with everything else on the channel. A body of a few kilobytes is copied;
    /// a larger one is held by reference until it is sent.
    ///
    /// Many messages to the same place are published faster with
    /// [`publish_prepared`](Self::publish_prepared).
    ///
    /// [`Event::Settled`]: super::Event::Settled
    ///
    /// # Errors
    /// [`PublishError::HeldBack`] with the body when the output has no room or the server has
    /// paused publishing; [`PublishError::Misuse`] when the channel is not open, the message is too
    /// large or has unreadable encoded properties, or RabbitMQ would close the channel or the
    /// connection for it.
    #[inline]
    pub fn publish<P: PropertyList>(
        &mut self,
        publish: &basic::Publish,
        properties: &P,
        body: impl Into<Body>,
    ) -> Result<Option<PublishSeq>, PublishError> {
        let method = publish;
        let message = Message { method, properties };
        self.machine.publish(self.id, &message, body.into())
    }

    /// Publishes a message like [`publish`](Self::publish), but drops no body: it is taken if the
    /// message is accepted and held by reference, and otherwise stays in `body`. The caller chooses
    /// where the destructor runs, for example outside of a lock.
    ///
    /// # Errors
    /// As [`publish`](Self::publish), with an empty body in [`PublishError::HeldBack`].
    #[inline]
    pub fn publish_from<P: PropertyList>(
        &mut self,
        publish: &basic::Publish,
        properties: &P,
        body: &mut Body,
    ) -> Result<Option<PublishSeq>, PublishError> {
        let method = publish;
        let message = Message { method, properties };
        self.machine.publish_from(self.id, &message, body)
    }

    /// Publishes a message like [`publish`](Self::publish), with a method and properties that were
    /// encoded before. The channel and the connection may differ from one message to the next.
    ///
    /// ```
    /// use amqp_core::{Instant, client::PreparedPublish, protocol::basic};
    /// # use amqp_core::{Transmit, client, server};
    /// # use bytes::BytesMut;
    /// # let now = Instant::ORIGIN;
    /// # let mut client = client::Connection::new(client::Config::default(), now)?;
    /// # let mut server = server::Connection::new(server::Config::default(), now)?;
    /// # let mut channel = None;
    /// # let (mut out, mut input) = (Transmit::new(), BytesMut::new());
    /// # let id = loop {
    /// #     while client.poll_transmit(now, &mut out) {}
    /// #     input.extend(out.take_segments().flatten());
    /// #     server.handle_input(now, &mut input);
    /// #     while let Some(event) = server.poll_event() {
    /// #         match event {
    /// #             server::Event::Authenticate(_) => server.accept()?,
    /// #             server::Event::Open { .. } => server.open()?,
    /// #             _ => {}
    /// #         }
    /// #     }
    /// #     while server.poll_transmit(now, &mut out) {}
    /// #     input.extend(out.take_segments().flatten());
    /// #     client.handle_input(now, &mut input);
    /// #     if client.is_open() && channel.is_none() {
    /// #         channel = Some(client.open_channel()?.0);
    /// #     }
    /// #     if let Some(id) = channel
    /// #         && client.channel(id).unwrap().is_open()
    /// #     {
    /// #         break id;
    /// #     }
    /// # };
    ///
    /// let publish = basic::Publish::default().exchange("amq.topic").routing_key("stock.nyse.ibm");
    /// let properties = basic::Properties::default().content_type("text/plain");
    /// let prepared = PreparedPublish::new(publish, &properties)?;
    /// # let connection = &mut client;
    /// let mut channel = connection.channel(id).ok_or("the channel has ended")?;
    /// for price in ["239.41", "239.43", "239.40"] {
    ///     channel.publish_prepared(&prepared, price)?;
    /// }
    /// assert_eq!(channel.stats().published, 3);
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    #[inline]
    pub fn publish_prepared(
        &mut self,
        prepared: &PreparedPublish,
        body: impl Into<Body>,
    ) -> Result<Option<PublishSeq>, PublishError> {
        self.machine.publish(self.id, prepared, body.into())
    }

    /// Publishes a message like [`publish_prepared`](Self::publish_prepared), with the body as in
    /// [`publish_from`](Self::publish_from).
    ///
    /// # Errors
    /// As [`publish`](Self::publish), with an empty body in [`PublishError::HeldBack`].
    #[inline]
    pub fn publish_prepared_from(
        &mut self,
        prepared: &PreparedPublish,
        body: &mut Body,
    ) -> Result<Option<PublishSeq>, PublishError> {
        self.machine.publish_from(self.id, prepared, body)
    }
}

impl Machine<Client> {
    /// The condition that holds back a publish on the channel.
    pub(super) fn hold(&self, id: ChannelId, body_len: usize) -> Option<Hold> {
        let (channel, output) = (self.channel(id)?, self.output());
        let lane = output.lane(&channel.backlog, body_len);
        hold(&self.role, channel, output, self.limits(), lane)
    }

    #[inline(always)]
    fn publish(
        &mut self,
        id: ChannelId,
        outgoing: &impl Outgoing,
        body: Body,
    ) -> Result<Option<PublishSeq>, PublishError> {
        match self.publish_small(id, outgoing, &body) {
            Some(published) => Ok(published),
            None => self.publish_or_return(id, outgoing, body),
        }
    }

    #[inline(always)]
    fn publish_from(
        &mut self,
        id: ChannelId,
        outgoing: &impl Outgoing,
        body: &mut Body,
    ) -> Result<Option<PublishSeq>, PublishError> {
        match self.publish_small(id, outgoing, body) {
            Some(published) => Ok(published),
            None => self.publish_any(id, outgoing, body),
        }
    }

    /// Publishes a message as most are: its body is in one piece and is copied, there is room, and
    /// nothing about it needs more than a look. `None` for all others, of which nothing is done:
    /// [`publish_any`](Self::publish_any) has the rules for them, and each error.
    #[inline(never)]
    fn publish_small(
        &mut self,
        id: ChannelId,
        outgoing: &impl Outgoing,
        body: &Body,
    ) -> Option<Option<PublishSeq>> {
        let body = body.single().filter(|body| body.len() < CHAIN_FROM)?;
        if !outgoing.is_plain() {
            return None;
        }
        let Open {
            channel,
            output,
            limits,
            role,
        } = self.open(id).ok()?;
        let lane = output.lane(&channel.backlog, body.len());
        if lane != Lane::Ready
            || body.len() as u64 > limits.body
            || hold(role, channel, output, limits, lane).is_some()
        {
            return None;
        }
        let position = output.position();
        output.put_copy(id.number(), outgoing.head(), body)?;
        channel.role.published += 1;
        let Mode::Confirm(confirms) = &mut channel.role.mode else {
            return Some(None);
        };
        let seq = confirms.add(position);
        if confirms.begin_unmarked() && role.confirm_deadlines.are_set() {
            role.confirm_deadlines.add(id);
        }
        Some(Some(seq))
    }

    /// As `publish_any`, with a body that is returned if the publish is held back.
    #[inline(never)]
    fn publish_or_return(
        &mut self,
        id: ChannelId,
        outgoing: &impl Outgoing,
        mut body: Body,
    ) -> Result<Option<PublishSeq>, PublishError> {
        match self.publish_any(id, outgoing, &mut body) {
            Err(PublishError::HeldBack { hold, .. }) => Err(PublishError::HeldBack { hold, body }),
            published => published,
        }
    }

    /// Publishes a message. It mostly is no small one, or the window of the output is too small.
    #[inline(never)]
    fn publish_any(
        &mut self,
        id: ChannelId,
        outgoing: &impl Outgoing,
        body: &mut Body,
    ) -> Result<Option<PublishSeq>, PublishError> {
        let body_len = body.len();
        if body_len < CHAIN_FROM
            && outgoing.is_plain()
            && let Ok(Open { output, .. }) = self.open(id)
            && output.widen()
            && let Some(published) = self.publish_small(id, outgoing, body)
        {
            return Ok(published);
        }
        let Open {
            channel,
            output,
            limits,
            role,
        } = match self.open(id) {
            Ok(open) => open,
            Err(closed) => return Err(self.refuse(id, outgoing, body_len, closed)),
        };
        let lane = output.lane(&channel.backlog, body_len);
        if let Some(hold) = hold(role, channel, output, limits, lane) {
            self.want_end_of(hold, id);
            let body = Body::new();
            return Err(PublishError::HeldBack { hold, body });
        }
        let replies = || channel.role.consumers.any_for_replies();
        check(role, limits, outgoing, body_len, replies)?;
        let position = output.position();
        let backlog = &mut channel.backlog;
        let mut confirms = match &mut channel.role.mode {
            Mode::Confirm(confirms) => Some(confirms),
            Mode::Plain | Mode::Transaction { .. } => None,
        };
        let number = confirms.as_ref().map_or(0, |confirms| confirms.next());
        let tracked = number > 0 && outgoing.method().mandatory;
        let body_hash = if tracked { hash_body(body) } else { 0 };
        let mut fingerprint = None;
        let route = Route {
            lane,
            channel: id.number(),
            body_len,
            publish: number,
        };
        output.put_content(route, backlog, outgoing.head(), body, |encoded| {
            if tracked {
                fingerprint = Some(Fingerprint::of(encoded));
            }
        })?;
        channel.role.published += 1;
        let Some(confirms) = &mut confirms else {
            return Ok(None);
        };
        let seq = confirms.add(if backlog.is_empty() {
            position
        } else {
            BACKLOG
        });
        if let Some(fingerprint) = fingerprint {
            confirms.add_mandatory(outgoing.method(), fingerprint, body_hash);
        }
        let unmarked = confirms.begin_unmarked();
        if unmarked && role.confirm_deadlines.are_set() {
            role.confirm_deadlines.add(id);
        }
        Ok(Some(seq))
    }

    /// The error for a publish on a channel that is not open: `closed`, unless the message is
    /// invalid on any channel.
    #[cold]
    fn refuse(
        &self,
        id: ChannelId,
        outgoing: &impl Outgoing,
        body_len: usize,
        closed: ApiMisuse,
    ) -> PublishError {
        if self.hold(id, body_len).is_some() {
            return closed.into();
        }
        let replies = || {
            self.channel(id)
                .is_some_and(|channel| channel.role.consumers.any_for_replies())
        };
        let checked = check(&self.role, self.limits(), outgoing, body_len, replies);
        checked.err().unwrap_or(closed).into()
    }
}

/// The condition that holds back a publish on the channel: a blocked connection
/// (<https://www.rabbitmq.com/docs/connection-blocked>), `channel.flow` (section 1.5.2.3 of the
/// protocol reference), or a limit of this side.
#[inline(always)]
fn hold(
    role: &Client,
    channel: &Channel<ClientChannel>,
    output: &Output,
    limits: &Limits,
    lane: Lane,
) -> Option<Hold> {
    if role.blocked {
        return Some(Hold::ConnectionBlocked);
    }
    if channel.paused {
        return Some(Hold::ChannelFlow);
    }
    if let Mode::Confirm(confirms) = &channel.role.mode
        && confirms.window() >= limits.unconfirmed
    {
        return Some(Hold::TooManyUnconfirmed);
    }
    output.hold(lane, &channel.backlog, limits)
}

/// Checks a message. `has_replies` is whether a consumer of the channel takes direct replies.
#[inline]
fn check(
    role: &Client,
    limits: &Limits,
    outgoing: &impl Outgoing,
    body_len: usize,
    has_replies: impl FnOnce() -> bool,
) -> Result<(), ApiMisuse> {
    let limit = limits.body;
    if body_len as u64 > limit {
        let len = body_len;
        return Err(ApiMisuse::BodyTooLarge { len, limit });
    }
    outgoing
        .check_properties()
        .map_err(ApiMisuse::MalformedProperties)?;
    if role.checks == Checks::RabbitMq {
        // <https://www.rabbitmq.com/docs/specification>
        if outgoing.method().immediate {
            let feature = "basic.publish immediate";
            return Err(ApiMisuse::NotImplementedByRabbitMq { feature });
        }
        // <https://www.rabbitmq.com/docs/direct-reply-to>
        if outgoing.asks_for_direct_reply() && !has_replies() {
            return Err(ApiMisuse::ReplyToWithoutConsumer);
        }
    }
    Ok(())
}
