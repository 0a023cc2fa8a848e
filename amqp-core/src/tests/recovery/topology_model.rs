//! Random operations, recorded beside the broker: the topology has what the broker has.

use alloc::vec;

use proptest::{collection::vec as list, prelude::*};

use super::*;
use crate::recovery::{Binding, Entity, Queue};

#[derive(Clone, Copy, Debug)]
enum Step {
    DeclareExchange { exchange: u8, auto_delete: bool },
    DeclareQueue { queue: u8, auto_delete: bool },
    DeclareUnnamed,
    BindQueue { queue: u8, exchange: u8, key: u8 },
    BindExchange { destination: u8, source: u8 },
    UnbindQueue { queue: u8, exchange: u8, key: u8 },
    DeleteExchange(u8),
    DeleteQueue(u8),
    Consume { channel: u8, queue: u8 },
    Cancel { channel: u8, tag: u8 },
    CloseChannel(u8),
    Lose,
    Restart,
}

fn any_step() -> impl Strategy<Value = Step> {
    let small = || 0u8..4;
    prop_oneof![
        4 => (small(), any::<bool>()).prop_map(|(exchange, auto_delete)| Step::DeclareExchange { exchange, auto_delete }),
        4 => (small(), any::<bool>()).prop_map(|(queue, auto_delete)| Step::DeclareQueue { queue, auto_delete }),
        1 => Just(Step::DeclareUnnamed),
        8 => (small(), small(), 0u8..2).prop_map(|(queue, exchange, key)| Step::BindQueue { queue, exchange, key }),
        3 => (small(), small()).prop_map(|(destination, source)| Step::BindExchange { destination, source }),
        3 => (small(), small(), 0u8..2).prop_map(|(queue, exchange, key)| Step::UnbindQueue { queue, exchange, key }),
        1 => small().prop_map(Step::DeleteExchange),
        1 => small().prop_map(Step::DeleteQueue),
        5 => (0u8..3, small()).prop_map(|(channel, queue)| Step::Consume { channel, queue }),
        3 => (0u8..3, 0u8..6).prop_map(|(channel, tag)| Step::Cancel { channel, tag }),
        1 => (0u8..3).prop_map(Step::CloseChannel),
        1 => Just(Step::Lose),
        1 => Just(Step::Restart),
    ]
}

fn queue(number: u8) -> String {
    alloc::format!("q{number}")
}

fn exchange(number: u8) -> String {
    alloc::format!("e{number}")
}

/// The host, which keeps to entities that exist: a request that fails is the business of other
/// tests.
struct Model {
    rig: Rig,
    /// The channels of the steps.
    channels: Vec<ChannelId>,
}

impl Model {
    fn new() -> Self {
        let mut rig = Rig::open(Policy::new(1));
        let channels = vec![rig.open_channel(), rig.open_channel(), rig.open_channel()];
        Self { rig, channels }
    }

    fn has_exchange(&self, number: u8) -> bool {
        self.rig
            .broker
            .exchanges
            .contains_key(&name(&exchange(number)))
    }

    fn has_queue(&self, number: u8) -> bool {
        self.rig.broker.queues.contains_key(&name(&queue(number)))
    }

    fn run(&mut self, step: Step) {
        let id = self.channels[0];
        match step {
            Step::DeclareExchange {
                exchange: number,
                auto_delete,
            } if !self.has_exchange(number) => {
                let declare = exchange_named(&exchange(number), "fanout");
                self.rig.call(
                    id,
                    &exchange::Declare {
                        auto_delete,
                        ..declare
                    },
                );
            }
            Step::DeclareQueue {
                queue: number,
                auto_delete,
            } if !self.has_queue(number) => {
                let declare = queue_named(&queue(number));
                self.rig.call(
                    id,
                    &queue::Declare {
                        auto_delete,
                        ..declare
                    },
                );
            }
            Step::DeclareUnnamed => self.rig.call(id, &unnamed()),
            Step::BindQueue {
                queue: of,
                exchange: to,
                key,
            } if self.has_queue(of) && self.has_exchange(to) => {
                let bind = bind(&queue(of), &exchange(to), &alloc::format!("{key}"));
                self.rig.call(id, &bind);
            }
            Step::UnbindQueue {
                queue: of,
                exchange: to,
                key,
            } if self.has_queue(of) && self.has_exchange(to) => {
                self.rig.call(
                    id,
                    &queue::Unbind {
                        queue: name(&queue(of)),
                        exchange: name(&exchange(to)),
                        routing_key: name(&alloc::format!("{key}")),
                        ..queue::Unbind::default()
                    },
                );
            }
            Step::BindExchange {
                destination,
                source,
            } if self.has_exchange(destination) && self.has_exchange(source) => {
                self.rig.call(
                    id,
                    &exchange::Bind {
                        destination: name(&exchange(destination)),
                        source: name(&exchange(source)),
                        ..exchange::Bind::default()
                    },
                );
            }
            Step::DeleteExchange(number) => {
                let exchange = name(&exchange(number));
                self.rig.call(
                    id,
                    &exchange::Delete {
                        exchange,
                        ..exchange::Delete::default()
                    },
                );
            }
            Step::DeleteQueue(number) => {
                let queue = name(&queue(number));
                self.rig.call(
                    id,
                    &queue::Delete {
                        queue,
                        ..queue::Delete::default()
                    },
                );
            }
            Step::Consume { channel, queue: of } if self.has_queue(of) => {
                let id = self.channels[usize::from(channel)];
                self.rig.consume(id, &queue(of));
            }
            Step::Cancel { channel, tag } => {
                let id = self.channels[usize::from(channel)];
                let tag = name(&alloc::format!("ctag-{tag}"));
                if self
                    .rig
                    .broker
                    .consumers
                    .contains_key(&(id.number(), tag.clone()))
                {
                    self.rig.call(
                        id,
                        &basic::Cancel {
                            consumer_tag: tag,
                            no_wait: false,
                        },
                    );
                }
            }
            Step::CloseChannel(channel) => {
                let id = self.channels[usize::from(channel)];
                let code = crate::protocol::ReplyCode::SUCCESS;
                let request = self.rig.pair.client_channel(id).close(code, "").unwrap();
                let close = crate::protocol::channel::Close::default();
                self.rig
                    .recovery
                    .handle_sent(id, Some(request), &close.into());
                self.rig.pump();
                self.rig.events.clear();
                self.channels[usize::from(channel)] = self.rig.open_channel();
            }
            Step::Lose => {
                self.rig.lose();
                self.rig.recover();
                assert_eq!(self.rig.failures(), [""; 0]);
            }
            Step::Restart => {
                self.rig.lose();
                self.rig.broker = Broker::default();
                self.rig.recover();
                assert_eq!(self.rig.failures(), [""; 0]);
            }
            _ => {}
        }
        self.check(step);
    }

    fn check(&self, step: Step) {
        let (topology, broker) = (self.rig.recovery.topology(), &self.rig.broker);
        let queues = topology.queues();
        let queues: Vec<_> = queues.map(|it: &Queue| &it.declare.queue).collect();
        assert_eq!(queues, broker.queues.keys().collect::<Vec<_>>(), "{step:?}");
        let exchanges: Vec<_> = topology.exchanges().map(|it| &it.exchange).collect();
        assert_eq!(
            exchanges,
            broker.exchanges.keys().collect::<Vec<_>>(),
            "{step:?}"
        );
        let bindings: Vec<&Binding> = topology.bindings().collect();
        assert_eq!(
            bindings,
            broker.bindings.iter().collect::<Vec<_>>(),
            "{step:?}"
        );
        for binding in bindings {
            let to = topology.bindings_to(&binding.destination);
            assert!(to.into_iter().any(|it| it == binding));
            if let Entity::Queue(name) = &binding.destination {
                assert!(topology.queue(name).is_some());
            }
        }
        let mut consumers = Vec::new();
        for (number, channel) in topology.channels() {
            for (_, consumer) in channel.consumers() {
                let consume = &consumer.consume;
                let tag = consume.consumer_tag.clone();
                consumers.push(((number, tag), consume.queue.clone()));
            }
        }
        consumers.sort();
        let of_broker: Vec<_> = broker.consumers.clone().into_iter().collect();
        assert_eq!(consumers, of_broker, "{step:?}");
    }
}

proptest! {
    #![proptest_config(amqp_test_support::cases(200))]

    #[test]
    fn the_topology_is_that_of_the_broker(steps in list(any_step(), 1..60)) {
        let mut model = Model::new();
        for step in steps {
            model.run(step);
        }
    }
}
