//! A server to talk to: it answers what it is asked, tells what it saw, and does what it is told.
//!
//! It keeps no queues. What it has delivered it accounts for until it is settled, so that a test
//! can tell a message that was put back from one that was lost.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use amqp_driver::core::{
    ChannelId, CloseCause, CloseReason, Instant, MethodId, PublishSeq, Transmit,
    protocol::{ClientMethod, ReplyCode, basic, confirm, exchange, queue, tx},
    server::{self, AuthRequest, Event},
    wire::ShortStr,
};
use bytes::{Buf as _, Bytes, BytesMut};

/// Something that the client did.
#[expect(clippy::large_enum_variant, reason = "a test keeps a handful of them")]
#[derive(Clone, Debug)]
pub enum Saw {
    Authenticate(AuthRequest),
    Opened,
    ChannelOpened(u16),
    Request(u16, ClientMethod),
    Published(u16, Message),
    ChannelClosed(u16, CloseReason),
    Secret(Bytes),
    Closed(CloseReason),
}

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
    /// What basic.get fetches.
    pub gettable: VecDeque<Bytes>,
    /// What is delivered to a consumer as soon as it is confirmed.
    pub at_once: Vec<Bytes>,
    held: VecDeque<(ChannelId, ClientMethod)>,
    /// What leaves beside what the machine sends, and the answers to it.
    raw: BytesMut,
    flow_oks: Vec<Vec<u8>>,
    channels: BTreeMap<u16, ChannelId>,
    tags: BTreeMap<u16, u64>,
    committing: BTreeSet<u16>,
    /// The consumers by channel and tag, with `no_ack`.
    pub consumers: BTreeMap<(u16, String), bool>,
    /// What was delivered or fetched and not settled, by channel and tag.
    pub outstanding: BTreeMap<(u16, u64), Bytes>,
    pub acked: Vec<Bytes>,
    pub requeued: Vec<Bytes>,
    /// Requeued messages are delivered again at once, to the first consumer of the channel.
    pub redelivers: bool,
    pub rejected: Vec<Bytes>,
    /// Delivered or fetched without acknowledgement.
    pub handed_over: Vec<Bytes>,
    /// What a real server would have closed the channel or the connection for.
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
        self.input.extend_from_slice(bytes);
        self.flow_oks.retain(|flow_ok| {
            let mut places = self.input.windows(flow_ok.len());
            let Some(at) = places.position(|place| place == flow_ok) else {
                return true;
            };
            let behind = self.input.split_off(at);
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

    /// What it wants to send; nothing while it is mute.
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
                Event::Flow { .. } | Event::Writable => {}
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

    /// Takes back what was delivered on a channel.
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

    /// RabbitMQ takes whatever comes before a commit is done for a fault of the connection.
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

    fn refused(&mut self, number: u16, settled: Vec<Bytes>, requeue: bool) {
        if requeue {
            let consumer = self
                .consumers
                .keys()
                .find(|(channel, _)| *channel == number);
            let consumer = consumer.map(|(_, tag)| tag.clone());
            let open = self.channels.get(&number).copied();
            let open = open.is_some_and(|id| self.is_open(id));
            if let Some(tag) = consumer.filter(|_| self.redelivers && open) {
                for body in &settled {
                    self.deliver_as(number, &tag, body.clone(), true);
                }
            }
            self.requeued.extend(settled);
        } else {
            self.rejected.extend(settled);
        }
    }

    fn settle(&mut self, number: u16, tag: u64, multiple: bool) -> Vec<Bytes> {
        let last = if multiple && tag == 0 { u64::MAX } else { tag };
        let first = if multiple { 0 } else { tag };
        let known = self.outstanding.contains_key(&(number, tag));
        if !known && tag != 0 {
            let violation = format!("unknown delivery tag {tag} on channel {number}");
            self.violations.push(violation);
        }
        let range = (number, first)..=(number, last);
        let tags: Vec<_> = self.outstanding.range(range).map(|(&key, _)| key).collect();
        tags.iter()
            .filter_map(|key| self.outstanding.remove(key))
            .collect()
    }

    fn recover(&mut self, number: u16) {
        let all = self.settle(number, 0, true);
        self.requeued.extend(all);
    }

    fn answer_or_hold(&mut self, channel: ChannelId, method: ClientMethod) {
        if self.hold {
            self.held.push_back((channel, method));
        } else {
            self.answer(channel, method);
        }
    }

    /// How many requests were put aside.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Answers the oldest request that was put aside; false if there is none.
    pub fn answer_one(&mut self) -> bool {
        let Some((channel, method)) = self.held.pop_front() else {
            return false;
        };
        self.answer(channel, method);
        true
    }

    /// Answers all requests, now and from now on.
    pub fn release(&mut self) {
        self.hold = false;
        while self.answer_one() {}
    }

    fn answer(&mut self, id: ChannelId, method: ClientMethod) {
        let number = id.number();
        let open = self.is_open(id);
        let Some(mut channel) = self.machine.channel(id).filter(|_| open) else {
            return;
        };
        let answered = match method {
            ClientMethod::ExchangeDeclare(it) if !it.no_wait => channel.send(&exchange::DeclareOk),
            ClientMethod::QueueDeclare(it) if !it.no_wait => {
                let queue = if it.queue.is_empty() {
                    ShortStr::try_from("amq.gen-1").unwrap()
                } else {
                    it.queue
                };
                channel.send(&queue::DeclareOk {
                    queue,
                    message_count: 0,
                    consumer_count: 0,
                })
            }
            ClientMethod::QueueBind(it) if !it.no_wait => channel.send(&queue::BindOk),
            ClientMethod::QueuePurge(it) if !it.no_wait => {
                channel.send(&queue::PurgeOk { message_count: 0 })
            }
            ClientMethod::QueueDelete(it) if !it.no_wait => {
                channel.send(&queue::DeleteOk { message_count: 0 })
            }
            ClientMethod::BasicQos(_) => channel.send(&basic::QosOk),
            ClientMethod::ConfirmSelect(it) if !it.nowait => channel.send(&confirm::SelectOk),
            ClientMethod::TxSelect(_) => channel.send(&tx::SelectOk),
            ClientMethod::TxCommit(_) => {
                self.committing.remove(&number);
                channel.send(&tx::CommitOk)
            }
            ClientMethod::TxRollback(_) => channel.send(&tx::RollbackOk),
            ClientMethod::BasicRecover(_) => {
                let answered = channel.send(&basic::RecoverOk);
                self.recover(number);
                answered
            }
            ClientMethod::BasicConsume(it) => {
                self.consume(id, &it);
                Ok(())
            }
            ClientMethod::BasicCancel(it) => {
                let consumer_tag = it.consumer_tag;
                let known = self.consumers.remove(&(number, consumer_tag.to_string()));
                if it.no_wait {
                    Ok(())
                } else {
                    // RabbitMQ answers also for a consumer that it does not know.
                    let _known = known;
                    channel.send(&basic::CancelOk { consumer_tag })
                }
            }
            ClientMethod::BasicGet(it) => {
                self.fetch(id, it.no_ack);
                Ok(())
            }
            _ => Ok(()),
        };
        answered.unwrap();
    }

    fn consume(&mut self, id: ChannelId, consume: &basic::Consume) {
        let number = id.number();
        let tag = consume.consumer_tag.to_string();
        let before = self.consumers.insert((number, tag.clone()), consume.no_ack);
        if before.is_some() {
            self.violations
                .push(format!("consumer tag {tag} is in use"));
        }
        if !consume.no_wait {
            let consumer_tag = consume.consumer_tag.clone();
            let mut channel = self.machine.channel(id).unwrap();
            channel.send(&basic::ConsumeOk { consumer_tag }).unwrap();
        }
        for body in self.at_once.clone() {
            self.deliver(number, &tag, body);
        }
    }

    fn fetch(&mut self, id: ChannelId, no_ack: bool) {
        let Some(body) = self.gettable.pop_front() else {
            let mut channel = self.machine.channel(id).unwrap();
            channel.send(&basic::GetEmpty).unwrap();
            return;
        };
        let method = basic::GetOk {
            delivery_tag: self.next_tag(id.number(), no_ack, &body),
            message_count: u32::try_from(self.gettable.len()).unwrap(),
            ..basic::GetOk::default()
        };
        let mut channel = self.machine.channel(id).unwrap();
        channel
            .send_content(&method, &basic::Properties::default(), body)
            .unwrap();
    }

    fn next_tag(&mut self, number: u16, no_ack: bool, body: &Bytes) -> u64 {
        let tag = self.tags.get_mut(&number).unwrap();
        *tag += 1;
        let tag = *tag;
        if no_ack {
            self.handed_over.push(body.clone());
        } else {
            self.outstanding.insert((number, tag), body.clone());
        }
        tag
    }

    // What a test tells it to do.

    /// Whether a channel can be answered on: it was not closed right behind the question.
    fn is_open(&mut self, id: ChannelId) -> bool {
        let channel = self.machine.channel(id);
        channel.is_some_and(|channel| channel.is_open())
    }

    /// Its side of a channel.
    pub fn channel(&mut self, number: u16) -> server::ChannelMut<'_> {
        let id = self.channels[&number];
        self.machine.channel(id).unwrap()
    }

    /// The channels that are open.
    pub fn open_channels(&self) -> Vec<u16> {
        self.channels.keys().copied().collect()
    }

    /// Delivers a message; false, with nothing done, if there is no such consumer.
    pub fn deliver(&mut self, number: u16, tag: &str, body: impl Into<Bytes>) -> bool {
        self.deliver_as(number, tag, body, false)
    }

    /// Delivers a message with properties.
    pub fn deliver_with(
        &mut self,
        number: u16,
        tag: &str,
        properties: &basic::Properties,
        body: impl Into<Bytes>,
    ) {
        let body = body.into();
        let method = basic::Deliver {
            consumer_tag: ShortStr::try_from(tag).unwrap(),
            delivery_tag: self.next_tag(number, false, &body),
            ..basic::Deliver::default()
        };
        self.channel(number)
            .send_content(&method, properties, body)
            .unwrap();
    }

    fn deliver_as(
        &mut self,
        number: u16,
        tag: &str,
        body: impl Into<Bytes>,
        redelivered: bool,
    ) -> bool {
        let Some(&no_ack) = self.consumers.get(&(number, tag.to_owned())) else {
            return false;
        };
        let body = body.into();
        let method = basic::Deliver {
            consumer_tag: ShortStr::try_from(tag).unwrap(),
            delivery_tag: self.next_tag(number, no_ack, &body),
            redelivered,
            ..basic::Deliver::default()
        };
        self.channel(number)
            .send_content(&method, &basic::Properties::default(), body)
            .unwrap();
        true
    }

    /// Cancels a consumer as RabbitMQ does when its queue is deleted: without an answer.
    pub fn cancel(&mut self, number: u16, tag: &str) {
        self.consumers.remove(&(number, tag.to_owned()));
        let cancel = basic::Cancel {
            consumer_tag: ShortStr::try_from(tag).unwrap(),
            no_wait: true,
        };
        self.channel(number).send(&cancel).unwrap();
    }

    pub fn ack(&mut self, number: u16, seq: u64, multiple: bool) {
        let ack = basic::Ack {
            delivery_tag: seq,
            multiple,
        };
        self.channel(number).send(&ack).unwrap();
    }

    pub fn nack(&mut self, number: u16, seq: u64, multiple: bool) {
        let nack = basic::Nack {
            delivery_tag: seq,
            multiple,
            requeue: false,
        };
        self.channel(number).send(&nack).unwrap();
    }

    /// Returns a message that was published: no queue took it.
    pub fn return_message(&mut self, number: u16, message: &Message) {
        let method = basic::Return {
            reply_code: ReplyCode::NO_ROUTE,
            reply_text: ShortStr::try_from("NO_ROUTE").unwrap(),
            exchange: message.method.exchange.clone(),
            routing_key: message.method.routing_key.clone(),
        };
        self.channel(number)
            .send_content(&method, &message.properties, message.body.clone())
            .unwrap();
    }

    pub fn close_channel(&mut self, number: u16, code: ReplyCode, text: &str) {
        self.close_channel_for(number, code, text, None);
    }

    /// Closes a channel because of a method.
    pub fn close_channel_for(
        &mut self,
        number: u16,
        code: ReplyCode,
        text: &str,
        method: Option<MethodId>,
    ) {
        self.channel(number).close(code, text, method).unwrap();
        self.end_channel(number);
    }

    /// Pauses or resumes publishing on a channel: what the machine has no command for, because no
    /// server of today does it.
    pub fn flow(&mut self, number: u16, active: bool) {
        let frame = |method: u8| {
            let [c1, c0] = number.to_be_bytes();
            vec![
                1,
                c1,
                c0,
                0,
                0,
                0,
                5,
                0,
                20,
                0,
                method,
                u8::from(active),
                0xce,
            ]
        };
        self.raw.extend_from_slice(&frame(20));
        self.flow_oks.push(frame(21));
    }

    /// Whether it has something to send.
    pub fn sends(&self) -> bool {
        !self.mute && (self.machine.buffered() > 0 || !self.raw.is_empty())
    }

    pub fn close(&mut self, code: ReplyCode, text: &str) {
        self.machine.close(code, text);
    }

    // What it saw.

    /// What the client said, in short: the channel, then the method's name.
    pub fn said(&self) -> Vec<String> {
        self.saw.iter().filter_map(Saw::line).collect()
    }

    /// The messages that were published, in order.
    pub fn messages(&self) -> Vec<Message> {
        self.saw
            .iter()
            .filter_map(|saw| match saw {
                Saw::Published(_, message) => Some(message.clone()),
                _ => None,
            })
            .collect()
    }

    /// How the connection ended, as it sees it.
    pub fn closed(&self) -> Option<&CloseReason> {
        self.saw.iter().find_map(|saw| match saw {
            Saw::Closed(reason) => Some(reason),
            _ => None,
        })
    }

    /// Whether the client ended the connection with a close of code 200.
    pub fn closed_in_good_order(&self) -> bool {
        self.closed()
            .and_then(|reason| reason.by_peer())
            .is_some_and(|close| close.code == ReplyCode::SUCCESS)
    }
}

impl Saw {
    fn line(&self) -> Option<String> {
        match self {
            Self::ChannelOpened(number) => Some(format!("{number} channel.open")),
            Self::Request(number, method) => Some(format!("{number} {}", method.name())),
            Self::Published(number, message) => {
                let body = String::from_utf8_lossy(&message.body[..message.body.len().min(20)]);
                Some(format!("{number} basic.publish {body}"))
            }
            Self::ChannelClosed(number, _) => Some(format!("{number} channel.close")),
            Self::Secret(_) => Some("0 connection.update-secret".to_owned()),
            Self::Closed(_) => Some("0 connection.close".to_owned()),
            Self::Authenticate(_) | Self::Opened => None,
        }
    }
}
