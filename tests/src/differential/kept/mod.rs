//! Programs that once showed a difference between the embedded broker and RabbitMQ.

mod consumers;
mod declarations;
mod expiry;
mod quorum;
mod transactions;

use super::program::{Program, Step};

type Steps = fn() -> Vec<Step>;

/// The name of each program, the seed that it comes from, and its steps.
const KEPT: [(&str, u64, Steps); 24] = [
    (
        "a_transaction_finds_its_queues_at_the_commit",
        49,
        transactions::a_transaction_finds_its_queues_at_the_commit,
    ),
    (
        "unroutable_messages_of_a_transaction_are_returned_at_the_commit",
        47,
        transactions::unroutable_messages_of_a_transaction_are_returned_at_the_commit,
    ),
    (
        "two_alternates_differ_by_value",
        1306,
        declarations::two_alternates_differ_by_value,
    ),
    (
        "deliveries_go_back_by_consumer",
        1249,
        consumers::deliveries_go_back_by_consumer,
    ),
    (
        "the_default_exchange_is_a_poor_alternate",
        1334,
        declarations::the_default_exchange_is_a_poor_alternate,
    ),
    (
        "requeued_messages_of_a_channel_take_room_first",
        1327,
        consumers::requeued_messages_of_a_channel_take_room_first,
    ),
    (
        "not_empty_comes_before_in_use",
        1416,
        declarations::not_empty_comes_before_in_use,
    ),
    (
        "exclusive_queues_are_not_durable",
        1672,
        declarations::exclusive_queues_are_not_durable,
    ),
    (
        "a_wrong_binding_comes_before_the_lock",
        1708,
        declarations::a_wrong_binding_comes_before_the_lock,
    ),
    (
        "a_transaction_that_is_refused_in_part_fails",
        1218,
        transactions::a_transaction_that_is_refused_in_part_fails,
    ),
    (
        "a_message_without_time_is_not_left_over",
        1942,
        expiry::a_message_without_time_is_not_left_over,
    ),
    (
        "a_message_without_time_goes_before_the_next",
        2449,
        expiry::a_message_without_time_goes_before_the_next,
    ),
    (
        "each_message_of_a_transaction_has_its_turn",
        22117,
        transactions::each_message_of_a_transaction_has_its_turn,
    ),
    (
        "a_message_without_time_waits_for_a_higher_priority",
        50024,
        expiry::a_message_without_time_waits_for_a_higher_priority,
    ),
    (
        "a_released_consumer_is_last",
        104512,
        consumers::a_released_consumer_is_last,
    ),
    (
        "equal_settlements_in_a_transaction_take_effect_together",
        105841,
        transactions::equal_settlements_in_a_transaction_take_effect_together,
    ),
    (
        "a_limit_of_the_channel_releases_in_the_order_of_holding",
        777840,
        consumers::a_limit_of_the_channel_releases_in_the_order_of_holding,
    ),
    (
        "consumers_are_held_in_the_order_of_their_turns",
        778320,
        consumers::consumers_are_held_in_the_order_of_their_turns,
    ),
    (
        "a_stream_without_a_name_comes_before_its_arguments",
        85,
        quorum::a_stream_without_a_name_comes_before_its_arguments,
    ),
    (
        "cancelled_consumers_with_deliveries_are_counted",
        3,
        quorum::cancelled_consumers_with_deliveries_are_counted,
    ),
    (
        "fetched_messages_are_counted_as_consumers",
        75,
        quorum::fetched_messages_are_counted_as_consumers,
    ),
    (
        "a_channel_returns_deliveries_by_consumer",
        1219,
        quorum::a_channel_returns_deliveries_by_consumer,
    ),
    (
        "requeued_messages_are_delivered_before_they_take_room",
        300_259,
        quorum::requeued_messages_are_delivered_before_they_take_room,
    ),
    (
        "a_rejection_that_is_not_committed_keeps_its_place",
        5203,
        quorum::a_rejection_that_is_not_committed_keeps_its_place,
    ),
];

/// Returns every program that is run each time, with its name.
#[must_use]
pub fn kept() -> Vec<(&'static str, Program)> {
    let programs = KEPT.into_iter();
    programs
        .map(|(name, seed, steps)| {
            let steps = steps();
            (name, Program { seed, steps })
        })
        .collect()
}
