//! Messages that expire at once.

use crate::differential::program::{Argument, Exchange, Key, Kind, Step, Traits};

pub(super) fn a_message_without_time_is_not_left_over() -> Vec<Step> {
    vec![
        Step::Queue {
            on: 1,
            queue: 3,
            passive: false,
            durable: false,
            exclusive: false,
            auto_delete: false,
            arguments: vec![],
        },
        Step::Publish {
            on: 0,
            exchange: Exchange::Default,
            key: Key::Queue(3),
            mandatory: true,
            count: 1,
            traits: Traits::default(),
        },
        Step::Publish {
            on: 0,
            exchange: Exchange::Default,
            key: Key::Queue(3),
            mandatory: false,
            count: 1,
            traits: Traits {
                headers: 5,
                expiration: Some("0"),
                ..Traits::default()
            },
        },
        Step::Get {
            on: 1,
            queue: 3,
            no_ack: false,
        },
    ]
}

pub(super) fn a_message_without_time_goes_before_the_next() -> Vec<Step> {
    vec![
        Step::Queue {
            on: 1,
            queue: 0,
            passive: false,
            durable: false,
            exclusive: false,
            auto_delete: false,
            arguments: vec![],
        },
        Step::Publish {
            on: 1,
            exchange: Exchange::Default,
            key: Key::Queue(0),
            mandatory: false,
            count: 1,
            traits: Traits::default(),
        },
        Step::Publish {
            on: 0,
            exchange: Exchange::Default,
            key: Key::Queue(0),
            mandatory: false,
            count: 1,
            traits: Traits {
                expiration: Some("0"),
                ..Traits::default()
            },
        },
        Step::Consume {
            on: 2,
            queue: 0,
            tag: 2,
            no_ack: false,
            exclusive: false,
            priority: None,
        },
    ]
}

pub(super) fn a_message_without_time_waits_for_a_higher_priority() -> Vec<Step> {
    vec![
        Step::Queue {
            on: 3,
            queue: 0,
            passive: false,
            durable: false,
            exclusive: true,
            auto_delete: false,
            arguments: vec![Argument::SingleActive(true), Argument::MaxPriority(3)],
        },
        Step::Exchange {
            on: 3,
            exchange: Exchange::Own(2),
            kind: Kind::Fanout,
            passive: false,
            durable: false,
            auto_delete: false,
            internal: false,
            alternate: None,
        },
        Step::Consume {
            on: 3,
            queue: 0,
            tag: 0,
            no_ack: false,
            exclusive: false,
            priority: Some(-1),
        },
        Step::Publish {
            on: 2,
            exchange: Exchange::Default,
            key: Key::Queue(0),
            mandatory: false,
            count: 1,
            traits: Traits {
                priority: Some(1),
                expiration: Some("0"),
                ..Traits::default()
            },
        },
        Step::Bind {
            on: 3,
            queue: 0,
            exchange: Exchange::Own(2),
            key: Key::Text(""),
            table: 0,
        },
        Step::Publish {
            on: 0,
            exchange: Exchange::Own(2),
            key: Key::Text("a.b"),
            mandatory: false,
            count: 1,
            traits: Traits {
                headers: 1,
                priority: Some(200),
                ..Traits::default()
            },
        },
    ]
}
