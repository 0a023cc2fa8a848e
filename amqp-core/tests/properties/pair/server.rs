//! The server's application: consumers, unacked deliveries and unconfirmed publishes, as a broker
//! has them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use amqp_core::{
    ChannelId, PublishSeq,
    protocol::{ClientMethod, ReplyCode, basic},
    server::{ChannelMut, Config, Connection, Event},
};
use amqp_test_support::replies::reply;
use bytes::BytesMut;
use proptest::sample::Index;

use super::{CHANNELS, NOW};

#[derive(Debug, Default)]
struct Channel {
    /// The place of the client's channel in the list of its channels.
    place: usize,
    /// The number of consumes so far.
    consumes: u64,
    /// The consumers by tag: the number of the consume, and whether it needs no acknowledgement.
    consumers: BTreeMap<String, (u64, bool)>,
    /// The last delivery tag.
    deliveries: u64,
    unacked: BTreeSet<u64>,
    published: u64,
    unconfirmed: BTreeMap<u64, PublishSeq>,
    /// The mandatory ones among them that may still be returned.
    mandatory: BTreeSet<u64>,
}

pub(super) struct Server {
    pub(super) machine: Connection,
    pub(super) input: BytesMut,
    channels: BTreeMap<ChannelId, Channel>,
    /// The number of channels that were opened under each number.
    opened: BTreeMap<u16, usize>,
    /// The methods that were received and not handled, in order.
    owed: VecDeque<(ChannelId, ClientMethod)>,
    /// The number of publishes by the place of their channel.
    received: BTreeMap<usize, u64>,
    /// Whether a publish was confirmed or nacked.
    pub(super) confirmed: BTreeMap<(usize, u64), bool>,
}

impl Server {
    pub(super) fn new() -> Self {
        let config = Config::default().channel_max(CHANNELS).heartbeat(0);
        Self {
            machine: Connection::new(config, NOW).unwrap(),
            input: BytesMut::new(),
            channels: BTreeMap::new(),
            opened: BTreeMap::new(),
            owed: VecDeque::new(),
            received: BTreeMap::new(),
            confirmed: BTreeMap::new(),
        }
    }

    /// Handles the events. `channels` are those of the client, as they were opened.
    pub(super) fn handle_events(&mut self, channels: &[ChannelId]) {
        while let Some(event) = self.machine.poll_event() {
            match event {
                Event::Authenticate(_) => self.machine.accept().unwrap(),
                Event::Open { .. } => self.machine.open().unwrap(),
                Event::ChannelOpened { channel } => {
                    let opened = self.opened.entry(channel.number()).or_default();
                    let same = |(_, id): &(usize, &ChannelId)| id.number() == channel.number();
                    let mut of_number = channels.iter().enumerate().filter(same);
                    let (place, _) = of_number.nth(*opened).expect("it was opened");
                    *opened += 1;
                    let fresh = Channel {
                        place,
                        ..Channel::default()
                    };
                    assert!(self.channels.insert(channel, fresh).is_none());
                }
                Event::Request { channel, method } => self.owed.push_back((channel, method)),
                Event::Published(published) => {
                    let channel = self.channels.get_mut(&published.channel).unwrap();
                    channel.published += 1;
                    let number = channel.published;
                    let body = published.content.body.to_vec();
                    assert_eq!(body, number.to_be_bytes(), "out of order");
                    let seq = published.seq.expect("confirm mode");
                    assert_eq!(seq.get(), number);
                    channel.unconfirmed.insert(number, seq);
                    if published.method.mandatory {
                        channel.mandatory.insert(number);
                    }
                    self.received.insert(channel.place, number);
                }
                Event::ChannelClosed { channel, reason } => {
                    assert!(reason.by_peer().is_some(), "{reason:?}");
                    self.forget(channel);
                }
                Event::Opened | Event::Closed(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn forget(&mut self, id: ChannelId) {
        self.channels.remove(&id);
        self.owed.retain(|(of, _)| *of != id);
    }

    /// Handles the oldest method. Returns `false` if there is none.
    pub(super) fn serve(&mut self) -> bool {
        let Some((id, method)) = self.owed.pop_front() else {
            return false;
        };
        let channel = self.channels.get_mut(&id).unwrap();
        match &method {
            ClientMethod::BasicConsume(consume) => {
                channel.consumes += 1;
                let tag = consume.consumer_tag.to_string();
                let consumer = (channel.consumes, consume.no_ack);
                let before = channel.consumers.insert(tag, consumer);
                assert_eq!(before, None, "530: the tag is in use");
            }
            ClientMethod::BasicCancel(cancel) => {
                channel.consumers.remove(cancel.consumer_tag.as_str());
            }
            ClientMethod::BasicAck(ack) => channel.settle(ack.delivery_tag, ack.multiple),
            ClientMethod::BasicNack(nack) => channel.settle(nack.delivery_tag, nack.multiple),
            ClientMethod::BasicReject(reject) => channel.settle(reject.delivery_tag, false),
            ClientMethod::BasicGet(_) => {
                channel.deliveries += 1;
                let number = channel.deliveries;
                channel.unacked.insert(number);
                let got = basic::GetOk::default().delivery_tag(number);
                let properties = basic::Properties::default();
                let mut on = self.machine.channel(id).unwrap();
                on.send_content(&got, &properties, "got").unwrap();
                return true;
            }
            _ => {}
        }
        reply(&mut self.machine.channel(id).unwrap(), method).unwrap();
        true
    }

    /// Delivers a message to one of the consumers.
    pub(super) fn deliver(&mut self, which: Index) {
        let Some((id, tag)) = self.pick_consumer(which) else {
            return;
        };
        let channel = self.channels.get_mut(&id).unwrap();
        let (consumer, no_ack) = channel.consumers[&tag];
        channel.deliveries += 1;
        let number = channel.deliveries;
        if !no_ack {
            channel.unacked.insert(number);
        }
        let body = [channel.place as u64, consumer].map(u64::to_be_bytes);
        let deliver = basic::Deliver::default().consumer_tag(tag.as_str());
        let properties = basic::Properties::default();
        let mut on = self.on(id);
        on.send_content(&deliver.delivery_tag(number), &properties, body.concat())
            .unwrap();
    }

    pub(super) fn cancel(&mut self, which: Index) {
        let Some((id, tag)) = self.pick_consumer(which) else {
            return;
        };
        let channel = self.channels.get_mut(&id).unwrap();
        channel.consumers.remove(&tag);
        let cancel = basic::Cancel::default().consumer_tag(tag.as_str());
        self.on(id).send(&cancel.no_wait(true)).unwrap();
    }

    pub(super) fn confirm(&mut self, publish: Index, multiple: bool, positive: bool) {
        let channels = self.channels.iter();
        let all = channels.flat_map(|(id, it)| it.unconfirmed.values().map(|seq| (*id, *seq)));
        let all: Vec<_> = all.collect();
        if all.is_empty() {
            return;
        }
        let (id, seq) = *publish.get(&all);
        let channel = self.channels.get_mut(&id).unwrap();
        let number = seq.get();
        let is_named = |it: u64| it == number || multiple && it < number;
        for named in channel.unconfirmed.keys().filter(|it| is_named(**it)) {
            self.confirmed.insert((channel.place, *named), positive);
        }
        channel.unconfirmed.retain(|it, _| !is_named(*it));
        channel.mandatory.retain(|it| !is_named(*it));
        if positive {
            self.on(id).confirm(seq, multiple).unwrap();
        } else {
            let nack = basic::Nack {
                delivery_tag: number,
                multiple,
                requeue: false,
            };
            self.on(id).send(&nack).unwrap();
        }
    }

    pub(super) fn give_back(&mut self, publish: Index) {
        let channels = self.channels.iter();
        let all = channels.flat_map(|(id, it)| it.mandatory.iter().map(|number| (*id, *number)));
        let all: Vec<_> = all.collect();
        if all.is_empty() {
            return;
        }
        let (id, number) = *publish.get(&all);
        // Messages are returned in publish order.
        let channel = self.channels.get_mut(&id).unwrap();
        channel.mandatory.retain(|it| *it > number);
        let returned = basic::Return::default().reply_code(ReplyCode::NO_ROUTE);
        let properties = basic::Properties::default();
        let body = number.to_be_bytes().to_vec();
        self.on(id)
            .send_content(&returned, &properties, body)
            .unwrap();
    }

    pub(super) fn has_received(&self, place: usize, number: u64) -> bool {
        self.received
            .get(&place)
            .is_some_and(|last| *last >= number)
    }

    pub(super) fn close(&mut self, on: Index) {
        let all: Vec<_> = self.channels.keys().copied().collect();
        if !all.is_empty() {
            let id = *on.get(&all);
            self.on(id)
                .close(ReplyCode::NOT_FOUND, "gone", None)
                .unwrap();
            self.forget(id);
        }
    }

    fn on(&mut self, id: ChannelId) -> ChannelMut<'_> {
        self.machine.channel(id).unwrap()
    }

    fn pick_consumer(&self, which: Index) -> Option<(ChannelId, String)> {
        let channels = self.channels.iter();
        let all = channels.flat_map(|(id, it)| it.consumers.keys().map(|tag| (*id, tag.clone())));
        let all: Vec<_> = all.collect();
        (!all.is_empty()).then(|| which.get(&all).clone())
    }

    /// The channel that is open under the number of a client's channel.
    pub(super) fn channel_of(&self, id: ChannelId) -> Option<ChannelId> {
        let mut all = self.channels.keys();
        all.find(|it| it.number() == id.number()).copied()
    }

    pub(super) fn consumers_of(&self, id: ChannelId) -> Vec<&str> {
        let consumers = self.channels[&id].consumers.keys();
        consumers.map(String::as_str).collect()
    }

    pub(super) fn unacked_of(&self, id: ChannelId) -> BTreeSet<u64> {
        self.channels[&id].unacked.clone()
    }

    pub(super) fn unconfirmed(&self, id: ChannelId) -> BTreeSet<u64> {
        self.channels[&id].unconfirmed.keys().copied().collect()
    }
}

impl Channel {
    /// Settles deliveries; any other tag would end the channel with 406.
    fn settle(&mut self, tag: u64, multiple: bool) {
        assert!(self.unacked.contains(&tag), "406: {tag} is not outstanding");
        if multiple {
            self.unacked.retain(|other| *other > tag);
        } else {
            self.unacked.remove(&tag);
        }
    }
}
