//! Distributed traces over messages, by the API of the crate [`opentelemetry`](::opentelemetry).
//!
//! A producer writes its context into the headers of a message, a consumer reads it and makes it
//! the parent, or a link, of its own span. The context has the form of the [W3C][w3c]: the headers
//! `traceparent` and `tracestate`. Any other form is for the propagators of the API, which
//! [`HeaderInjector`] and [`HeaderExtractor`] serve.
//!
//! The attributes are those of OpenTelemetry's [conventions for RabbitMQ][conventions].
//!
//! ```
//! use amqp_driver::{
//!     opentelemetry::{extract, inject, publish_attributes, span_name},
//!     protocol::basic,
//! };
//! use opentelemetry::trace::TraceContextExt as _;
//!
//! # let span_context = opentelemetry::trace::SpanContext::new(
//! #     opentelemetry::trace::TraceId::from(1),
//! #     opentelemetry::trace::SpanId::from(2),
//! #     opentelemetry::trace::TraceFlags::SAMPLED,
//! #     false,
//! #     Default::default(),
//! # );
//! # let context = opentelemetry::Context::new().with_remote_span_context(span_context);
//! let publish = basic::Publish::default().routing_key("orders");
//! // In the span `publish orders`:
//! assert_eq!(span_name("publish", &publish.exchange, &publish.routing_key, ""), "publish orders");
//! let attributes = publish_attributes(&publish, &basic::Properties::default(), 12);
//! assert_eq!(attributes[0].key.as_str(), "messaging.system");
//! let mut properties = basic::Properties::default();
//! inject(&context, properties.headers.get_or_insert_default());
//!
//! // At the consumer, with the properties of a delivery:
//! let parent = extract(properties.headers.as_ref());
//! let of_producer = parent.expect("it has one");
//! assert_eq!(of_producer.trace_id(), context.span().span_context().trace_id());
//! # Ok::<(), amqp_driver::Error>(())
//! ```
//!
//! [w3c]: https://www.w3.org/TR/trace-context/
//! [conventions]: https://opentelemetry.io/docs/specs/semconv/messaging/rabbitmq/

use std::str::FromStr;

use amqp_core::{
    protocol::basic::{self, Properties},
    wire::{FieldTable, FieldValue, LongStr, ShortStr},
};
use opentelemetry::{
    Context, KeyValue,
    propagation::{Extractor, Injector},
    trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState},
};

use crate::consumer::Message;

/// The header with the ids of a trace and a span.
pub const TRACEPARENT: &str = "traceparent";

/// The header with the state of a trace that vendors add.
pub const TRACESTATE: &str = "tracestate";

/// The largest `tracestate` that is read, in bytes. The standard requires 512 characters to be
/// passed on.
const TRACESTATE_MAX: usize = 4096;

/// Writes the span of `context` into `headers`, in place of the one that is there. Changes nothing
/// if the context has no valid span.
pub fn inject(context: &Context, headers: &mut FieldTable) {
    let span = context.span();
    let span = span.span_context();
    if !span.is_valid() {
        return;
    }
    let parent = format!(
        "00-{:032x}-{:016x}-{:02x}",
        span.trace_id(),
        span.span_id(),
        span.trace_flags() & TraceFlags::SAMPLED
    );
    let mut injector = HeaderInjector(headers);
    injector.set(TRACEPARENT, parent);
    let state = span.trace_state().header();
    injector.remove(TRACESTATE);
    if !state.is_empty() {
        injector.set(TRACESTATE, state);
    }
}

/// Reads the span that produced a message from its headers: the remote parent of the consumer's
/// span. `None` if there is none, or it is malformed: the headers are the publisher's, and may be
/// anything.
#[must_use]
pub fn extract(headers: Option<&FieldTable>) -> Option<SpanContext> {
    let extractor = HeaderExtractor(headers?);
    let (trace_id, span_id, flags) = parse_parent(extractor.get(TRACEPARENT)?)?;
    // A malformed state does not invalidate the parent.
    let state = extractor
        .get(TRACESTATE)
        .filter(|state| state.len() <= TRACESTATE_MAX)
        .and_then(|state| TraceState::from_str(state).ok())
        .unwrap_or_default();
    let span = SpanContext::new(trace_id, span_id, flags, true, state);
    span.is_valid().then_some(span)
}

/// Parses a `traceparent`: version, trace id, span id and flags in lower-case hexadecimal, with
/// hyphens between. A later version may have more behind another hyphen.
fn parse_parent(text: &str) -> Option<(TraceId, SpanId, TraceFlags)> {
    let mut parts = text.split('-');
    let (version, trace, span, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let version = hex(version, 2)?;
    let is_known = version == 0 && parts.next().is_none();
    let is_later = (1..0xff).contains(&version);
    if !(is_known || is_later) {
        return None;
    }
    let trace = TraceId::from(hex(trace, 32)?);
    let span = SpanId::from(u64::try_from(hex(span, 16)?).ok()?);
    let flags = u8::try_from(hex(flags, 2)?).ok()?;
    Some((trace, span, TraceFlags::new(flags) & TraceFlags::SAMPLED))
}

/// Parses a number of exactly `len` lower-case hexadecimal digits.
fn hex(text: &str, len: usize) -> Option<u128> {
    let digits = text.len() == len && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
    u128::from_str_radix(text, 16).ok().filter(|_| digits)
}

/// Headers as the target of a propagator of the API.
#[derive(Debug)]
pub struct HeaderInjector<'a>(pub &'a mut FieldTable);

impl HeaderInjector<'_> {
    fn remove(&mut self, key: &str) {
        if self.0.get(key).is_some() {
            let kept = self.0.iter().filter(|(name, _)| *name != key);
            *self.0 = kept
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect();
        }
    }
}

impl Injector for HeaderInjector<'_> {
    /// Sets a header. Does nothing if the name is longer than 255 bytes, which is the limit of the
    /// protocol.
    fn set(&mut self, key: &str, value: String) {
        if let Ok(name) = ShortStr::try_from(key) {
            self.0
                .insert(name, FieldValue::LongStr(LongStr::from(value)));
        }
    }
}

/// Headers as the source of a propagator of the API.
#[derive(Clone, Copy, Debug)]
pub struct HeaderExtractor<'a>(pub &'a FieldTable);

impl Extractor for HeaderExtractor<'_> {
    /// The header of that name. `Some` if it is a string in UTF-8.
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.as_str()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| &**name).collect()
    }
}

/// The name of a span: the operation and its destination. `queue` is that of a consumer, and empty
/// for a publish.
#[must_use]
pub fn span_name(operation: &str, exchange: &str, routing_key: &str, queue: &str) -> String {
    format!("{operation} {}", destination(exchange, routing_key, queue))
}

/// The attributes of the span of a publish: its destination and the sizes and ids of its message.
#[must_use]
pub fn publish_attributes(
    publish: &basic::Publish,
    properties: &Properties,
    body_len: usize,
) -> Vec<KeyValue> {
    let operation = ("publish", "send");
    let mut attributes = common(operation, &publish.exchange, &publish.routing_key, "");
    attributes.extend(of_message(properties, body_len));
    attributes
}

/// The attributes of the span in which a message is processed that was delivered from `queue`: a
/// delivery does not name it. Malformed properties are left out.
#[must_use]
pub fn process_attributes(message: &Message, queue: &str) -> Vec<KeyValue> {
    let method = &message.method;
    let operation = ("process", "process");
    let mut attributes = common(operation, &method.exchange, &method.routing_key, queue);
    attributes.push(KeyValue::new(
        "messaging.rabbitmq.message.delivery_tag",
        i64::try_from(method.delivery_tag).unwrap_or(i64::MAX),
    ));
    let properties = message.properties().unwrap_or_default();
    attributes.extend(of_message(&properties, message.body.len()));
    attributes
}

/// The attributes of all spans. The operation is its name and its type.
fn common(
    (name, kind): (&'static str, &'static str),
    exchange: &str,
    key: &str,
    queue: &str,
) -> Vec<KeyValue> {
    let mut attributes = vec![
        KeyValue::new("messaging.system", "rabbitmq"),
        KeyValue::new("messaging.operation.name", name),
        KeyValue::new("messaging.operation.type", kind),
        KeyValue::new(
            "messaging.destination.name",
            destination(exchange, key, queue),
        ),
    ];
    if !key.is_empty() {
        attributes.push(KeyValue::new(
            "messaging.rabbitmq.destination.routing_key",
            key.to_owned(),
        ));
    }
    attributes
}

fn of_message(properties: &Properties, body_len: usize) -> impl Iterator<Item = KeyValue> {
    let text = |name: &'static str, value: &Option<ShortStr>| {
        let value = value.as_ref().filter(|value| !value.is_empty())?;
        Some(KeyValue::new(name, value.to_string()))
    };
    let size = i64::try_from(body_len).unwrap_or(i64::MAX);
    [
        Some(KeyValue::new("messaging.message.body.size", size)),
        text("messaging.message.id", &properties.message_id),
        text(
            "messaging.message.conversation_id",
            &properties.correlation_id,
        ),
    ]
    .into_iter()
    .flatten()
}

/// The name of a destination: the exchange, the routing key and the queue of a consumer, without those
/// that are empty, and without a queue of the name of the key; `amq.default` if none is left.
fn destination(exchange: &str, routing_key: &str, queue: &str) -> String {
    let queue = if queue == routing_key { "" } else { queue };
    let parts = [exchange, routing_key, queue];
    let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    match parts.is_empty() {
        true => "amq.default".to_owned(),
        false => parts.join(":"),
    }
}
