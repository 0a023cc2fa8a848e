//! The order of deliveries and of consumers.

use crate::differential::program::{Argument, Exchange, Key, Kind, Step, Traits};

pub(super) fn deliveries_go_back_by_consumer() -> Vec<Step> {
    vec![
        Step::Queue {
            on: 1,
            queue: 2,
            passive: false,
            durable: false,
            exclusive: false,
            auto_delete: false,
            arguments: vec![],
        },
        Step::Consume {
            on: 0,
            queue: 2,
            tag: 0,
            no_ack: false,
            exclusive: false,
            priority: None,
        },
        Step::Consume {
            on: 0,
            queue: 2,
            tag: 1,
            no_ack: false,
            exclusive: false,
            priority: None,
        },
        Step::Publish {
            on: 0,
            exchange: Exchange::Default,
            key: Key::Queue(2),
            mandatory: true,
            count: 5,
            traits: Traits::default(),
        },
        Step::Nack {
            on: 0,
            pick: 5,
            multiple: true,
            requeue: true,
        },
    ]
}

pub(super) fn requeued_messages_of_a_channel_take_room_first() -> Vec<Step> {
    vec![
        Step::Queue {
            on: 3,
            queue: 2,
            passive: false,
            durable: false,
            exclusive: false,
            auto_delete: false,
            arguments: vec![Argument::MaxLength(3)],
        },
        Step::Consume {
            on: 2,
            queue: 2,
            tag: 0,
            no_ack: false,
            exclusive: false,
            priority: None,
        },
        Step::Publish {
            on: 0,
            exchange: Exchange::Default,
            key: Key::Queue(2),
            mandatory: true,
            count: 5,
            traits: Traits::default(),
        },
        Step::Consume {
            on: 0,
            queue: 2,
            tag: 2,
            no_ack: false,
            exclusive: false,
            priority: None,
        },
        Step::Queue {
            on: 2,
            queue: 2,
            passive: false,
            durable: false,
            exclusive: false,
            auto_delete: false,
            arguments: vec![],
        },
    ]
}

pub(super) fn a_released_consumer_is_last() -> Vec<Step> {
    vec![
        Step::Exchange {
            on: 2,
            exchange: Exchange::Own(1),
            kind: Kind::Headers,
            passive: false,
            durable: true,
            auto_delete: true,
            internal: false,
            alternate: None,
        },
        Step::Queue {
            on: 0,
            queue: 0,
            passive: false,
            durable: false,
            exclusive: false,
            auto_delete: false,
            arguments: vec![Argument::MaxBytes(40)],
        },
        Step::Bind {
            on: 2,
            queue: 0,
            exchange: Exchange::Own(1),
            key: Key::Text("a"),
            table: 0,
        },
        Step::Qos {
            on: 0,
            prefetch: 2,
            global: true,
        },
        Step::Publish {
            on: 2,
            exchange: Exchange::Default,
            key: Key::Queue(0),
            mandatory: true,
            count: 1,
            traits: Traits {
                cc: Some(Key::Queue(0)),
                ..Traits::default()
            },
        },
        Step::Consume {
            on: 0,
            queue: 0,
            tag: 0,
            no_ack: false,
            exclusive: false,
            priority: None,
        },
        Step::Consume {
            on: 1,
            queue: 0,
            tag: 2,
            no_ack: true,
            exclusive: false,
            priority: None,
        },
        Step::Publish {
            on: 1,
            exchange: Exchange::Own(1),
            key: Key::Text("a"),
            mandatory: false,
            count: 3,
            traits: Traits::default(),
        },
        Step::Publish {
            on: 1,
            exchange: Exchange::Own(1),
            key: Key::Text(""),
            mandatory: false,
            count: 1,
            traits: Traits {
                headers: 4,
                ..Traits::default()
            },
        },
        Step::Ack {
            on: 0,
            pick: 4,
            multiple: false,
        },
        Step::Publish {
            on: 1,
            exchange: Exchange::Own(1),
            key: Key::Queue(0),
            mandatory: false,
            count: 1,
            traits: Traits {
                expiration: Some("0"),
                ..Traits::default()
            },
        },
    ]
}

pub(super) fn a_limit_of_the_channel_releases_in_the_order_of_holding() -> Vec<Step> {
    vec![
        Step::Queue {
            on: 1,
            queue: 2,
            passive: false,
            durable: true,
            exclusive: false,
            auto_delete: false,
            arguments: vec![],
        },
        Step::Consume {
            on: 1,
            queue: 2,
            tag: 2,
            no_ack: false,
            exclusive: false,
            priority: None,
        },
        Step::Qos {
            on: 1,
            prefetch: 1,
            global: true,
        },
        Step::Consume {
            on: 1,
            queue: 2,
            tag: 1,
            no_ack: false,
            exclusive: false,
            priority: None,
        },
        Step::Publish {
            on: 2,
            exchange: Exchange::Default,
            key: Key::Queue(2),
            mandatory: true,
            count: 3,
            traits: Traits::default(),
        },
        Step::Reject {
            on: 1,
            pick: 0,
            requeue: false,
        },
    ]
}

pub(super) fn consumers_are_held_in_the_order_of_their_turns() -> Vec<Step> {
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
        Step::Consume {
            on: 0,
            queue: 0,
            tag: 2,
            no_ack: false,
            exclusive: false,
            priority: None,
        },
        Step::Qos {
            on: 0,
            prefetch: 1,
            global: true,
        },
        Step::Publish {
            on: 3,
            exchange: Exchange::Default,
            key: Key::Queue(0),
            mandatory: false,
            count: 5,
            traits: Traits::default(),
        },
        Step::Consume {
            on: 0,
            queue: 0,
            tag: 0,
            no_ack: false,
            exclusive: false,
            priority: None,
        },
        Step::Commit,
        Step::Nack {
            on: 0,
            pick: 1,
            multiple: false,
            requeue: false,
        },
    ]
}
