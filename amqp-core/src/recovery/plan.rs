//! The plan of a recovery: its steps, computed from the topology.

use alloc::{
    collections::{BTreeSet, VecDeque},
    vec::Vec,
};
use core::fmt;

use super::{Binding, ChannelMode, Entity, Mode, Topology, channel::Channel};
use crate::{
    ids::ConsumerId,
    method::MethodDef as _,
    method_id::MethodId,
    protocol::{basic, channel as channel_class, confirm, exchange, queue, tx},
    text::Quoted,
};

/// The steps that restore a topology, in order.
///
/// First the entities, on a channel of their own: exchanges, queues, bindings of exchanges, bindings
/// of queues. Then each channel: it is reopened, gets its prefetch and its mode, and its consumers
/// in the order in which they were started first.
///
/// The display has a line for each step.
///
/// ```
/// use amqp_core::{protocol::queue, recovery::{Mode, Plan, Topology}};
///
/// let mut topology = Topology::default();
/// topology.declare_queue(queue::Declare::default().queue("jobs"));
/// let plan = Plan::new(&topology, Mode::Everything);
/// assert_eq!(plan.to_string(), "open a channel for the entities\n\
///     declare queue \"jobs\" (durable)\n\
///     close the channel of the entities\n");
/// assert!(Plan::new(&topology, Mode::ConsumersOnly).steps.is_empty());
/// # Ok::<_, amqp_core::wire::ShortStrError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Plan {
    /// The steps.
    pub steps: Vec<PlanStep>,
}

/// A step of a [`Plan`]. It has the names of the topology; a queue that the server names gets a new
/// one when the step is done.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum PlanStep {
    /// Opens the channel on which the entities are declared.
    OpenChannel,
    /// Declares an exchange.
    DeclareExchange(exchange::Declare),
    /// Declares a queue.
    DeclareQueue {
        /// The declaration, with the name of the queue.
        declare: queue::Declare,
        /// Whether it is sent without the name: the server generates a new one.
        server_named: bool,
    },
    /// Binds a queue or an exchange.
    Bind(Binding),
    /// Closes the channel on which the entities were declared.
    CloseChannel,
    /// Opens a channel again.
    ReopenChannel {
        /// The number of the channel.
        channel: u16,
    },
    /// Sets the prefetch of a channel.
    SetQos {
        /// The number of the channel.
        channel: u16,
        /// The prefetch.
        qos: basic::Qos,
    },
    /// Puts a channel into its mode.
    SetMode {
        /// The number of the channel.
        channel: u16,
        /// The mode.
        mode: ChannelMode,
    },
    /// Starts a consumer again.
    Consume {
        /// The number of the channel.
        channel: u16,
        /// The consumer.
        consumer: ConsumerId,
        /// The consume, with its tag.
        consume: basic::Consume,
    },
}

impl Plan {
    /// Computes the plan for a topology.
    #[must_use]
    pub fn new(topology: &Topology, mode: Mode) -> Self {
        let mut plan = Self::default();
        if mode >= Mode::TransientOnly {
            plan.add_entities(topology, mode);
        }
        if mode > Mode::Nothing {
            for (number, channel) in topology.channels() {
                plan.add_channel(number, channel, mode);
            }
        }
        plan
    }

    /// Computes the plan for a channel that the server has closed: the channel, and the auto-delete
    /// entities that may have gone with its consumers. All others of the topology run.
    #[must_use]
    pub fn for_channel(topology: &Topology, mode: Mode, number: u16) -> Self {
        Self::for_channel_beside(topology, mode, number, |of, _| of != number)
    }

    /// As [`for_channel`](Self::for_channel), with the other consumers of the connection that run, by
    /// the numbers of their channels: their queues are there.
    pub(super) fn for_channel_beside(
        topology: &Topology,
        mode: Mode,
        number: u16,
        runs: impl Fn(u16, ConsumerId) -> bool,
    ) -> Self {
        let mut plan = Self::default();
        let Some(channel) = topology.channel(number) else {
            return plan;
        };
        if mode >= Mode::TransientOnly {
            plan.add_entities(&auto_deleted(topology, channel, runs), mode);
        }
        if mode > Mode::Nothing {
            plan.add_channel(number, channel, mode);
        }
        plan
    }

    fn add_entities(&mut self, topology: &Topology, mode: Mode) {
        let everything = mode == Mode::Everything;
        let exchanges = topology
            .exchanges()
            .filter(|it| everything || it.auto_delete || !it.durable)
            .map(|it| PlanStep::DeclareExchange(it.clone()));
        let declare_queue = |server_named: bool| {
            topology
                .queues()
                .filter(move |it| it.server_named == server_named)
                .filter(move |it| everything || it.is_transient())
                .map(|it| PlanStep::DeclareQueue {
                    declare: it.declare.clone(),
                    server_named: it.server_named,
                })
        };
        let bind = |exchanges: bool| {
            topology
                .bindings()
                .filter(move |it| matches!(it.destination, Entity::Exchange(_)) == exchanges)
                .filter(move |it| everything || topology.is_transient(it))
                .map(|it| PlanStep::Bind(it.clone()))
        };
        // The replies with the new names are under way while the other queues are declared.
        let entities: Vec<_> = exchanges
            .chain(declare_queue(true))
            .chain(declare_queue(false))
            .chain(bind(true))
            .chain(bind(false))
            .collect();
        if !entities.is_empty() {
            self.steps.push(PlanStep::OpenChannel);
            self.steps.extend(entities);
            self.steps.push(PlanStep::CloseChannel);
        }
    }

    fn add_channel(&mut self, number: u16, channel: &Channel, mode: Mode) {
        self.steps.push(PlanStep::ReopenChannel { channel: number });
        if let Some(qos) = &channel.global_qos {
            self.add_qos(number, qos);
        }
        if channel.mode != ChannelMode::Plain {
            self.steps.push(PlanStep::SetMode {
                channel: number,
                mode: channel.mode,
            });
        }
        let mut set = &None;
        if mode >= Mode::ConsumersOnly {
            for (id, consumer) in channel.consumers() {
                if let Some(qos) = &consumer.qos
                    && consumer.qos != *set
                {
                    self.add_qos(number, qos);
                    set = &consumer.qos;
                }
                self.steps.push(PlanStep::Consume {
                    channel: number,
                    consumer: id,
                    consume: consumer.consume.clone(),
                });
            }
        }
        if let Some(qos) = &channel.qos
            && channel.qos != *set
        {
            self.add_qos(number, qos);
        }
    }

    fn add_qos(&mut self, number: u16, qos: &basic::Qos) {
        self.steps.push(PlanStep::SetQos {
            channel: number,
            qos: qos.clone(),
        });
    }
}

/// The part of a topology that goes with the consumers of a channel: the auto-delete queues that have
/// no other one that runs, the bindings of these, and the auto-delete exchanges that are bound for
/// them.
fn auto_deleted(
    topology: &Topology,
    channel: &Channel,
    runs: impl Fn(u16, ConsumerId) -> bool,
) -> Topology {
    let mut part = Topology::default();
    let mut sources = VecDeque::new();
    for (_, consumer) in channel.consumers() {
        let Some(queue) = topology.queue(&consumer.consume.queue) else {
            continue;
        };
        let name = &queue.declare.queue;
        if !queue.declare.auto_delete
            || part.queue(name).is_some()
            || topology.consumers_of(name).any(|(of, id)| runs(of, id))
        {
            continue;
        }
        if queue.server_named {
            part.declare_server_named(queue.declare.clone(), name.clone());
        } else {
            part.declare_queue(queue.declare.clone());
        }
        for binding in topology.bindings_to(&Entity::Queue(name.clone())) {
            sources.push_back(binding.source.clone());
            part.bind(binding.clone());
        }
    }
    let mut seen = BTreeSet::new();
    while let Some(source) = sources.pop_front() {
        let Some(exchange) = topology.exchange(&source).filter(|it| it.auto_delete) else {
            continue;
        };
        if seen.insert(source.clone()) {
            part.declare_exchange(exchange.clone());
            for binding in topology.bindings_to(&Entity::Exchange(source)) {
                sources.push_back(binding.source.clone());
                part.bind(binding.clone());
            }
        }
    }
    part
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}

impl fmt::Display for PlanStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OpenChannel => f.write_str("open a channel for the entities"),
            Self::DeclareExchange(it) => {
                let (name, kind) = (Quoted(&it.exchange), it.kind.as_str());
                write!(f, "declare exchange {name} ({kind}")?;
                let flags = [
                    (it.durable, "durable"),
                    (it.auto_delete, "auto-delete"),
                    (it.internal, "internal"),
                ];
                write_flags(f, flags.into_iter(), ", ")?;
                f.write_str(")")
            }
            Self::DeclareQueue {
                declare: it,
                server_named,
            } => {
                write!(f, "declare queue {}", Quoted(&it.queue))?;
                let flags = [
                    (*server_named, "under a new name"),
                    (it.durable, "durable"),
                    (it.exclusive, "exclusive"),
                    (it.auto_delete, "auto-delete"),
                ];
                if flags.iter().any(|(set, _)| *set) {
                    f.write_str(" (")?;
                    write_flags(f, flags.into_iter(), "")?;
                    f.write_str(")")?;
                }
                Ok(())
            }
            Self::Bind(binding) => write!(f, "bind {binding}"),
            Self::CloseChannel => f.write_str("close the channel of the entities"),
            Self::ReopenChannel { channel } => write!(f, "channel {channel}: reopen"),
            Self::SetQos { channel, qos } => {
                let scope = if qos.global { "channel" } else { "consumer" };
                let count = qos.prefetch_count;
                write!(f, "channel {channel}: prefetch {count} per {scope}")
            }
            Self::SetMode { channel, mode } => match mode {
                ChannelMode::Plain => write!(f, "channel {channel}: plain mode"),
                ChannelMode::Confirm => write!(f, "channel {channel}: confirm mode"),
                ChannelMode::Transaction => write!(f, "channel {channel}: transactions"),
            },
            Self::Consume {
                channel, consume, ..
            } => {
                let (queue, tag) = (Quoted(&consume.queue), Quoted(&consume.consumer_tag));
                write!(f, "channel {channel}: consume queue {queue} as {tag}")
            }
        }
    }
}

/// Writes the names of the flags that are set. The first one follows `before`.
fn write_flags<'a>(
    f: &mut fmt::Formatter<'_>,
    flags: impl Iterator<Item = (bool, &'a str)>,
    mut before: &'a str,
) -> fmt::Result {
    for (_, name) in flags.filter(|(set, _)| *set) {
        write!(f, "{before}{name}")?;
        before = ", ";
    }
    Ok(())
}

impl PlanStep {
    /// The entity that the step declares.
    pub(super) fn declares(&self) -> Option<Entity> {
        match self {
            Self::DeclareExchange(it) => Some(Entity::Exchange(it.exchange.clone())),
            Self::DeclareQueue { declare, .. } => Some(Entity::Queue(declare.queue.clone())),
            Self::OpenChannel
            | Self::Bind(_)
            | Self::CloseChannel
            | Self::ReopenChannel { .. }
            | Self::SetQos { .. }
            | Self::SetMode { .. }
            | Self::Consume { .. } => None,
        }
    }

    /// The entities that the step needs.
    pub(super) fn needs(&self) -> [Option<Entity>; 2] {
        match self {
            Self::Bind(binding) => [
                Some(binding.destination.clone()),
                Some(Entity::Exchange(binding.source.clone())),
            ],
            Self::Consume { consume, .. } => [Some(Entity::Queue(consume.queue.clone())), None],
            Self::OpenChannel
            | Self::DeclareExchange(_)
            | Self::DeclareQueue { .. }
            | Self::CloseChannel
            | Self::ReopenChannel { .. }
            | Self::SetQos { .. }
            | Self::SetMode { .. } => [None, None],
        }
    }

    /// The method that carries out the step.
    pub(super) const fn method(&self) -> MethodId {
        match self {
            Self::OpenChannel | Self::ReopenChannel { .. } => channel_class::Open::ID,
            Self::DeclareExchange(_) => exchange::Declare::ID,
            Self::DeclareQueue { .. } => queue::Declare::ID,
            Self::Bind(Binding {
                destination: Entity::Queue(_),
                ..
            }) => queue::Bind::ID,
            Self::Bind(Binding {
                destination: Entity::Exchange(_),
                ..
            }) => exchange::Bind::ID,
            Self::CloseChannel => channel_class::Close::ID,
            Self::SetQos { .. } => basic::Qos::ID,
            Self::SetMode {
                mode: ChannelMode::Transaction,
                ..
            } => tx::Select::ID,
            Self::SetMode { .. } => confirm::Select::ID,
            Self::Consume { .. } => basic::Consume::ID,
        }
    }

    /// The number of the channel of the step. `None` for one on the channel of the entities.
    pub(super) const fn channel(&self) -> Option<u16> {
        match self {
            Self::ReopenChannel { channel }
            | Self::SetQos { channel, .. }
            | Self::SetMode { channel, .. }
            | Self::Consume { channel, .. } => Some(*channel),
            Self::OpenChannel
            | Self::DeclareExchange(_)
            | Self::DeclareQueue { .. }
            | Self::Bind(_)
            | Self::CloseChannel => None,
        }
    }
}
