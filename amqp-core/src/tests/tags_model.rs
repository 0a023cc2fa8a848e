//! Two sides of a channel on which tags are used again and again: each delivery has one owner.
//!
//! The server may be one like RabbitMQ 3.10, where a cancel that leaves before the consume-ok of its
//! consumer has come is the end of the connection.

use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    vec::Vec,
};

use proptest::{collection::vec as list, prelude::*, sample::Index};

use super::script::*;
use crate::{
    ChannelId, ConsumerId, RequestId,
    client::{Connection, Event},
    protocol::{Method, basic},
    wire::ShortStr,
};

const TAGS: [&str; 2] = ["a", "b"];

#[derive(Clone, Copy, Debug)]
enum Step {
    Consume {
        tag: usize,
        no_ack: bool,
    },
    /// A cancel with an answer.
    Cancel(usize),
    CancelNoWait(usize),
    AbandonConsumer(Index),
    AbandonRequest(Index),
    /// The server deals with one method.
    Serve,
    Deliver(Index),
    ServerCancel(Index),
    /// The client reads the oldest method of the server.
    Hear,
}

fn any_step() -> impl Strategy<Value = Step> {
    let index = any::<Index>;
    let tag = 0..TAGS.len();
    prop_oneof![
        6 => (tag.clone(), any::<bool>()).prop_map(|(tag, no_ack)| Step::Consume { tag, no_ack }),
        2 => tag.clone().prop_map(Step::Cancel),
        2 => tag.prop_map(Step::CancelNoWait),
        3 => index().prop_map(Step::AbandonConsumer),
        1 => index().prop_map(Step::AbandonRequest),
        10 => Just(Step::Serve),
        5 => index().prop_map(Step::Deliver),
        1 => index().prop_map(Step::ServerCancel),
        12 => Just(Step::Hear),
    ]
}

/// Something that the server says, with the consumer that it is about.
#[derive(Clone, Debug)]
enum Said {
    ConsumeOk(ShortStr, ConsumerId),
    CancelOk(ShortStr),
    Cancel(ShortStr, ConsumerId),
    Deliver(ShortStr, ConsumerId, u64),
}

/// The application's view of a consumer.
#[derive(Clone, Copy, Debug)]
struct Known {
    tag: usize,
    no_ack: bool,
    request: RequestId,
    /// It was given up, or its cancel asks for no answer: it gets nothing more. One that was given up
    /// before its consume-ok is cancelled when that comes.
    given_up: bool,
    /// A cancel was queued.
    cancelling: bool,
    /// Its consume-ok has come.
    confirmed: bool,
    /// The server's cancel has come.
    ended: bool,
}

struct Model {
    /// The server takes a cancel that leaves before its consume-ok has come.
    early: bool,
    client: Script<Connection>,
    id: ChannelId,
    /// Those that the client has asked for.
    consumers: BTreeMap<ConsumerId, Known>,
    /// Those with a consume that the server has not handled, in order.
    asked: VecDeque<ConsumerId>,
    to_server: VecDeque<Method>,
    to_client: VecDeque<Said>,
    /// The server's consumers.
    serving: BTreeMap<ShortStr, ConsumerId>,
    /// How many messages the queue has.
    ready: usize,
    /// The deliveries that the server counts as unacked.
    unacked: BTreeSet<u64>,
    deliveries: u64,
}

impl Model {
    fn new(early: bool) -> Self {
        let mut client = Script::open();
        let id = client.channel();
        Self {
            early,
            client,
            id,
            consumers: BTreeMap::new(),
            asked: VecDeque::new(),
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            serving: BTreeMap::new(),
            ready: 100,
            unacked: BTreeSet::new(),
            deliveries: 0,
        }
    }

    /// The consumer that has a tag and is not being cancelled.
    fn active(&mut self, tag: usize) -> Option<&mut Known> {
        let mut known = self.consumers.values_mut();
        known.find(|known| known.tag == tag && !known.cancelling && !known.ended)
    }

    /// The application cancels the consumer that has a tag, unless the server would not take it.
    fn cancel(&mut self, tag: usize, no_wait: bool) {
        let early = self.early;
        let active = self.active(tag);
        if active.as_ref().is_some_and(|known| !known.confirmed) && !early {
            return;
        }
        if let Some(known) = active {
            known.cancelling = true;
            known.given_up |= no_wait;
        }
        let cancel = basic::Cancel::default().consumer_tag(TAGS[tag]);
        if no_wait {
            self.client.on(self.id).send(&cancel).unwrap();
        } else {
            self.client.on(self.id).call(&cancel).unwrap();
        }
    }

    /// A cancel leaves the client.
    fn check_cancel(&self, cancel: &basic::Cancel) {
        let mut newest_first = self.consumers.values().rev();
        let known = newest_first.find(|known| cancel.consumer_tag == TAGS[known.tag]);
        let confirmed = known.is_none_or(|known| known.confirmed);
        assert!(confirmed || self.early, "541: it is not confirmed");
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Consume { tag, no_ack } => {
                let wanted = consume("q", TAGS[tag]).no_ack(no_ack);
                let taken = self.client.on(self.id).consume(wanted);
                // It is refused for no other reason than another one that is active.
                assert_eq!(taken.is_err(), self.active(tag).is_some());
                if let Ok((consumer, _, request)) = taken {
                    let known = Known {
                        tag,
                        no_ack,
                        request,
                        given_up: false,
                        cancelling: false,
                        confirmed: false,
                        ended: false,
                    };
                    assert!(self.consumers.insert(consumer, known).is_none());
                    self.asked.push_back(consumer);
                }
            }
            Step::Cancel(tag) => self.cancel(tag, false),
            Step::CancelNoWait(tag) => self.cancel(tag, true),
            Step::AbandonConsumer(which) => {
                if let Some(consumer) = self.pick(which) {
                    let known = self.consumers.get_mut(&consumer).unwrap();
                    let tag = name(TAGS[known.tag]);
                    known.given_up = true;
                    known.cancelling |= known.confirmed;
                    self.client.on(self.id).abandon_consumer(&tag, consumer);
                }
            }
            Step::AbandonRequest(which) => {
                if let Some(consumer) = self.pick(which) {
                    let known = self.consumers.get_mut(&consumer).unwrap();
                    known.given_up |= !known.confirmed;
                    let request = known.request;
                    self.client.conn.abandon(self.id, request);
                }
            }
            Step::Serve => self.serve(),
            Step::Deliver(which) => {
                let serving: Vec<_> = self.serving.clone().into_iter().collect();
                if !serving.is_empty() && self.ready > 0 {
                    let (tag, consumer) = which.get(&serving).clone();
                    self.deliveries += 1;
                    self.ready -= 1;
                    if !self.consumers[&consumer].no_ack {
                        self.unacked.insert(self.deliveries);
                    }
                    self.to_client
                        .push_back(Said::Deliver(tag, consumer, self.deliveries));
                }
            }
            Step::ServerCancel(which) => {
                let serving: Vec<_> = self.serving.keys().cloned().collect();
                if !serving.is_empty() {
                    let tag = which.get(&serving).clone();
                    let consumer = self.serving.remove(&tag).unwrap();
                    self.to_client.push_back(Said::Cancel(tag, consumer));
                }
            }
            Step::Hear => self.hear(),
        }
        for sent in self.client.sent() {
            let What::Method(method) = sent.what else {
                panic!("{sent:?}");
            };
            if let Method::BasicCancel(cancel) = &method {
                self.check_cancel(cancel);
            }
            self.to_server.push_back(method);
        }
    }

    fn pick(&self, which: Index) -> Option<ConsumerId> {
        let all: Vec<_> = self.consumers.keys().rev().take(4).copied().collect();
        (!all.is_empty()).then(|| *which.get(&all))
    }

    fn serve(&mut self) {
        match self.to_server.pop_front() {
            None => {}
            Some(Method::BasicConsume(consume)) => {
                let tag = consume.consumer_tag;
                let consumer = self.asked.pop_front().unwrap();
                let before = self.serving.insert(tag.clone(), consumer);
                assert_eq!(before, None, "530: the tag is in use");
                self.to_client.push_back(Said::ConsumeOk(tag, consumer));
            }
            Some(Method::BasicCancel(cancel)) => {
                self.serving.remove(&cancel.consumer_tag);
                if !cancel.no_wait {
                    self.to_client
                        .push_back(Said::CancelOk(cancel.consumer_tag));
                }
            }
            Some(Method::BasicNack(nack)) => {
                let unacked = self.unacked.remove(&nack.delivery_tag);
                assert!(unacked, "406: unknown delivery tag");
                assert!(nack.requeue && !nack.multiple);
                self.ready += 1;
            }
            Some(other) => panic!("{other:?}"),
        }
    }

    fn hear(&mut self) {
        let Some(said) = self.to_client.pop_front() else {
            return;
        };
        match said.clone() {
            Said::ConsumeOk(consumer_tag, consumer) => {
                let known = self.consumers.get_mut(&consumer).unwrap();
                known.confirmed = true;
                known.cancelling |= known.given_up;
                self.client.send(1, &basic::ConsumeOk { consumer_tag });
            }
            Said::CancelOk(consumer_tag) => {
                self.client.send(1, &basic::CancelOk { consumer_tag });
            }
            Said::Cancel(consumer_tag, _) => {
                let no_wait = true;
                let cancel = basic::Cancel {
                    consumer_tag,
                    no_wait,
                };
                self.client.send(1, &cancel);
            }
            Said::Deliver(tag, _, number) => self.client.deliver(self.id, &tag, number),
        }
        let events = self.client.events();
        match (said, &events[..]) {
            (Said::ConsumeOk(..) | Said::CancelOk(_), [] | [Event::Reply { .. }]) => {}
            (Said::Cancel(_, consumer), events) => {
                let known = self.consumers.get_mut(&consumer).unwrap();
                known.ended = true;
                let reported = match events {
                    [] => None,
                    [Event::ConsumerCancelled { consumer, .. }] => Some(*consumer),
                    other => panic!("{other:?}"),
                };
                assert_eq!(reported, (!known.given_up).then_some(consumer));
            }
            (Said::Deliver(_, consumer, number), events) => {
                let known = self.consumers[&consumer];
                match events {
                    [Event::Delivered(delivery)] => {
                        assert_eq!(delivery.consumer, consumer, "it is another one's");
                        assert!(!known.given_up);
                        assert_eq!(delivery.tag, (!known.no_ack).then(|| tag(number)));
                    }
                    [] => {
                        assert!(known.given_up, "it has an owner");
                        let put_back = self.client.sent();
                        assert_eq!(put_back.is_empty(), known.no_ack);
                        for sent in put_back {
                            let What::Method(method) = sent.what else {
                                panic!("{sent:?}");
                            };
                            self.to_server.push_back(method);
                        }
                    }
                    other => panic!("{other:?}"),
                }
            }
            (said, events) => panic!("{said:?} gives {events:?}"),
        }
    }
}

proptest! {
    #![proptest_config(amqp_test_support::cases(512))]

    #[test]
    fn each_delivery_has_one_owner_however_tags_are_used_again(
        steps in list(any_step(), 0..120),
        early: bool,
    ) {
        let mut model = Model::new(early);
        for step in steps {
            model.step(step);
        }
        // It all comes to rest: nothing is put back and delivered in a circle.
        let mut turns = 0;
        while !(model.to_server.is_empty() && model.to_client.is_empty()) && turns < 2000 {
            model.step(Step::Serve);
            model.step(Step::Hear);
            turns += 1;
        }
        prop_assert!(model.to_server.is_empty() && model.to_client.is_empty());
        // Both sides know the same consumers, and these get their deliveries.
        for (at, tag) in TAGS.into_iter().enumerate() {
            let has = model.client.on(model.id).has_consumer(&name(tag));
            prop_assert_eq!(has, model.active(at).is_some());
            prop_assert_eq!(has, model.serving.contains_key(&name(tag)));
        }
        let number = model.deliveries + 1;
        for (number, (tag, consumer)) in (number..).zip(model.serving.clone()) {
            model.to_client.push_back(Said::Deliver(tag, consumer, number));
            model.hear();
        }
    }
}
