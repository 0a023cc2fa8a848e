//! The identifiers of accepted messages, and their forgetting.

use super::{
    Case,
    bench::{Bench, Expected, Verdict, accept, clear, forget, id, name, pushes, row},
};
use crate::{MessageId, storage::MAX_SEQUENCE};

pub(super) const CASES: &[Case] = &[
    Case::new(
        "accepted_by_sender",
        "accepted identifiers come back by sender, in the numeric order of their positions",
        accepted_by_sender,
    ),
    Case::new(
        "accepted_again",
        "an identifier may have two positions, and a position that is there has a new identifier",
        accepted_again,
    ),
    Case::new(
        "forgetting",
        "what is below a position is forgotten, without it, and for one sender alone",
        forgetting,
    ),
    Case::new(
        "forgetting_absent",
        "forgetting what is not there does nothing, and is no error",
        forgetting_absent,
    ),
    Case::new(
        "accepted_and_sent",
        "accepted identifiers and messages of one name do not touch each other",
        accepted_and_sent,
    ),
    Case::new(
        "window",
        "a window of 100 identifiers that moves over 2,000 holds the last ones",
        window,
    ),
];

fn accepted_by_sender(bench: &mut Bench<'_>) -> Verdict {
    let (bob, alice) = (name("bob")?, name("alice")?);
    let positions = [0, 2, 9, 10, 100, 255, 256, 65_536, 1 << 32, MAX_SEQUENCE];
    for position in positions {
        bench.apply(&[
            accept(&bob, position, id(position)),
            accept(&alice, position, id(position ^ 1)),
        ])?;
    }
    let all = MessageId::from_bytes([255; 16]);
    bench.apply(&[accept(&bob, 1, all)])?;
    let mut bobs: Vec<_> = positions.map(|position| (position, id(position))).into();
    bobs.insert(1, (1, all));
    let alices = positions.map(|position| (position, id(position ^ 1)));
    let expected = Expected::new()
        .accepted(&bob, bobs)
        .accepted(&alice, alices);
    bench.expect(&expected)
}

fn accepted_again(bench: &mut Bench<'_>) -> Verdict {
    let bob = name("bob")?;
    bench.apply(&[accept(&bob, 1, id(7)), accept(&bob, 2, id(8))])?;
    bench.apply(&[accept(&bob, 3, id(7)), accept(&bob, 2, id(9))])?;
    let expected = Expected::new().accepted(&bob, [(1, id(7)), (2, id(9)), (3, id(7))]);
    bench.expect(&expected)
}

fn forgetting(bench: &mut Bench<'_>) -> Verdict {
    let (bob, alice) = (name("bob")?, name("alice")?);
    let ids = |positions: std::ops::RangeInclusive<u64>| positions.map(|it| (it, id(it)));
    for from in [&bob, &alice] {
        let accepted = ids(1..=10).map(|(position, id)| accept(from, position, id));
        bench.apply(&accepted.collect::<Vec<_>>())?;
    }
    let alices = || Expected::new().accepted(&alice, ids(1..=10));
    bench.apply(&[forget(&bob, 4)])?;
    bench.expect(&alices().accepted(&bob, ids(4..=10)))?;
    bench.apply(&[forget(&bob, 10)])?;
    bench.expect(&alices().accepted(&bob, ids(10..=10)))?;
    bench.apply(&[forget(&bob, 11)])?;
    bench.expect(&alices())
}

fn forgetting_absent(bench: &mut Bench<'_>) -> Verdict {
    let (bob, stranger) = (name("bob")?, name("stranger")?);
    bench.apply(&[accept(&bob, 5, id(5))])?;
    bench.apply(&[forget(&bob, 0), forget(&bob, 5)])?;
    bench.apply(&[forget(&stranger, MAX_SEQUENCE)])?;
    bench.expect(&Expected::new().accepted(&bob, [(5, id(5))]))
}

fn accepted_and_sent(bench: &mut Bench<'_>) -> Verdict {
    let bob = name("bob")?;
    bench.apply(&pushes(&bob, 1..=3))?;
    bench.apply(&[accept(&bob, 2, id(2)), accept(&bob, 3, id(3))])?;
    bench.apply(&[forget(&bob, 3)])?;
    let accepted = || Expected::new().accepted(&bob, [(3, id(3))]);
    bench.expect(&accepted().outbox(&bob, row(1..=3)))?;
    bench.apply(&[clear(&bob)])?;
    bench.expect(&accepted())
}

fn window(bench: &mut Bench<'_>) -> Verdict {
    let bob = name("bob")?;
    for first in (0..2000_u64).step_by(50) {
        let mut batch: Vec<_> = (first..first + 50)
            .map(|position| accept(&bob, position, id(position)))
            .collect();
        batch.push(forget(&bob, (first + 50).saturating_sub(100)));
        bench.apply(&batch)?;
    }
    let last = (1900..2000).map(|position| (position, id(position)));
    bench.expect(&Expected::new().accepted(&bob, last))
}
