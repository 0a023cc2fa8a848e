//! Exchanges and bindings (<https://www.rabbitmq.com/docs/exchanges>).

use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::String,
    vec::Vec,
};
use core::{cmp::Ordering, ops::Deref};

use amqp_core::wire::{Encode as _, FieldTable, ShortStr};
use bytes::{Bytes, BytesMut};

use super::{headers::Matcher, topic::Trie};
use crate::{keys::QueueKey, policy::AppliedPolicies, refusal::Outcome};

/// The argument for an alternate exchange, and the setting of a policy.
pub(crate) const ALTERNATE: &str = "alternate-exchange";

/// The destination of a binding.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Destination {
    Queue(QueueKey),
    /// An exchange in the same virtual host.
    Exchange(ShortStr),
}

/// A binding of an exchange. Two are equal if all their parts are.
#[derive(Clone, Debug)]
pub(crate) struct Binding {
    pub(crate) destination: Destination,
    pub(crate) routing_key: ShortStr,
    pub(crate) arguments: FieldTable,
    /// The encoded arguments, sorted by name for comparison.
    sorted: Bytes,
}

impl Binding {
    pub(crate) fn new(
        destination: Destination,
        routing_key: ShortStr,
        arguments: FieldTable,
    ) -> Self {
        let mut fields: Vec<_> = arguments.iter().collect();
        fields.sort_by_key(|(name, _)| *name);
        let sorted: FieldTable = fields
            .into_iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let mut bytes = BytesMut::new();
        sorted.encode(&mut bytes);
        Self {
            destination,
            routing_key,
            arguments,
            sorted: bytes.freeze(),
        }
    }

    fn parts(&self) -> (&Destination, &ShortStr, &Bytes) {
        (&self.destination, &self.routing_key, &self.sorted)
    }
}

impl PartialEq for Binding {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for Binding {}

impl PartialOrd for Binding {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Orders by destination first, so that `unbind_all` can search a range.
impl Ord for Binding {
    fn cmp(&self, other: &Self) -> Ordering {
        self.parts().cmp(&other.parts())
    }
}

/// The type of an exchange (section 3.1.3 of the specification).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExchangeKind {
    Direct,
    Fanout,
    Topic,
    Headers,
}

impl ExchangeKind {
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        match name {
            "direct" => Some(Self::Direct),
            "fanout" => Some(Self::Fanout),
            "topic" => Some(Self::Topic),
            "headers" => Some(Self::Headers),
            _ => None,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Fanout => "fanout",
            Self::Topic => "topic",
            Self::Headers => "headers",
        }
    }
}

/// The flags of the declaration of an exchange.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ExchangeFlags {
    pub(crate) durable: bool,
    pub(crate) auto_delete: bool,
    /// It accepts messages only from other exchanges.
    pub(crate) internal: bool,
}

#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) kind: ExchangeKind,
    flags: ExchangeFlags,
    pub(crate) arguments: FieldTable,
    /// The exchange for messages that this one cannot route: that of the declaration, or else of
    /// the policy (<https://www.rabbitmq.com/docs/ae>).
    pub(crate) alternate: Option<ShortStr>,
    /// The alternate exchange of the declaration.
    declared_alternate: Option<ShortStr>,
    /// The policies that apply to the exchange.
    pub(crate) policies: AppliedPolicies,
    bindings: BTreeSet<Binding>,
    router: Router,
}

/// The bindings, indexed for routing.
#[derive(Debug)]
enum Router {
    /// Lists a destination once per binding.
    Direct(BTreeMap<ShortStr, Vec<Destination>>),
    Fanout,
    Topic(Trie<Destination>),
    Headers(BTreeMap<Binding, Matcher>),
}

/// The properties of a message that determine its routing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RouteBy<'a> {
    pub(crate) routing_key: &'a ShortStr,
    pub(crate) more_keys: &'a [String],
    pub(crate) headers: Option<&'a FieldTable>,
}

impl<'a> RouteBy<'a> {
    /// Returns all routing keys.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &'a str> {
        let more_keys = self.more_keys.iter().map(String::as_str);
        core::iter::once(self.routing_key.as_str()).chain(more_keys)
    }
}

impl Deref for Exchange {
    type Target = ExchangeFlags;

    fn deref(&self) -> &ExchangeFlags {
        &self.flags
    }
}

impl Exchange {
    pub(crate) fn new(
        kind: ExchangeKind,
        flags: ExchangeFlags,
        arguments: FieldTable,
        alternate: Option<ShortStr>,
    ) -> Self {
        Self {
            kind,
            flags,
            arguments,
            alternate: alternate.clone(),
            declared_alternate: alternate,
            policies: AppliedPolicies::default(),
            bindings: BTreeSet::new(),
            router: match kind {
                ExchangeKind::Direct => Router::Direct(BTreeMap::new()),
                ExchangeKind::Fanout => Router::Fanout,
                ExchangeKind::Topic => Router::Topic(Trie::new()),
                ExchangeKind::Headers => Router::Headers(BTreeMap::new()),
            },
        }
    }

    /// Applies policies in place of the previous ones.
    pub(crate) fn apply_policies(&mut self, policies: AppliedPolicies) {
        self.alternate = self.declared_alternate.clone().or_else(|| {
            let name = policies.text(ALTERNATE)?;
            // No exchange has a name of more than 255 bytes.
            ShortStr::try_from(name).ok()
        });
        self.policies = policies;
    }

    /// Validates the arguments of a binding.
    pub(crate) fn check_binding(&self, arguments: &FieldTable) -> Outcome {
        check_binding(self.kind, arguments)
    }

    /// Adds a binding. Returns `false` if it exists already.
    pub(crate) fn bind(&mut self, binding: Binding) -> Outcome<bool> {
        let matcher = match self.kind {
            ExchangeKind::Headers => Some(Matcher::new(&binding.arguments)?),
            ExchangeKind::Direct | ExchangeKind::Fanout | ExchangeKind::Topic => None,
        };
        if self.bindings.contains(&binding) {
            return Ok(false);
        }
        let destination = binding.destination.clone();
        match &mut self.router {
            Router::Direct(keys) => keys
                .entry(binding.routing_key.clone())
                .or_default()
                .push(destination),
            Router::Fanout => {}
            Router::Topic(trie) => trie.insert(&binding.routing_key, destination),
            Router::Headers(matchers) => {
                matchers.extend(matcher.map(|matcher| (binding.clone(), matcher)));
            }
        }
        self.bindings.insert(binding);
        Ok(true)
    }

    /// Removes a binding. Returns `false` if it does not exist.
    pub(crate) fn unbind(&mut self, binding: &Binding) -> bool {
        if !self.bindings.remove(binding) {
            return false;
        }
        match &mut self.router {
            Router::Direct(keys) => {
                if let Some(listed) = keys.get_mut(&binding.routing_key) {
                    let at = listed.iter().position(|at| *at == binding.destination);
                    if let Some(at) = at {
                        listed.remove(at);
                    }
                    if listed.is_empty() {
                        keys.remove(&binding.routing_key);
                    }
                }
            }
            Router::Fanout => {}
            Router::Topic(trie) => trie.remove(&binding.routing_key, &binding.destination),
            Router::Headers(matchers) => {
                matchers.remove(binding);
            }
        }
        true
    }

    /// Removes all bindings to a destination, and returns their number.
    pub(crate) fn unbind_all(&mut self, destination: &Destination) -> usize {
        let first = Binding {
            destination: destination.clone(),
            routing_key: ShortStr::new(),
            arguments: FieldTable::new(),
            sorted: Bytes::new(),
        };
        let gone: Vec<Binding> = self
            .bindings
            .range(first..)
            .take_while(|binding| binding.destination == *destination)
            .cloned()
            .collect();
        for binding in &gone {
            self.unbind(binding);
        }
        gone.len()
    }

    pub(crate) const fn bindings(&self) -> &BTreeSet<Binding> {
        &self.bindings
    }

    /// Collects the destinations of a message.
    pub(crate) fn route(&self, by: RouteBy<'_>, found: &mut BTreeSet<Destination>) {
        match &self.router {
            Router::Direct(keys) => {
                for listed in by.keys().filter_map(|key| keys.get(key)) {
                    found.extend(listed.iter().cloned());
                }
            }
            Router::Fanout => {
                found.extend(
                    self.bindings
                        .iter()
                        .map(|binding| binding.destination.clone()),
                );
            }
            Router::Topic(trie) => {
                for key in by.keys() {
                    trie.matches(key, found);
                }
            }
            Router::Headers(matchers) => {
                for (binding, matcher) in matchers {
                    if matcher.matches(by.headers) {
                        found.insert(binding.destination.clone());
                    }
                }
            }
        }
    }
}

/// Validates the arguments of a binding of an exchange of that type.
pub(crate) fn check_binding(kind: ExchangeKind, arguments: &FieldTable) -> Outcome {
    if kind == ExchangeKind::Headers {
        Matcher::new(arguments)?;
    }
    Ok(())
}
