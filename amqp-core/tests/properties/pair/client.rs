//! The client's application, with its view of channels, consumers, deliveries and publishes.

use std::collections::{BTreeMap, BTreeSet};

use amqp_core::{
    ApiMisuse, ChannelId, ConsumerId, DeliveryTag, MethodDef as _, MethodId, RequestId, Requeue,
    Tags,
    client::{ChannelMut, Config, Connection, Delivery, Event, Outcome},
    protocol::{self, ReplyCode, basic, channel, confirm, queue},
    wire::ShortStr,
};
use bytes::BytesMut;
use proptest::sample::Index;

use super::NOW;

/// A consumer that the application has asked for.
#[derive(Debug)]
struct Consumer {
    channel: ChannelId,
    id: ConsumerId,
    tag: &'static str,
    /// The number of its consume on the channel.
    number: u64,
    request: RequestId,
    no_ack: bool,
    /// Nothing may be reported of it any more.
    silent: bool,
}

pub(super) struct Client {
    pub(super) machine: Connection,
    pub(super) input: BytesMut,
    /// All channels, in the order in which they were opened.
    pub(super) channels: Vec<ChannelId>,
    /// The channels that have ended, or are being closed.
    ended: BTreeSet<ChannelId>,
    requests: BTreeMap<RequestId, (ChannelId, MethodId)>,
    consumers: Vec<Consumer>,
    /// The consumes of each channel.
    consumes: BTreeMap<ChannelId, u64>,
    unacked: BTreeSet<(ChannelId, DeliveryTag)>,
    /// The last publish of each channel.
    published: BTreeMap<ChannelId, u64>,
    unconfirmed: BTreeSet<(ChannelId, u64)>,
    /// The outcomes of publishes, by the place of their channel.
    pub(super) outcomes: Vec<(usize, u64, Outcome)>,
    closed: bool,
}

impl Client {
    pub(super) fn new() -> Self {
        Self {
            machine: Connection::new(Config::default(), NOW).unwrap(),
            input: BytesMut::new(),
            channels: Vec::new(),
            ended: BTreeSet::new(),
            requests: BTreeMap::new(),
            consumers: Vec::new(),
            consumes: BTreeMap::new(),
            unacked: BTreeSet::new(),
            published: BTreeMap::new(),
            unconfirmed: BTreeSet::new(),
            outcomes: Vec::new(),
            closed: false,
        }
    }

    pub(super) fn handle_events(&mut self) {
        while let Some(event) = self.machine.poll_event() {
            self.handle(event);
        }
    }

    fn handle(&mut self, event: Event) {
        assert!(!self.closed, "{event:?} after the end");
        match event {
            Event::Opened => {}
            Event::Reply { request, reply, .. } => {
                let (id, method) = self.outcome(request);
                let answers = protocol::rule(reply.id()).unwrap().answers;
                assert!(answers.contains(&method), "{reply:?} to {method:?}");
                if method == channel::Open::ID {
                    self.confirm_mode(id);
                }
                if method == channel::Close::ID {
                    self.end(id);
                }
            }
            Event::Got {
                channel,
                request,
                message,
            } => {
                self.outcome(request);
                if let Some(message) = message {
                    assert_eq!(message.content.body.to_vec(), b"got");
                    self.unacked.insert((channel, message.tag.unwrap()));
                }
            }
            Event::Failed { request, .. } => {
                let (id, method) = self.outcome(request);
                // A consumer that the server cancels before its consume-ok, or an end of the channel.
                if method == basic::Consume::ID {
                    let mut consumers = self.consumers.iter_mut();
                    if let Some(consumer) = consumers.find(|it| it.request == request) {
                        consumer.silent = true;
                    }
                }
                assert!(method != channel::Open::ID || self.ended.contains(&id));
            }
            Event::Delivered(delivery) => self.delivered(&delivery),
            Event::Settled {
                channel,
                first,
                last,
                outcome,
            } => {
                for number in first.get()..=last.get() {
                    let due = self.unconfirmed.remove(&(channel, number));
                    assert!(due, "{number} of {channel:?} is settled twice: {outcome:?}");
                    let place = self.place(channel);
                    self.outcomes.push((place, number, outcome.clone()));
                }
                let ended = matches!(outcome, Outcome::NotSent(_) | Outcome::Unknown(_));
                assert!(!ended || !self.is_open(channel), "{outcome:?}");
            }
            Event::Returned(returned) => {
                let number = u64::from_be_bytes(returned.content.body.to_vec().try_into().unwrap());
                assert_eq!(returned.seq.unwrap().get(), number);
                assert!(self.unconfirmed.contains(&(returned.channel, number)));
            }
            Event::ConsumerCancelled {
                channel, consumer, ..
            } => {
                let consumer = self.consumer(channel, consumer);
                assert!(!consumer.silent, "a second end of {consumer:?}");
                consumer.silent = true;
            }
            Event::ChannelClosed { channel, .. } => {
                let mut requests = self.requests.values();
                assert!(!requests.any(|(id, _)| *id == channel));
                assert!(!self.unconfirmed.iter().any(|(id, _)| *id == channel));
                self.end(channel);
            }
            Event::Closed(_) => {
                self.assert_settled();
                self.closed = true;
            }
            other => panic!("{other:?}"),
        }
    }

    fn outcome(&mut self, request: RequestId) -> (ChannelId, MethodId) {
        let known = self.requests.remove(&request);
        known.unwrap_or_else(|| panic!("{request:?} has a second outcome, or was abandoned"))
    }

    fn consumer(&mut self, channel: ChannelId, id: ConsumerId) -> &mut Consumer {
        let mut all = self.consumers.iter_mut();
        let found = all.find(|it| (it.channel, it.id) == (channel, id));
        found.expect("a consumer of that channel")
    }

    fn delivered(&mut self, delivery: &Delivery) {
        let place = self.place(delivery.channel);
        let consumer = self.consumer(delivery.channel, delivery.consumer);
        assert!(!consumer.silent, "{delivery:?} for {consumer:?}");
        assert_eq!(delivery.method.consumer_tag, consumer.tag);
        let meant = [place as u64, consumer.number].map(u64::to_be_bytes);
        assert_eq!(delivery.content.body.to_vec(), meant.concat());
        assert_eq!(delivery.tag.is_none(), consumer.no_ack);
        let tag = delivery.tag.map(|tag| (delivery.channel, tag));
        self.unacked.extend(tag);
    }

    /// The place of a channel in the list of all.
    fn place(&self, id: ChannelId) -> usize {
        let place = self.channels.iter().position(|it| *it == id);
        place.expect("a channel of this client")
    }

    /// A channel accepts nothing any more.
    fn end(&mut self, id: ChannelId) {
        self.ended.insert(id);
        self.unacked.retain(|(of, _)| *of != id);
        let consumers = self.consumers.iter_mut();
        for consumer in consumers.filter(|it| it.channel == id) {
            consumer.silent = true;
        }
    }

    fn is_open(&mut self, id: ChannelId) -> bool {
        self.machine.channel(id).is_some_and(|it| it.is_open())
    }

    /// Chooses one of the channels that accept commands.
    fn pick(&mut self, index: Index) -> Option<ChannelMut<'_>> {
        let open = self.open_channels();
        let id = (!open.is_empty()).then(|| *index.get(&open))?;
        self.machine.channel(id)
    }

    pub(super) fn open_channels(&mut self) -> Vec<ChannelId> {
        let all = self.channels.clone().into_iter();
        all.filter(|id| self.is_open(*id)).collect()
    }

    pub(super) fn open(&mut self) {
        if let Ok((id, request)) = self.machine.open_channel() {
            self.channels.push(id);
            self.requests.insert(request, (id, channel::Open::ID));
        }
    }

    fn confirm_mode(&mut self, id: ChannelId) {
        // The server may have closed it already.
        let channel = self.machine.channel(id).filter(ChannelMut::is_open);
        if let Some(mut channel) = channel {
            let request = channel.call(&confirm::Select::default()).unwrap();
            self.requests.insert(request, (id, confirm::Select::ID));
        }
    }

    pub(super) fn declare(&mut self, on: Index) {
        if let Some(mut channel) = self.pick(on) {
            let (id, request) = (channel.id(), channel.call(&queue::Declare::default()));
            self.requests
                .insert(request.unwrap(), (id, queue::Declare::ID));
        }
    }

    pub(super) fn get(&mut self, on: Index) {
        if let Some(mut channel) = self.pick(on) {
            let (id, request) = (channel.id(), channel.get(&basic::Get::default()));
            self.requests.insert(request.unwrap(), (id, basic::Get::ID));
        }
    }

    pub(super) fn consume(&mut self, on: Index, tag: &'static str, no_ack: bool) {
        let Some(mut channel) = self.pick(on) else {
            return;
        };
        let channel_id = channel.id();
        let consume = basic::Consume::default().queue("q").no_ack(no_ack);
        let taken = channel.consume(consume.consumer_tag(tag));
        let (id, _, request) = match taken {
            Ok(taken) => taken,
            Err(ApiMisuse::DuplicateConsumerTag(_)) => return,
            Err(misuse) => panic!("{misuse}"),
        };
        let number = self.consumes.entry(channel_id).or_default();
        *number += 1;
        self.consumers.push(Consumer {
            channel: channel_id,
            id,
            tag,
            number: *number,
            request,
            no_ack,
            silent: false,
        });
        self.requests
            .insert(request, (channel_id, basic::Consume::ID));
    }

    pub(super) fn cancel(&mut self, on: Index, tag: &'static str, no_wait: bool) {
        let Some(mut channel) = self.pick(on) else {
            return;
        };
        let id = channel.id();
        let cancel = basic::Cancel::default().consumer_tag(tag);
        if !no_wait {
            let request = channel.call(&cancel).unwrap();
            self.requests.insert(request, (id, basic::Cancel::ID));
            return;
        }
        let active = channel.has_consumer(&short(tag));
        channel.send(&cancel).unwrap();
        let mut newest_first = self.consumers.iter_mut().rev();
        let newest = newest_first.find(|it| it.channel == id && it.tag == tag);
        if let Some(newest) = newest.filter(|_| active) {
            newest.silent = true;
        }
    }

    pub(super) fn abandon_consumer(&mut self, which: Index) {
        if self.consumers.is_empty() {
            return;
        }
        let newest = self.consumers.len().saturating_sub(4);
        let consumer = which.get_mut(&mut self.consumers[newest..]);
        if let Some(mut channel) = self.machine.channel(consumer.channel) {
            channel.abandon_consumer(&short(consumer.tag), consumer.id);
        }
        consumer.silent = true;
        self.requests.remove(&consumer.request);
    }

    pub(super) fn abandon_request(&mut self, which: Index) {
        // An open that is abandoned closes the channel, which then has no application.
        let all = self.requests.iter();
        let all = all.filter(|(_, (_, method))| *method != channel::Open::ID);
        let all: Vec<_> = all.map(|(request, (id, _))| (*request, *id)).collect();
        if all.is_empty() {
            return;
        }
        let (request, id) = *which.get(&all);
        self.machine.abandon(id, request);
        self.requests.remove(&request);
        let mut consumers = self.consumers.iter_mut();
        if let Some(consumer) = consumers.find(|it| it.request == request) {
            consumer.silent = true;
        }
    }

    pub(super) fn publish(&mut self, on: Index, mandatory: bool) {
        let Some(channel) = self.pick(on) else {
            return;
        };
        let id = channel.id();
        let publish = basic::Publish::default().mandatory(mandatory);
        let properties = basic::Properties::default();
        let last = self.published.get(&id).copied().unwrap_or_default();
        let mut channel = self.machine.channel(id).unwrap();
        let body = (last + 1).to_be_bytes().to_vec();
        let seq = channel.publish(&publish, &properties, body).unwrap();
        assert_eq!(seq.unwrap().get(), last + 1);
        self.published.insert(id, last + 1);
        self.unconfirmed.insert((id, last + 1));
    }

    pub(super) fn acknowledge(&mut self, delivery: Index, multiple: bool, positive: bool) {
        let all: Vec<_> = self.unacked.iter().copied().collect();
        if all.is_empty() {
            return;
        }
        let (id, tag) = *delivery.get(&all);
        let Some(mut channel) = self.machine.channel(id).filter(ChannelMut::is_open) else {
            return;
        };
        let tags = if multiple {
            Tags::UpTo(tag)
        } else {
            Tags::One(tag)
        };
        if positive {
            channel.ack(tags).unwrap();
        } else {
            channel.nack(tags, Requeue::No).unwrap();
        }
        let settled =
            |of: ChannelId, it: DeliveryTag| of == id && (it == tag || multiple && it < tag);
        self.unacked.retain(|(of, it)| !settled(*of, *it));
    }

    pub(super) fn close(&mut self, on: Index) {
        if let Some(mut channel) = self.pick(on) {
            let (id, request) = (channel.id(), channel.close(ReplyCode::SUCCESS, "bye"));
            self.requests
                .insert(request.unwrap(), (id, channel::Close::ID));
            self.end(id);
        }
    }

    pub(super) fn has_consumer(&mut self, id: ChannelId, tag: &'static str) -> bool {
        let channel = self.machine.channel(id).unwrap();
        channel.has_consumer(&short(tag))
    }

    pub(super) fn unacked(&self, id: ChannelId) -> BTreeSet<u64> {
        let of_channel = self.unacked.iter().filter(|(of, _)| *of == id);
        of_channel.map(|(_, tag)| tag.get()).collect()
    }

    pub(super) fn unconfirmed(&self, id: ChannelId) -> BTreeSet<u64> {
        let of_channel = self.unconfirmed.iter().filter(|(of, _)| *of == id);
        of_channel.map(|(_, number)| *number).collect()
    }

    pub(super) fn assert_answered(&self) {
        assert!(self.requests.is_empty(), "unanswered: {:?}", self.requests);
    }

    pub(super) fn assert_settled(&self) {
        self.assert_answered();
        assert!(self.unconfirmed.is_empty(), "{:?}", self.unconfirmed);
    }
}

fn short(tag: &'static str) -> ShortStr {
    ShortStr::from_static(tag).unwrap()
}
