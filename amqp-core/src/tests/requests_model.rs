//! Exactly one outcome for each request, with any answers and abandoned at any time.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec,
    vec::Vec,
};
use core::time::Duration;

use proptest::{collection::vec as list, prelude::*, sample::Index};

use super::script::*;
use crate::{
    ChannelId, ConsumerId, RequestId,
    client::{Config, Connection, Event},
    protocol::{Method, ReplyCode, basic, channel, connection, exchange, queue},
    wire::ShortStr,
};

#[derive(Clone, Copy, Debug)]
enum Step {
    Open,
    Declare,
    Bind,
    Get,
    Consume,
    Cancel,
    CancelNoWait,
    AbandonConsumer,
    Close,
    UpdateSecret,
    Abandon(Index),
    /// The server reads all that was sent.
    Read,
    Reply(Index),
    Deliver(Index),
    ServerCancel(Index),
    ServerClose,
    Wait(u64),
}

fn any_step() -> impl Strategy<Value = (Index, Step)> {
    let index = any::<Index>;
    let step = prop_oneof![
        3 => Just(Step::Open),
        4 => Just(Step::Declare),
        3 => Just(Step::Bind),
        3 => Just(Step::Get),
        3 => Just(Step::Consume),
        2 => Just(Step::Cancel),
        2 => Just(Step::CancelNoWait),
        1 => Just(Step::AbandonConsumer),
        2 => Just(Step::Close),
        1 => Just(Step::UpdateSecret),
        5 => index().prop_map(Step::Abandon),
        10 => Just(Step::Read),
        16 => index().prop_map(Step::Reply),
        3 => index().prop_map(Step::Deliver),
        1 => index().prop_map(Step::ServerCancel),
        1 => Just(Step::ServerClose),
        3 => (0u64..20).prop_map(Step::Wait),
    ];
    (index(), step)
}

/// The server, and its outstanding replies.
struct Model {
    client: Script<Connection>,
    /// All channels that the client ever had.
    channels: Vec<ChannelId>,
    /// The requests that wait for an outcome, with their channels.
    waiting: BTreeMap<RequestId, Option<ChannelId>>,
    /// The last consumer of each channel with the tag `tag`, and the request for it.
    tagged: BTreeMap<ChannelId, (ConsumerId, RequestId)>,
    /// All that were made.
    made: Vec<(RequestId, Option<ChannelId>)>,
    /// The requests that the server has read and not answered, in order.
    received: Vec<(u16, Method)>,
    /// The channels that the server has opened.
    open: BTreeSet<u16>,
    /// The channels that the server has closed, until the client has answered.
    closing: BTreeSet<u16>,
    /// The consumers that the server has confirmed.
    consumers: BTreeSet<(u16, ShortStr)>,
    deliveries: u64,
}

impl Model {
    fn new() -> Self {
        let config = Config {
            channel_max: 4,
            ..Config::default()
        };
        Self {
            client: Script::open_with(config),
            channels: Vec::new(),
            waiting: BTreeMap::new(),
            tagged: BTreeMap::new(),
            made: Vec::new(),
            open: BTreeSet::new(),
            received: Vec::new(),
            closing: BTreeSet::new(),
            consumers: BTreeSet::new(),
            deliveries: 0,
        }
    }

    fn made(&mut self, request: RequestId, channel: Option<ChannelId>) {
        self.made.push((request, channel));
        let before = self.waiting.insert(request, channel);
        assert_eq!(before, None);
    }

    /// A channel of those that the client may still know.
    fn pick(&self, index: Index) -> Option<ChannelId> {
        let recent = self.channels.iter().rev().take(4).copied();
        (!self.channels.is_empty()).then(|| *index.get(&recent.collect::<Vec<_>>()))
    }

    /// Gives a command, if the channel takes any.
    fn command(&mut self, id: ChannelId, step: Step) {
        let Some(mut on) = self.client.conn.channel(id).filter(|on| on.is_open()) else {
            return;
        };
        let request = match step {
            Step::Declare => on.call(&queue::Declare::default()).unwrap(),
            Step::Bind => {
                let bind = exchange::Bind {
                    source: name("a"),
                    destination: name("b"),
                    ..exchange::Bind::default()
                };
                on.call(&bind).unwrap()
            }
            Step::Get => on.get(&basic::Get::default()).unwrap(),
            Step::Consume => match on.consume(consume("q", "tag")) {
                Ok((consumer, _, request)) => {
                    self.tagged.insert(id, (consumer, request));
                    request
                }
                // One of these is enough.
                Err(_) => on.consume(consume("q", "")).unwrap().2,
            },
            Step::Cancel => {
                let cancel = basic::Cancel::default().consumer_tag("tag");
                on.call(&cancel).unwrap()
            }
            Step::CancelNoWait => {
                let cancel = basic::Cancel::default().consumer_tag("tag");
                on.send(&cancel).unwrap();
                return;
            }
            Step::AbandonConsumer => {
                if let Some((consumer, request)) = self.tagged.get(&id) {
                    on.abandon_consumer(&name("tag"), *consumer);
                    // An open that was not confirmed is not awaited any more either.
                    self.waiting.remove(request);
                }
                return;
            }
            _ => on.close(ReplyCode::SUCCESS, "").unwrap(),
        };
        self.made(request, Some(id));
    }

    /// The server reads.
    fn read(&mut self) {
        for sent in self.client.sent() {
            let What::Method(method) = sent.what else {
                panic!("{sent:?}");
            };
            let number = sent.channel;
            if self.closing.contains(&number) {
                match method {
                    Method::ChannelCloseOk(_) => {
                        self.closing.remove(&number);
                    }
                    Method::ChannelClose(_) => self.client.send(number, &channel::CloseOk),
                    _ => {}
                }
            } else if !matches!(method, Method::BasicNack(_)) {
                self.received.push((number, method));
            }
        }
    }

    fn reply(&mut self, index: Index) {
        if self.received.is_empty() {
            return;
        }
        // Those of a kind are answered in order, and those that concern a consumer are.
        let (number, method) = index.get(&self.received).clone();
        let kind = |method: &Method| match method {
            Method::BasicConsume(consume) => ("", consume.consumer_tag.clone()),
            Method::BasicCancel(cancel) => ("", cancel.consumer_tag.clone()),
            method => (method.name(), ShortStr::default()),
        };
        let is_alike = |other: &(u16, Method)| other.0 == number && kind(&other.1) == kind(&method);
        let at = self.received.iter().position(is_alike).unwrap();
        let (_, method) = self.received.remove(at);
        match method {
            Method::ChannelOpen(_) => {
                self.open.insert(number);
                self.client.send(number, &channel::OpenOk);
            }
            Method::QueueDeclare(_) => self.client.send(number, &queue::DeclareOk::default()),
            Method::ExchangeBind(_) => self.client.send(number, &exchange::BindOk),
            Method::BasicGet(_) if index.index(2) == 0 => {
                self.client.send(number, &basic::GetEmpty)
            }
            Method::BasicGet(_) => {
                self.deliveries += 1;
                let ok = basic::GetOk::default().delivery_tag(self.deliveries);
                self.client
                    .send_content(number, &ok, &basic::Properties::default(), b"x");
            }
            Method::BasicConsume(consume) => {
                let consumer_tag = consume.consumer_tag;
                self.consumers.insert((number, consumer_tag.clone()));
                self.client.send(number, &basic::ConsumeOk { consumer_tag });
            }
            Method::BasicCancel(cancel) => {
                let consumer_tag = cancel.consumer_tag;
                self.consumers.remove(&(number, consumer_tag.clone()));
                if !cancel.no_wait {
                    self.client.send(number, &basic::CancelOk { consumer_tag });
                }
            }
            Method::ChannelClose(_) => {
                self.forget(number);
                self.client.send(number, &channel::CloseOk);
            }
            Method::ConnectionUpdateSecret(_) => {
                self.client.send(0, &connection::UpdateSecretOk);
            }
            other => panic!("{other:?}"),
        }
    }

    /// The server knows nothing of a channel any more.
    fn forget(&mut self, number: u16) {
        self.open.remove(&number);
        self.received.retain(|(channel, _)| *channel != number);
        self.consumers.retain(|(channel, _)| *channel != number);
    }

    fn step(&mut self, index: Index, step: Step) {
        match step {
            Step::Open => {
                if let Ok((id, request)) = self.client.conn.open_channel() {
                    self.channels.push(id);
                    self.made(request, Some(id));
                }
            }
            Step::UpdateSecret => {
                let request = self.client.conn.update_secret("x".into(), name(""));
                self.made(request.unwrap(), None);
            }
            Step::Abandon(which) => {
                if !self.made.is_empty()
                    && let (request, Some(channel)) = which.get(&self.made)
                {
                    self.client.conn.abandon(*channel, *request);
                    self.waiting.remove(request);
                }
            }
            Step::Read => self.read(),
            Step::Reply(which) => self.reply(which),
            Step::Deliver(which) => {
                let consumers: Vec<_> = self.consumers.iter().cloned().collect();
                if !consumers.is_empty() {
                    let (number, tag) = which.get(&consumers);
                    self.deliveries += 1;
                    self.client.deliver_to(*number, tag, self.deliveries);
                }
            }
            Step::ServerCancel(which) => {
                let consumers: Vec<_> = self.consumers.iter().cloned().collect();
                if !consumers.is_empty() {
                    let consumer = which.get(&consumers);
                    self.consumers.remove(consumer);
                    let cancel = basic::Cancel {
                        consumer_tag: consumer.1.clone(),
                        no_wait: true,
                    };
                    self.client.send(consumer.0, &cancel);
                }
            }
            Step::ServerClose => {
                let open: Vec<_> = self.open.iter().copied().collect();
                if !open.is_empty() {
                    let number = *index.get(&open);
                    self.forget(number);
                    self.closing.insert(number);
                    self.client.send(number, &channel::Close::default());
                }
            }
            Step::Wait(seconds) => {
                self.client.advance(Duration::from_secs(seconds));
            }
            _ => {
                if let Some(id) = self.pick(index) {
                    self.command(id, step);
                }
            }
        }
        let events = self.client.events();
        self.check(events);
    }

    fn check(&mut self, events: Vec<Event>) {
        for event in events {
            let (request, channel) = match event {
                Event::Reply {
                    request, channel, ..
                } => (request, channel),
                Event::Got {
                    request, channel, ..
                } => (request, Some(channel)),
                Event::Failed { request, .. } => {
                    let channel = self.waiting.get(&request).copied();
                    (request, channel.flatten())
                }
                Event::Delivered(_)
                | Event::ConsumerCancelled { .. }
                | Event::ChannelClosed { .. } => continue,
                other => panic!("{other:?}"),
            };
            let waiting = self.waiting.remove(&request);
            assert_eq!(waiting, Some(channel), "{request:?} has no outcome to come");
        }
    }
}

proptest! {
    #![proptest_config(amqp_test_support::cases(128))]

    #[test]
    fn each_request_has_one_outcome(steps in list(any_step(), 0..150), end in 0..3) {
        let mut model = Model::new();
        for (index, step) in steps {
            model.step(index, step);
        }
        prop_assert!(model.client.conn.is_open());
        let client = &mut model.client;
        match end {
            0 => client.conn.handle_eof(client.now),
            1 => client.send(0, &connection::Close::default()),
            _ => {
                client.conn.close(ReplyCode::SUCCESS, "");
                client.advance(Duration::from_secs(10));
            }
        }
        let mut events = client.events();
        prop_assert!(matches!(events.pop(), Some(Event::Closed(_))));
        model.check(events);
        prop_assert!(model.waiting.is_empty(), "{:?}", model.waiting);
        model.client.bytes();
        prop_assert_eq!(model.client.conn.poll_timeout(), None);
    }
}
