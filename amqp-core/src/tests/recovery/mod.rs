//! Recovery of a connection, beside a broker in the same thread, under virtual time.

mod broker;
mod failures;
mod losses;
mod policies;
mod recording;
mod scale;
#[cfg(feature = "serde")]
mod serial;
mod soft_errors;
mod topology_model;

use alloc::{
    string::{String, ToString},
    vec::Vec,
};
use core::{mem, time::Duration};

use self::broker::Broker;
use super::{pair::Pair, script::name};
use crate::{
    ChannelId, ClientSent, ConsumerId, Instant, Request,
    client::{self, Event},
    protocol::{basic, confirm, exchange, queue},
    recovery::{GiveUp, Policy, Recovery, RecoveryEvent, Report, Step, TimedEvent},
    server,
    wire::ShortStr,
};

/// A host with a recovery, and its broker.
struct Rig {
    pair: Pair,
    recovery: Recovery,
    broker: Broker,
    /// All changes so far.
    changes: Vec<TimedEvent>,
    /// The events that are the host's.
    events: Vec<Event>,
    /// The channels that the host has opened.
    channels: Vec<ChannelId>,
}

fn config() -> client::Config {
    client::Config::default().resumable(true)
}

impl Rig {
    /// A rig with an open connection.
    fn open(policy: Policy) -> Self {
        let now = Instant::ORIGIN + 1000 * SECOND;
        Self::open_with(Recovery::new(policy, now))
    }

    fn open_with(recovery: Recovery) -> Self {
        Self::open_configured(recovery, config())
    }

    fn open_configured(recovery: Recovery, config: client::Config) -> Self {
        let mut rig = Self {
            pair: Pair::new(config, server::Config::default()),
            recovery,
            broker: Broker::default(),
            changes: Vec::new(),
            events: Vec::new(),
            channels: Vec::new(),
        };
        assert_eq!(
            rig.recovery.poll_step(rig.pair.now),
            Step::Connect { attempt: 1 }
        );
        rig.shake_hands();
        rig.recover();
        rig
    }

    fn shake_hands(&mut self) {
        self.pair.shake_hands();
        let (now, client) = (self.pair.now, &mut self.pair.client);
        assert!(!self.recovery.handle_event(now, client, &Event::Opened));
    }

    /// Exchanges bytes until nothing moves, or the broker cuts the connection.
    fn pump(&mut self) {
        while self.pump_once() {}
    }

    /// Exchanges bytes, and handles the events. Returns `false` if there were none.
    fn pump_once(&mut self) -> bool {
        self.pair.exchange();
        let server_events = self.pair.take_server_events();
        let client_events = self.pair.take_client_events();
        let quiet = server_events.is_empty() && client_events.is_empty();
        for event in server_events {
            self.broker.handle(&mut self.pair.server, event);
        }
        for event in client_events {
            let (now, client) = (self.pair.now, &mut self.pair.client);
            if !self.recovery.handle_event(now, client, &event) {
                self.events.push(event);
            }
        }
        self.take_changes();
        if self.broker.cuts() {
            self.broker.cut_after = None;
            self.lose();
            return false;
        }
        !quiet || self.pair.client.has_transmit() || self.pair.server.has_transmit()
    }

    /// The connection is lost.
    fn lose(&mut self) {
        self.pair.client.handle_eof(self.pair.now);
        for event in self.pair.take_client_events() {
            let (now, client) = (self.pair.now, &mut self.pair.client);
            if !self.recovery.handle_event(now, client, &event) {
                self.events.push(event);
            }
        }
        self.broker.connection_ended();
        self.take_changes();
    }

    fn take_changes(&mut self) {
        while let Some(change) = self.recovery.poll_event() {
            self.changes.push(change);
        }
    }

    /// The next connection, on a new transport.
    fn connect(&mut self) {
        self.connect_with(config());
        self.shake_hands();
    }

    /// The next connection, before its handshake.
    fn connect_with(&mut self, config: client::Config) {
        let mut pair = Pair::new(config.clone(), server::Config::default());
        pair.now = self.pair.now;
        self.pair.client.resume(config, self.pair.now).unwrap();
        mem::swap(&mut pair.client, &mut self.pair.client);
        self.pair = pair;
        self.broker.log.clear();
    }

    /// Goes on until the connection is recovered or given up, and takes the time that it needs.
    fn recover(&mut self) {
        for _ in 0..100_000 {
            self.take_changes();
            match self.recovery.poll_step(self.pair.now) {
                Step::Connect { .. } => self.connect(),
                Step::Wait(at) => self.pair.now = at,
                Step::GiveUp => return self.pump(),
                Step::Idle => {
                    self.pump();
                    let idle = self.recovery.poll_step(self.pair.now) == Step::Idle;
                    if idle && self.is_quiet() {
                        return;
                    }
                    if idle {
                        self.pass_time();
                    }
                }
            }
        }
        panic!("not recovered: {:#?}", self.recovery);
    }

    /// Goes on until the client has sent the close of a channel, which the server has not received.
    fn pump_until_close(&mut self) {
        const CLOSE: [u8; 4] = [0, 20, 0, 40];
        loop {
            self.pair.collect_output();
            if self.pair.to_server.windows(4).any(|it| it == CLOSE) {
                return;
            }
            self.pump_once();
        }
    }

    fn is_quiet(&self) -> bool {
        self.recovery.is_recovered() && self.recovery.poll_timeout().is_none()
    }

    /// Lets the time pass until the next deadline.
    fn pass_time(&mut self) {
        let (client, server) = (&self.pair.client, &self.pair.server);
        let next = [
            self.recovery.poll_timeout(),
            client.poll_timeout().map(|(at, _)| at),
            server.poll_timeout().map(|(at, _)| at),
        ];
        let next = next.into_iter().flatten().min().expect("a deadline");
        self.pair.now = self.pair.now.max(next);
        let now = self.pair.now;
        self.recovery.handle_timeout(now, &mut self.pair.client);
        self.pair.client.handle_timeout(now);
        self.pair.server.handle_timeout(now);
    }

    fn open_channel(&mut self) -> ChannelId {
        let (id, _) = self.pair.client.open_channel().unwrap();
        self.pump();
        assert!(matches!(self.events.pop(), Some(Event::Reply { .. })));
        self.channels.push(id);
        id
    }

    /// A request of the host, which is answered.
    fn call<R: Request + ClientSent>(&mut self, id: ChannelId, request: &R) {
        self.send(id, request);
        self.pump();
        assert!(
            matches!(self.events.pop(), Some(Event::Reply { .. })),
            "{request:?}"
        );
    }

    /// A request of the host.
    fn send<R: Request + ClientSent>(&mut self, id: ChannelId, request: &R) {
        let number = self.pair.client_channel(id).call(request).unwrap();
        self.recovery
            .handle_sent(id, Some(number), &request.clone().into());
    }

    fn consume(&mut self, id: ChannelId, queue: &str) -> ConsumerId {
        let consumer = self.send_consume(id, queue);
        self.pump();
        assert!(
            matches!(self.events.pop(), Some(Event::Reply { .. })),
            "{queue}"
        );
        consumer
    }

    fn send_consume(&mut self, id: ChannelId, queue: &str) -> ConsumerId {
        let mut consume = basic::Consume::default().queue(queue);
        let mut channel = self.pair.client_channel(id);
        let (consumer, tag, request) = channel.consume(consume.clone()).unwrap();
        consume.consumer_tag = tag;
        self.recovery
            .handle_consume_sent(id, consumer, request, &consume);
        consumer
    }

    /// The report of the last recovery.
    fn report(&self) -> &Report {
        let reports = self.changes.iter().rev();
        let mut reports = reports.filter_map(|change| match &change.event {
            RecoveryEvent::Recovered(report) => Some(report),
            _ => None,
        });
        reports.next().expect("a report")
    }

    /// The failures of the last recovery, in words.
    fn failures(&self) -> Vec<String> {
        self.report()
            .failures
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    /// The failures of the channels that were reopened, in words.
    fn failures_of_channels(&self) -> Vec<String> {
        let reports = self
            .changes
            .iter()
            .filter_map(|change| match &change.event {
                RecoveryEvent::ChannelRecovered { report, .. } => Some(report),
                _ => None,
            });
        let failures = reports.flat_map(|report| &report.failures);
        failures.map(ToString::to_string).collect()
    }

    fn given_up(&self) -> &GiveUp {
        match &self.changes.last().unwrap().event {
            RecoveryEvent::GaveUp(reason) => reason,
            other => panic!("{other:?}"),
        }
    }

    /// A topology of every kind: two channels, and what they use.
    fn with_topology(policy: Policy) -> Self {
        let mut rig = Self::open(policy);
        let first = rig.open_channel();
        let second = rig.open_channel();
        rig.call(first, &exchange_named("work", "topic"));
        rig.call(first, &exchange_named("inner", "fanout"));
        rig.call(
            first,
            &exchange::Bind {
                destination: name("inner"),
                source: name("work"),
                routing_key: name("#"),
                ..exchange::Bind::default()
            },
        );
        for queue in ["jobs", "logs"] {
            rig.call(first, &queue_named(queue));
            rig.call(first, &bind(queue, "work", "a.*"));
        }
        rig.call(
            second,
            &basic::Qos {
                prefetch_count: 10,
                ..basic::Qos::default()
            },
        );
        rig.call(second, &confirm::Select::default());
        rig.consume(second, "jobs");
        rig.call(
            second,
            &basic::Qos {
                prefetch_count: 20,
                ..basic::Qos::default()
            },
        );
        rig.consume(second, "logs");
        rig
    }

    /// The consumers of the broker, in words.
    fn consumers(&self) -> Vec<String> {
        let consumers = self.broker.consumers.iter();
        consumers
            .map(|((channel, tag), queue)| alloc::format!("{channel} {tag} {queue}"))
            .collect()
    }
}

fn exchange_named(exchange: &str, kind: &str) -> exchange::Declare {
    exchange::Declare {
        exchange: name(exchange),
        kind: name(kind),
        durable: true,
        ..exchange::Declare::default()
    }
}

fn queue_named(queue: &str) -> queue::Declare {
    queue::Declare::default().queue(queue)
}

/// The declaration of a queue that the server names.
fn unnamed() -> queue::Declare {
    queue::Declare {
        exclusive: true,
        ..queue::Declare::default()
    }
}

fn bind(queue: &str, exchange: &str, key: &str) -> queue::Bind {
    queue::Bind {
        queue: name(queue),
        exchange: name(exchange),
        routing_key: name(key),
        ..queue::Bind::default()
    }
}

/// The only queue whose name begins like one of the server's.
fn generated(rig: &Rig) -> ShortStr {
    let mut names = rig
        .broker
        .queues
        .keys()
        .filter(|it| it.starts_with("amq.gen-"));
    let name = names.next().expect("a queue").clone();
    assert_eq!(names.next(), None);
    name
}

const SECOND: Duration = Duration::from_secs(1);
