//! Messages: their groups, their order, and their fields.

use std::time::Duration;

use amqp_core::{
    EncodedProperties,
    protocol::basic::Properties,
    wire::{FieldTable, FieldValue, Timestamp},
};

use super::{
    Case,
    bench::{Bench, Expected, Verdict, message, name, numbered, push, pushes, row},
};
use crate::{
    MessageId,
    storage::{MAX_SEQUENCE, StoredMessage},
};

pub(super) const CASES: &[Case] = &[
    Case::new(
        "empty",
        "a new storage holds nothing, and still nothing when it is opened again",
        empty,
    ),
    Case::new(
        "groups_by_receiver",
        "messages to several receivers come back by receiver, though they were pushed in turns",
        groups_by_receiver,
    ),
    Case::new(
        "order_of_sequences",
        "messages come back in the numeric order of their sequences, up to the largest",
        order_of_sequences,
    ),
    Case::new(
        "order_of_late_pushes",
        "a message that is pushed after one of a higher sequence stands before it",
        order_of_late_pushes,
    ),
    Case::new(
        "order_of_ids",
        "identifiers and bodies have no part in the order",
        order_of_ids,
    ),
    Case::new(
        "same_sequences",
        "receivers have sequences of their own: the same ones are different messages",
        same_sequences,
    ),
    Case::new(
        "same_id",
        "one identifier under two sequences, and to two receivers, is three messages",
        same_id,
    ),
    Case::new(
        "fields",
        "identifier, body, all properties and expiry come back as they were",
        fields,
    ),
    Case::new(
        "no_expiry",
        "a message that never expires is not one that expires at once",
        no_expiry,
    ),
    Case::new(
        "expiries",
        "an expiry comes back to the nanosecond, up to the largest",
        expiries,
    ),
    Case::new(
        "push_again",
        "a push of a sequence that is there replaces the message",
        push_again,
    ),
    Case::new(
        "loads",
        "loading twice gives the same twice, and loading after a batch has it",
        loads,
    ),
    Case::new(
        "opens",
        "a storage that is opened 20 times, for a message each, has all of them",
        opens,
    ),
];

fn empty(bench: &mut Bench<'_>) -> Verdict {
    bench.expect(&Expected::new())
}

fn groups_by_receiver(bench: &mut Bench<'_>) -> Verdict {
    let names = [name("bob")?, name("alice")?, name("jack")?];
    for sequence in 1..=12 {
        for to in &names {
            bench.apply(&pushes(to, [sequence]))?;
        }
    }
    let expected = names.iter().fold(Expected::new(), |expected, to| {
        expected.outbox(to, row(1..=12))
    });
    bench.expect(&expected)
}

fn order_of_sequences(bench: &mut Bench<'_>) -> Verdict {
    let bob = name("bob")?;
    // As texts, or as bytes from the lowest on, these have other orders.
    let mut sequences = vec![0, 1, 2, 9, 10, 11, 99, 100, 255, 256, 257, 65_535, 65_536];
    sequences.extend([
        1 << 31,
        1 << 32,
        (1 << 53) + 1,
        MAX_SEQUENCE - 1,
        MAX_SEQUENCE,
    ]);
    bench.apply(&pushes(&bob, sequences.iter().copied()))?;
    bench.expect(&Expected::new().outbox(&bob, row(sequences)))
}

fn order_of_late_pushes(bench: &mut Bench<'_>) -> Verdict {
    let bob = name("bob")?;
    bench.apply(&pushes(&bob, [5, 3]))?;
    bench.apply(&pushes(&bob, [4, 1]))?;
    bench.expect(&Expected::new().outbox(&bob, row([1, 3, 4, 5])))
}

fn order_of_ids(bench: &mut Bench<'_>) -> Verdict {
    let bob = name("bob")?;
    let messages = || (1..=9).map(|number| (number, numbered(10 - number)));
    let pushes = messages().map(|(number, message)| push(&bob, number, message));
    bench.apply(&pushes.collect::<Vec<_>>())?;
    bench.expect(&Expected::new().outbox(&bob, messages()))
}

fn same_sequences(bench: &mut Bench<'_>) -> Verdict {
    let (bob, alice) = (name("bob")?, name("alice")?);
    bench.apply(&[push(&bob, 1, message(10, "to bob"))])?;
    bench.apply(&[push(&alice, 1, message(11, "to alice"))])?;
    let expected = Expected::new()
        .outbox(&bob, [(1, message(10, "to bob"))])
        .outbox(&alice, [(1, message(11, "to alice"))]);
    bench.expect(&expected)
}

fn same_id(bench: &mut Bench<'_>) -> Verdict {
    let (bob, alice) = (name("bob")?, name("alice")?);
    bench.apply(&[
        push(&bob, 1, message(7, "first")),
        push(&bob, 2, message(7, "second")),
        push(&alice, 3, message(7, "third")),
    ])?;
    let expected = Expected::new()
        .outbox(&bob, [(1, message(7, "first")), (2, message(7, "second"))])
        .outbox(&alice, [(3, message(7, "third"))]);
    bench.expect(&expected)
}

/// A message with all properties.
fn full() -> Verdict<StoredMessage> {
    let text = "Ünïcode \u{0} \u{7f} '\"; DROP TABLE messages; --";
    let headers = || {
        FieldTable::default()
            .with("text", text)
            .with("", FieldValue::Void)
            .with("number", FieldValue::I64(i64::MIN))
            .with("flag", true)
            .with("nested", FieldTable::default().with("deep", 1.5))
    };
    let properties = || {
        Ok::<_, amqp_core::wire::ShortStrError>(Properties {
            content_type: Some(text.try_into()?),
            content_encoding: Some("".try_into()?),
            headers: Some(headers()),
            delivery_mode: Some(2),
            priority: Some(255),
            correlation_id: Some("x".repeat(255).try_into()?),
            reply_to: Some("reply".try_into()?),
            expiration: Some("60000".try_into()?),
            message_id: Some("0".repeat(32).try_into()?),
            timestamp: Some(Timestamp(u64::MAX)),
            user_id: Some("guest".try_into()?),
            kind: Some("kind".try_into()?),
            app_id: Some("app".try_into()?),
            ..Properties::default()
        })
    };
    let properties = properties().map_err(|error| format!("is not reached: {error}"))?;
    let mut id = [0; 16];
    for (byte, value) in id.iter_mut().zip([0, 255, 10, 13, 39, 128, 127]) {
        *byte = value;
    }
    Ok(StoredMessage {
        id: MessageId::from_bytes(id),
        body: (0..=255).cycle().take(1000).collect::<Vec<u8>>().into(),
        properties: EncodedProperties::from(&properties),
        expires_at: Some(Duration::new(86_400, 123_456_789)),
    })
}

fn fields(bench: &mut Bench<'_>) -> Verdict {
    let bob = name("bob")?;
    let without = StoredMessage {
        properties: EncodedProperties::default(),
        ..numbered(2)
    };
    bench.apply(&[push(&bob, 1, full()?), push(&bob, 2, without.clone())])?;
    bench.expect(&Expected::new().outbox(&bob, [(1, full()?), (2, without)]))
}

fn no_expiry(bench: &mut Bench<'_>) -> Verdict {
    let bob = name("bob")?;
    let expired = StoredMessage {
        expires_at: Some(Duration::ZERO),
        ..numbered(2)
    };
    bench.apply(&[push(&bob, 1, numbered(1)), push(&bob, 2, expired.clone())])?;
    bench.expect(&Expected::new().outbox(&bob, [(1, numbered(1)), (2, expired)]))
}

fn expiries(bench: &mut Bench<'_>) -> Verdict {
    let bob = name("bob")?;
    let expiries = [
        Duration::from_nanos(1),
        Duration::from_micros(1500),
        Duration::new(u64::from(u32::MAX), 999_999_999),
        Duration::from_millis(MAX_SEQUENCE),
        Duration::from_secs(MAX_SEQUENCE),
        Duration::MAX,
    ];
    let messages = (1..).zip(expiries).map(|(sequence, expires_at)| {
        let message = StoredMessage {
            expires_at: Some(expires_at),
            ..numbered(sequence)
        };
        (sequence, message)
    });
    let messages: Vec<_> = messages.collect();
    for (sequence, message) in &messages {
        bench.apply(&[push(&bob, *sequence, message.clone())])?;
    }
    bench.expect(&Expected::new().outbox(&bob, messages))
}

fn push_again(bench: &mut Bench<'_>) -> Verdict {
    let bob = name("bob")?;
    bench.apply(&pushes(&bob, 1..=3))?;
    bench.apply(&[push(&bob, 2, message(20, "second"))])?;
    bench.apply(&[
        push(&bob, 3, message(30, "third")),
        push(&bob, 3, message(31, "third again")),
    ])?;
    let expected = Expected::new().outbox(
        &bob,
        [
            (1, numbered(1)),
            (2, message(20, "second")),
            (3, message(31, "third again")),
        ],
    );
    bench.expect(&expected)
}

fn loads(bench: &mut Bench<'_>) -> Verdict {
    let bob = name("bob")?;
    for sequence in 1..=3 {
        bench.apply(&pushes(&bob, [sequence]))?;
        let expected = Expected::new().outbox(&bob, row(1..=sequence));
        bench.expect_open(&expected)?;
        bench.expect_open(&expected)?;
    }
    bench.expect(&Expected::new().outbox(&bob, row(1..=3)))
}

fn opens(bench: &mut Bench<'_>) -> Verdict {
    let bob = name("bob")?;
    for sequence in 1..=20 {
        bench.apply(&pushes(&bob, [sequence]))?;
        bench.close();
    }
    bench.expect(&Expected::new().outbox(&bob, row(1..=20)))
}
