//! Virtual hosts: named exchanges and queues, and routing through them.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::String,
    vec::Vec,
};

use amqp_core::wire::{FieldTable, ShortStr};

use super::exchange::{Binding, Destination, Exchange, ExchangeFlags, ExchangeKind, RouteBy};
use crate::{
    admin::VhostLimits,
    keys::QueueKey,
    policy::{Policies, PolicyKind},
    refusal::{Outcome, Refusal, Resource, short},
};

#[derive(Debug)]
pub(crate) struct Vhost {
    pub(crate) name: String,
    pub(crate) exchanges: BTreeMap<ShortStr, Exchange>,
    pub(crate) queues: BTreeMap<ShortStr, QueueKey>,
    /// The number of bindings of all exchanges.
    pub(crate) bindings: usize,
    pub(crate) policies: Policies,
    pub(crate) operator_policies: Policies,
    pub(crate) limits: VhostLimits,
    /// Its description and tags, and other data without a meaning here.
    pub(crate) metadata: FieldTable,
    /// The runtime parameters without a meaning here, by component and name
    /// (<https://www.rabbitmq.com/docs/parameters>).
    pub(crate) parameters: BTreeMap<(String, String), amqp_core::wire::FieldValue>,
}

/// The predeclared exchanges with their types, and whether they are internal.
const PREDECLARED: [(&str, ExchangeKind, bool); 7] = [
    ("amq.direct", ExchangeKind::Direct, false),
    ("amq.fanout", ExchangeKind::Fanout, false),
    ("amq.headers", ExchangeKind::Headers, false),
    ("amq.match", ExchangeKind::Headers, false),
    ("amq.rabbitmq.trace", ExchangeKind::Topic, true),
    ("amq.topic", ExchangeKind::Topic, false),
    // The default exchange stores no bindings: it routes to the queue that the routing key names
    // (<https://www.rabbitmq.com/docs/exchanges>).
    ("", ExchangeKind::Direct, false),
];

#[cfg(feature = "definitions")]
impl ExchangeKind {
    /// Returns the type of a predeclared exchange: `Some` if `name` is one.
    pub(crate) fn predeclared(name: &str) -> Option<Self> {
        let found = PREDECLARED.iter().find(|(known, ..)| *known == name);
        found.map(|(_, kind, _)| *kind)
    }
}

/// Returns whether each virtual host has an exchange of that name from the beginning.
pub(crate) fn is_predeclared(name: &ShortStr) -> bool {
    PREDECLARED
        .iter()
        .any(|(predeclared, ..)| *name == **predeclared)
}

impl Vhost {
    pub(crate) fn new(name: String) -> Self {
        let exchanges = PREDECLARED
            .into_iter()
            .map(|(name, kind, internal)| {
                let flags = ExchangeFlags {
                    durable: true,
                    auto_delete: false,
                    internal,
                };
                let exchange = Exchange::new(kind, flags, FieldTable::new(), None);
                (short(name), exchange)
            })
            .collect();
        Self {
            name,
            exchanges,
            queues: BTreeMap::new(),
            bindings: 0,
            policies: Policies::new(),
            operator_policies: Policies::new(),
            limits: VhostLimits::default(),
            metadata: FieldTable::new(),
            parameters: BTreeMap::new(),
        }
    }

    /// Returns the policies of a kind.
    pub(crate) const fn policies_of(&mut self, kind: PolicyKind) -> &mut Policies {
        match kind {
            PolicyKind::Plain => &mut self.policies,
            PolicyKind::Operator => &mut self.operator_policies,
        }
    }

    pub(crate) fn exchange(&self, name: &ShortStr) -> Outcome<&Exchange> {
        let missing = || Refusal::not_found(format_args!("no {}", self.exchange_named(name)));
        self.exchanges.get(name).ok_or_else(missing)
    }

    pub(crate) fn exchange_named<'a>(&'a self, name: &'a str) -> Resource<'a> {
        Resource::exchange(name, &self.name)
    }

    pub(crate) fn queue_named<'a>(&'a self, name: &'a str) -> Resource<'a> {
        Resource::queue(name, &self.name)
    }

    /// Returns the queues that a message reaches from an exchange, each once, in the order of their
    /// declaration.
    pub(crate) fn route(&self, from: &ShortStr, by: RouteBy<'_>) -> Vec<QueueKey> {
        if from.is_empty() && by.more_keys.is_empty() {
            return self
                .queues
                .get(by.routing_key)
                .copied()
                .into_iter()
                .collect();
        }
        let mut queues = BTreeSet::new();
        let mut seen = BTreeSet::from([from.clone()]);
        let mut due = Vec::from([from.clone()]);
        while let Some(name) = due.pop() {
            let Some(exchange) = self.exchanges.get(&name) else {
                continue;
            };
            let mut found = BTreeSet::new();
            if name.is_empty() && !from.is_empty() {
                // As an alternate exchange the default exchange routes nothing: RabbitMQ looks up
                // its bindings, and it has none.
            } else if name.is_empty() {
                let named = by.keys().filter_map(|key| self.queues.get(key));
                found.extend(named.map(|key| Destination::Queue(*key)));
            } else {
                exchange.route(by, &mut found);
            }
            if found.is_empty() {
                found.extend(exchange.alternate.clone().map(Destination::Exchange));
            }
            for destination in found {
                match destination {
                    Destination::Queue(queue) => {
                        queues.insert(queue);
                    }
                    Destination::Exchange(next) => {
                        if seen.insert(next.clone()) {
                            due.push(next);
                        }
                    }
                }
            }
        }
        queues.into_iter().collect()
    }

    /// Deletes an exchange with all bindings from it and to it, and then every `auto-delete`
    /// exchange that has lost its last binding. Returns the durable ones of them.
    pub(crate) fn delete_exchange(&mut self, name: &ShortStr) -> Vec<ShortStr> {
        let mut durable = Vec::new();
        let mut due = Vec::from([name.clone()]);
        while let Some(name) = due.pop() {
            let exchange = self.exchanges.get(&name);
            if exchange.is_some_and(|exchange| exchange.durable) {
                durable.push(name.clone());
            }
            due.extend(self.remove_exchange(&name));
        }
        durable
    }

    /// Removes an exchange with all bindings from it and to it. Returns the `auto-delete` exchanges
    /// that have lost their last binding.
    pub(crate) fn remove_exchange(&mut self, name: &ShortStr) -> Vec<ShortStr> {
        let Some(gone) = self.exchanges.remove(name) else {
            return Vec::new();
        };
        self.bindings -= gone.bindings().len();
        self.unbind_all(&Destination::Exchange(name.clone()))
    }

    /// Deletes a queue with all bindings to it, and then every `auto-delete` exchange that has lost
    /// its last binding. Returns the durable ones of these exchanges.
    pub(crate) fn delete_queue(&mut self, name: &ShortStr) -> Vec<ShortStr> {
        let exchanges = self.remove_queue(name);
        let deleted = exchanges
            .iter()
            .map(|exchange| self.delete_exchange(exchange));
        deleted.flatten().collect()
    }

    /// Removes a queue, with all bindings to it. Returns the `auto-delete` exchanges that have lost
    /// their last binding.
    pub(crate) fn remove_queue(&mut self, name: &ShortStr) -> Vec<ShortStr> {
        let key = self.queues.remove(name);
        key.map(|key| self.unbind_all(&Destination::Queue(key)))
            .unwrap_or_default()
    }

    /// Removes the transient exchanges, the queues in `gone`, and all bindings from and to them.
    pub(crate) fn drop_transient(&mut self, gone: &BTreeSet<QueueKey>) {
        self.queues.retain(|_, key| !gone.contains(key));
        let transient = self
            .exchanges
            .iter()
            .filter(|(_, exchange)| !exchange.durable);
        let transient: BTreeSet<ShortStr> = transient.map(|(name, _)| name.clone()).collect();
        self.exchanges.retain(|_, exchange| exchange.durable);
        for exchange in self.exchanges.values_mut() {
            let lost = exchange.bindings().iter();
            let lost = lost.filter(|binding| match &binding.destination {
                Destination::Queue(key) => gone.contains(key),
                Destination::Exchange(name) => transient.contains(name),
            });
            let lost: Vec<Binding> = lost.cloned().collect();
            for binding in &lost {
                exchange.unbind(binding);
            }
        }
        let kept = self.exchanges.values();
        self.bindings = kept.map(|exchange| exchange.bindings().len()).sum();
    }

    /// Removes all bindings to a destination. Returns the `auto-delete` exchanges that have lost
    /// their last binding.
    fn unbind_all(&mut self, destination: &Destination) -> Vec<ShortStr> {
        let mut done = Vec::new();
        for (name, exchange) in &mut self.exchanges {
            let gone = exchange.unbind_all(destination);
            self.bindings -= gone;
            if gone > 0 && exchange.auto_delete && exchange.bindings().is_empty() {
                done.push(name.clone());
            }
        }
        done
    }
}
