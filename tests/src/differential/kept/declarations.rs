//! Declared and deleted queues, exchanges and bindings.

use crate::differential::program::{Argument, Exchange, Key, Kind, Step, Traits};

pub(super) fn two_alternates_differ_by_value() -> Vec<Step> {
    vec![
        Step::Exchange {
            on: 2,
            exchange: Exchange::Own(2),
            kind: Kind::Headers,
            passive: false,
            durable: false,
            auto_delete: false,
            internal: false,
            alternate: Some(Exchange::Own(2)),
        },
        Step::Exchange {
            on: 3,
            exchange: Exchange::Own(2),
            kind: Kind::Headers,
            passive: false,
            durable: false,
            auto_delete: false,
            internal: false,
            alternate: Some(Exchange::Own(0)),
        },
    ]
}

pub(super) fn the_default_exchange_is_a_poor_alternate() -> Vec<Step> {
    vec![
        Step::Queue {
            on: 0,
            queue: 0,
            passive: false,
            durable: false,
            exclusive: false,
            auto_delete: false,
            arguments: vec![],
        },
        Step::Exchange {
            on: 3,
            exchange: Exchange::Own(2),
            kind: Kind::Topic,
            passive: false,
            durable: true,
            auto_delete: true,
            internal: false,
            alternate: Some(Exchange::Default),
        },
        Step::Publish {
            on: 1,
            exchange: Exchange::Own(2),
            key: Key::Text("a.b"),
            mandatory: true,
            count: 1,
            traits: Traits {
                headers: 4,
                priority: Some(4),
                bcc: Some(Key::Queue(0)),
                ..Traits::default()
            },
        },
    ]
}

pub(super) fn not_empty_comes_before_in_use() -> Vec<Step> {
    vec![
        Step::Queue {
            on: 1,
            queue: 1,
            passive: false,
            durable: true,
            exclusive: false,
            auto_delete: false,
            arguments: vec![],
        },
        Step::Exchange {
            on: 0,
            exchange: Exchange::Own(1),
            kind: Kind::Topic,
            passive: false,
            durable: false,
            auto_delete: false,
            internal: false,
            alternate: None,
        },
        Step::Bind {
            on: 0,
            queue: 1,
            exchange: Exchange::Own(1),
            key: Key::Text("#"),
            table: 0,
        },
        Step::Qos {
            on: 0,
            prefetch: 1,
            global: false,
        },
        Step::Publish {
            on: 2,
            exchange: Exchange::Default,
            key: Key::Queue(1),
            mandatory: true,
            count: 1,
            traits: Traits::default(),
        },
        Step::Publish {
            on: 2,
            exchange: Exchange::Own(1),
            key: Key::Text("a.b"),
            mandatory: false,
            count: 1,
            traits: Traits {
                headers: 2,
                ..Traits::default()
            },
        },
        Step::Consume {
            on: 0,
            queue: 1,
            tag: 0,
            no_ack: false,
            exclusive: false,
            priority: None,
        },
        Step::DeleteQueue {
            on: 0,
            queue: 1,
            if_unused: true,
            if_empty: true,
        },
    ]
}

pub(super) fn exclusive_queues_are_not_durable() -> Vec<Step> {
    vec![
        Step::Queue {
            on: 2,
            queue: 3,
            passive: false,
            durable: true,
            exclusive: true,
            auto_delete: false,
            arguments: vec![Argument::SingleActive(true)],
        },
        Step::Queue {
            on: 2,
            queue: 3,
            passive: false,
            durable: false,
            exclusive: true,
            auto_delete: true,
            arguments: vec![],
        },
    ]
}

pub(super) fn a_wrong_binding_comes_before_the_lock() -> Vec<Step> {
    vec![
        Step::Exchange {
            on: 2,
            exchange: Exchange::Own(0),
            kind: Kind::Headers,
            passive: false,
            durable: false,
            auto_delete: false,
            internal: false,
            alternate: None,
        },
        Step::Queue {
            on: 3,
            queue: 0,
            passive: false,
            durable: true,
            exclusive: true,
            auto_delete: false,
            arguments: vec![],
        },
        Step::Bind {
            on: 2,
            queue: 0,
            exchange: Exchange::Own(0),
            key: Key::Queue(0),
            table: 6,
        },
    ]
}
