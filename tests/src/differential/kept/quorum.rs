//! Quorum queues.

use crate::differential::program::{Argument, Exchange, Key, Step, Traits};

const fn declare(on: u8, queue: u8, arguments: Vec<Argument>) -> Step {
    Step::Queue {
        on,
        queue,
        passive: false,
        durable: true,
        exclusive: false,
        auto_delete: false,
        arguments,
    }
}

fn publish(on: u8, count: u8) -> Step {
    Step::Publish {
        on,
        exchange: Exchange::Default,
        key: Key::Queue(0),
        mandatory: true,
        count,
        traits: Traits::default(),
    }
}

const fn consume(on: u8, tag: u8) -> Step {
    Step::Consume {
        on,
        queue: 0,
        tag,
        no_ack: false,
        exclusive: false,
        priority: None,
    }
}

fn quorum() -> Step {
    declare(0, 0, vec![Argument::Type("quorum")])
}

pub(super) fn a_stream_without_a_name_comes_before_its_arguments() -> Vec<Step> {
    let arguments = vec![Argument::Type("stream"), Argument::MaxAge("h")];
    vec![declare(1, 4, arguments)]
}

pub(super) fn cancelled_consumers_with_deliveries_are_counted() -> Vec<Step> {
    vec![
        quorum(),
        consume(0, 0),
        publish(0, 2),
        Step::Cancel { on: 0, tag: 0 },
        Step::Ack {
            on: 0,
            pick: 0,
            multiple: false,
        },
        consume(0, 0),
        Step::Ack {
            on: 0,
            pick: 0,
            multiple: true,
        },
    ]
}

pub(super) fn fetched_messages_are_counted_as_consumers() -> Vec<Step> {
    vec![
        quorum(),
        publish(0, 1),
        Step::Get {
            on: 1,
            queue: 0,
            no_ack: false,
        },
        Step::Ack {
            on: 1,
            pick: 0,
            multiple: false,
        },
    ]
}

pub(super) fn a_channel_returns_deliveries_by_consumer() -> Vec<Step> {
    vec![quorum(), consume(0, 1), consume(0, 2), publish(0, 5)]
}

pub(super) fn requeued_messages_are_delivered_before_they_take_room() -> Vec<Step> {
    vec![
        declare(
            0,
            0,
            vec![
                Argument::MaxLength(3),
                Argument::MaxBytes(0),
                Argument::Type("quorum"),
            ],
        ),
        consume(1, 1),
        publish(2, 1),
        consume(0, 0),
        Step::Close { on: 1 },
    ]
}

pub(super) fn a_rejection_that_is_not_committed_keeps_its_place() -> Vec<Step> {
    vec![
        quorum(),
        publish(0, 3),
        consume(3, 0),
        Step::Reject {
            on: 3,
            pick: 1,
            requeue: false,
        },
        Step::Close { on: 3 },
    ]
}
