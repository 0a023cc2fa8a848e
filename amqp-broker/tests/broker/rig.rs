//! A broker and several clients in one thread, joined in memory under virtual time.

use std::{collections::VecDeque, time::Duration};

use amqp_broker::{Broker, Config, ConnectionKey, QueueInfo};
use amqp_core::{
    ChannelId, CloseReason, DeliveryTag, Instant, PublishSeq, Request, RequestId, Requeue, Tags,
    Transmit,
    client::{self, Checks, Delivery, Event, GetMessage, Outcome, Returned},
    frame::{Frame, FrameKind, split_method},
    protocol::{Method, ReplyCode, basic, basic::Properties, confirm, exchange, queue, tx},
    sasl::Plain,
    wire::{Encode as _, FieldTable, FieldValue, ShortStr},
};
use bytes::BytesMut;

/// A broker and its clients. A client is named by its number, counted from 0.
pub(crate) struct Rig {
    pub(crate) broker: Broker,
    pub(crate) now: Instant,
    peers: Vec<Peer>,
}

struct Peer {
    client: client::Connection,
    key: ConnectionKey,
    to_broker: BytesMut,
    to_client: BytesMut,
    events: VecDeque<Event>,
    /// It takes nothing from its transport.
    stalled: bool,
}

impl Peer {
    fn new(client: client::Connection, key: ConnectionKey) -> Self {
        Self {
            client,
            key,
            to_broker: BytesMut::new(),
            to_client: BytesMut::new(),
            events: VecDeque::new(),
            stalled: false,
        }
    }
}

/// The bytes of a method frame.
pub(crate) fn frame(channel: u16, method: &Method) -> Vec<u8> {
    let id = method.id();
    let mut payload = BytesMut::new();
    payload.extend_from_slice(&id.class.to_be_bytes());
    payload.extend_from_slice(&id.method.to_be_bytes());
    method.encode(&mut payload);
    let mut bytes = BytesMut::new();
    Frame {
        kind: FrameKind::Method,
        channel,
        payload: &payload,
    }
    .encode(&mut bytes);
    bytes.to_vec()
}

/// How a request was refused: the code and the text.
pub(crate) type Refused = (u16, String);

pub(crate) fn name(text: &str) -> ShortStr {
    text.parse().unwrap()
}

/// Arguments of a declaration, or headers.
pub(crate) fn table<const N: usize>(fields: [(&str, FieldValue); N]) -> FieldTable {
    fields
        .into_iter()
        .map(|(field, value)| (name(field), value))
        .collect()
}

pub(crate) fn headers<const N: usize>(fields: [(&str, FieldValue); N]) -> Properties {
    Properties {
        headers: Some(table(fields)),
        ..Properties::default()
    }
}

pub(crate) fn queue(text: &str) -> queue::Declare {
    queue::Declare {
        queue: name(text),
        ..queue::Declare::default()
    }
}

pub(crate) fn queue_with<const N: usize>(
    text: &str,
    arguments: [(&str, FieldValue); N],
) -> queue::Declare {
    queue::Declare {
        arguments: table(arguments),
        ..queue(text)
    }
}

pub(crate) fn quorum<const N: usize>(
    text: &str,
    arguments: [(&str, FieldValue); N],
) -> queue::Declare {
    let mut declare = queue_with(text, arguments);
    declare.durable = true;
    declare.arguments.push(name("x-queue-type"), "quorum");
    declare
}

pub(crate) fn passive(text: &str) -> queue::Declare {
    queue::Declare {
        passive: true,
        ..queue(text)
    }
}

pub(crate) fn exchange(text: &str, kind: &str) -> exchange::Declare {
    exchange::Declare {
        exchange: name(text),
        kind: name(kind),
        ..exchange::Declare::default()
    }
}

pub(crate) fn bind(queue: &str, exchange: &str, key: &str) -> queue::Bind {
    queue::Bind {
        queue: name(queue),
        exchange: name(exchange),
        routing_key: name(key),
        ..queue::Bind::default()
    }
}

pub(crate) fn delete(text: &str) -> queue::Delete {
    queue::Delete {
        queue: name(text),
        ..queue::Delete::default()
    }
}

pub(crate) fn consumer(queue: &str, tag: &str) -> basic::Consume {
    basic::Consume {
        queue: name(queue),
        consumer_tag: name(tag),
        ..basic::Consume::default()
    }
}

pub(crate) fn refused(code: u16, text: &str) -> Refused {
    (code, text.into())
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self::with(Config::default())
    }

    pub(crate) fn with(config: Config) -> Self {
        Self {
            broker: Broker::new(config).unwrap(),
            now: Instant::ORIGIN + Duration::from_secs(100),
            peers: Vec::new(),
        }
    }

    /// A broker, a client and a channel.
    pub(crate) fn open() -> (Self, usize, ChannelId) {
        let mut rig = Self::new();
        let client = rig.connect();
        let channel = rig.channel(client);
        (rig, client, channel)
    }

    // Connections and channels.

    pub(crate) fn connect(&mut self) -> usize {
        let client = self.begin(client::Config::default());
        assert!(self.client(client).is_open());
        client
    }

    /// Begins to connect, and goes as far as it comes.
    pub(crate) fn begin(&mut self, config: client::Config) -> usize {
        let key = self.broker.accept(self.now).unwrap();
        self.begin_at(key, config)
    }

    /// As `begin`, over a transport that is secured and vouches for that user.
    pub(crate) fn begin_secured(&mut self, config: client::Config, user: Option<&str>) -> usize {
        let key = self.broker.accept(self.now).unwrap();
        self.broker.handle_secured(key, user.map(Into::into));
        self.begin_at(key, config)
    }

    fn begin_at(&mut self, key: ConnectionKey, config: client::Config) -> usize {
        let config = config.checks(Checks::Standard);
        let client = client::Connection::new(config, self.now).unwrap();
        self.peers.push(Peer::new(client, key));
        self.exchange();
        let client = self.peers.len() - 1;
        if self.client(client).is_open() {
            assert_eq!(self.events(client), [Event::Opened]);
        }
        client
    }

    pub(crate) fn begin_as(&mut self, user: &str, password: &str, vhost: &str) -> usize {
        self.begin(
            client::Config::default()
                .mechanisms(vec![Box::new(Plain::new(user, password).unwrap())])
                .virtual_host(vhost)
                .unwrap(),
        )
    }

    pub(crate) fn client(&mut self, client: usize) -> &mut client::Connection {
        &mut self.peers[client].client
    }

    pub(crate) fn key(&self, client: usize) -> ConnectionKey {
        self.peers[client].key
    }

    pub(crate) fn stall(&mut self, client: usize, stalled: bool) {
        self.peers[client].stalled = stalled;
        self.exchange();
    }

    /// The transport of a client is cut.
    pub(crate) fn cut(&mut self, client: usize) {
        let peer = &mut self.peers[client];
        peer.client.handle_eof(self.now);
        peer.to_client.clear();
        self.broker.handle_eof(peer.key, self.now);
        self.broker.remove(peer.key, self.now);
        self.exchange();
    }

    pub(crate) fn close(&mut self, client: usize) {
        self.client(client).close(ReplyCode::SUCCESS, "bye");
        self.exchange();
    }

    pub(crate) fn channel(&mut self, client: usize) -> ChannelId {
        let (channel, request) = self.client(client).open_channel().unwrap();
        self.exchange();
        self.reply(client, request).unwrap();
        channel
    }

    /// What a client's connection was closed with by the broker.
    pub(crate) fn closed(&mut self, client: usize) -> Option<Refused> {
        let reason = self.client(client).close_reason()?;
        refusal(reason)
    }

    /// What the last channel that was closed by the broker was closed with.
    pub(crate) fn channel_closed(&mut self, client: usize) -> Option<Refused> {
        let reasons = self.take(client, |event| match event {
            Event::ChannelClosed { reason, .. } => Some(reason.clone()),
            _ => None,
        });
        refusal(reasons.last()?)
    }

    // Time and bytes.

    /// Moves bytes until nothing is left to move.
    pub(crate) fn exchange(&mut self) {
        let mut out = Transmit::new();
        loop {
            let mut moved = false;
            for peer in &mut self.peers {
                while peer.client.poll_transmit(self.now, &mut out) {}
                for segment in out.take_segments() {
                    peer.to_broker.extend_from_slice(&segment);
                }
                if !peer.to_broker.is_empty() && self.broker.wants_input(peer.key) {
                    let before = peer.to_broker.len();
                    self.broker
                        .handle_input(peer.key, self.now, &mut peer.to_broker);
                    moved |= peer.to_broker.len() < before;
                }
                if !peer.stalled {
                    while self.broker.poll_transmit(peer.key, self.now, &mut out) {}
                    for segment in out.take_segments() {
                        peer.to_client.extend_from_slice(&segment);
                    }
                    if !peer.to_client.is_empty() {
                        let before = peer.to_client.len();
                        peer.client.handle_input(self.now, &mut peer.to_client);
                        moved |= peer.to_client.len() < before;
                    }
                }
                while let Some(event) = peer.client.poll_event() {
                    peer.events.push_back(event);
                }
            }
            while self.broker.poll_wake().is_some() {
                moved = true;
            }
            if !moved {
                return;
            }
        }
    }

    /// Lets time pass, from deadline to deadline.
    pub(crate) fn advance(&mut self, millis: u64) {
        let end = self.now + Duration::from_millis(millis);
        loop {
            self.exchange();
            let of_peers = self.peers.iter().flat_map(|peer| {
                let own = peer.client.poll_timeout();
                [own, self.broker.poll_connection_timeout(peer.key)]
            });
            let next = of_peers
                .flatten()
                .map(|(at, _)| at)
                .chain(self.broker.poll_timeout())
                .min()
                .filter(|at| *at <= end);
            let Some(at) = next else { break };
            self.now = self.now.max(at);
            for peer in &mut self.peers {
                peer.client.handle_timeout(self.now);
                self.broker.handle_connection_timeout(peer.key, self.now);
            }
            self.broker.handle_timeout(self.now);
        }
        self.now = end;
        self.broker.handle_timeout(end);
        self.exchange();
    }

    /// Sends a method as it is, past all checks of the client.
    pub(crate) fn inject(&mut self, client: usize, channel: u16, method: impl Into<Method>) {
        let frame = frame(channel, &method.into());
        self.inject_bytes(client, &frame);
    }

    pub(crate) fn inject_bytes(&mut self, client: usize, bytes: &[u8]) {
        self.peers[client].to_broker.extend_from_slice(bytes);
        self.exchange();
    }

    /// A connection whose client says nothing by itself.
    pub(crate) fn begin_raw(&mut self) -> usize {
        let key = self.broker.accept(self.now).unwrap();
        let client = client::Connection::new(client::Config::default(), self.now).unwrap();
        self.peers.push(Peer::new(client, key));
        self.peers.len() - 1
    }

    /// Sends bytes, and takes the methods that come back without showing them to the client.
    pub(crate) fn ask_raw(&mut self, client: usize, bytes: &[u8]) -> Vec<Method> {
        let key = self.peers[client].key;
        let mut input = BytesMut::from(bytes);
        self.broker.handle_input(key, self.now, &mut input);
        let mut out = Transmit::new();
        while self.broker.poll_transmit(key, self.now, &mut out) {}
        let mut said = BytesMut::new();
        for segment in out.take_segments() {
            said.extend_from_slice(&segment);
        }
        let mut rest = &said[..];
        let mut methods = Vec::new();
        while let Some(frame) = Frame::parse(rest, u32::MAX).unwrap() {
            if frame.kind == FrameKind::Method {
                let (id, arguments) = split_method(frame.payload).unwrap();
                methods.push(Method::decode(id, arguments).unwrap());
            }
            rest = &rest[frame.len()..];
        }
        methods
    }

    // Requests.

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

    // Messages.

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

    // What happened.

    pub(crate) fn events(&mut self, client: usize) -> Vec<Event> {
        self.peers[client].events.drain(..).collect()
    }

    /// Takes the deliveries out of what happened.
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

    /// What was settled: first, last, and how.
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

    fn take<T>(&mut self, client: usize, pick: impl Fn(&Event) -> Option<T>) -> Vec<T> {
        let mut taken = Vec::new();
        self.peers[client].events.retain(|event| {
            let picked = pick(event);
            let kept = picked.is_none();
            taken.extend(picked);
            kept
        });
        taken
    }

    pub(crate) fn inspect(&self, queue: &str) -> QueueInfo {
        let inspection = self.broker.inspect();
        inspection
            .queue(queue)
            .unwrap_or_else(|| panic!("no {queue}"))
            .clone()
    }

    pub(crate) fn has_queue(&self, queue: &str) -> bool {
        self.broker.inspect().queue(queue).is_some()
    }
}

pub(crate) fn tag(number: u64) -> Tags {
    Tags::One(DeliveryTag::new(number).unwrap())
}

pub(crate) fn up_to(number: u64) -> Tags {
    Tags::UpTo(DeliveryTag::new(number).unwrap())
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

fn refusal(reason: &CloseReason) -> Option<Refused> {
    let close = reason.by_peer()?;
    Some((close.code.0, close.text.clone()))
}
