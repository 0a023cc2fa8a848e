//! Publishing, and the conditions that hold it back.

use super::{
    Checks, Client,
    channel_state::Mode,
    confirms::BACKLOG,
    fingerprint::{Fingerprint, hash_body},
    reply_to::REPLY_TO,
};
use crate::{
    body::{Body, PropertyList},
    error::{ApiMisuse, Hold, PublishError},
    ids::{ChannelId, PublishSeq},
    machine::{Machine, Message},
    protocol::basic,
};

impl Machine<Client> {
    /// The condition that holds back a publish on the channel: a blocked connection
    /// (<https://www.rabbitmq.com/docs/connection-blocked>), `channel.flow` (section 1.5.2.3 of the
    /// protocol reference), or a limit of this side.
    #[inline]
    pub(super) fn hold(&self, id: ChannelId, body_len: usize) -> Option<Hold> {
        let channel = self.channel(id)?;
        if self.role.blocked {
            return Some(Hold::ConnectionBlocked);
        }
        if channel.paused {
            return Some(Hold::ChannelFlow);
        }
        if let Mode::Confirm(confirms) = &channel.role.mode
            && confirms.window() >= self.limits().unconfirmed
        {
            return Some(Hold::TooManyUnconfirmed);
        }
        self.output_hold(&channel.backlog, body_len)
    }

    pub(super) fn publish<P: PropertyList>(
        &mut self,
        id: ChannelId,
        publish: &basic::Publish,
        properties: &P,
        body: &mut Body,
    ) -> Result<Option<PublishSeq>, PublishError> {
        if let Some(hold) = self.hold(id, body.len()) {
            self.open_channel_and_output(id)?;
            self.want_end_of(hold, id);
            let body = Body::new();
            return Err(PublishError::HeldBack { hold, body });
        }
        let limit = self.limits().body;
        let body_len = body.len();
        if body_len as u64 > limit {
            return Err(ApiMisuse::BodyTooLarge {
                len: body_len,
                limit,
            }
            .into());
        }
        properties.check().map_err(ApiMisuse::MalformedProperties)?;
        if self.role.checks == Checks::RabbitMq {
            // <https://www.rabbitmq.com/docs/specification>
            if publish.immediate {
                let feature = "basic.publish immediate";
                return Err(ApiMisuse::NotImplementedByRabbitMq { feature }.into());
            }
            // <https://www.rabbitmq.com/docs/direct-reply-to>
            if properties.reply_to() == Some(REPLY_TO) && !self.consumes_replies(id) {
                return Err(ApiMisuse::ReplyToWithoutConsumer.into());
            }
        }
        let position = self.output_position();
        let (channel, output) = self.open_channel_and_output(id)?;
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
        let fingerprint = output.put_content(backlog, id.number(), message, |encoded| {
            tracked.then(|| Fingerprint::of(encoded))
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
        if unmarked && self.role.confirm_deadlines.are_set() {
            self.role.confirm_deadlines.add(id);
        }
        Ok(Some(seq))
    }

    fn consumes_replies(&self, id: ChannelId) -> bool {
        self.channel(id)
            .is_some_and(|channel| channel.role.consumers.any_for_replies())
    }
}
