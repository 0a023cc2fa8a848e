//! The clocks of the time to live.

use std::time::Duration;

use super::{
    Case,
    bench::{Bench, Expected, Verdict, clear, clock, name, pushes, remove_to},
};
use crate::storage::WallTime;

pub(super) const CASES: &[Case] = &[
    Case::new(
        "clocks",
        "a clock by name comes back, that runs and that stands, to the nanosecond",
        clocks,
    ),
    Case::new(
        "clock_again",
        "a clock is replaced as a whole, also by an earlier time",
        clock_again,
    ),
    Case::new(
        "clock_without_messages",
        "a clock stays when the last message has gone, until all is cleared",
        clock_without_messages,
    ),
];

fn clocks(bench: &mut Bench<'_>) -> Verdict {
    let values = [
        ("stands", Duration::ZERO, None),
        (
            "runs",
            Duration::new(5, 1),
            Some(WallTime(Duration::new(1_700_000_000, 7))),
        ),
        (
            "began in 1970",
            Duration::from_nanos(1),
            Some(WallTime(Duration::ZERO)),
        ),
        ("ran for ever", Duration::MAX, Some(WallTime(Duration::MAX))),
    ];
    let mut expected = Expected::new();
    for (text, disconnected, since) in values {
        let name = name(text)?;
        bench.apply(&[clock(&name, disconnected, since)])?;
        expected = expected.clock(&name, disconnected, since);
    }
    bench.expect(&expected)
}

fn clock_again(bench: &mut Bench<'_>) -> Verdict {
    let (bob, alice) = (name("bob")?, name("alice")?);
    let since = Some(WallTime(Duration::from_secs(100)));
    bench.apply(&[
        clock(&bob, Duration::from_secs(1), since),
        clock(&alice, Duration::from_secs(1), since),
    ])?;
    bench.apply(&[clock(&bob, Duration::from_secs(3), None)])?;
    let alices = || Expected::new().clock(&alice, Duration::from_secs(1), since);
    bench.expect(&alices().clock(&bob, Duration::from_secs(3), None))?;
    bench.apply(&[clock(&bob, Duration::from_secs(2), since)])?;
    bench.expect(&alices().clock(&bob, Duration::from_secs(2), since))
}

fn clock_without_messages(bench: &mut Bench<'_>) -> Verdict {
    let bob = name("bob")?;
    bench.apply(&pushes(&bob, 1..=3))?;
    bench.apply(&[clock(&bob, Duration::from_secs(1), None)])?;
    bench.apply(&[remove_to(&bob, 3)])?;
    bench.expect(&Expected::new().clock(&bob, Duration::from_secs(1), None))?;
    bench.apply(&[clear(&bob)])?;
    bench.expect(&Expected::new())
}
