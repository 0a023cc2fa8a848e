//! The recording of a topology, from the methods of a connection and their replies.

use alloc::collections::{BTreeMap, VecDeque};

use super::{Binding, ChannelMode, Entity, Topology};
use crate::{
    ids::{ChannelId, ConsumerId, RequestId},
    protocol::{Method, basic, exchange, queue},
    wire::ShortStr,
};

/// The requests that change the topology and await their reply.
///
/// The server handles the requests of a channel in order (section 4.7 of the specification), so they
/// are recorded in order: one without a reply waits for those before it, and a reply is proof that
/// no other will come for those before it.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    channels: BTreeMap<u16, VecDeque<Pending>>,
}

#[derive(Debug)]
struct Pending {
    /// `Some` if a reply is awaited.
    request: Option<RequestId>,
    edit: Edit,
}

/// A change of the topology.
#[derive(Debug)]
enum Edit {
    DeclareExchange(exchange::Declare),
    DeleteExchange(ShortStr),
    DeclareQueue(queue::Declare),
    DeleteQueue(ShortStr),
    Bind(Binding),
    Unbind(Binding),
    SetQos(basic::Qos),
    SetMode(ChannelMode),
    Consume(ConsumerId, basic::Consume),
    Cancel(ShortStr),
}

impl Edit {
    fn new(method: &Method) -> Option<Self> {
        Some(match method {
            Method::ExchangeDeclare(it) => Self::DeclareExchange(it.clone()),
            Method::ExchangeDelete(it) => Self::DeleteExchange(it.exchange.clone()),
            Method::ExchangeBind(it) => Self::Bind(Binding {
                source: it.source.clone(),
                destination: Entity::Exchange(it.destination.clone()),
                routing_key: it.routing_key.clone(),
                arguments: it.arguments.clone(),
            }),
            Method::ExchangeUnbind(it) => Self::Unbind(Binding {
                source: it.source.clone(),
                destination: Entity::Exchange(it.destination.clone()),
                routing_key: it.routing_key.clone(),
                arguments: it.arguments.clone(),
            }),
            Method::QueueDeclare(it) => Self::DeclareQueue(it.clone()),
            Method::QueueDelete(it) => Self::DeleteQueue(it.queue.clone()),
            Method::QueueBind(it) => Self::Bind(Binding {
                source: it.exchange.clone(),
                destination: Entity::Queue(it.queue.clone()),
                routing_key: it.routing_key.clone(),
                arguments: it.arguments.clone(),
            }),
            Method::QueueUnbind(it) => Self::Unbind(Binding {
                source: it.exchange.clone(),
                destination: Entity::Queue(it.queue.clone()),
                routing_key: it.routing_key.clone(),
                arguments: it.arguments.clone(),
            }),
            Method::BasicQos(it) => Self::SetQos(it.clone()),
            Method::ConfirmSelect(_) => Self::SetMode(ChannelMode::Confirm),
            Method::TxSelect(_) => Self::SetMode(ChannelMode::Transaction),
            Method::BasicCancel(it) => Self::Cancel(it.consumer_tag.clone()),
            _ => return None,
        })
    }

    /// Whether it removes something. A removal without its reply counts as done: a deleted entity
    /// does not come back.
    const fn removes(&self) -> bool {
        match self {
            Self::DeleteExchange(_) | Self::DeleteQueue(_) | Self::Unbind(_) | Self::Cancel(_) => {
                true
            }
            Self::DeclareExchange(_)
            | Self::DeclareQueue(_)
            | Self::Bind(_)
            | Self::SetQos(_)
            | Self::SetMode(_)
            | Self::Consume(..) => false,
        }
    }
}

impl Recorder {
    /// Notes a method that was sent, with its request if it has a reply.
    pub(super) fn sent(
        &mut self,
        topology: &mut Topology,
        channel: ChannelId,
        request: Option<RequestId>,
        method: &Method,
    ) {
        if let Some(edit) = Edit::new(method) {
            self.push(topology, channel.number(), Pending { request, edit });
        }
    }

    /// Notes a consume that was sent.
    pub(super) fn consume_sent(
        &mut self,
        topology: &mut Topology,
        channel: ChannelId,
        consumer: ConsumerId,
        request: RequestId,
        consume: &basic::Consume,
    ) {
        let pending = Pending {
            request: Some(request),
            edit: Edit::Consume(consumer, consume.clone()),
        };
        self.push(topology, channel.number(), pending);
    }

    fn push(&mut self, topology: &mut Topology, number: u16, pending: Pending) {
        let line = self.channels.entry(number).or_default();
        if line.is_empty() && pending.request.is_none() {
            apply(topology, number, pending.edit, None);
        } else {
            line.push_back(pending);
        }
    }

    /// Records a request at the arrival of its reply.
    pub(super) fn replied(
        &mut self,
        topology: &mut Topology,
        channel: ChannelId,
        request: RequestId,
        reply: &Method,
    ) {
        let number = channel.number();
        let Some(line) = self.channels.get_mut(&number) else {
            return;
        };
        let awaited = line.iter().any(|it| it.request == Some(request));
        while awaited && let Some(pending) = line.pop_front() {
            let found = pending.request == Some(request);
            if found || pending.request.is_none() || pending.edit.removes() {
                let reply = found.then_some(reply);
                apply(topology, number, pending.edit, reply);
            }
            if found {
                break;
            }
        }
        apply_unanswered(topology, number, line);
    }

    /// Handles the end of a request without a reply. A removal counts as done, anything else as not
    /// done.
    pub(super) fn abandoned(&mut self, topology: &mut Topology, request: RequestId) {
        for (&number, line) in &mut self.channels {
            let Some(at) = line.iter().position(|it| it.request == Some(request)) else {
                continue;
            };
            if let Some(pending) = line.remove(at).filter(|it| it.edit.removes()) {
                apply(topology, number, pending.edit, None);
            }
            apply_unanswered(topology, number, line);
            return;
        }
    }

    /// Forgets the requests of a channel that has ended.
    pub(super) fn channel_ended(&mut self, number: u16) {
        self.channels.remove(&number);
    }

    /// Handles the end of the connection: removals count as done, anything else as not done.
    pub(super) fn lost(&mut self, topology: &mut Topology) {
        for (number, line) in core::mem::take(&mut self.channels) {
            for pending in line.into_iter().filter(|it| it.edit.removes()) {
                apply(topology, number, pending.edit, None);
            }
        }
    }
}

/// Records the requests without a reply that wait for none.
fn apply_unanswered(topology: &mut Topology, number: u16, line: &mut VecDeque<Pending>) {
    while line.front().is_some_and(|it| it.request.is_none())
        && let Some(pending) = line.pop_front()
    {
        apply(topology, number, pending.edit, None);
    }
}

/// Changes the topology. An empty name of a queue stands for the one that was declared last on the
/// channel.
fn apply(topology: &mut Topology, number: u16, edit: Edit, reply: Option<&Method>) {
    let channel = topology.channel(number);
    let last = channel.map_or_else(ShortStr::default, |it| it.last_queue.clone());
    let resolve = |name: ShortStr| if name.is_empty() { last.clone() } else { name };
    match edit {
        Edit::DeclareExchange(declare) => topology.declare_exchange(declare),
        Edit::DeleteExchange(name) => topology.delete_exchange(&name),
        Edit::DeclareQueue(declare) => {
            let name = match reply {
                Some(Method::QueueDeclareOk(ok)) => ok.queue.clone(),
                _ => declare.queue.clone(),
            };
            if let Some(channel) = topology.channel_mut(number) {
                channel.last_queue = name.clone();
            }
            if declare.queue.is_empty() && !declare.passive {
                topology.declare_server_named(declare, name);
            } else {
                topology.declare_queue(declare);
            }
        }
        Edit::DeleteQueue(name) => topology.delete_queue(&resolve(name)),
        Edit::Bind(binding) => topology.bind(resolve_binding(binding, &last)),
        Edit::Unbind(binding) => topology.unbind(&resolve_binding(binding, &last)),
        Edit::SetQos(qos) => topology.set_qos(number, qos),
        Edit::SetMode(mode) => topology.set_mode(number, mode),
        Edit::Consume(consumer, mut consume) => {
            consume.queue = resolve(consume.queue);
            topology.consume(number, consumer, consume);
        }
        Edit::Cancel(tag) => {
            let channel = topology.channel(number);
            let consumer = channel.and_then(|it| it.tagged(&tag));
            if let Some(consumer) = consumer {
                topology.cancel(number, consumer);
            }
        }
    }
}

/// Replaces an empty name of the queue. An empty routing key is then the same name (section 1.7.2.3
/// of the protocol reference).
fn resolve_binding(mut binding: Binding, last: &ShortStr) -> Binding {
    if let Entity::Queue(name) = &mut binding.destination
        && name.is_empty()
    {
        *name = last.clone();
        if binding.routing_key.is_empty() {
            binding.routing_key = last.clone();
        }
    }
    binding
}
