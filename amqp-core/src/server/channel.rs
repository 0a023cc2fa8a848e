//! The server's state of a channel, and the commands of a channel.

use alloc::{collections::VecDeque, string::String};

use super::Server;
use crate::{
    body::{Body, PropertyList},
    close::Close,
    error::{ApiMisuse, Hold},
    ids::{ChannelId, PublishSeq},
    machine::{ChannelLife, Machine, Message, Route},
    method::{MethodDef, ServerSent},
    method_id::MethodId,
    protocol::{self, Method, ReplyCode, basic, channel},
};

/// The server's state of a channel.
#[derive(Debug, Default)]
pub(crate) struct ServerChannel {
    /// The unanswered requests of the client, in the order of arrival.
    pub(crate) owed: VecDeque<MethodId>,
    /// The server's own unanswered requests, in the order in which they were sent.
    pub(crate) asked: VecDeque<MethodId>,
    /// The sequence number of the last publish. `Some` in confirm mode.
    pub(crate) published: Option<u64>,
}

/// The commands of one channel, borrowed from its connection.
///
/// Each returns at once. An error means that the command was refused and that the state is
/// unchanged.
#[derive(Debug)]
pub struct ChannelMut<'a> {
    machine: &'a mut Machine<Server>,
    id: ChannelId,
}

impl<'a> ChannelMut<'a> {
    pub(crate) const fn new(machine: &'a mut Machine<Server>, id: ChannelId) -> Self {
        Self { machine, id }
    }

    /// Returns the id of the channel.
    #[must_use]
    pub const fn id(&self) -> ChannelId {
        self.id
    }

    /// Returns whether the channel accepts commands.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.machine.is_open()
            && self
                .machine
                .channel(self.id)
                .is_some_and(|channel| channel.life == ChannelLife::Open)
    }

    /// Returns whether the client has sent a method with content, and its content header is next.
    #[must_use]
    pub fn awaits_header(&self) -> bool {
        self.machine
            .channel(self.id)
            .is_some_and(|channel| channel.assembly.wants_header())
    }

    /// Returns the reason to hold back deliveries on this channel: the client has paused it with
    /// `channel.flow`, or the output is full. In the second case,
    /// [`Event::Writable`](super::Event::Writable) follows when the output has drained. The result
    /// is advisory: deliveries are accepted anyway.
    #[must_use]
    pub fn hold(&mut self) -> Option<Hold> {
        let channel = self.machine.channel(self.id)?;
        if channel.paused {
            return Some(Hold::ChannelFlow);
        }
        let full = self.machine.buffered() >= self.machine.limits().output_high;
        full.then(|| {
            self.machine.want_output_room();
            Hold::OutputFull
        })
    }

    /// Sends a method without content: a reply, a confirm, a cancel.
    ///
    /// # Errors
    /// If the channel is not open, if the method has content or a command of its own, if it is a
    /// reply and there is no matching request, or if it does not fit into a frame.
    pub fn send<M: ServerSent>(&mut self, method: &M) -> Result<(), ApiMisuse> {
        self.check_sent::<M>(false)?;
        self.answer::<M>(|machine, id| machine.put_method(id, method))?;
        let method: Method = method.clone().into();
        if !method.rule().responses.is_empty()
            && !method.no_wait()
            && let Some(channel) = self.machine.channel_mut(self.id)
        {
            channel.role.asked.push_back(method.id());
        }
        Ok(())
    }

    /// Sends a method with content: a delivery, a returned message, the reply to `basic.get`.
    ///
    /// The content header may exceed the negotiated frame limit, as in RabbitMQ: the headers of a
    /// message grow with each queue that dead-letters it (<https://www.rabbitmq.com/docs/dlx>).
    ///
    /// # Errors
    /// If the channel is not open, if the method has no content, if it is a reply and there is no
    /// matching request, or if it does not fit into a frame.
    pub fn send_content<M: ServerSent, P: PropertyList>(
        &mut self,
        method: &M,
        properties: &P,
        body: impl Into<Body>,
    ) -> Result<(), ApiMisuse> {
        self.check_sent::<M>(true)?;
        let mut body = body.into();
        let message = Message { method, properties };
        self.answer::<M>(|machine, id| {
            let (channel, output) = machine.open_channel_and_output(id)?;
            let backlog = &mut channel.backlog;
            let route = Route {
                lane: output.lane(backlog, body.len()),
                channel: id.number(),
                body_len: body.len(),
                publish: 0,
            };
            output.put_content(route, backlog, &message, &mut body, |_| ())
        })?;
        let stats = &mut self.machine.stats;
        match M::ID {
            basic::Deliver::ID => stats.delivered += 1,
            basic::GetOk::ID => stats.fetched += 1,
            _ => stats.returned += 1,
        }
        Ok(())
    }

    /// Confirms the publish `seq` with `basic.ack`; with `multiple`, also all unconfirmed publishes
    /// before it (<https://www.rabbitmq.com/docs/confirms>).
    ///
    /// # Errors
    /// If the channel is not open.
    pub fn confirm(&mut self, seq: PublishSeq, multiple: bool) -> Result<(), ApiMisuse> {
        self.send(&basic::Ack {
            delivery_tag: seq.get(),
            multiple,
        })
    }

    /// Asks the client to pause or to resume publishing, with `channel.flow` (section 1.5.2.3 of the
    /// protocol reference). The answer arrives as an [`Event::Request`](super::Event::Request) with
    /// `channel.flow-ok`: with `active`, a round trip that changes nothing.
    ///
    /// # Errors
    /// If the channel is not open.
    pub fn flow(&mut self, active: bool) -> Result<(), ApiMisuse> {
        self.machine
            .put_method(self.id, &channel::Flow { active })?;
        if let Some(channel) = self.machine.channel_mut(self.id) {
            channel.role.asked.push_back(channel::Flow::ID);
        }
        Ok(())
    }

    /// Closes the channel with `channel.close`, which names `method` as the cause if it is `Some`.
    /// Queued output is sent first. [`Event::ChannelClosed`](super::Event::ChannelClosed) is not
    /// emitted.
    ///
    /// # Errors
    /// If the channel is not open.
    pub fn close(
        &mut self,
        code: ReplyCode,
        text: &str,
        method: Option<MethodId>,
    ) -> Result<(), ApiMisuse> {
        let close = Close {
            code,
            text: String::from(text),
            method,
        };
        self.machine.close_channel(self.id, &close, None)?;
        if let Some(channel) = self.machine.channel_mut(self.id) {
            channel.role.owed.clear();
            channel.role.asked.clear();
        }
        Ok(())
    }

    /// Checks that the method belongs to a channel, has content exactly if `content` is `true`, and
    /// has no command of its own.
    fn check_sent<M: ServerSent>(&self, content: bool) -> Result<(), ApiMisuse> {
        let fits = protocol::rule(M::ID).is_some_and(|rule| {
            !rule.connection && rule.content == content && !OWN_COMMANDS.contains(&M::ID)
        });
        if fits {
            Ok(())
        } else {
            Err(ApiMisuse::NotSentThisWay { method: M::NAME })
        }
    }

    /// Sends the method. If it is a reply, removes the matching request from the unanswered ones.
    fn answer<M: MethodDef>(
        &mut self,
        send: impl FnOnce(&mut Machine<Server>, ChannelId) -> Result<(), ApiMisuse>,
    ) -> Result<(), ApiMisuse> {
        let answers = protocol::rule(M::ID).map_or(&[][..], |rule| rule.answers);
        let (channel, _) = self.machine.open_channel_and_output(self.id)?;
        let owed = &channel.role.owed;
        let at = owed.iter().position(|request| answers.contains(request));
        if !answers.is_empty() && at.is_none() {
            return Err(ApiMisuse::NothingToAnswer { method: M::NAME });
        }
        send(self.machine, self.id)?;
        if let (Some(at), Some(channel)) = (at, self.machine.channel_mut(self.id)) {
            channel.role.owed.remove(at);
        }
        Ok(())
    }
}

/// The methods that have a command of their own, or that the machine sends.
const OWN_COMMANDS: [MethodId; 4] = [
    channel::OpenOk::ID,
    channel::Flow::ID,
    channel::Close::ID,
    channel::CloseOk::ID,
];
