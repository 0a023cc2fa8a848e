//! Sizes: no bytes and many, many messages, and names of all characters.

use std::collections::BTreeMap;

use super::{
    Case,
    bench::{
        Bench, Expected, Verdict, accept, clock, id, message, name, push, pushes, remove_to, row,
    },
};
use crate::{PeerName, storage::Change};

pub(super) const CASES: &[Case] = &[
    Case::new(
        "empty_bodies",
        "messages without a byte are messages, in order",
        empty_bodies,
    ),
    Case::new(
        "large_bodies",
        "bodies of up to 16 MiB come back, also one beside the size of a page or of a part",
        large_bodies,
    ),
    Case::new(
        "large_bodies_go",
        "large bodies are removed and replaced, by small and by large ones",
        large_bodies_go,
    ),
    Case::new(
        "many_messages",
        "10,000 messages in batches of 100 come back, and go",
        many_messages,
    ),
    Case::new(
        "large_batch",
        "a batch of 10,000 messages to 100 receivers",
        large_batch,
    ),
    Case::new(
        "names",
        "names of all characters, and names that differ in one, are names of their own",
        names,
    ),
];

/// Bytes that differ from each other wherever they are cut.
fn bytes(len: usize, seed: usize) -> Vec<u8> {
    let mut state = seed as u64 + 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&state.to_be_bytes());
    }
    bytes.truncate(len);
    bytes
}

fn empty_bodies(bench: &mut Bench<'_>) -> Verdict {
    let bob = name("bob")?;
    let bodies = ["", "between", "", ""];
    let messages = || {
        (1..)
            .zip(bodies)
            .map(|(number, body)| (number, message(number, body)))
    };
    let pushes = messages().map(|(number, message)| push(&bob, number, message));
    bench.apply(&pushes.collect::<Vec<_>>())?;
    bench.expect(&Expected::new().outbox(&bob, messages()))
}

fn large_bodies(bench: &mut Bench<'_>) -> Verdict {
    const MIB: usize = 1 << 20;
    let bob = name("bob")?;
    let mut messages = Vec::new();
    let mut number = 0;
    let beside = |len| [len - 1, len, len + 1];
    let sizes = [4096, 65_536, MIB, 2 * MIB].into_iter().flat_map(beside);
    for len in sizes.chain([16 * MIB]) {
        number += 1;
        messages.push((number, message(number, bytes(len, len))));
    }
    for (number, message) in &messages {
        bench.apply(&[push(&bob, *number, message.clone())])?;
    }
    bench.expect(&Expected::new().outbox(&bob, messages))
}

fn large_bodies_go(bench: &mut Bench<'_>) -> Verdict {
    const LARGE: usize = 3 << 20;
    let bob = name("bob")?;
    let large = |number: u64, seed| message(number, bytes(LARGE + seed, seed));
    let pushes: Vec<_> = (1..=6)
        .map(|number| push(&bob, number, large(number, 1)))
        .collect();
    bench.apply(&pushes)?;
    bench.apply(&[
        push(&bob, 3, message(3, "small")),
        push(&bob, 4, large(4, 2)),
        push(&bob, 7, message(7, "small")),
        remove_to(&bob, 2),
        Change::Removed {
            to: bob.clone(),
            sequence: 5,
        },
    ])?;
    let expected = Expected::new().outbox(
        &bob,
        [
            (3, message(3, "small")),
            (4, large(4, 2)),
            (6, large(6, 1)),
            (7, message(7, "small")),
        ],
    );
    bench.expect(&expected)?;
    bench.apply(&[push(&bob, 7, large(7, 3)), remove_to(&bob, 6)])?;
    bench.expect(&Expected::new().outbox(&bob, [(7, large(7, 3))]))?;
    bench.apply(&[remove_to(&bob, 7)])?;
    bench.expect(&Expected::new())
}

fn many_messages(bench: &mut Bench<'_>) -> Verdict {
    let bob = name("bob")?;
    for first in (0..10_000).step_by(100) {
        bench.apply(&pushes(&bob, first..first + 100))?;
    }
    bench.expect(&Expected::new().outbox(&bob, row(0..10_000)))?;
    for first in (0..9_900).step_by(100) {
        bench.apply(&[remove_to(&bob, first + 99)])?;
    }
    bench.expect(&Expected::new().outbox(&bob, row(9_900..10_000)))
}

fn large_batch(bench: &mut Bench<'_>) -> Verdict {
    let mut outboxes = BTreeMap::new();
    for number in 0..100_u64 {
        outboxes.insert(name(&format!("peer {number}"))?, number);
    }
    let rounds = (0..100).flat_map(|round| {
        let all = outboxes.iter();
        all.flat_map(move |(to, number)| pushes(to, [100 * number + round]))
    });
    bench.apply(&rounds.collect::<Vec<_>>())?;
    let expected = outboxes
        .iter()
        .fold(Expected::new(), |expected, (to, number)| {
            expected.outbox(to, row(100 * number..100 * number + 100))
        });
    bench.expect(&expected)
}

fn names(bench: &mut Bench<'_>) -> Verdict {
    let mut texts: Vec<String> = [
        "bob",
        "Bob",
        "BOB",
        "bob ",
        " bob",
        "bobb",
        "bo",
        "b%",
        "b_b",
        "b*b",
        "0",
        "00",
        "1e0",
        "null",
        "NULL",
        "'",
        "''",
        "\"",
        "`",
        "\\",
        "/",
        "..",
        "a/b",
        "a\\b",
        ":memory:",
        "?1",
        // As one character and as two, and in two alphabets.
        "\u{e9}",
        "e\u{301}",
        "\u{430}",
        "a",
        "\u{ff41}",
        "\u{df}",
        "ss",
        "\u{130}",
        "i",
        "\u{feff}bob",
        "\u{202e}bob",
        "\u{200b}",
    ]
    .map(str::to_owned)
    .into();
    texts.push("n".repeat(PeerName::MAX_LEN));
    texts.push("n".repeat(PeerName::MAX_LEN - 1));
    let mut text = String::from("#");
    for character in '\u{20}'..=char::MAX {
        // All of the first plane, and some of the others.
        let is_taken = character < '\u{10000}' || u32::from(character).is_multiple_of(257);
        if !is_taken || character.is_control() {
            continue;
        }
        if text.len() + character.len_utf8() > PeerName::MAX_LEN {
            texts.push(std::mem::replace(&mut text, String::from("#")));
        }
        text.push(character);
    }
    texts.push(text);

    let mut expected = Expected::new();
    let mut batch = Vec::new();
    for (number, text) in (0..).zip(&texts) {
        let name = name(text)?;
        let elapsed = std::time::Duration::from_secs(number);
        batch.extend(pushes(&name, [number]));
        batch.push(accept(&name, number, id(number)));
        batch.push(clock(&name, elapsed, None));
        expected = expected
            .outbox(&name, row([number]))
            .accepted(&name, [(number, id(number))])
            .clock(&name, elapsed, None);
    }
    bench.apply(&batch)?;
    bench.expect(&expected)
}
