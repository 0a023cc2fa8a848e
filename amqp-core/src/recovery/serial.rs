//! The topology with serde, feature `serde`: lists of its parts.

use alloc::vec::Vec;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Binding, Channel, ChannelMode, Entity, Topology};
use crate::{
    ids::ConsumerId,
    protocol::{basic, exchange, queue},
    wire::{FieldTable, ShortStr},
};

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct TopologyForm {
    exchanges: Vec<ExchangeForm>,
    queues: Vec<QueueForm>,
    bindings: Vec<BindingForm>,
    channels: Vec<ChannelForm>,
}

#[derive(Serialize, Deserialize)]
struct ExchangeForm {
    name: ShortStr,
    kind: ShortStr,
    #[serde(default)]
    durable: bool,
    #[serde(default)]
    auto_delete: bool,
    #[serde(default)]
    internal: bool,
    #[serde(default)]
    arguments: FieldTable,
}

#[derive(Serialize, Deserialize)]
struct QueueForm {
    name: ShortStr,
    #[serde(default)]
    server_named: bool,
    #[serde(default)]
    durable: bool,
    #[serde(default)]
    exclusive: bool,
    #[serde(default)]
    auto_delete: bool,
    #[serde(default)]
    arguments: FieldTable,
}

#[derive(Serialize, Deserialize)]
struct BindingForm {
    source: ShortStr,
    destination: EntityForm,
    #[serde(default)]
    routing_key: ShortStr,
    #[serde(default)]
    arguments: FieldTable,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum EntityForm {
    Queue(ShortStr),
    Exchange(ShortStr),
}

#[derive(Serialize, Deserialize)]
struct ChannelForm {
    number: u16,
    #[serde(default)]
    qos: Option<QosForm>,
    #[serde(default)]
    global_qos: Option<QosForm>,
    #[serde(default)]
    mode: ModeForm,
    #[serde(default)]
    consumers: Vec<ConsumerForm>,
    #[serde(default)]
    last_queue: ShortStr,
}

#[derive(Serialize, Deserialize)]
struct QosForm {
    #[serde(default)]
    size: u32,
    count: u16,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ModeForm {
    #[default]
    Plain,
    Confirm,
    Transaction,
}

#[derive(Serialize, Deserialize)]
struct ConsumerForm {
    number: u32,
    queue: ShortStr,
    tag: ShortStr,
    #[serde(default)]
    no_local: bool,
    #[serde(default)]
    no_ack: bool,
    #[serde(default)]
    exclusive: bool,
    #[serde(default)]
    arguments: FieldTable,
    #[serde(default)]
    qos: Option<QosForm>,
}

impl Serialize for Topology {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        TopologyForm::of(self).serialize(serializer)
    }
}

/// The parts are added one by one, by the rules of the type.
impl<'de> Deserialize<'de> for Topology {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        TopologyForm::deserialize(deserializer).map(TopologyForm::into_topology)
    }
}

impl TopologyForm {
    fn of(topology: &Topology) -> Self {
        let exchanges = topology.exchanges().map(|it| ExchangeForm {
            name: it.exchange.clone(),
            kind: it.kind.clone(),
            durable: it.durable,
            auto_delete: it.auto_delete,
            internal: it.internal,
            arguments: it.arguments.clone(),
        });
        let queues = topology.queues().map(|it| QueueForm {
            name: it.declare.queue.clone(),
            server_named: it.server_named,
            durable: it.declare.durable,
            exclusive: it.declare.exclusive,
            auto_delete: it.declare.auto_delete,
            arguments: it.declare.arguments.clone(),
        });
        let bindings = topology.bindings().map(|it| BindingForm {
            source: it.source.clone(),
            destination: match &it.destination {
                Entity::Queue(name) => EntityForm::Queue(name.clone()),
                Entity::Exchange(name) => EntityForm::Exchange(name.clone()),
            },
            routing_key: it.routing_key.clone(),
            arguments: it.arguments.clone(),
        });
        let channels = topology.channels();
        Self {
            exchanges: exchanges.collect(),
            queues: queues.collect(),
            bindings: bindings.collect(),
            channels: channels
                .map(|(number, channel)| ChannelForm::of(number, channel))
                .collect(),
        }
    }

    fn into_topology(self) -> Topology {
        let mut topology = Topology::default();
        for it in self.exchanges {
            topology.declare_exchange(exchange::Declare {
                exchange: it.name,
                kind: it.kind,
                passive: false,
                durable: it.durable,
                auto_delete: it.auto_delete,
                internal: it.internal,
                no_wait: false,
                arguments: it.arguments,
            });
        }
        for it in self.queues {
            let declare = queue::Declare {
                queue: it.name.clone(),
                passive: false,
                durable: it.durable,
                exclusive: it.exclusive,
                auto_delete: it.auto_delete,
                no_wait: false,
                arguments: it.arguments,
            };
            if it.server_named {
                topology.declare_server_named(declare, it.name);
            } else {
                topology.declare_queue(declare);
            }
        }
        for it in self.bindings {
            topology.bind(Binding {
                source: it.source,
                destination: match it.destination {
                    EntityForm::Queue(name) => Entity::Queue(name),
                    EntityForm::Exchange(name) => Entity::Exchange(name),
                },
                routing_key: it.routing_key,
                arguments: it.arguments,
            });
        }
        for channel in self.channels {
            channel.add_to(&mut topology);
        }
        topology
    }
}

impl ChannelForm {
    fn of(number: u16, channel: &Channel) -> Self {
        let consumers = channel.consumers().map(|(id, it)| ConsumerForm {
            number: id.0,
            queue: it.consume.queue.clone(),
            tag: it.consume.consumer_tag.clone(),
            no_local: it.consume.no_local,
            no_ack: it.consume.no_ack,
            exclusive: it.consume.exclusive,
            arguments: it.consume.arguments.clone(),
            qos: it.qos.as_ref().map(QosForm::of),
        });
        Self {
            number,
            qos: channel.qos.as_ref().map(QosForm::of),
            global_qos: channel.global_qos.as_ref().map(QosForm::of),
            mode: match channel.mode {
                ChannelMode::Plain => ModeForm::Plain,
                ChannelMode::Confirm => ModeForm::Confirm,
                ChannelMode::Transaction => ModeForm::Transaction,
            },
            consumers: consumers.collect(),
            last_queue: channel.last_queue.clone(),
        }
    }

    fn add_to(self, topology: &mut Topology) {
        let number = self.number;
        topology.open_channel(number);
        for it in self.consumers {
            if let Some(channel) = topology.channel_mut(number) {
                channel.qos = it.qos.map(|it| it.into_qos(false));
            }
            let consume = basic::Consume {
                queue: it.queue,
                consumer_tag: it.tag,
                no_local: it.no_local,
                no_ack: it.no_ack,
                exclusive: it.exclusive,
                no_wait: false,
                arguments: it.arguments,
            };
            topology.consume(number, ConsumerId(it.number), consume);
        }
        if let Some(channel) = topology.channel_mut(number) {
            channel.qos = self.qos.map(|it| it.into_qos(false));
            channel.global_qos = self.global_qos.map(|it| it.into_qos(true));
            channel.mode = match self.mode {
                ModeForm::Plain => ChannelMode::Plain,
                ModeForm::Confirm => ChannelMode::Confirm,
                ModeForm::Transaction => ChannelMode::Transaction,
            };
            channel.last_queue = self.last_queue;
        }
    }
}

impl QosForm {
    const fn of(qos: &basic::Qos) -> Self {
        Self {
            size: qos.prefetch_size,
            count: qos.prefetch_count,
        }
    }

    const fn into_qos(self, global: bool) -> basic::Qos {
        basic::Qos {
            prefetch_size: self.size,
            prefetch_count: self.count,
            global,
        }
    }
}
