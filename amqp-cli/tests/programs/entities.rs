//! `declare`, `delete`, `bind`, `unbind` and `purge`.

use amqp_tests::harness::Outcome;

use crate::rig::Place;

pub(crate) fn queues_are_declared_purged_and_deleted(place: &Place) -> Outcome {
    assert_eq!(
        place.good(&[
            "declare",
            "queue",
            "orders",
            "--type",
            "quorum",
            "-a",
            "x-delivery-limit=5"
        ])?,
        "orders\n"
    );
    let other = place.run(&["declare", "queue", "orders"])?;
    other.fails(1, "PRECONDITION_FAILED - inequivalent arg 'x-queue-type'")?;
    let named = place.good(&["declare", "queue", "-q", ""])?;
    assert!(named.starts_with("amq.gen-"), "{named}");
    assert_eq!(
        place
            .good(&["declare", "queue", named.trim(), "--passive"])?
            .trim(),
        format!("{}\t0 messages\t0 consumers", named.trim())
    );
    place
        .run_with(&["publish", "-r", "orders", "-l"], b"1\n2\n3\n")?
        .good()?;
    place.until_messages("orders", 3)?;
    assert_eq!(place.good(&["purge", "orders"])?, "3\n");
    place.good(&["publish", "-r", "orders", "-b", "4"])?;
    place.until_messages("orders", 1)?;
    let full = place.run(&["delete", "queue", named.trim(), "-u", "--if-empty"])?;
    assert_eq!(full.good()?, "0\n");
    assert_eq!(place.good(&["delete", "queue", "-q", "orders"])?, "1\n");
    place
        .run(&["delete", "queue", "orders"])?
        .fails(3, "there is no queue \"orders\"")?;
    place.good(&["delete", "queue", "orders", "--missing-ok"])?;
    place.good(&["declare", "queue", "full"])?;
    place.good(&["publish", "-r", "full", "-b", "x"])?;
    place
        .run(&["delete", "queue", "full", "-e"])?
        .fails(1, "PRECONDITION_FAILED")
}

pub(crate) fn exchanges_and_bindings_come_and_go(place: &Place) -> Outcome {
    place.good(&["declare", "exchange", "events", "--type", "topic"])?;
    place.good(&["declare", "exchange", "events", "--passive"])?;
    place.good(&["declare", "exchange", "archive", "--type", "fanout"])?;
    for queue in ["orders", "all", "pdfs"] {
        place.good(&["declare", "queue", queue])?;
    }
    place.good(&[
        "bind", "-e", "events", "-q", "orders", "-r", "order.*", "-r", "refund.#",
    ])?;
    place.good(&[
        "bind",
        "-e",
        "events",
        "--destination",
        "archive",
        "-r",
        "#",
    ])?;
    place.good(&["bind", "-e", "archive", "-q", "all"])?;
    place.good(&[
        "bind",
        "-e",
        "amq.headers",
        "-q",
        "pdfs",
        "-a",
        "x-match=all",
        "-a",
        "format=pdf",
    ])?;
    place.good(&["publish", "-e", "events", "-r", "order.new", "-b", "1"])?;
    place.good(&["publish", "-e", "events", "-r", "other", "-b", "2"])?;
    place.good(&[
        "publish",
        "-e",
        "amq.headers",
        "-H",
        "format: pdf",
        "-b",
        "3",
    ])?;
    let other = place.run(&[
        "publish",
        "-e",
        "amq.headers",
        "-H",
        "format: odt",
        "-b",
        "4",
    ])?;
    other.fails(1, "312 (no-route)")?;
    let counts = ["orders", "all", "pdfs"].map(|queue| place.messages(queue).ok());
    assert_eq!(counts, [Some(1), Some(2), Some(1)]);
    place.good(&["unbind", "-e", "events", "-q", "orders", "-r", "order.*"])?;
    place.good(&[
        "unbind",
        "-e",
        "events",
        "--destination",
        "archive",
        "-r",
        "#",
    ])?;
    place
        .run(&["publish", "-e", "events", "-r", "order.new", "-b", "5"])?
        .fails(1, "312")?;
    place
        .run(&["delete", "exchange", "events", "--if-unused"])?
        .fails(1, "PRECONDITION_FAILED")?;
    place.good(&["delete", "exchange", "events"])?;
    place
        .run(&["delete", "exchange", "events"])?
        .fails(3, "no exchange 'events'")?;
    place.good(&["delete", "exchange", "events", "--missing-ok"])?;
    place
        .run(&["bind", "-e", "events", "-q", "orders"])?
        .fails(3, "no exchange 'events'")
}
