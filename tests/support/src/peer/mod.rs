//! A scripted server: it answers requests, records the client's methods, and obeys the test.
//!
//! It keeps no queues. It accounts for its deliveries until they are settled, so that a test can
//! distinguish a message that was requeued from one that was lost.

mod answers;
mod commands;
mod saw;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use amqp_driver::core::{
    ChannelId, CloseCause, Instant, PublishSeq, Transmit,
    protocol::{ClientMethod, basic, channel},
    server::{self, Event},
};
use bytes::{Buf as _, Bytes, BytesMut};

pub use self::saw::Saw;

/// A message that the client published.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its number on a channel in confirm mode.
    pub seq: Option<PublishSeq>,
    pub method: basic::Publish,
    pub properties: basic::Properties,
    pub body: Bytes,
}

/// How the peer treats publishes that are to be confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirming {
    /// It acknowledges each at once.
    AtOnce,
    /// As the body says: it refuses one that begins with `n`, returns one that begins with `r`, and
    /// acknowledges the others.
    ByBody,
    /// The test does it.
    ByHand,
}

/// A server with a script.
#[derive(Debug)]
pub struct Peer {
    pub machine: server::Connection,
    input: BytesMut,
    /// Everything the client did, in order.
    pub saw: Vec<Saw>,
    /// Requests are put aside until [`answer_one`](Self::answer_one).
    pub hold: bool,
    /// Nothing that it sends leaves it.
    pub mute: bool,
    /// It reads nothing.
    pub deaf: bool,
    /// The virtual host is not opened.
    pub hold_open: bool,
    pub confirming: Confirming,
    /// No queue takes a mandatory message.
    pub unroutable: bool,
    /// The messages for basic.get.
    pub gettable: VecDeque<Bytes>,
    /// The messages that are delivered to a consumer as soon as it is confirmed.
    pub at_once: Vec<Bytes>,
    held: VecDeque<(ChannelId, ClientMethod)>,
    /// Output beside that of the machine, and the answers to it.
    raw: BytesMut,
    flow_oks: Vec<Vec<u8>>,
    channels: BTreeMap<u16, ChannelId>,
    tags: BTreeMap<u16, u64>,
    committing: BTreeSet<u16>,
    /// The consumers by channel and tag, with `no_ack`.
    pub consumers: BTreeMap<(u16, String), bool>,
    /// The deliveries and fetched messages that are not settled, by channel and tag.
    pub outstanding: BTreeMap<(u16, u64), Bytes>,
    pub acked: Vec<Bytes>,
    pub requeued: Vec<Bytes>,
    /// Requeued messages are delivered again at once, to the first consumer of the channel.
    pub redelivers: bool,
    pub rejected: Vec<Bytes>,
    /// Delivered or fetched without acknowledgement.
    pub handed_over: Vec<Bytes>,
    /// The violations for which a real server would have closed the channel or the connection.
    pub violations: Vec<String>,
}

impl Peer {
    pub fn new(config: server::Config, now: Instant) -> Self {
        Self {
            machine: server::Connection::new(config, now).unwrap(),
            input: BytesMut::new(),
            saw: Vec::new(),
            hold: false,
            mute: false,
            deaf: false,
            hold_open: false,
            confirming: Confirming::AtOnce,
            unroutable: false,
            gettable: VecDeque::new(),
            at_once: Vec::new(),
            held: VecDeque::new(),
            raw: BytesMut::new(),
            flow_oks: Vec::new(),
            channels: BTreeMap::new(),
            tags: BTreeMap::new(),
            committing: BTreeSet::new(),
            consumers: BTreeMap::new(),
            outstanding: BTreeMap::new(),
            acked: Vec::new(),
            requeued: Vec::new(),
            redelivers: false,
            rejected: Vec::new(),
            handed_over: Vec::new(),
            violations: Vec::new(),
        }
    }

    /// Bytes came from the client.
    pub fn receive(&mut self, now: Instant, bytes: &[u8]) {
        let before = self.input.len();
        self.input.extend_from_slice(bytes);
        self.flow_oks.retain(|flow_ok| {
            // Those that end among the new bytes: a frame may come byte by byte.
            let from = before
                .saturating_sub(flow_ok.len() - 1)
                .min(self.input.len());
            let mut places = self.input[from..].windows(flow_ok.len());
            let Some(at) = places.position(|place| place == flow_ok) else {
                return true;
            };
            let behind = self.input.split_off(from + at);
            self.input.extend_from_slice(&behind[flow_ok.len()..]);
            false
        });
        self.machine.handle_input(now, &mut self.input);
        self.look();
    }

    /// The client hung up.
    pub fn eof(&mut self, now: Instant) {
        self.machine.handle_eof(now);
        self.look();
    }

    pub fn timeout(&mut self, now: Instant) {
        self.machine.handle_timeout(now);
        self.look();
    }

    /// Takes its output; empty while it is mute.
    pub fn send(&mut self, now: Instant) -> BytesMut {
        if self.mute {
            return BytesMut::new();
        }
        let mut all = self.raw.split();
        let mut out = Transmit::new();
        while self.machine.poll_transmit(now, &mut out) {}
        while out.has_remaining() {
            let len = out.chunk().len();
            all.extend_from_slice(out.chunk());
            out.advance(len);
        }
        all
    }

    fn look(&mut self) {
        while let Some(event) = self.machine.poll_event() {
            match event {
                Event::Authenticate(request) => {
                    self.saw.push(Saw::Authenticate(request));
                    // Refused where a test has closed the connection.
                    let _closing = self.machine.accept();
                }
                Event::Open { .. } => {
                    if !self.hold_open {
                        let _closing = self.machine.open();
                    }
                }
                Event::Opened => self.saw.push(Saw::Opened),
                Event::ChannelOpened { channel } => {
                    let number = channel.number();
                    self.channels.insert(number, channel);
                    self.tags.insert(number, 0);
                    self.saw.push(Saw::ChannelOpened(number));
                }
                Event::Request { channel, method } => self.on_request(channel, method),
                Event::Published(published) => self.on_published(published),
                Event::Flow { channel, active } => {
                    self.on_request(channel, channel::Flow { active }.into());
                }
                Event::Writable => {}
                Event::SecretUpdated { secret, .. } => {
                    let secret = Bytes::copy_from_slice(secret.expose());
                    self.saw.push(Saw::Secret(secret));
                }
                Event::ChannelClosed { channel, reason } => {
                    if let CloseCause::ProtocolError(error) = reason.cause() {
                        self.violations.push(format!("{error}"));
                    }
                    self.end_channel(channel.number());
                    self.saw.push(Saw::ChannelClosed(channel.number(), reason));
                }
                Event::Closed(reason) => {
                    if let CloseCause::ProtocolError(error) = reason.cause() {
                        self.violations.push(format!("{error}"));
                    }
                    for number in self.channels.clone().into_keys() {
                        self.end_channel(number);
                    }
                    self.saw.push(Saw::Closed(reason));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// Takes back the deliveries of a channel.
    fn end_channel(&mut self, number: u16) {
        self.channels.remove(&number);
        self.committing.remove(&number);
        self.held.retain(|(channel, _)| channel.number() != number);
        self.consumers.retain(|(channel, _), _| *channel != number);
        let (ended, left) = std::mem::take(&mut self.outstanding)
            .into_iter()
            .partition(|((channel, _), _)| *channel == number);
        self.outstanding = left;
        let ended: BTreeMap<(u16, u64), Bytes> = ended;
        self.requeued.extend(ended.into_values());
    }

    fn on_published(&mut self, published: server::Published) {
        let number = published.channel.number();
        self.check_commit(number, "basic.publish");
        let message = Message {
            seq: published.seq,
            method: published.method,
            properties: published.content.properties.decode().unwrap(),
            body: published.content.body.into_bytes(),
        };
        self.saw.push(Saw::Published(number, message.clone()));
        if !self.is_open(published.channel) {
            return;
        }
        if self.unroutable && message.method.mandatory {
            self.return_message(number, &message);
        }
        let Some(seq) = published.seq else {
            return;
        };
        match (self.confirming, message.body.first()) {
            (Confirming::ByHand, _) => {}
            (Confirming::ByBody, Some(b'n')) => self.nack(number, seq.get(), false),
            (Confirming::ByBody, Some(b'r')) => {
                self.return_message(number, &message);
                self.ack(number, seq.get(), false);
            }
            (Confirming::ByBody | Confirming::AtOnce, _) => self.ack(number, seq.get(), false),
        }
    }

    /// RabbitMQ takes any method before the end of a commit for a fault of the connection.
    fn check_commit(&mut self, number: u16, what: &str) {
        if self.committing.contains(&number) {
            let violation = format!("{what} during tx.commit on channel {number}");
            self.violations.push(violation);
        }
    }

    fn on_request(&mut self, channel: ChannelId, method: ClientMethod) {
        let number = channel.number();
        self.check_commit(number, method.name());
        self.saw.push(Saw::Request(number, method.clone()));
        match &method {
            ClientMethod::BasicAck(ack) => {
                let settled = self.settle(number, ack.delivery_tag, ack.multiple);
                self.acked.extend(settled);
            }
            ClientMethod::BasicNack(nack) => {
                let settled = self.settle(number, nack.delivery_tag, nack.multiple);
                self.refused(number, settled, nack.requeue);
            }
            ClientMethod::BasicReject(reject) => {
                let settled = self.settle(number, reject.delivery_tag, false);
                self.refused(number, settled, reject.requeue);
            }
            ClientMethod::BasicRecoverAsync(_) => self.recover(number),
            ClientMethod::TxCommit(_) => {
                self.committing.insert(number);
                self.answer_or_hold(channel, method);
            }
            _ => self.answer_or_hold(channel, method),
        }
    }

    /// Whether a channel can be answered on: it was not closed right behind the question.
    fn is_open(&mut self, id: ChannelId) -> bool {
        let channel = self.machine.channel(id);
        channel.is_some_and(|channel| channel.is_open())
    }
}
