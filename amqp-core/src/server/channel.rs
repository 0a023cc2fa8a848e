//! A server's channel: what it knows, and its commands.

use alloc::{collections::VecDeque, string::String};

use super::Server;
use crate::{
    body::{Body, PropertyList},
    close::Close,
    error::{ApiMisuse, Hold},
    ids::{ChannelId, PublishSeq},
    machine::{ChannelLife, Machine, Message},
    method::{MethodDef, MethodId, ServerSent},
    protocol::{self, Method, ReplyCode, basic, channel},
};

/// What a server knows of a channel.
#[derive(Debug, Default)]
pub(crate) struct ServerChannel {
    /// The requests that are to be answered, in the order they came.
    pub(crate) owed: VecDeque<MethodId>,
    /// The server's own requests that the client is to answer, in the order they were made.
    pub(crate) asked: VecDeque<MethodId>,
    /// The number of the last publish; none when the channel is not in confirm mode.
    pub(crate) published: Option<u64>,
}

/// The commands of one channel, borrowed from its connection.
///
/// Each returns at once. An error means that the command was refused and nothing has changed.
#[derive(Debug)]
pub struct ChannelMut<'a> {
    machine: &'a mut Machine<Server>,
    id: ChannelId,
}

impl<'a> ChannelMut<'a> {
    pub(crate) const fn new(machine: &'a mut Machine<Server>, id: ChannelId) -> Self {
        Self { machine, id }
    }

    /// Which channel this is.
    #[must_use]
    pub const fn id(&self) -> ChannelId {
        self.id
    }

    /// Whether commands can be given.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.machine.is_open()
            && self
                .machine
                .channel(self.id)
                .is_some_and(|channel| channel.life == ChannelLife::Open)
    }

    /// What holds deliveries back on this channel now: a client that paused it, or much output
    /// that waits already. It is advice, deliveries are accepted all the same.
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

    /// Sends a method: the answer to a request, a confirm, a cancel.
    ///
    /// # Errors
    /// When the channel is not open, the method has content or a command of its own, is an answer
    /// to nothing, or does not fit into a frame.
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

    /// Sends a method with content: a delivery, a returned message, a message that was fetched.
    ///
    /// The content header may be larger than the negotiated frame limit: the properties of a
    /// message grow on its way, and RabbitMQ sends them nevertheless.
    ///
    /// # Errors
    /// When the channel is not open, the method has no content, is an answer to nothing, or does
    /// not fit into a frame.
    pub fn send_content<M: ServerSent, P: PropertyList>(
        &mut self,
        method: &M,
        properties: &P,
        body: impl Into<Body>,
    ) -> Result<(), ApiMisuse> {
        self.check_sent::<M>(true)?;
        let mut body = body.into();
        let message = Message {
            method,
            properties,
            body: &mut body,
            publish: 0,
        };
        self.answer::<M>(|machine, id| {
            let (channel, output) = machine.open_channel_and_output(id)?;
            output.put_content(&mut channel.backlog, id.number(), message, |_| ())
        })
    }

    /// Confirms a publish, or all up to it, with `basic.ack`.
    ///
    /// # Errors
    /// When the channel is not open.
    pub fn confirm(&mut self, seq: PublishSeq, multiple: bool) -> Result<(), ApiMisuse> {
        self.send(&basic::Ack {
            delivery_tag: seq.get(),
            multiple,
        })
    }

    /// Closes the channel, because of a method that the client sent if one is named. What was
    /// queued before is sent first. [`Event::ChannelClosed`](super::Event::ChannelClosed) is not
    /// given for it.
    ///
    /// # Errors
    /// When the channel is not open.
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

    /// Checks that the method may be sent like this.
    fn check_sent<M: ServerSent>(&self, content: bool) -> Result<(), ApiMisuse> {
        let fits = protocol::rule(M::ID).is_some_and(|rule| {
            let own_way = M::ID.class == CHANNEL_CLASS && M::ID != channel::FlowOk::ID;
            !rule.connection && rule.content == content && !own_way
        });
        if fits {
            Ok(())
        } else {
            Err(ApiMisuse::NotSentThisWay { method: M::NAME })
        }
    }

    /// Sends the method, and strikes the request off that it answers if it is an answer.
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

/// The methods of this class have commands of their own, or are answered by the machine; but for
/// `flow-ok`.
const CHANNEL_CLASS: u16 = channel::Open::ID.class;
