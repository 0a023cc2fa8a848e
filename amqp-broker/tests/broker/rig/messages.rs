//! Messages, published, delivered and fetched.

use amqp_core::{
    ChannelId, PublishSeq, Requeue, Tags,
    client::{Delivery, Event, GetMessage, Outcome, Returned},
    protocol::{basic, basic::Properties},
};

use super::{Refused, Rig, name};

impl Rig {
    /// Publishes to the default exchange.
    pub(crate) fn publish(&mut self, client: usize, channel: ChannelId, queue: &str, body: &str) {
        self.publish_to(client, channel, "", queue, &Properties::default(), body);
    }

    pub(crate) fn publish_to(
        &mut self,
        client: usize,
        channel: ChannelId,
        exchange: &str,
        key: &str,
        properties: &Properties,
        body: &str,
    ) -> Option<PublishSeq> {
        let publish = basic::Publish {
            exchange: name(exchange),
            routing_key: name(key),
            ..basic::Publish::default()
        };
        self.publish_as(client, channel, &publish, properties, body)
    }

    pub(crate) fn publish_as(
        &mut self,
        client: usize,
        channel: ChannelId,
        publish: &basic::Publish,
        properties: &Properties,
        body: &str,
    ) -> Option<PublishSeq> {
        let mut channel = self.client(client).channel(channel).unwrap();
        let seq = channel
            .publish(publish, properties, body.to_owned())
            .unwrap();
        self.exchange();
        seq
    }

    pub(crate) fn mandatory(key: &str) -> basic::Publish {
        basic::Publish {
            routing_key: name(key),
            mandatory: true,
            ..basic::Publish::default()
        }
    }

    /// Fetches a message.
    pub(crate) fn get(
        &mut self,
        client: usize,
        channel: ChannelId,
        queue: &str,
    ) -> Option<GetMessage> {
        self.try_get(client, channel, queue, false).unwrap()
    }

    pub(crate) fn try_get(
        &mut self,
        client: usize,
        channel: ChannelId,
        queue: &str,
        no_ack: bool,
    ) -> Result<Option<GetMessage>, Refused> {
        let get = basic::Get {
            queue: name(queue),
            no_ack,
        };
        let id = self
            .client(client)
            .channel(channel)
            .unwrap()
            .get(&get)
            .unwrap();
        self.exchange();
        let events = &mut self.peers[client].events;
        let at = events
            .iter()
            .position(|event| matches!(event, Event::Got { request, .. } if *request == id));
        match at.and_then(|at| events.remove(at)) {
            Some(Event::Got { message, .. }) => Ok(message),
            _ => Err(self.reply(client, id).unwrap_err()),
        }
    }

    /// Takes all messages of a queue: their bodies.
    pub(crate) fn drain(&mut self, client: usize, channel: ChannelId, queue: &str) -> Vec<String> {
        let mut bodies = Vec::new();
        while let Some(message) = self.try_get(client, channel, queue, true).unwrap() {
            bodies.push(text(message.content.body.to_vec()));
        }
        bodies
    }

    pub(crate) fn ack(&mut self, client: usize, channel: ChannelId, tags: Tags) {
        self.client(client)
            .channel(channel)
            .unwrap()
            .ack(tags)
            .unwrap();
        self.exchange();
    }

    pub(crate) fn nack(&mut self, client: usize, channel: ChannelId, tags: Tags, requeue: bool) {
        let requeue = if requeue { Requeue::Yes } else { Requeue::No };
        self.client(client)
            .channel(channel)
            .unwrap()
            .nack(tags, requeue)
            .unwrap();
        self.exchange();
    }

    pub(crate) fn events(&mut self, client: usize) -> Vec<Event> {
        self.peers[client].events.drain(..).collect()
    }

    /// Takes the deliveries out of the events.
    pub(crate) fn deliveries(&mut self, client: usize) -> Vec<Delivery> {
        self.take(client, |event| match event {
            Event::Delivered(delivery) => Some(delivery.clone()),
            _ => None,
        })
    }

    /// The consumer tags and bodies of the deliveries.
    pub(crate) fn delivered(&mut self, client: usize) -> Vec<(String, String)> {
        let deliveries = self.deliveries(client).into_iter();
        deliveries
            .map(|delivery| {
                let tag = delivery.method.consumer_tag.to_string();
                (tag, text(delivery.content.body.to_vec()))
            })
            .collect()
    }

    /// The bodies of the deliveries.
    pub(crate) fn bodies(&mut self, client: usize) -> Vec<String> {
        self.delivered(client)
            .into_iter()
            .map(|(_, body)| body)
            .collect()
    }

    pub(crate) fn returns(&mut self, client: usize) -> Vec<Returned> {
        self.take(client, |event| match event {
            Event::Returned(returned) => Some(returned.clone()),
            _ => None,
        })
    }

    /// The settled publishes: first, last, outcome.
    pub(crate) fn settled(&mut self, client: usize) -> Vec<(u64, u64, Outcome)> {
        self.take(client, |event| match event {
            Event::Settled {
                first,
                last,
                outcome,
                ..
            } => Some((first.get(), last.get(), outcome.clone())),
            _ => None,
        })
    }

    pub(super) fn take<T>(&mut self, client: usize, pick: impl Fn(&Event) -> Option<T>) -> Vec<T> {
        let mut taken = Vec::new();
        self.peers[client].events.retain(|event| {
            let picked = pick(event);
            let kept = picked.is_none();
            taken.extend(picked);
            kept
        });
        taken
    }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}
