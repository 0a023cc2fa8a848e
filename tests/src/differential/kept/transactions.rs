//! Transactions.

use crate::differential::program::{Argument, Exchange, Key, Step, Traits};

pub(super) fn a_transaction_finds_its_queues_at_the_commit() -> Vec<Step> {
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

pub(super) fn unroutable_messages_of_a_transaction_are_returned_at_the_commit() -> Vec<Step> {
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

pub(super) fn a_transaction_that_is_refused_in_part_fails() -> Vec<Step> {
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

pub(super) fn each_message_of_a_transaction_has_its_turn() -> Vec<Step> {
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

pub(super) fn equal_settlements_in_a_transaction_take_effect_together() -> Vec<Step> {
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
