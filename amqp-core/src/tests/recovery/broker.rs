//! A broker that keeps entities and consumers, refuses by RabbitMQ's rules, and in addition on
//! demand.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    format,
    string::{String, ToString as _},
    vec::Vec,
};

use crate::{
    ChannelId, ServerSent,
    protocol::{ClientMethod, Method, ReplyCode, basic, confirm, exchange, queue, tx},
    recovery::{Binding, Entity},
    server::{self, Event},
    tests::script::name,
    wire::ShortStr,
};

/// The entities, which outlive a connection, and the state of the one connection.
#[derive(Debug, Default)]
pub(super) struct Broker {
    pub(super) exchanges: BTreeMap<ShortStr, exchange::Declare>,
    pub(super) queues: BTreeMap<ShortStr, queue::Declare>,
    pub(super) bindings: BTreeSet<Binding>,
    /// The queues of the consumers, by channel and tag.
    pub(super) consumers: BTreeMap<(u16, ShortStr), ShortStr>,
    /// All requests of the current connection, in words.
    pub(super) log: Vec<String>,
    /// Requests to refuse, by the beginning of their words, and how often.
    pub(super) refusals: Vec<(&'static str, usize, ReplyCode, &'static str)>,
    /// Requests at which the channel is closed once, for another reason than the request.
    pub(super) closes: Vec<(&'static str, ReplyCode)>,
    /// Requests without an answer.
    pub(super) silent: Vec<&'static str>,
    /// Whether all requests behind one of these have no answer either.
    pub(super) silent_behind: bool,
    /// Whether requests have no answer any more.
    mute: bool,
    /// The number of requests after which the connection is cut.
    pub(super) cut_after: Option<usize>,
    named: usize,
    /// The channels that were opened, by number.
    pub(super) channels: BTreeMap<u16, ChannelId>,
    /// The queue that was declared last on each channel.
    last: BTreeMap<u16, ShortStr>,
}

type Refusal = (ReplyCode, String);

impl Broker {
    /// Whether the connection is cut now.
    pub(super) fn cuts(&self) -> bool {
        self.cut_after.is_some_and(|after| self.log.len() >= after)
    }

    /// Handles an event of the server's machine.
    pub(super) fn handle(&mut self, conn: &mut server::Connection, event: Event) {
        match event {
            Event::ChannelOpened { channel } => {
                self.log.push(format!("{channel} channel.open"));
                self.channels.insert(channel.number(), channel);
            }
            Event::ChannelClosed { channel, .. } => self.channel_ended(channel.number()),
            Event::Request { channel, method } => self.request(conn, channel, method),
            Event::Closed(_) => self.connection_ended(),
            other => panic!("{other:?}"),
        }
    }

    /// The connection has ended: its exclusive queues and its consumers go.
    pub(super) fn connection_ended(&mut self) {
        self.mute = false;
        let numbers: Vec<u16> = self.consumers.keys().map(|(number, _)| *number).collect();
        for number in numbers {
            self.channel_ended(number);
        }
        let exclusive = self.queues.values().filter(|it| it.exclusive);
        for queue in exclusive.map(|it| it.queue.clone()).collect::<Vec<_>>() {
            self.delete_queue(&queue);
        }
    }

    /// The broker was restarted: only what is durable is left.
    pub(super) fn restart(&mut self) {
        self.connection_ended();
        let queues = self.queues.values().filter(|it| !it.durable);
        for queue in queues.map(|it| it.queue.clone()).collect::<Vec<_>>() {
            self.delete_queue(&queue);
        }
        let exchanges = self.exchanges.values().filter(|it| !it.durable);
        for exchange in exchanges.map(|it| it.exchange.clone()).collect::<Vec<_>>() {
            self.delete_exchange(&exchange);
        }
    }

    pub(super) fn channel_ended(&mut self, number: u16) {
        let all = core::mem::take(&mut self.consumers);
        let (gone, left): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|((of, _), _)| *of == number);
        self.consumers = left.into_iter().collect();
        for (_, queue) in gone {
            self.consumer_gone(&queue);
        }
    }

    fn consumer_gone(&mut self, queue: &ShortStr) {
        let used = self.consumers.values().any(|it| it == queue);
        if !used && self.queues.get(queue).is_some_and(|it| it.auto_delete) {
            self.delete_queue(queue);
        }
    }

    pub(super) fn delete_queue(&mut self, name: &ShortStr) {
        self.queues.remove(name);
        self.consumers.retain(|_, queue| queue != name);
        self.unbind(|it| it.destination == Entity::Queue(name.clone()));
    }

    pub(super) fn delete_exchange(&mut self, name: &ShortStr) {
        self.exchanges.remove(name);
        self.unbind(|it| it.source == *name || it.destination == Entity::Exchange(name.clone()));
    }

    fn unbind(&mut self, gone: impl Fn(&Binding) -> bool) {
        let all = core::mem::take(&mut self.bindings);
        let (gone, left): (Vec<_>, Vec<_>) = all.into_iter().partition(|it| gone(it));
        self.bindings = left.into_iter().collect();
        for source in gone.into_iter().map(|it| it.source) {
            let bound = self.bindings.iter().any(|it| it.source == source);
            if !bound && self.exchanges.get(&source).is_some_and(|it| it.auto_delete) {
                self.delete_exchange(&source);
            }
        }
    }

    fn request(&mut self, conn: &mut server::Connection, id: ChannelId, method: ClientMethod) {
        let open = conn.channel(id).is_some_and(|it| it.is_open());
        if !open || self.cuts() {
            return; // behind a refused one, or lost
        }
        let words = words(&method);
        self.log.push(format!("{id} {words}"));
        let closes = self.closes.iter().position(|(it, _)| words.starts_with(it));
        if let Some((_, code)) = closes.map(|at| self.closes.remove(at)) {
            let mut channel = conn.channel(id).unwrap();
            channel.close(code, "no reason", None).unwrap();
            self.channel_ended(id.number());
            return;
        }
        let silent = self.silent.iter().any(|it| words.starts_with(it));
        self.mute |= silent && self.silent_behind;
        if silent || self.mute {
            return;
        }
        let refusal = self
            .refusals
            .iter_mut()
            .find(|(it, left, ..)| words.starts_with(it) && *left > 0);
        let refused = refusal.map(|(_, left, code, text)| {
            *left -= 1;
            (*code, (*text).to_string())
        });
        let id_of = Method::from(method.clone()).id();
        let done = match refused {
            Some(refused) => Err(refused),
            None => self.carry_out(conn, id, method),
        };
        if let Err((code, text)) = done {
            let mut channel = conn.channel(id).unwrap();
            channel.close(code, &text, Some(id_of)).unwrap();
            self.channel_ended(id.number());
        }
    }

    fn carry_out(
        &mut self,
        conn: &mut server::Connection,
        id: ChannelId,
        method: ClientMethod,
    ) -> Result<(), Refusal> {
        let no_wait = Method::from(method.clone()).no_wait();
        let mut answer = Answer(conn.channel(id).unwrap(), no_wait);
        match method {
            ClientMethod::ExchangeDeclare(declare) => {
                let name = &declare.exchange;
                if let Some(old) = self.exchanges.get(name)
                    && old.kind != declare.kind
                {
                    let (kind, old) = (&declare.kind, &old.kind);
                    return Err(inequivalent("type", "exchange", name, kind, old));
                }
                self.exchanges.insert(name.clone(), declare);
                answer.send(&exchange::DeclareOk);
            }
            ClientMethod::ExchangeDelete(delete) => {
                self.delete_exchange(&delete.exchange);
                answer.send(&exchange::DeleteOk);
            }
            ClientMethod::ExchangeBind(bind) => {
                self.check(&Entity::Exchange(bind.source.clone()))?;
                self.check(&Entity::Exchange(bind.destination.clone()))?;
                self.bindings.insert(Binding {
                    source: bind.source,
                    destination: Entity::Exchange(bind.destination),
                    routing_key: bind.routing_key,
                    arguments: bind.arguments,
                });
                answer.send(&exchange::BindOk);
            }
            ClientMethod::QueueDeclare(mut declare) => {
                if declare.queue.is_empty() {
                    self.named += 1;
                    declare.queue = name(&format!("amq.gen-{}", self.named));
                }
                let queue = declare.queue.clone();
                if let Some(old) = self.queues.get(&queue)
                    && old.durable != declare.durable
                {
                    let (durable, old) = (declare.durable, old.durable);
                    return Err(inequivalent("durable", "queue", &queue, &durable, &old));
                }
                self.queues.insert(queue.clone(), declare);
                self.last.insert(id.number(), queue.clone());
                let ok = queue::DeclareOk {
                    queue,
                    ..queue::DeclareOk::default()
                };
                answer.send(&ok);
            }
            ClientMethod::QueueBind(mut bind) => {
                if bind.queue.is_empty() {
                    bind.queue = self.last[&id.number()].clone();
                    if bind.routing_key.is_empty() {
                        bind.routing_key = bind.queue.clone();
                    }
                }
                self.check(&Entity::Queue(bind.queue.clone()))?;
                self.check(&Entity::Exchange(bind.exchange.clone()))?;
                self.bindings.insert(Binding {
                    source: bind.exchange,
                    destination: Entity::Queue(bind.queue),
                    routing_key: bind.routing_key,
                    arguments: bind.arguments,
                });
                answer.send(&queue::BindOk);
            }
            ClientMethod::QueueUnbind(unbind) => {
                let binding = Binding {
                    source: unbind.exchange,
                    destination: Entity::Queue(unbind.queue),
                    routing_key: unbind.routing_key,
                    arguments: unbind.arguments,
                };
                self.unbind(|it| *it == binding);
                answer.send(&queue::UnbindOk);
            }
            ClientMethod::QueueDelete(delete) => {
                self.delete_queue(&delete.queue);
                answer.send(&queue::DeleteOk::default());
            }
            ClientMethod::BasicQos(_) => answer.send(&basic::QosOk),
            ClientMethod::ConfirmSelect(_) => answer.send(&confirm::SelectOk),
            ClientMethod::TxSelect(_) => answer.send(&tx::SelectOk),
            ClientMethod::BasicConsume(mut consume) => {
                if consume.queue.is_empty() {
                    consume.queue = self.last[&id.number()].clone();
                }
                self.check(&Entity::Queue(consume.queue.clone()))?;
                let consumer_tag = consume.consumer_tag;
                let key = (id.number(), consumer_tag.clone());
                assert_eq!(self.consumers.insert(key, consume.queue), None);
                answer.send(&basic::ConsumeOk { consumer_tag });
            }
            ClientMethod::BasicCancel(cancel) => {
                let consumer_tag = cancel.consumer_tag;
                let key = (id.number(), consumer_tag.clone());
                if let Some(queue) = self.consumers.remove(&key) {
                    self.consumer_gone(&queue);
                }
                answer.send(&basic::CancelOk { consumer_tag });
            }
            other => panic!("{other:?}"),
        }
        Ok(())
    }

    fn check(&self, entity: &Entity) -> Result<(), Refusal> {
        let (kind, there) = match entity {
            Entity::Queue(name) => ("queue", self.queues.contains_key(name)),
            Entity::Exchange(name) => (
                "exchange",
                name.starts_with("amq.") || self.exchanges.contains_key(name),
            ),
        };
        if there {
            return Ok(());
        }
        let text = format!("NOT_FOUND - no {kind} '{}' in vhost '/'", entity.name());
        Err((ReplyCode::NOT_FOUND, text))
    }
}

/// The channel for the reply to a request, and whether none is wanted.
struct Answer<'a>(server::ChannelMut<'a>, bool);

impl Answer<'_> {
    fn send<M: ServerSent>(&mut self, reply: &M) {
        if !self.1 {
            self.0.send(reply).unwrap();
        }
    }
}

fn inequivalent(
    argument: &str,
    kind: &str,
    name: &str,
    now: &dyn core::fmt::Display,
    old: &dyn core::fmt::Display,
) -> Refusal {
    let text = format!(
        "PRECONDITION_FAILED - inequivalent arg '{argument}' for {kind} '{name}' in vhost '/': \
         received '{now}' but current is '{old}'"
    );
    (ReplyCode::PRECONDITION_FAILED, text)
}

fn words(method: &ClientMethod) -> String {
    match method {
        ClientMethod::ExchangeDeclare(it) => format!("exchange.declare {}", it.exchange),
        ClientMethod::ExchangeDelete(it) => format!("exchange.delete {}", it.exchange),
        ClientMethod::ExchangeBind(it) => format!("exchange.bind {} {}", it.destination, it.source),
        ClientMethod::QueueDeclare(it) => format!("queue.declare {}", it.queue),
        ClientMethod::QueueDelete(it) => format!("queue.delete {}", it.queue),
        ClientMethod::QueueBind(it) => {
            format!("queue.bind {} {} {}", it.queue, it.exchange, it.routing_key)
        }
        ClientMethod::QueueUnbind(it) => format!("queue.unbind {} {}", it.queue, it.exchange),
        ClientMethod::BasicQos(it) => format!("basic.qos {} {}", it.prefetch_count, it.global),
        ClientMethod::ConfirmSelect(_) => "confirm.select".into(),
        ClientMethod::TxSelect(_) => "tx.select".into(),
        ClientMethod::BasicConsume(it) => {
            format!("basic.consume {} {}", it.queue, it.consumer_tag)
        }
        ClientMethod::BasicCancel(it) => format!("basic.cancel {}", it.consumer_tag),
        other => panic!("{other:?}"),
    }
}
