//! Publishing, and the conditions that hold it back.

use super::{
    Checks, Client,
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
    machine::{Channel, Machine, Message, Open, Output},
    protocol::basic,
};

impl Machine<Client> {
    /// The condition that holds back a publish on the channel.
    pub(super) fn hold(&self, id: ChannelId, body_len: usize) -> Option<Hold> {
        let channel = self.channel(id)?;
        hold(&self.role, channel, self.output(), self.limits(), body_len)
    }

    pub(super) fn publish<P: PropertyList>(
        &mut self,
        id: ChannelId,
        publish: &basic::Publish,
        properties: &P,
        body: &mut Body,
    ) -> Result<Option<PublishSeq>, PublishError> {
        let body_len = body.len();
        let Open {
            channel,
            output,
            limits,
            role,
        } = match self.open(id) {
            Ok(open) => open,
            Err(closed) => return Err(self.refuse(id, publish, properties, body_len, closed)),
        };
        if let Some(hold) = hold(role, channel, output, limits, body_len) {
            self.want_end_of(hold, id);
            let body = Body::new();
            return Err(PublishError::HeldBack { hold, body });
        }
        let replies = || channel.role.consumers.any_for_replies();
        check(role, limits, publish, properties, body_len, replies)?;
        let position = output.position();
        let number = match &channel.role.mode {
            Mode::Confirm(confirms) => confirms.next(),
            Mode::Plain | Mode::Transaction { .. } => 0,
        };
        let tracked = number > 0 && publish.mandatory;
        let body_hash = if tracked { hash_body(body) } else { 0 };
        let message = Message {
            method: publish,
            properties,
            body,
            publish: number,
        };
        let backlog = &mut channel.backlog;
        let mut fingerprint = None;
        output.put_content(backlog, id.number(), message, |encoded| {
            if tracked {
                fingerprint = Some(Fingerprint::of(encoded));
            }
        })?;
        channel.role.published += 1;
        let Mode::Confirm(confirms) = &mut channel.role.mode else {
            return Ok(None);
        };
        let seq = confirms.add(if channel.backlog.is_empty() {
            position
        } else {
            BACKLOG
        });
        if let Some(fingerprint) = fingerprint {
            confirms.add_mandatory(publish, fingerprint, body_hash);
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
    fn refuse<P: PropertyList>(
        &self,
        id: ChannelId,
        publish: &basic::Publish,
        properties: &P,
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
        let (role, limits) = (&self.role, self.limits());
        let checked = check(role, limits, publish, properties, body_len, replies);
        checked.err().unwrap_or(closed).into()
    }
}

/// The condition that holds back a publish on the channel: a blocked connection
/// (<https://www.rabbitmq.com/docs/connection-blocked>), `channel.flow` (section 1.5.2.3 of the
/// protocol reference), or a limit of this side.
#[inline]
fn hold(
    role: &Client,
    channel: &Channel<ClientChannel>,
    output: &Output,
    limits: &Limits,
    body_len: usize,
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
    output.hold(&channel.backlog, body_len, limits)
}

/// Checks a message. `has_replies` is whether a consumer of the channel takes direct replies.
#[inline]
fn check<P: PropertyList>(
    role: &Client,
    limits: &Limits,
    publish: &basic::Publish,
    properties: &P,
    body_len: usize,
    has_replies: impl FnOnce() -> bool,
) -> Result<(), ApiMisuse> {
    let limit = limits.body;
    if body_len as u64 > limit {
        let len = body_len;
        return Err(ApiMisuse::BodyTooLarge { len, limit });
    }
    properties.check().map_err(ApiMisuse::MalformedProperties)?;
    if role.checks == Checks::RabbitMq {
        // <https://www.rabbitmq.com/docs/specification>
        if publish.immediate {
            let feature = "basic.publish immediate";
            return Err(ApiMisuse::NotImplementedByRabbitMq { feature });
        }
        // <https://www.rabbitmq.com/docs/direct-reply-to>
        if properties.reply_to() == Some(REPLY_TO) && !has_replies() {
            return Err(ApiMisuse::ReplyToWithoutConsumer);
        }
    }
    Ok(())
}
