//! Programs that once showed a difference between the embedded broker and RabbitMQ.

use super::program::{Argument, Exchange, Key, Kind, Program, Step, Traits};

/// Every program that is run each time, with a name for it.
#[must_use]
pub fn kept() -> Vec<(&'static str, Program)> {
    vec![
        (
            "a_transaction_finds_its_queues_at_the_commit",
            Program {
                seed: 49,
                steps: a_transaction_finds_its_queues_at_the_commit(),
            },
        ),
        (
            "what_a_transaction_cannot_place_is_returned_at_the_commit",
            Program {
                seed: 47,
                steps: what_a_transaction_cannot_place_is_returned_at_the_commit(),
            },
        ),
        (
            "two_alternates_are_told_apart_by_value",
            Program {
                seed: 1306,
                steps: two_alternates_are_told_apart_by_value(),
            },
        ),
        (
            "deliveries_go_back_by_consumer",
            Program {
                seed: 1249,
                steps: deliveries_go_back_by_consumer(),
            },
        ),
        (
            "the_default_exchange_is_a_poor_alternate",
            Program {
                seed: 1334,
                steps: the_default_exchange_is_a_poor_alternate(),
            },
        ),
        (
            "what_a_channel_leaves_takes_its_room_first",
            Program {
                seed: 1327,
                steps: what_a_channel_leaves_takes_its_room_first(),
            },
        ),
        (
            "not_empty_comes_before_in_use",
            Program {
                seed: 1416,
                steps: not_empty_comes_before_in_use(),
            },
        ),
        (
            "exclusive_queues_are_not_durable",
            Program {
                seed: 1672,
                steps: exclusive_queues_are_not_durable(),
            },
        ),
        (
            "a_wrong_binding_comes_before_the_lock",
            Program {
                seed: 1708,
                steps: a_wrong_binding_comes_before_the_lock(),
            },
        ),
        (
            "a_transaction_that_is_refused_in_part_fails",
            Program {
                seed: 1218,
                steps: a_transaction_that_is_refused_in_part_fails(),
            },
        ),
        (
            "what_has_no_time_is_not_left_over",
            Program {
                seed: 1942,
                steps: what_has_no_time_is_not_left_over(),
            },
        ),
        (
            "what_has_no_time_goes_before_the_next",
            Program {
                seed: 2449,
                steps: what_has_no_time_goes_before_the_next(),
            },
        ),
        (
            "each_message_of_a_transaction_has_its_turn",
            Program {
                seed: 22117,
                steps: each_message_of_a_transaction_has_its_turn(),
            },
        ),
        (
            "what_has_no_time_waits_for_a_higher_priority",
            Program {
                seed: 50024,
                steps: what_has_no_time_waits_for_a_higher_priority(),
            },
        ),
        (
            "a_released_consumer_is_last",
            Program {
                seed: 104512,
                steps: a_released_consumer_is_last(),
            },
        ),
        (
            "what_is_done_alike_in_a_transaction_is_done_at_once",
            Program {
                seed: 105841,
                steps: what_is_done_alike_in_a_transaction_is_done_at_once(),
            },
        ),
        (
            "a_limit_of_the_channel_releases_in_the_order_of_holding",
            Program {
                seed: 777840,
                steps: a_limit_of_the_channel_releases_in_the_order_of_holding(),
            },
        ),
        (
            "consumers_are_held_in_the_order_of_their_turns",
            Program {
                seed: 778320,
                steps: consumers_are_held_in_the_order_of_their_turns(),
            },
        ),
    ]
}

fn a_transaction_finds_its_queues_at_the_commit() -> Vec<Step> {
    vec![
        Step::Publish {
            on: 3,
            exchange: Exchange::Default,
            key: Key::Queue(1),
            mandatory: true,
            count: 1,
            traits: Traits {
                cc: Some(Key::Queue(1)),
                ..Traits::default()
            },
        },
        Step::Queue {
            on: 0,
            queue: 1,
            passive: false,
            durable: true,
            exclusive: false,
            auto_delete: false,
            arguments: vec![Argument::SingleActive(true)],
        },
        Step::Commit,
    ]
}

fn what_a_transaction_cannot_place_is_returned_at_the_commit() -> Vec<Step> {
    vec![
        Step::Queue {
            on: 2,
            queue: 1,
            passive: false,
            durable: false,
            exclusive: false,
            auto_delete: false,
            arguments: vec![],
        },
        Step::Publish {
            on: 3,
            exchange: Exchange::Default,
            key: Key::Queue(1),
            mandatory: true,
            count: 1,
            traits: Traits {
                priority: Some(1),
                ..Traits::default()
            },
        },
        Step::DeleteQueue {
            on: 1,
            queue: 1,
            if_unused: false,
            if_empty: false,
        },
        Step::Commit,
    ]
}

fn two_alternates_are_told_apart_by_value() -> Vec<Step> {
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

fn deliveries_go_back_by_consumer() -> Vec<Step> {
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

fn the_default_exchange_is_a_poor_alternate() -> Vec<Step> {
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

fn what_a_channel_leaves_takes_its_room_first() -> Vec<Step> {
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

fn not_empty_comes_before_in_use() -> Vec<Step> {
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

fn exclusive_queues_are_not_durable() -> Vec<Step> {
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

fn a_wrong_binding_comes_before_the_lock() -> Vec<Step> {
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

fn a_transaction_that_is_refused_in_part_fails() -> Vec<Step> {
    vec![
        Step::Queue {
            on: 3,
            queue: 3,
            passive: false,
            durable: false,
            exclusive: false,
            auto_delete: false,
            arguments: vec![
                Argument::MaxLength(1),
                Argument::DeadLetter(Exchange::Own(0)),
                Argument::Overflow("reject-publish"),
            ],
        },
        Step::Publish {
            on: 3,
            exchange: Exchange::Default,
            key: Key::Queue(3),
            mandatory: false,
            count: 2,
            traits: Traits::default(),
        },
        Step::Commit,
    ]
}

fn what_has_no_time_is_not_left_over() -> Vec<Step> {
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

fn what_has_no_time_goes_before_the_next() -> Vec<Step> {
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

fn each_message_of_a_transaction_has_its_turn() -> Vec<Step> {
    vec![
        Step::Queue {
            on: 1,
            queue: 3,
            passive: false,
            durable: true,
            exclusive: false,
            auto_delete: true,
            arguments: vec![
                Argument::MaxPriority(1),
                Argument::Overflow("reject-publish"),
            ],
        },
        Step::Consume {
            on: 0,
            queue: 3,
            tag: 1,
            no_ack: true,
            exclusive: false,
            priority: None,
        },
        Step::Publish {
            on: 3,
            exchange: Exchange::Default,
            key: Key::Queue(3),
            mandatory: false,
            count: 2,
            traits: Traits {
                expiration: Some("0"),
                ..Traits::default()
            },
        },
        Step::Commit,
    ]
}

fn what_has_no_time_waits_for_a_higher_priority() -> Vec<Step> {
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

fn a_released_consumer_is_last() -> Vec<Step> {
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

fn what_is_done_alike_in_a_transaction_is_done_at_once() -> Vec<Step> {
    vec![
        Step::Queue {
            on: 0,
            queue: 0,
            passive: false,
            durable: true,
            exclusive: true,
            auto_delete: false,
            arguments: vec![Argument::Overflow("reject-publish")],
        },
        Step::Consume {
            on: 3,
            queue: 0,
            tag: 2,
            no_ack: false,
            exclusive: false,
            priority: None,
        },
        Step::Publish {
            on: 0,
            exchange: Exchange::Default,
            key: Key::Queue(0),
            mandatory: false,
            count: 5,
            traits: Traits::default(),
        },
        Step::Reject {
            on: 3,
            pick: 4,
            requeue: true,
        },
        Step::Reject {
            on: 3,
            pick: 0,
            requeue: true,
        },
        Step::Commit,
    ]
}

fn a_limit_of_the_channel_releases_in_the_order_of_holding() -> Vec<Step> {
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

fn consumers_are_held_in_the_order_of_their_turns() -> Vec<Step> {
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
