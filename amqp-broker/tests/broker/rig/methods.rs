//! Requests and arguments, in short.

use amqp_core::{
    DeliveryTag, Tags,
    protocol::{basic, basic::Properties, exchange, queue},
    wire::{FieldTable, FieldValue, ShortStr},
};

pub(crate) fn name(text: &str) -> ShortStr {
    text.parse().unwrap()
}

/// Arguments of a declaration, or headers.
pub(crate) fn table<const N: usize>(fields: [(&str, FieldValue); N]) -> FieldTable {
    fields
        .into_iter()
        .map(|(field, value)| (name(field), value))
        .collect()
}

pub(crate) fn headers<const N: usize>(fields: [(&str, FieldValue); N]) -> Properties {
    Properties {
        headers: Some(table(fields)),
        ..Properties::default()
    }
}

pub(crate) fn queue(text: &str) -> queue::Declare {
    queue::Declare {
        queue: name(text),
        ..queue::Declare::default()
    }
}

pub(crate) fn queue_with<const N: usize>(
    text: &str,
    arguments: [(&str, FieldValue); N],
) -> queue::Declare {
    queue::Declare {
        arguments: table(arguments),
        ..queue(text)
    }
}

pub(crate) fn quorum<const N: usize>(
    text: &str,
    arguments: [(&str, FieldValue); N],
) -> queue::Declare {
    let mut declare = queue_with(text, arguments);
    declare.durable = true;
    declare.arguments.push(name("x-queue-type"), "quorum");
    declare
}

pub(crate) fn passive(text: &str) -> queue::Declare {
    queue::Declare {
        passive: true,
        ..queue(text)
    }
}

pub(crate) fn exchange(text: &str, kind: &str) -> exchange::Declare {
    exchange::Declare {
        exchange: name(text),
        kind: name(kind),
        ..exchange::Declare::default()
    }
}

pub(crate) fn bind(queue: &str, exchange: &str, key: &str) -> queue::Bind {
    queue::Bind {
        queue: name(queue),
        exchange: name(exchange),
        routing_key: name(key),
        ..queue::Bind::default()
    }
}

pub(crate) fn delete(text: &str) -> queue::Delete {
    queue::Delete {
        queue: name(text),
        ..queue::Delete::default()
    }
}

pub(crate) fn consumer(queue: &str, tag: &str) -> basic::Consume {
    basic::Consume {
        queue: name(queue),
        consumer_tag: name(tag),
        ..basic::Consume::default()
    }
}

pub(crate) fn tag(number: u64) -> Tags {
    Tags::One(DeliveryTag::new(number).unwrap())
}

pub(crate) fn up_to(number: u64) -> Tags {
    Tags::UpTo(DeliveryTag::new(number).unwrap())
}
