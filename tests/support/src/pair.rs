//! A client and a server at work, with a line between them that may damage the bytes.
//!
//! The input is a list of things to do. The fuzz target `pair` runs [`pair`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use amqp_core::{
    ApiMisuse, ChannelId, CloseCause, ConsumerId, DeliveryTag, Instant, PublishSeq, RequestId,
    Requeue, Tags, Timeouts, Transmit,
    client::{self, Event as ClientEvent},
    protocol::{ClientMethod, ReplyCode, basic, confirm, queue, tx},
    server::{self, Event as ServerEvent},
    wire::ShortStr,
};
use bytes::{Buf as _, BytesMut};
use core::time::Duration;

use crate::replies::reply;

/// The steps and their arguments: one byte after the other, and then zeros.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn number(&mut self) -> usize {
        usize::from(u16::from_be_bytes([self.byte(), self.byte()]))
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        let at = usize::from(self.byte());
        from.get(at % from.len().max(1)).copied()
    }
}

/// Runs the steps that the bytes encode. Checks that each request and each publish has exactly one
/// outcome; and, when the first byte is even and the line so a good one, that nothing goes wrong on
/// it.
pub fn pair(data: &[u8]) {
    let mut script = Script(data);
    let faulty = script.byte() % 2 == 1;
    let mut pair = Pair::open();
    while !script.0.is_empty() && !pair.client.ended {
        pair.step(&mut script, faulty);
    }
    if faulty {
        pair.carry();
        pair.client.machine.handle_eof(pair.now);
        pair.server.machine.handle_eof(pair.now);
        pair.look();
    } else {
        pair.finish();
    }
    assert!(pair.client.ended && pair.server.ended);
    assert!(pair.client.requests.is_empty(), "requests without outcome");
    assert!(
        pair.client.publishes.is_empty(),
        "publishes without outcome"
    );
}

struct Client {
    machine: client::Connection,
    input: BytesMut,
    channels: Vec<ChannelId>,
    requests: BTreeMap<RequestId, Option<ChannelId>>,
    publishes: BTreeSet<(ChannelId, PublishSeq)>,
    /// Deliveries that were not acknowledged.
    tags: Vec<(ChannelId, DeliveryTag)>,
    consumers: Vec<(ChannelId, ShortStr, ConsumerId, RequestId)>,
    ended: bool,
}

struct Server {
    machine: server::Connection,
    input: BytesMut,
    channels: Vec<ChannelId>,
    /// The outstanding requests of the client.
    owed: VecDeque<(ChannelId, ClientMethod)>,
    consumers: Vec<(ChannelId, ShortStr)>,
    /// Publishes that were not confirmed.
    publishes: Vec<(ChannelId, PublishSeq)>,
    /// The last delivery tag of each channel.
    tags: BTreeMap<ChannelId, u64>,
    ended: bool,
}

struct Pair {
    now: Instant,
    client: Client,
    server: Server,
    to_client: BytesMut,
    to_server: BytesMut,
}

/// A command that fails because the channel or the connection is not open any more, or because a
/// mistake was refused, changes nothing.
fn refused<T>(result: Result<T, ApiMisuse>) -> Option<T> {
    result.ok()
}

impl Pair {
    fn open() -> Self {
        let now = Instant::ORIGIN;
        // A close waits for the end of a commit, and this server takes its time to answer.
        let timeouts = Timeouts::default().close(Duration::from_secs(86_400));
        let client = client::Config::default().timeouts(timeouts.clone());
        let server = server::Config::default().timeouts(timeouts);
        let client = client::Connection::new(client, now).unwrap();
        let server = server::Connection::new(server, now).unwrap();
        let mut pair = Self {
            now,
            client: Client {
                machine: client,
                input: BytesMut::new(),
                channels: Vec::new(),
                requests: BTreeMap::new(),
                publishes: BTreeSet::new(),
                tags: Vec::new(),
                consumers: Vec::new(),
                ended: false,
            },
            server: Server {
                machine: server,
                input: BytesMut::new(),
                channels: Vec::new(),
                owed: VecDeque::new(),
                consumers: Vec::new(),
                publishes: Vec::new(),
                tags: BTreeMap::new(),
                ended: false,
            },
            to_client: BytesMut::new(),
            to_server: BytesMut::new(),
        };
        pair.carry();
        assert!(pair.client.machine.is_open() && pair.server.machine.is_open());
        pair
    }

    fn step(&mut self, script: &mut Script<'_>, faulty: bool) {
        match script.byte() % 16 {
            0 | 1 => self.client.ask(script),
            2 => self.client.publish(script),
            3 => self.client.settle(script),
            4 => self.client.consume(script),
            5 => self.client.end_something(script),
            6 | 7 => self.server.answer(),
            8 => self.server.deliver(script),
            9 => self.server.confirm(script),
            10 => self.server.end_something(script),
            11 => {
                let len = script.number();
                self.carry_to_server(len);
            }
            12 => {
                let len = script.number();
                self.carry_to_client(len);
            }
            13 => self.carry(),
            14 if faulty => self.damage(script),
            14 => self.carry(),
            _ => self.wait(Duration::from_millis(script.number() as u64 / 4)),
        }
        self.look();
    }

    /// Takes the output, and the events.
    fn look(&mut self) {
        let mut out = Transmit::new();
        loop {
            self.client.machine.poll_transmit(self.now, &mut out);
            take(&mut out, &mut self.to_server);
            self.server.machine.poll_transmit(self.now, &mut out);
            take(&mut out, &mut self.to_client);
            let client = self.client.machine.poll_event();
            let server = self.server.machine.poll_event();
            if client.is_none() && server.is_none() {
                break;
            }
            client
                .into_iter()
                .for_each(|event| self.client.on_event(event));
            server
                .into_iter()
                .for_each(|event| self.server.on_event(event));
        }
    }

    fn carry_to_server(&mut self, len: usize) {
        let len = len.min(self.to_server.len());
        self.server.input.unsplit(self.to_server.split_to(len));
        let input = &mut self.server.input;
        self.server.machine.handle_input(self.now, input);
        self.look();
    }

    fn carry_to_client(&mut self, len: usize) {
        let len = len.min(self.to_client.len());
        self.client.input.unsplit(self.to_client.split_to(len));
        let input = &mut self.client.input;
        self.client.machine.handle_input(self.now, input);
        self.look();
    }

    /// Carries everything both ways.
    fn carry(&mut self) {
        self.look();
        while !self.to_server.is_empty() || !self.to_client.is_empty() {
            self.carry_to_server(usize::MAX);
            self.carry_to_client(usize::MAX);
        }
    }

    /// Lets time pass on a line that is fast compared with it.
    fn wait(&mut self, span: Duration) {
        self.carry();
        self.now = self.now + span;
        self.client.machine.handle_timeout(self.now);
        self.server.machine.handle_timeout(self.now);
        self.carry();
    }

    /// Flips, drops or doubles something on the line.
    fn damage(&mut self, script: &mut Script<'_>) {
        let how = script.byte();
        let line = if how & 1 == 0 {
            &mut self.to_server
        } else {
            &mut self.to_client
        };
        let at = script.number().checked_rem(line.len()).unwrap_or(0);
        let mut after = line.split_off(at);
        match how >> 1 & 3 {
            0 => {
                if let Some(octet) = after.first_mut() {
                    *octet ^= 1 << (how >> 5);
                }
            }
            1 => after.advance(usize::from(how >> 3).min(after.len())),
            2 => {
                let again = after[..usize::from(how >> 3).min(after.len())].to_vec();
                line.extend_from_slice(&again);
            }
            _ => line.extend_from_slice(&[how, 0, 1, 0, 0, 0, 0, 0xCE]),
        }
        line.unsplit(after);
    }

    /// Answers all that is waited for, and closes: on a good line, all of it is as it should be.
    fn finish(&mut self) {
        self.carry();
        while !self.server.owed.is_empty() {
            self.server.answer();
            self.look();
            self.carry();
        }
        let reason = self.client.machine.close_reason();
        assert!(reason.is_none_or(|reason| reason.is_clean()), "{reason:?}");
        self.client.machine.close(ReplyCode::SUCCESS, "bye");
        self.look();
        self.carry();
        let reason = self.client.machine.close_reason().unwrap();
        assert!(reason.is_clean(), "{reason:?}");
        let reason = self.server.machine.close_reason().unwrap();
        assert!(
            matches!(reason.cause(), CloseCause::ByPeer(close) if close.code == ReplyCode::SUCCESS),
            "{reason:?}"
        );
        assert!(self.client.machine.is_finished() && self.server.machine.is_finished());
    }
}

fn take(out: &mut Transmit, to: &mut BytesMut) {
    while out.has_remaining() {
        let len = out.chunk().len();
        to.extend_from_slice(out.chunk());
        out.advance(len);
    }
}

impl Client {
    fn on_event(&mut self, event: ClientEvent) {
        assert!(!self.ended, "{event:?} after the end");
        match event {
            ClientEvent::Reply { request, .. }
            | ClientEvent::Got {
                request,
                message: None,
                ..
            }
            | ClientEvent::Failed { request, .. } => self.outcome(request),
            ClientEvent::Got {
                channel,
                request,
                message: Some(message),
            } => {
                self.outcome(request);
                self.tags.extend(message.tag.map(|tag| (channel, tag)));
            }
            ClientEvent::Delivered(delivery) => {
                let tag = delivery.tag.map(|tag| (delivery.channel, tag));
                self.tags.extend(tag);
            }
            ClientEvent::Settled {
                channel,
                first,
                last,
                ..
            } => {
                let settled: Vec<_> = self
                    .publishes
                    .range((channel, first)..=(channel, last))
                    .copied()
                    .collect();
                let count = last.get() - first.get() + 1;
                assert_eq!(settled.len() as u64, count, "settled once each");
                for publish in settled {
                    self.publishes.remove(&publish);
                }
            }
            ClientEvent::ChannelClosed { channel, reason } => {
                assert!(
                    !self.publishes.iter().any(|(of, _)| *of == channel),
                    "publishes outlive their channel: {reason:?}"
                );
                assert!(
                    !self.requests.values().any(|of| *of == Some(channel)),
                    "requests outlive their channel: {reason:?}"
                );
            }
            ClientEvent::Closed(reason) => {
                assert!(self.requests.is_empty(), "{:?}: {reason:?}", self.requests);
                assert!(self.publishes.is_empty(), "{reason:?}");
                self.ended = true;
            }
            _ => {}
        }
    }

    fn outcome(&mut self, request: RequestId) {
        let known = self.requests.remove(&request);
        assert!(
            known.is_some(),
            "{request:?} has two outcomes, or was abandoned"
        );
    }

    /// A request was abandoned: no event of it follows.
    fn forget(&mut self, request: RequestId) {
        while let Some(event) = self.machine.poll_event() {
            self.on_event(event);
        }
        self.requests.remove(&request);
    }

    fn channel(&mut self, script: &mut Script<'_>) -> Option<client::ChannelMut<'_>> {
        let id = script.pick(&self.channels)?;
        self.machine.channel(id)
    }

    /// Opens a channel, or asks for something on one.
    fn ask(&mut self, script: &mut Script<'_>) {
        let what = script.byte();
        if what.is_multiple_of(4) || self.channels.is_empty() {
            if let Some((id, request)) = refused(self.machine.open_channel()) {
                self.channels.push(id);
                self.requests.insert(request, Some(id));
            }
            return;
        }
        let Some(mut channel) = self.channel(script) else {
            return;
        };
        let id = channel.id();
        let asked = match what / 4 % 10 {
            0 | 1 => channel.call(&confirm::Select::default()),
            2 => channel.call(&tx::Select),
            3 => channel.call(&tx::Commit),
            4 => channel.call(&tx::Rollback),
            5 => channel.call(&basic::Recover { requeue: true }),
            6 | 7 => channel.get(&basic::Get::default().no_ack(what & 128 != 0)),
            8 => channel.call(&queue::Purge::default()),
            _ => channel.call(&queue::Declare::default()),
        };
        if let Some(request) = refused(asked) {
            self.requests.insert(request, Some(id));
        }
    }

    fn publish(&mut self, script: &mut Script<'_>) {
        let sizes = [0, 1, 100, 3000, 131_064, 131_065, 200_000];
        let size = script.pick(&sizes).unwrap();
        let mandatory = script.byte().is_multiple_of(3);
        let Some(mut channel) = self.channel(script) else {
            return;
        };
        let id = channel.id();
        let publish = basic::Publish::default().mandatory(mandatory);
        let properties = basic::Properties::default();
        if let Ok(Some(seq)) = channel.publish(&publish, &properties, vec![7; size]) {
            assert!(self.publishes.insert((id, seq)), "a number comes once");
        }
    }

    fn settle(&mut self, script: &mut Script<'_>) {
        let how = script.byte();
        let Some((id, tag)) = script.pick(&self.tags) else {
            return;
        };
        let Some(mut channel) = self.machine.channel(id) else {
            return;
        };
        let _settled = match how % 5 {
            0 => channel.ack(Tags::One(tag)),
            1 => channel.ack(Tags::UpTo(tag)),
            2 => channel.nack(Tags::UpTo(tag), Requeue::Yes),
            3 => channel.reject(tag, Requeue::No),
            _ => channel.ack(Tags::All),
        };
    }

    fn consume(&mut self, script: &mut Script<'_>) {
        let how = script.byte();
        // A tag is used once: a server's methods for a consumer that was cancelled without waiting
        // for the answer would be taken for those of another.
        let consumer_tag = match how % 2 {
            0 => ShortStr::new(),
            _ => format!("t{}", self.consumers.len()).parse().unwrap(),
        };
        let consume = basic::Consume {
            consumer_tag,
            no_ack: how & 64 != 0,
            no_wait: how & 128 != 0,
            ..basic::Consume::default()
        };
        let Some(mut channel) = self.channel(script) else {
            return;
        };
        let id = channel.id();
        if let Some((consumer, tag, request)) = refused(channel.consume(consume)) {
            self.requests.insert(request, Some(id));
            self.consumers.push((id, tag, consumer, request));
        }
    }

    /// Cancels a consumer, gives up a request, closes a channel, or closes the connection.
    fn end_something(&mut self, script: &mut Script<'_>) {
        let what = script.byte();
        match what % 8 {
            0..3 => {
                let at = usize::from(script.byte());
                let consumers = &self.consumers;
                let Some((id, tag, consumer, consume)) =
                    consumers.get(at % consumers.len().max(1)).cloned()
                else {
                    return;
                };
                let Some(mut channel) = self.machine.channel(id) else {
                    return;
                };
                let cancel = basic::Cancel::default().consumer_tag(&tag);
                if what & 128 != 0 {
                    refused(channel.send(&cancel));
                } else if what & 64 != 0 {
                    channel.abandon_consumer(&tag, consumer);
                    self.forget(consume);
                } else if let Some(request) = refused(channel.call(&cancel)) {
                    self.requests.insert(request, Some(id));
                }
            }
            3..5 => {
                let requests: Vec<_> = self.requests.iter().map(|(a, b)| (*a, *b)).collect();
                if let Some((request, Some(id))) = script.pick(&requests) {
                    self.machine.abandon(id, request);
                    self.forget(request);
                }
            }
            5..7 => {
                let Some(mut channel) = self.channel(script) else {
                    return;
                };
                let id = channel.id();
                if let Some(request) = refused(channel.close(ReplyCode::SUCCESS, "")) {
                    self.requests.insert(request, Some(id));
                }
            }
            _ if what == u8::MAX => self.machine.close(ReplyCode::SUCCESS, ""),
            _ => {}
        }
    }
}

impl Server {
    fn on_event(&mut self, event: ServerEvent) {
        assert!(!self.ended, "{event:?} after the end");
        match event {
            ServerEvent::Authenticate(_) => self.machine.accept().unwrap(),
            ServerEvent::Open { .. } => self.machine.open().unwrap(),
            ServerEvent::ChannelOpened { channel } => self.channels.push(channel),
            ServerEvent::Request { channel, method } => self.owed.push_back((channel, method)),
            ServerEvent::Published(published) => {
                let publish = published.seq.map(|seq| (published.channel, seq));
                self.publishes.extend(publish);
            }
            ServerEvent::Closed(_) => self.ended = true,
            _ => {}
        }
    }

    fn forget(&mut self, channel: ChannelId, tag: &ShortStr) {
        self.consumers
            .retain(|(of, known)| (of, known) != (&channel, tag));
    }

    fn next_tag(&mut self, channel: ChannelId) -> u64 {
        let tag = self.tags.entry(channel).or_default();
        *tag += 1;
        *tag
    }

    /// Answers the oldest request that is not answered.
    fn answer(&mut self) {
        let Some((id, method)) = self.owed.pop_front() else {
            return;
        };
        let tag = self.next_tag(id);
        let Some(mut channel) = self.machine.channel(id) else {
            return;
        };
        let properties = basic::Properties::default();
        let _sent = match method {
            ClientMethod::BasicGet(_) if !tag.is_multiple_of(2) => {
                let got = basic::GetOk::default().delivery_tag(tag);
                channel.send_content(&got, &properties, "got")
            }
            method => {
                match &method {
                    ClientMethod::BasicConsume(consume) => {
                        self.consumers.push((id, consume.consumer_tag.clone()));
                    }
                    ClientMethod::BasicCancel(cancel) => {
                        let ended = (&id, &cancel.consumer_tag);
                        self.consumers.retain(|(of, tag)| (of, tag) != ended);
                    }
                    _ => {}
                }
                reply(&mut channel, method)
            }
        };
    }

    fn deliver(&mut self, script: &mut Script<'_>) {
        let at = usize::from(script.byte());
        let sizes = [0, 1, 2047, 2048, 150_000];
        let size = script.pick(&sizes).unwrap();
        let Some((id, consumer)) = self
            .consumers
            .get(at % self.consumers.len().max(1))
            .cloned()
        else {
            return;
        };
        let deliver = basic::Deliver {
            consumer_tag: consumer,
            delivery_tag: self.next_tag(id),
            ..basic::Deliver::default()
        };
        if let Some(mut channel) = self.machine.channel(id) {
            let properties = basic::Properties::default();
            refused(channel.send_content(&deliver, &properties, vec![9; size]));
        }
    }

    /// Confirms a publish, or returns one.
    fn confirm(&mut self, script: &mut Script<'_>) {
        let how = script.byte();
        let Some((id, seq)) = script.pick(&self.publishes) else {
            return;
        };
        let Some(mut channel) = self.machine.channel(id) else {
            return;
        };
        match how % 4 {
            0 => refused(channel.confirm(seq, false)),
            1 => refused(channel.confirm(seq, true)),
            2 => refused(channel.send(&basic::Nack {
                delivery_tag: seq.get(),
                multiple: how & 128 != 0,
                requeue: false,
            })),
            _ => {
                let returned = basic::Return::default();
                let properties = basic::Properties::default();
                refused(channel.send_content(&returned, &properties, ""))
            }
        };
    }

    /// Cancels a consumer, closes a channel, or asks for a pause.
    fn end_something(&mut self, script: &mut Script<'_>) {
        let what = script.byte();
        match what % 4 {
            0 => {
                let at = usize::from(script.byte());
                let consumers = &self.consumers;
                let consumer = consumers.get(at % consumers.len().max(1)).cloned();
                if let Some((id, consumer_tag)) = consumer {
                    self.forget(id, &consumer_tag);
                    if let Some(mut channel) = self.machine.channel(id) {
                        refused(channel.send(&basic::Cancel {
                            consumer_tag,
                            no_wait: what & 128 != 0,
                        }));
                    }
                }
            }
            1 => {
                let id = script.pick(&self.channels);
                if let Some(mut channel) = id.and_then(|id| self.machine.channel(id)) {
                    refused(channel.close(ReplyCode::NOT_FOUND, "", None));
                }
            }
            2 => drop(refused(self.machine.block(ShortStr::new()))),
            _ => drop(refused(self.machine.unblock())),
        }
    }
}
