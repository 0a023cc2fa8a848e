//! Dead-lettering (<https://www.rabbitmq.com/docs/dlx>): the routing of dead-lettered messages, and
//! their `x-death` headers.

use alloc::{collections::BTreeMap, sync::Arc, vec::Vec};

use amqp_core::{
    EncodedProperties,
    protocol::basic::Properties,
    wire::{Encode as _, FieldArray, FieldTable, FieldValue, ShortStr, Timestamp},
};
use bytes::BytesMut;

use super::{Broker, dispatch::sorted};
use crate::{
    keys::QueueKey,
    model::{
        arguments::QueueKind,
        exchange::RouteBy,
        message::{Envelope, Message},
        queue::Queue,
    },
    refusal::short,
};

/// The reason for dead-lettering a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    Rejected,
    Expired,
    MaxLength,
    DeliveryLimit,
}

impl Reason {
    const fn name(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::MaxLength => "maxlen",
            Self::DeliveryLimit => "delivery_limit",
        }
    }
}

const DEATHS: &str = "x-death";

impl Broker {
    /// Publishes a message to the dead-letter exchange of a queue, if the queue has one and it
    /// exists. Otherwise the message is dropped.
    pub(crate) fn dead_letter(&mut self, from: QueueKey, message: &Arc<Message>, reason: Reason) {
        self.work += 1;
        let Some(queue) = self.queues.get(&from) else {
            return;
        };
        let Some(target) = &queue.arguments.dead_letter else {
            return;
        };
        let Some(vhost) = self.vhosts.get(&queue.vhost) else {
            return;
        };
        let Some((exchange, _)) = vhost.exchanges.get_key_value(target.exchange.as_str()) else {
            return;
        };
        let elapsed = self.now.as_nanos() / 1_000_000_000;
        let time = self.epoch().saturating_add(elapsed);
        let mut properties = message.decode_properties();
        let death = Death {
            queue,
            message,
            reason,
            time,
        };
        death.record(&mut properties);
        let (routing_key, more_keys) = match &target.routing_key {
            Some(key) => {
                if let Some(headers) = &mut properties.headers {
                    headers.remove("CC");
                }
                (key.clone(), Vec::new())
            }
            None => (message.routing_key.clone(), message.more_keys.clone()),
        };
        let headers = properties.headers.as_ref();
        let mut queues = vhost.route(
            exchange,
            RouteBy {
                routing_key: &routing_key,
                more_keys: &more_keys,
                headers,
            },
        );
        if reason != Reason::Rejected
            && let Some(FieldValue::Array(deaths)) = headers.and_then(|all| all.get(DEATHS))
        {
            queues.retain(|key| {
                let name = self.queues.get(key).map(|queue| &queue.name);
                !name.is_some_and(|name| is_cycle(name, deaths))
            });
        }
        let envelope = Envelope {
            exchange: exchange.clone(),
            routing_key,
            more_keys,
            priority: message.priority,
            expiration: None,
            persistent: message.persistent,
        };
        let properties = EncodedProperties::from(&properties);
        let letter = Message::new(envelope, properties, message.body.clone(), &self.memory);
        for key in queues {
            let kind = self.queues.get(&key).map(|queue| queue.arguments.kind);
            match kind {
                // One that rejects the message is skipped.
                Some(QueueKind::Classic) => {
                    self.enqueue(key, &letter);
                }
                // It rejects only messages of clients.
                Some(QueueKind::Quorum) => self.store(key, &letter),
                // RabbitMQ 3.10 loses messages that are dead-lettered to a stream.
                Some(QueueKind::Stream) | None => {}
            }
        }
    }
}

/// One dead-lettering of a message: an entry of its `x-death` header.
struct Death<'a> {
    queue: &'a Queue,
    message: &'a Message,
    reason: Reason,
    /// The time, in seconds since the Unix epoch.
    time: u64,
}

impl Death<'_> {
    /// Adds the entry to the headers, or increments the count of an equal one. Removes
    /// `expiration`, so that the message does not expire again.
    fn record(&self, properties: &mut Properties) {
        let expiration = properties.expiration.take();
        let headers = properties.headers.get_or_insert_default();
        let (mut deaths, first) = match headers.get(DEATHS) {
            Some(FieldValue::Array(deaths)) => (merge(deaths), false),
            // Replaces a value of another type, which a client has set.
            Some(_) => (Vec::new(), true),
            None => {
                self.record_first(headers);
                (Vec::new(), true)
            }
        };
        let same = deaths.iter().position(|death| self.is_same(death));
        let known = same.map(|at| deaths.remove(at));
        let death = match known {
            Some(FieldValue::Table(mut known)) => {
                let count = known.get("count").and_then(FieldValue::as_i64);
                known.insert(short("count"), count.unwrap_or(0).saturating_add(1));
                sorted(&known)
            }
            _ if first => self.describe(headers, expiration.as_ref()),
            _ => sorted(&self.describe(headers, expiration.as_ref())),
        };
        deaths.insert(0, death.into());
        headers.insert(short(DEATHS), FieldArray::from(deaths));
        *headers = sorted(headers);
    }

    /// Records the first dead-lettering in its own headers, which later ones do not change.
    fn record_first(&self, headers: &mut FieldTable) {
        headers.insert(short("x-first-death-exchange"), &self.message.exchange);
        headers.insert(short("x-first-death-queue"), &self.queue.name);
        headers.insert(short("x-first-death-reason"), self.reason.name());
    }

    fn is_same(&self, death: &FieldValue) -> bool {
        has_field(death, "queue", self.queue.name.as_bytes())
            && has_field(death, "reason", self.reason.name().as_bytes())
    }

    fn describe(&self, headers: &FieldTable, expiration: Option<&ShortStr>) -> FieldTable {
        // Lists the keys of `CC`, but not those of `BCC`
        // (<https://www.rabbitmq.com/docs/dlx>).
        let copies = headers.get("CC").and_then(FieldValue::as_array);
        let copies = copies.into_iter().flat_map(|keys| keys.iter()).cloned();
        let keys: FieldArray = core::iter::once(FieldValue::from(&self.message.routing_key))
            .chain(copies.filter(|key| key.as_long_str().is_some()))
            .collect();
        let mut death = FieldTable::new();
        death.push(short("count"), 1_i64);
        death.push(short("reason"), self.reason.name());
        death.push(short("queue"), &self.queue.name);
        death.push(short("time"), Timestamp(self.time));
        death.push(short("exchange"), &self.message.exchange);
        death.push(short("routing-keys"), keys);
        if let Some(expiration) = expiration {
            death.push(short("original-expiration"), expiration);
        }
        death
    }
}

/// Merges the entries of each queue and reason, as RabbitMQ does. Versions before 3.6 wrote one
/// entry for each death, without a count. The first entry stays; if it has no count, it gets the
/// number of its entries. The order is reversed, and a single entry is unchanged.
fn merge(deaths: &FieldArray) -> Vec<FieldValue> {
    if deaths.len() < 2 {
        return deaths.to_vec();
    }
    let mut places = BTreeMap::new();
    let mut merged: Vec<(FieldValue, i64)> = Vec::new();
    for death in deaths.iter() {
        let place = death.as_table().map(|table| {
            let key = [field_bytes(table, "queue"), field_bytes(table, "reason")];
            *places.entry(key).or_insert(merged.len())
        });
        match place.and_then(|place| merged.get_mut(place)) {
            Some((_, count)) => *count += 1,
            None => merged.push((death.clone(), 1)),
        }
    }
    let counted = merged.into_iter().rev().map(|(death, count)| match death {
        FieldValue::Table(fields) if !fields.contains_key("count") => {
            let mut death = FieldTable::new();
            death.push(short("count"), count);
            death.extend(
                fields
                    .iter()
                    .map(|(name, value)| (name.clone(), value.clone())),
            );
            death.into()
        }
        other => other,
    });
    counted.collect()
}

/// Returns the text of a field, or the encoded value of another type. `Some` if there is the field.
fn field_bytes(table: &FieldTable, name: &str) -> Option<Vec<u8>> {
    let value = table.get(name)?;
    Some(value.as_bytes().map_or_else(
        || {
            let mut alone = FieldTable::new();
            alone.push(short(name), value.clone());
            let mut encoded = BytesMut::new();
            alone.encode(&mut encoded);
            encoded.to_vec()
        },
        <[u8]>::to_vec,
    ))
}

/// Returns whether a field of an entry is `text`.
fn has_field(death: &FieldValue, name: &str, text: &[u8]) -> bool {
    let field = death.as_table().and_then(|death| death.get(name));
    field.and_then(FieldValue::as_bytes) == Some(text)
}

/// Returns whether a message would enter a queue that has dead-lettered it before, without a
/// rejection since. Such a message is dropped, to break the cycle.
fn is_cycle(queue: &ShortStr, deaths: &FieldArray) -> bool {
    let here = deaths
        .iter()
        .position(|death| has_field(death, "queue", queue.as_bytes()));
    here.is_some_and(|here| {
        let path = deaths.iter().take(here + 1);
        let mut path = path.map(|death| {
            death.as_table().is_some()
                && !has_field(death, "reason", Reason::Rejected.name().as_bytes())
        });
        path.all(|automatic| automatic)
    })
}
