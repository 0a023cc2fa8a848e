//! Requests and their replies.

use amqp_core::{
    ChannelId, Request, RequestId,
    client::Event,
    protocol::{Method, basic, confirm, queue, tx},
    wire::ShortStr,
};

use super::{Refused, Rig, name, passive, refusal};

impl Rig {
    pub(crate) fn call<R>(
        &mut self,
        client: usize,
        channel: ChannelId,
        request: &R,
    ) -> Result<Method, Refused>
    where
        R: Request + amqp_core::ClientSent,
    {
        let id = self
            .client(client)
            .channel(channel)
            .unwrap()
            .call(request)
            .unwrap();
        self.exchange();
        self.reply(client, id)
    }

    pub(crate) fn declare(
        &mut self,
        client: usize,
        channel: ChannelId,
        declare: &queue::Declare,
    ) -> (ShortStr, u32, u32) {
        match self.call(client, channel, declare).unwrap() {
            Method::QueueDeclareOk(ok) => (ok.queue, ok.message_count, ok.consumer_count),
            other => panic!("{other:?}"),
        }
    }

    /// The messages and consumers that a queue is said to have.
    pub(crate) fn counts(&mut self, client: usize, channel: ChannelId, queue: &str) -> (u32, u32) {
        let (_, messages, consumers) = self.declare(client, channel, &passive(queue));
        (messages, consumers)
    }

    /// Tries a request on a channel of its own.
    pub(crate) fn try_call<R>(&mut self, client: usize, request: &R) -> Result<Method, Refused>
    where
        R: Request + amqp_core::ClientSent,
    {
        let channel = self.channel(client);
        self.call(client, channel, request)
    }

    pub(crate) fn reply(&mut self, client: usize, id: RequestId) -> Result<Method, Refused> {
        let events = &mut self.peers[client].events;
        let at = events.iter().position(|event| match event {
            Event::Reply { request, .. } | Event::Failed { request, .. } => *request == id,
            _ => false,
        });
        let at = at.unwrap_or_else(|| panic!("no answer: {events:?}"));
        match events.remove(at).unwrap() {
            Event::Reply { reply, .. } => Ok(reply),
            Event::Failed { cause, .. } => {
                use amqp_core::RequestError::{ChannelClosed, ConnectionClosed};
                match &cause {
                    ChannelClosed(reason) | ConnectionClosed(reason) => {
                        Err(refusal(reason).unwrap_or_else(|| panic!("{reason:?}")))
                    }
                    other => panic!("{other:?}"),
                }
            }
            _ => unreachable!(),
        }
    }

    pub(crate) fn consume(
        &mut self,
        client: usize,
        channel: ChannelId,
        consume: basic::Consume,
    ) -> Result<Method, Refused> {
        let (_, _, id) = self
            .client(client)
            .channel(channel)
            .unwrap()
            .consume(consume)
            .unwrap();
        self.exchange();
        self.reply(client, id)
    }

    pub(crate) fn qos(&mut self, client: usize, channel: ChannelId, count: u16, global: bool) {
        let qos = basic::Qos {
            prefetch_size: 0,
            prefetch_count: count,
            global,
        };
        self.call(client, channel, &qos).unwrap();
    }

    pub(crate) fn cancel(&mut self, client: usize, channel: ChannelId, tag: &str) {
        let cancel = basic::Cancel {
            consumer_tag: name(tag),
            no_wait: false,
        };
        self.call(client, channel, &cancel).unwrap();
    }

    pub(crate) fn confirms(&mut self, client: usize, channel: ChannelId) {
        self.call(client, channel, &confirm::Select::default())
            .unwrap();
    }

    pub(crate) fn transaction(&mut self, client: usize, channel: ChannelId) {
        self.call(client, channel, &tx::Select).unwrap();
    }
}
