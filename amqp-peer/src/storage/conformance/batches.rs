//! Batches: whole, in order, or not at all.

use std::time::Duration;

use super::{
    Case,
    bench::{
        Bench, Expected, Verdict, accept, clear, clock, forget, id, message, name, push, pushes,
        remove, remove_to, row,
    },
};
use crate::storage::{Change, MAX_SEQUENCE, StorageErrorKind, WallTime};

pub(super) const CASES: &[Case] = &[
    Case::new(
        "order_in_a_batch",
        "changes of a batch apply one after the other",
        order_in_a_batch,
    ),
    Case::new(
        "all_in_a_batch",
        "a batch has changes of all kinds and of several names",
        all_in_a_batch,
    ),
    Case::new(
        "atomic_batch",
        "of a batch that is refused for its last change, nothing is applied",
        atomic_batch,
    ),
    Case::new(
        "refused_numbers",
        "sequences and positions beyond the largest are refused as misuse, and the storage goes on",
        refused_numbers,
    ),
    Case::new(
        "empty_batch",
        "a batch without changes changes nothing",
        empty_batch,
    ),
    Case::new(
        "batch_again",
        "a batch that is applied twice has the result of once",
        batch_again,
    ),
    Case::new(
        "last_change",
        "the last change of the last batch is there, without a farewell",
        last_change,
    ),
];

fn order_in_a_batch(bench: &mut Bench<'_>) -> Verdict {
    let bob = name("bob")?;
    bench.apply(&[
        push(&bob, 1, message(1, "cleared")),
        clear(&bob),
        push(&bob, 2, message(2, "removed")),
        remove_to(&bob, 2),
        push(&bob, 1, message(3, "stays")),
        accept(&bob, 1, id(1)),
        forget(&bob, 5),
        accept(&bob, 2, id(2)),
        clock(&bob, Duration::from_secs(1), None),
        clock(&bob, Duration::from_secs(2), None),
    ])?;
    let expected = Expected::new()
        .outbox(&bob, [(1, message(3, "stays"))])
        .accepted(&bob, [(2, id(2))])
        .clock(&bob, Duration::from_secs(2), None);
    bench.expect(&expected)
}

fn all_in_a_batch(bench: &mut Bench<'_>) -> Verdict {
    let (bob, alice) = (name("bob")?, name("alice")?);
    bench.apply(&pushes(&bob, 1..=5))?;
    bench.apply(&pushes(&alice, 1..=5))?;
    bench.apply(&[accept(&bob, 1, id(1)), accept(&bob, 2, id(2))])?;
    let since = Some(WallTime(Duration::from_secs(1_700_000_000)));
    bench.apply(&[
        push(&alice, 6, message(6, "message 6")),
        remove(&bob, 3),
        remove_to(&alice, 2),
        accept(&alice, 9, id(9)),
        forget(&bob, 2),
        clock(&bob, Duration::from_millis(1), since),
        clear(&bob),
        clock(&alice, Duration::from_millis(2), since),
    ])?;
    let expected = Expected::new()
        .outbox(&alice, row(3..=6))
        .accepted(&alice, [(9, id(9))])
        .accepted(&bob, [(2, id(2))])
        .clock(&alice, Duration::from_millis(2), since);
    bench.expect(&expected)
}

fn atomic_batch(bench: &mut Bench<'_>) -> Verdict {
    let bob = name("bob")?;
    let before = || {
        Expected::new()
            .outbox(&bob, row(1..=3))
            .accepted(&bob, [(1, id(1))])
            .clock(&bob, Duration::from_secs(1), None)
    };
    bench.apply(&pushes(&bob, 1..=3))?;
    bench.apply(&[
        accept(&bob, 1, id(1)),
        clock(&bob, Duration::from_secs(1), None),
    ])?;
    bench.refuse(&[
        remove(&bob, 2),
        push(&bob, 3, message(30, "another")),
        push(&bob, 4, message(4, "new")),
        accept(&bob, 2, id(2)),
        forget(&bob, 2),
        clock(&bob, Duration::from_secs(2), None),
        push(&bob, MAX_SEQUENCE + 1, message(5, "refused")),
    ])?;
    bench.expect(&before())?;
    bench.refuse(&[clear(&bob), remove_to(&bob, u64::MAX)])?;
    bench.expect(&before())
}

fn refused_numbers(bench: &mut Bench<'_>) -> Verdict {
    let bob = name("bob")?;
    for beyond in [MAX_SEQUENCE + 1, u64::MAX] {
        let changes: [Change; 5] = [
            push(&bob, beyond, message(1, "beyond")),
            remove(&bob, beyond),
            remove_to(&bob, beyond),
            accept(&bob, beyond, id(1)),
            forget(&bob, beyond),
        ];
        for change in changes {
            let error = bench.refuse(&[change])?;
            if error.kind() != StorageErrorKind::Misuse {
                return Err(format!("refuses {beyond} as {:?}: {error}", error.kind()));
            }
        }
    }
    bench.apply(&pushes(&bob, [MAX_SEQUENCE]))?;
    bench.apply(&[accept(&bob, MAX_SEQUENCE, id(1))])?;
    let expected = Expected::new()
        .outbox(&bob, row([MAX_SEQUENCE]))
        .accepted(&bob, [(MAX_SEQUENCE, id(1))]);
    bench.expect(&expected)
}

fn empty_batch(bench: &mut Bench<'_>) -> Verdict {
    let bob = name("bob")?;
    bench.apply(&[])?;
    bench.expect(&Expected::new())?;
    bench.apply(&pushes(&bob, [1]))?;
    bench.apply(&[])?;
    bench.expect(&Expected::new().outbox(&bob, row([1])))
}

fn batch_again(bench: &mut Bench<'_>) -> Verdict {
    let bob = name("bob")?;
    bench.apply(&pushes(&bob, 1..=4))?;
    let batch = [
        remove(&bob, 1),
        remove_to(&bob, 2),
        push(&bob, 5, message(5, "message 5")),
        accept(&bob, 3, id(3)),
        accept(&bob, 4, id(4)),
        forget(&bob, 4),
        clock(&bob, Duration::from_secs(9), None),
    ];
    bench.apply(&batch)?;
    bench.apply(&batch)?;
    let expected = Expected::new()
        .outbox(&bob, row(3..=5))
        .accepted(&bob, [(4, id(4))])
        .clock(&bob, Duration::from_secs(9), None);
    bench.expect(&expected)
}

fn last_change(bench: &mut Bench<'_>) -> Verdict {
    let bob = name("bob")?;
    for sequence in 1..=10 {
        bench.apply(&pushes(&bob, [sequence]))?;
        bench.close();
        bench.expect_open(&Expected::new().outbox(&bob, row(1..=sequence)))?;
    }
    for sequence in 1..=9 {
        bench.apply(&[remove(&bob, sequence)])?;
        bench.close();
        bench.expect_open(&Expected::new().outbox(&bob, row(sequence + 1..=10)))?;
    }
    bench.apply(&[accept(&bob, 1, id(1)), accept(&bob, 2, id(2))])?;
    bench.close();
    let expected = Expected::new()
        .outbox(&bob, row([10]))
        .accepted(&bob, [(1, id(1)), (2, id(2))]);
    bench.expect(&expected)
}
