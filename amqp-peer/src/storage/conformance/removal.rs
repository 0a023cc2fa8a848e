//! Removal: of one message, of ranges, and of all.

use std::time::Duration;

use super::{
    Case,
    bench::{
        Bench, Expected, Verdict, accept, clear, clock, id, message, name, push, pushes, remove,
        remove_to, row,
    },
};
use crate::storage::MAX_SEQUENCE;

pub(super) const CASES: &[Case] = &[
    Case::new(
        "removal_of_one",
        "the first, one in the middle and the last message go, and no other",
        removal_of_one,
    ),
    Case::new(
        "removal_of_range",
        "all messages up to a sequence go, with it, and no other",
        removal_of_range,
    ),
    Case::new(
        "removal_beyond",
        "ranges may end before the first message, after the last, and in a gap",
        removal_beyond,
    ),
    Case::new(
        "removal_of_all",
        "what is stored for a receiver goes: messages and clock, but not what was accepted from it",
        removal_of_all,
    ),
    Case::new(
        "removal_by_receiver",
        "removals leave the messages to other receivers with the same sequences",
        removal_by_receiver,
    ),
    Case::new(
        "removal_of_absent",
        "removals of what is not there do nothing, and are no errors",
        removal_of_absent,
    ),
    Case::new(
        "push_after_removal",
        "a sequence that was removed can be pushed again, with another message",
        push_after_removal,
    ),
];

fn removal_of_one(bench: &mut Bench<'_>) -> Verdict {
    let bob = name("bob")?;
    bench.apply(&pushes(&bob, 1..=9))?;
    for sequence in [5, 1, 9] {
        bench.apply(&[remove(&bob, sequence)])?;
    }
    bench.expect(&Expected::new().outbox(&bob, row([2, 3, 4, 6, 7, 8])))?;
    bench.apply(&[remove(&bob, 2), remove(&bob, 4), remove(&bob, 8)])?;
    bench.expect(&Expected::new().outbox(&bob, row([3, 6, 7])))
}

fn removal_of_range(bench: &mut Bench<'_>) -> Verdict {
    let bob = name("bob")?;
    bench.apply(&pushes(&bob, 1..=20))?;
    bench.apply(&[remove(&bob, 3), remove_to(&bob, 5)])?;
    bench.expect(&Expected::new().outbox(&bob, row(6..=20)))?;
    bench.apply(&[remove_to(&bob, 10), remove_to(&bob, 12)])?;
    bench.expect(&Expected::new().outbox(&bob, row(13..=20)))?;
    bench.apply(&[remove_to(&bob, 20)])?;
    bench.expect(&Expected::new())
}

fn removal_beyond(bench: &mut Bench<'_>) -> Verdict {
    let bob = name("bob")?;
    bench.apply(&pushes(&bob, [10, 20, 30, 40]))?;
    bench.apply(&[remove_to(&bob, 0), remove_to(&bob, 9)])?;
    bench.expect(&Expected::new().outbox(&bob, row([10, 20, 30, 40])))?;
    bench.apply(&[remove_to(&bob, 25)])?;
    bench.expect(&Expected::new().outbox(&bob, row([30, 40])))?;
    bench.apply(&[remove_to(&bob, MAX_SEQUENCE)])?;
    bench.expect(&Expected::new())
}

fn removal_of_all(bench: &mut Bench<'_>) -> Verdict {
    let (bob, alice) = (name("bob")?, name("alice")?);
    let day = Duration::from_secs(86_400);
    for to in [&bob, &alice] {
        bench.apply(&pushes(to, 1..=5))?;
        bench.apply(&[clock(to, day, None), accept(to, 1, id(1))])?;
    }
    bench.apply(&[clear(&bob)])?;
    let expected = || {
        Expected::new()
            .outbox(&alice, row(1..=5))
            .clock(&alice, day, None)
            .accepted(&alice, [(1, id(1))])
            .accepted(&bob, [(1, id(1))])
    };
    bench.expect(&expected())?;
    bench.apply(&[clear(&bob)])?;
    bench.apply(&pushes(&bob, [6]))?;
    bench.expect(&expected().outbox(&bob, row([6])))
}

fn removal_by_receiver(bench: &mut Bench<'_>) -> Verdict {
    let (bob, alice, jack) = (name("bob")?, name("alice")?, name("jack")?);
    for to in [&bob, &alice, &jack] {
        bench.apply(&pushes(to, 1..=4))?;
    }
    bench.apply(&[remove(&bob, 3)])?;
    let expected = Expected::new()
        .outbox(&bob, row([1, 2, 4]))
        .outbox(&alice, row(1..=4))
        .outbox(&jack, row(1..=4));
    bench.expect(&expected)?;
    bench.apply(&[remove_to(&alice, 2)])?;
    let expected = Expected::new()
        .outbox(&bob, row([1, 2, 4]))
        .outbox(&alice, row(3..=4))
        .outbox(&jack, row(1..=4));
    bench.expect(&expected)
}

fn removal_of_absent(bench: &mut Bench<'_>) -> Verdict {
    let (bob, stranger) = (name("bob")?, name("stranger")?);
    bench.apply(&pushes(&bob, [2]))?;
    bench.apply(&[remove(&bob, 1)])?;
    bench.apply(&[remove(&bob, 3), remove(&stranger, 2)])?;
    bench.apply(&[remove_to(&stranger, 9), clear(&stranger)])?;
    bench.expect(&Expected::new().outbox(&bob, row([2])))
}

fn push_after_removal(bench: &mut Bench<'_>) -> Verdict {
    let bob = name("bob")?;
    bench.apply(&pushes(&bob, 1..=4))?;
    bench.apply(&[remove(&bob, 1)])?;
    bench.apply(&[push(&bob, 1, message(10, "again"))])?;
    bench.apply(&[remove(&bob, 2), push(&bob, 2, message(20, "in one batch"))])?;
    bench.apply(&[
        push(&bob, 3, message(30, "pushed")),
        remove(&bob, 3),
        push(&bob, 5, message(50, "pushed")),
        remove(&bob, 5),
    ])?;
    let expected = Expected::new().outbox(
        &bob,
        [
            (1, message(10, "again")),
            (2, message(20, "in one batch")),
            (4, message(4, "message 4")),
        ],
    );
    bench.expect(&expected)
}
