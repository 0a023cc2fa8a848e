//! Values of the broker as JSON.

use std::fmt::Write as _;

use amqp_tokio::{
    broker::{
        BindingInfo, BindingTarget, ConnectionInfo, ExchangeSummary, MessageCounts, PeekedMessage,
        QueueSummary, Totals,
    },
    core::text::front,
    protocol::basic::Properties,
    wire::{FieldTable, FieldValue},
};
use serde_json::{Map, Value, json};

use super::history::Rates;

/// The maximum size of encoded properties that are shown, in bytes.
const PROPERTIES: usize = 16 << 10;

/// The maximum size of a field of bytes that is shown, in bytes.
const FIELD: usize = 64;

pub(crate) fn counts(counts: &MessageCounts) -> Map<String, Value> {
    let fields = [
        ("published", counts.published),
        ("delivered", counts.delivered),
        ("acked", counts.acked),
    ];
    fields
        .map(|(name, count)| (name.to_owned(), count.into()))
        .into_iter()
        .collect()
}

pub(crate) fn memory(totals: &Totals) -> Value {
    json!({
        "used": totals.memory,
        "limit": totals.memory_limit,
        "alarm": totals.memory_alarm,
    })
}

pub(crate) fn rates(rates: &[Rates]) -> Value {
    let rounded = |rate: f64| (rate * 10.0).round() / 10.0;
    let rates = rates.iter().map(|rates| {
        json!({
            "age": rounded(rates.age.as_secs_f64()),
            "published": rounded(rates.published),
            "delivered": rounded(rates.delivered),
            "acked": rounded(rates.acked),
        })
    });
    rates.collect()
}

pub(crate) fn queue(queue: &QueueSummary) -> Value {
    json!({
        "vhost": queue.vhost,
        "name": &*queue.name,
        "durable": queue.durable,
        "auto_delete": queue.auto_delete,
        "owner": queue.owner.map(|owner| owner.number()),
        "ready": queue.ready,
        "unacked": queue.unacked,
        "consumers": queue.consumers,
        "messages": counts(&queue.messages),
    })
}

pub(crate) fn exchange(exchange: &ExchangeSummary) -> Value {
    json!({
        "vhost": exchange.vhost,
        "name": &*exchange.name,
        "type": exchange.kind,
        "durable": exchange.durable,
        "auto_delete": exchange.auto_delete,
        "internal": exchange.internal,
        "bindings": exchange.bindings,
    })
}

pub(crate) fn binding(binding: &BindingInfo) -> Value {
    let (kind, destination) = match &binding.destination {
        BindingTarget::Queue(name) => ("queue", name),
        BindingTarget::Exchange(name) => ("exchange", name),
    };
    json!({
        "destination": &**destination,
        "destination_type": kind,
        "routing_key": &*binding.routing_key,
        "arguments": table(&binding.arguments),
    })
}

pub(crate) fn connection(connection: &ConnectionInfo, peer: &str) -> Value {
    let properties = &connection.client_properties;
    let text = |name| match properties.get(name) {
        Some(FieldValue::LongStr(text)) => Value::from(text.to_str_lossy()),
        Some(_) | None => Value::Null,
    };
    let channels = &connection.channels;
    let unacked: usize = channels.iter().map(|channel| channel.unacked).sum();
    let consumers: usize = channels.iter().map(|channel| channel.consumers).sum();
    json!({
        "number": connection.key.number(),
        "peer": peer,
        "user": connection.user,
        "vhost": connection.vhost,
        "name": text("connection_name"),
        "product": text("product"),
        "version": text("version"),
        "platform": text("platform"),
        "channels": channels.len(),
        "consumers": consumers,
        "unacked": unacked,
        "blocked": connection.blocked,
        "received_bytes": connection.stats.received.bytes,
        "sent_bytes": connection.stats.sent.bytes,
        "published": connection.stats.published,
        "delivered": connection.stats.delivered + connection.stats.fetched,
    })
}

pub(crate) fn message(message: &PeekedMessage) -> Value {
    let is_cut = message.body.len() < message.size;
    let (encoding, body) = match front(&message.body, is_cut) {
        Some(text) => ("text", text.to_owned()),
        None => ("hex", hex(&message.body)),
    };
    let encoded = message.properties.as_bytes().len();
    let properties = if encoded > PROPERTIES {
        json!({ "omitted": format!("{encoded} bytes") })
    } else {
        message
            .properties
            .decode()
            .as_ref()
            .map_or(Value::Null, properties)
    };
    json!({
        "exchange": &*message.exchange,
        "routing_key": &*message.routing_key,
        "redelivered": message.redelivered,
        "properties": properties,
        "size": message.size,
        "body": body,
        "body_encoding": encoding,
        "body_is_cut": is_cut,
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _written = write!(text, "{byte:02x}");
        text
    })
}

/// The properties that are set.
fn properties(properties: &Properties) -> Value {
    let fields = properties.present();
    let fields = fields.iter().map(|(name, field)| (*name, value(field)));
    fields.collect()
}

/// A field table. Of fields with one name the first one is shown, as clients read it.
fn table(table: &FieldTable) -> Value {
    let mut fields = Map::new();
    for (name, field) in table {
        fields.entry(&**name).or_insert_with(|| value(field));
    }
    fields.into()
}

fn value(field: &FieldValue) -> Value {
    match field {
        FieldValue::Bool(value) => (*value).into(),
        FieldValue::LongStr(text) => text.to_str_lossy().into(),
        FieldValue::Array(array) => array.iter().map(value).collect(),
        FieldValue::Table(inner) => table(inner),
        FieldValue::Timestamp(time) => time.0.into(),
        FieldValue::F32(number) => (*number).into(),
        FieldValue::F64(number) => (*number).into(),
        FieldValue::Bytes(bytes) if bytes.len() > FIELD => {
            format!("{}… ({} bytes)", hex(&bytes[..FIELD]), bytes.len()).into()
        }
        FieldValue::Bytes(bytes) => hex(bytes).into(),
        FieldValue::Decimal(decimal) => format!("{decimal:?}").into(),
        FieldValue::Void => Value::Null,
        integer => integer.as_i64().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_as_hexadecimal_digits() {
        assert_eq!(hex(b"\x00\xff a"), "00ff2061");
    }

    #[test]
    fn fields_keep_their_types() {
        let mut fields = FieldTable::new();
        let mut push = |name: &str, value: FieldValue| fields.push(name, value);
        push("a", FieldValue::from(true));
        push("a", FieldValue::from(false));
        push("i", FieldValue::I64(-5));
        push("u", FieldValue::U32(7));
        push("s", FieldValue::from("<b>\n\u{2028}"));
        push("n", FieldValue::Void);
        push("b", FieldValue::Bytes(vec![1; 65].into()));
        let shown = table(&fields);
        assert_eq!(shown["a"], json!(true));
        assert_eq!(shown["i"], json!(-5));
        assert_eq!(shown["u"], json!(7));
        assert_eq!(shown["s"], json!("<b>\n\u{2028}"));
        assert_eq!(shown["n"], Value::Null);
        assert!(shown["b"].as_str().unwrap().ends_with("… (65 bytes)"));
    }
}
