//! Bindings, by their destination and by their source.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use core::{cmp::Ordering, fmt};

use bytes::BytesMut;

use crate::{
    protocol::{exchange, queue},
    text::Quoted,
    wire::{Encode as _, FieldTable, ShortStr},
};

/// A queue or an exchange, by its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Entity {
    /// A queue.
    Queue(ShortStr),
    /// An exchange.
    Exchange(ShortStr),
}

impl Entity {
    /// The name.
    #[must_use]
    pub const fn name(&self) -> &ShortStr {
        match self {
            Self::Queue(name) | Self::Exchange(name) => name,
        }
    }
}

impl fmt::Display for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Queue(name) => write!(f, "queue {}", Quoted(name)),
            Self::Exchange(name) => write!(f, "exchange {}", Quoted(name)),
        }
    }
}

/// A binding of a queue or an exchange to an exchange.
///
/// Two bindings are equal if the server regards them as the same: the order of their arguments does
/// not matter.
#[derive(Clone, Debug)]
pub struct Binding {
    /// The exchange that routes.
    pub source: ShortStr,
    /// The queue or exchange that is routed to.
    pub destination: Entity,
    /// The routing key.
    pub routing_key: ShortStr,
    /// The arguments, such as those of a headers exchange.
    pub arguments: FieldTable,
}

/// The method that makes a binding.
#[derive(Debug)]
pub(super) enum BindMethod {
    Queue(queue::Bind),
    Exchange(exchange::Bind),
}

impl Binding {
    /// The method that makes the binding.
    pub(super) fn to_method(&self) -> BindMethod {
        let (source, routing_key) = (self.source.clone(), self.routing_key.clone());
        let arguments = self.arguments.clone();
        match &self.destination {
            Entity::Queue(name) => BindMethod::Queue(queue::Bind {
                queue: name.clone(),
                exchange: source,
                routing_key,
                no_wait: false,
                arguments,
            }),
            Entity::Exchange(name) => BindMethod::Exchange(exchange::Bind {
                destination: name.clone(),
                source,
                routing_key,
                no_wait: false,
                arguments,
            }),
        }
    }
}

impl Ord for Binding {
    fn cmp(&self, other: &Self) -> Ordering {
        self.destination
            .cmp(&other.destination)
            .then_with(|| self.source.cmp(&other.source))
            .then_with(|| self.routing_key.cmp(&other.routing_key))
            .then_with(|| compare(&self.arguments, &other.arguments))
    }
}

/// Compares two tables by their encoding, with their fields in the order of their names.
fn compare(one: &FieldTable, other: &FieldTable) -> Ordering {
    if one.is_empty() || other.is_empty() {
        return one.len().cmp(&other.len());
    }
    encoded(one).cmp(&encoded(other))
}

fn encoded(table: &FieldTable) -> BytesMut {
    let mut fields: Vec<_> = table.clone().into_iter().collect();
    fields.sort_by(|(one, _), (other, _)| one.cmp(other));
    let table: FieldTable = fields.into_iter().collect();
    let mut out = BytesMut::new();
    table.encode(&mut out);
    out
}

impl PartialOrd for Binding {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Binding {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Binding {}

impl fmt::Display for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = Quoted(&self.source);
        write!(f, "{} to exchange {source}", self.destination)?;
        if !self.routing_key.is_empty() {
            write!(f, " with key {}", Quoted(&self.routing_key))?;
        }
        if !self.arguments.is_empty() {
            write!(f, " and arguments {:?}", self.arguments)?;
        }
        Ok(())
    }
}

/// A set of bindings, which finds those of a destination and those of a source.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Bindings {
    all: BTreeSet<Binding>,
    /// The destinations of each source, with the number of bindings.
    by_source: BTreeMap<ShortStr, BTreeMap<Entity, usize>>,
}

impl Bindings {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Binding> {
        self.all.iter()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn insert(&mut self, binding: Binding) {
        let (source, destination) = (binding.source.clone(), binding.destination.clone());
        if self.all.insert(binding) {
            let destinations = self.by_source.entry(source).or_default();
            *destinations.entry(destination).or_default() += 1;
        }
    }

    /// Removes a binding. Returns `false` if it is not in the set.
    pub(super) fn remove(&mut self, binding: &Binding) -> bool {
        if !self.all.remove(binding) {
            return false;
        }
        if let Some(destinations) = self.by_source.get_mut(&binding.source) {
            if let Some(count) = destinations.get_mut(&binding.destination) {
                *count -= 1;
                if *count == 0 {
                    destinations.remove(&binding.destination);
                }
            }
            if destinations.is_empty() {
                self.by_source.remove(&binding.source);
            }
        }
        true
    }

    /// Whether an exchange is the source of a binding.
    pub(super) fn has_source(&self, source: &ShortStr) -> bool {
        self.by_source.contains_key(source)
    }

    /// Removes the bindings to a destination, and returns them.
    pub(super) fn take_to(&mut self, destination: &Entity) -> Vec<Binding> {
        let taken: Vec<_> = self.to(destination).cloned().collect();
        for binding in &taken {
            self.remove(binding);
        }
        taken
    }

    /// Removes the bindings of a source.
    pub(super) fn remove_from(&mut self, source: &ShortStr) {
        let destinations = self.by_source.remove(source).unwrap_or_default();
        for destination in destinations.into_keys() {
            // The least binding of the two.
            let first = Binding::new(destination.clone(), source.clone());
            let range = self.all.range(first..);
            let same = |it: &&Binding| it.destination == destination && it.source == *source;
            let bound: Vec<_> = range.take_while(same).cloned().collect();
            for binding in bound {
                self.all.remove(&binding);
            }
        }
    }

    /// The bindings to a destination.
    pub(super) fn to(&self, destination: &Entity) -> impl Iterator<Item = &Binding> {
        let first = Binding::new(destination.clone(), ShortStr::default());
        let range = self.all.range(first..);
        range.take_while(move |it| it.destination == *destination)
    }
}

impl Binding {
    /// Creates a binding of a queue or an exchange to the exchange `source`, without a routing key
    /// or arguments.
    #[must_use]
    pub const fn new(destination: Entity, source: ShortStr) -> Self {
        Self {
            source,
            destination,
            routing_key: ShortStr::new(),
            arguments: FieldTable::new(),
        }
    }
}
