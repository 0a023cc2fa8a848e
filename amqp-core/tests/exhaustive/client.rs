//! The client's application of a story.

use std::collections::{BTreeMap, BTreeSet};

use amqp_core::{
    ChannelId, CloseReason, ConsumerId, DeliveryTag, Instant, MethodDef as _, MethodId, RequestId,
    Requeue, Tags,
    client::{Config, Connection, Event, Outcome},
    protocol::{self, ReplyCode, basic, channel, confirm, queue},
};
use bytes::BytesMut;

use crate::{Story, body, server::SILENT, world::HEARTBEAT};

/// The number of messages that are published or delivered.
pub(crate) const MESSAGES: u64 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Connecting,
    Opening,
    Working,
    Acknowledged,
    Closing,
}

pub(crate) struct Client {
    pub(crate) machine: Connection,
    input: BytesMut,
    story: Story,
    large: bool,
    phase: Phase,
    pub(crate) channel: Option<ChannelId>,
    /// All channels.
    channels: Vec<ChannelId>,
    /// The requests without outcome, by their method.
    pub(crate) requests: BTreeMap<RequestId, MethodId>,
    /// A request has failed, or the channel was closed.
    failed: bool,
    pub(crate) published: u64,
    pub(crate) outcomes: BTreeMap<u64, Outcome>,
    pub(crate) returned: BTreeSet<u64>,
    /// The deliveries, by number on the wire.
    pub(crate) delivered: Vec<u64>,
    /// Consumers of which nothing may be reported any more.
    pub(crate) silent: BTreeSet<ConsumerId>,
    /// The cancel was answered.
    cancelled: bool,
    pub(crate) channel_closed: Option<CloseReason>,
    pub(crate) closed: Option<CloseReason>,
    pub(crate) events: Vec<Event>,
}

impl Client {
    pub(crate) fn new(story: Story, large: bool, now: Instant) -> Self {
        let config = Config::default().heartbeat(HEARTBEAT);
        Self {
            machine: Connection::new(config, now).unwrap(),
            input: BytesMut::new(),
            story,
            large,
            phase: Phase::Connecting,
            channel: None,
            channels: Vec::new(),
            requests: BTreeMap::new(),
            failed: false,
            published: 0,
            outcomes: BTreeMap::new(),
            returned: BTreeSet::new(),
            delivered: Vec::new(),
            silent: BTreeSet::new(),
            cancelled: false,
            channel_closed: None,
            closed: None,
            events: Vec::new(),
        }
    }

    pub(crate) fn receive(&mut self, now: Instant, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        self.machine.handle_input(now, &mut self.input);
        self.react();
    }

    /// Handles the events, and goes on with the story.
    pub(crate) fn react(&mut self) {
        loop {
            while let Some(event) = self.machine.poll_event() {
                self.events.push(event.clone());
                self.on_event(event);
            }
            if self.story == Story::Manual || !self.go_on() {
                break;
            }
        }
    }

    fn on_event(&mut self, event: Event) {
        assert!(self.closed.is_none(), "{event:?} after the last event");
        match event {
            Event::Opened => {}
            Event::Reply { request, reply, .. } => {
                let method = self.outcome(request);
                let answers = protocol::rule(reply.id()).unwrap().answers;
                assert!(answers.contains(&method), "{reply:?} to {method:?}");
                self.cancelled |= reply.id() == basic::CancelOk::ID;
            }
            Event::Got {
                request, message, ..
            } => {
                assert_eq!(self.outcome(request), basic::Get::ID);
                let message = message.expect("a message");
                self.arrived(message.method.delivery_tag, &message.content.body.to_vec());
            }
            Event::Failed { request, .. } => {
                self.outcome(request);
                self.failed = true;
            }
            Event::Delivered(delivery) => {
                let silent = self.silent.contains(&delivery.consumer);
                assert!(!silent && !self.cancelled, "{delivery:?}");
                self.arrived(
                    delivery.method.delivery_tag,
                    &delivery.content.body.to_vec(),
                );
            }
            Event::Returned(returned) => {
                let seq = returned.seq.expect("a certain match").get();
                assert!(self.returned.insert(seq), "{seq} comes back twice");
                assert_eq!(returned.content.body.to_vec(), body(seq, self.large));
            }
            Event::Settled {
                first,
                last,
                outcome,
                ..
            } => {
                for seq in first.get()..=last.get() {
                    let before = self.outcomes.insert(seq, outcome.clone());
                    assert_eq!(before, None, "{seq} is settled twice");
                }
            }
            Event::ConsumerCancelled { consumer, .. } => {
                assert!(self.silent.insert(consumer), "a second end of {consumer:?}");
            }
            Event::ChannelClosed { channel, reason } => {
                assert_eq!(Some(channel), self.channel);
                assert_eq!(self.channel_closed, None, "{reason:?}");
                let opening = |method: &MethodId| *method == channel::Open::ID;
                assert!(self.requests.values().all(opening), "{reason:?}");
                assert!(self.all_settled(), "{reason:?}");
                self.channel_closed = Some(reason);
                self.failed = true;
            }
            Event::Closed(reason) => {
                assert!(self.requests.is_empty(), "{:?}", self.requests);
                assert!(self.all_settled(), "{:?}", self.outcomes);
                self.closed = Some(reason);
            }
            other => panic!("{other:?}"),
        }
    }

    fn outcome(&mut self, request: RequestId) -> MethodId {
        let method = self.requests.remove(&request);
        method.unwrap_or_else(|| panic!("a second outcome of {request:?}"))
    }

    fn arrived(&mut self, number: u64, arrived: &[u8]) {
        assert_eq!(arrived, body(number, self.large), "delivery {number}");
        assert!(!self.delivered.contains(&number), "{number} comes twice");
        self.delivered.push(number);
    }

    /// The number of channels that accept commands.
    pub(crate) fn open_channels(&mut self) -> usize {
        let machine = &mut self.machine;
        let mut is_open = |id| machine.channel(id).is_some_and(|it| it.is_open());
        self.channels.iter().filter(|id| is_open(**id)).count()
    }

    pub(crate) fn all_settled(&self) -> bool {
        self.outcomes.len() as u64 == self.published
    }

    /// Takes the next step of the story, if it is due.
    fn go_on(&mut self) -> bool {
        let over = self.machine.close_reason().is_some();
        let (id, idle) = (self.channel, self.requests.is_empty());
        match self.phase {
            _ if over => return false,
            Phase::Connecting if self.machine.is_open() => {
                let (id, request) = self.machine.open_channel().unwrap();
                self.channel = Some(id);
                self.expect_open(id, request);
                self.phase = Phase::Opening;
            }
            Phase::Opening | Phase::Working | Phase::Acknowledged if self.failed => self.finish(),
            Phase::Opening if idle => {
                self.work(id.unwrap());
                self.phase = Phase::Working;
            }
            Phase::Working if self.story == Story::Consume => {
                if self.delivered.len() as u64 <= MESSAGES {
                    return false;
                }
                self.acknowledge(id.unwrap());
                self.phase = Phase::Acknowledged;
            }
            Phase::Working | Phase::Acknowledged if idle && self.all_settled() => self.finish(),
            _ => return false,
        }
        true
    }

    fn finish(&mut self) {
        self.machine.close(ReplyCode::SUCCESS, "bye");
        self.phase = Phase::Closing;
    }

    fn work(&mut self, id: ChannelId) {
        match self.story {
            Story::Open | Story::Manual => {}
            Story::Publish => {
                self.select(id);
                for number in 1..=MESSAGES {
                    self.publish(id, number);
                }
            }
            Story::Consume => {
                self.consume(id);
                let get = self
                    .machine
                    .channel(id)
                    .unwrap()
                    .get(&basic::Get::default());
                self.requests.insert(get.unwrap(), basic::Get::ID);
            }
            Story::Close => {
                self.select(id);
                self.consume(id);
                self.publish(id, 1);
                self.declare(id);
                self.close_channel(id);
            }
        }
    }

    pub(crate) fn select(&mut self, id: ChannelId) {
        let mut channel = self.machine.channel(id).unwrap();
        let request = channel.call(&confirm::Select::default()).unwrap();
        self.requests.insert(request, confirm::Select::ID);
    }

    pub(crate) fn consume(&mut self, id: ChannelId) -> ConsumerId {
        let consume = basic::Consume::default().queue("q");
        let consume = consume.consumer_tag("t");
        let mut channel = self.machine.channel(id).unwrap();
        let (consumer, _, request) = channel.consume(consume).unwrap();
        self.requests.insert(request, basic::Consume::ID);
        consumer
    }

    pub(crate) fn publish(&mut self, id: ChannelId, number: u64) {
        let key = format!("q{number}");
        let publish = basic::Publish::default().routing_key(&key);
        let publish = publish.mandatory(number == 2);
        let properties = basic::Properties::default().delivery_mode(2);
        let body = body(number, self.large);
        let mut channel = self.machine.channel(id).unwrap();
        let seq = channel.publish(&publish, &properties, body).unwrap();
        assert_eq!(seq.unwrap().get(), number);
        self.published = number;
    }

    /// Makes a request that the server does not answer.
    pub(crate) fn declare(&mut self, id: ChannelId) -> RequestId {
        let declare = queue::Declare::default().queue(SILENT);
        let request = self.machine.channel(id).unwrap().call(&declare).unwrap();
        self.requests.insert(request, queue::Declare::ID);
        request
    }

    pub(crate) fn expect_open(&mut self, id: ChannelId, request: RequestId) {
        self.channels.push(id);
        self.requests.insert(request, channel::Open::ID);
    }

    pub(crate) fn close_channel(&mut self, id: ChannelId) {
        let mut channel = self.machine.channel(id).unwrap();
        let request = channel.close(ReplyCode::SUCCESS, "bye").unwrap();
        self.requests.insert(request, channel::Close::ID);
    }

    pub(crate) fn cancel(&mut self, id: ChannelId, no_wait: bool) {
        let cancel = basic::Cancel::default().consumer_tag("t");
        let mut channel = self.machine.channel(id).unwrap();
        if no_wait {
            channel.send(&cancel).unwrap();
        } else {
            let request = channel.call(&cancel).unwrap();
            self.requests.insert(request, basic::Cancel::ID);
        }
    }

    pub(crate) fn acknowledge_first(&mut self, id: ChannelId) {
        let tag = DeliveryTag::new(1).unwrap();
        let mut channel = self.machine.channel(id).unwrap();
        channel.ack(Tags::One(tag)).unwrap();
    }

    fn acknowledge(&mut self, id: ChannelId) {
        let tags = [1, 2, 3].map(|number| DeliveryTag::new(number).unwrap());
        let mut channel = self.machine.channel(id).unwrap();
        channel.ack(Tags::One(tags[0])).unwrap();
        channel.nack(Tags::One(tags[1]), Requeue::No).unwrap();
        channel.ack(Tags::UpTo(tags[2])).unwrap();
        self.cancel(id, false);
    }
}
