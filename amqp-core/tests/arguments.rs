//! The presets and settings of `arguments`: the method of each, argument by argument.

use core::time::Duration;

use amqp_core::{
    ApiMisuse,
    arguments::{
        ArgumentError, ClassicOverflow, DeadLetter, Exchange, ExchangeType, HashOn, HeadersMatch,
        LeaderLocator, Queue, QuorumOverflow, StreamConsume, StreamOffset,
    },
    protocol::{basic, exchange, queue},
    wire::{FieldTable, FieldValue, ShortStr, Timestamp},
};

const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

fn table(fields: &[(&str, FieldValue)]) -> FieldTable {
    let fields = fields.iter().cloned();
    fields.map(|(name, value)| (short(name), value)).collect()
}

fn short(text: &str) -> ShortStr {
    text.parse().unwrap()
}

/// The declaration of a queue of that type, with the type before the other arguments.
fn durable(name: &str, kind: &str, arguments: &[(&str, FieldValue)]) -> queue::Declare {
    let mut all = table(&[("x-queue-type", kind.into())]);
    all.extend(table(arguments));
    queue::Declare {
        queue: short(name),
        passive: false,
        durable: true,
        exclusive: false,
        auto_delete: false,
        no_wait: false,
        arguments: all,
    }
}

fn out_of_range<T: core::fmt::Debug>(result: Result<T, ArgumentError>) -> (u128, u64, u64) {
    match result {
        Err(ArgumentError::OutOfRange {
            value, min, max, ..
        }) => (value, min, max),
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_preset_is_durable_or_exclusive() {
    let classic = Queue::classic("q").declare().unwrap();
    assert_eq!(classic, durable("q", "classic", &[]));
    let quorum = Queue::quorum("q").declare().unwrap();
    assert_eq!(quorum, durable("q", "quorum", &[]));
    let stream = Queue::stream("q").declare().unwrap();
    assert_eq!(stream, durable("q", "stream", &[]));
    for (preset, name) in [
        (Queue::exclusive("q"), "q"),
        (Queue::exclusive(""), ""),
        (Queue::server_named(), ""),
    ] {
        let exclusive = queue::Declare {
            durable: false,
            exclusive: true,
            ..durable(name, "classic", &[])
        };
        assert_eq!(queue::Declare::try_from(preset), Ok(exclusive));
    }
}

#[test]
fn classic_queues_have_their_settings() {
    let declare = Queue::classic("q")
        .message_ttl(Duration::from_millis(1500))
        .expires(Duration::from_secs(60))
        .max_length(1000)
        .max_length_bytes(u64::MAX)
        .overflow(ClassicOverflow::RejectPublishDlx)
        .dead_letter(DeadLetter::to("dlx").routing_key("dead"))
        .max_priority(5)
        .single_active_consumer(true)
        .leader_locator(LeaderLocator::Balanced)
        .auto_delete(true)
        .declare()
        .unwrap();
    let expected = durable(
        "q",
        "classic",
        &[
            ("x-message-ttl", 1500_i64.into()),
            ("x-expires", 60_000_i64.into()),
            ("x-max-length", 1000_i64.into()),
            ("x-max-length-bytes", i64::MAX.into()),
            ("x-overflow", "reject-publish-dlx".into()),
            ("x-dead-letter-exchange", "dlx".into()),
            ("x-dead-letter-routing-key", "dead".into()),
            ("x-max-priority", 5_i64.into()),
            ("x-single-active-consumer", true.into()),
            ("x-queue-leader-locator", "balanced".into()),
        ],
    );
    let auto_delete = true;
    assert_eq!(
        declare,
        queue::Declare {
            auto_delete,
            ..expected
        }
    );
}

#[test]
fn quorum_queues_have_their_settings() {
    let declare = Queue::quorum("q")
        .overflow(QuorumOverflow::DropHead)
        .dead_letter(DeadLetter::to_queue("dead"))
        .delivery_limit(5)
        .initial_group_size(3)
        .consumer_timeout(Duration::from_secs(90))
        .leader_locator(LeaderLocator::ClientLocal)
        .declare()
        .unwrap();
    let expected = [
        ("x-overflow", "drop-head".into()),
        ("x-dead-letter-exchange", "".into()),
        ("x-dead-letter-routing-key", "dead".into()),
        ("x-delivery-limit", 5_i64.into()),
        ("x-quorum-initial-group-size", 3_i64.into()),
        ("x-consumer-timeout", 90_000_i64.into()),
        ("x-queue-leader-locator", "client-local".into()),
    ];
    assert_eq!(declare, durable("q", "quorum", &expected));
    let unlimited = Queue::quorum("q").no_delivery_limit().declare().unwrap();
    assert_eq!(
        unlimited,
        durable("q", "quorum", &[("x-delivery-limit", (-1_i64).into())])
    );
}

#[test]
fn dead_lettering_at_least_once_has_its_conditions() {
    let declare = Queue::quorum("q")
        .overflow(QuorumOverflow::DropHead)
        .dead_letter_at_least_once(DeadLetter::to("dlx"))
        .max_length(10)
        .delivery_limit(1)
        .declare()
        .unwrap();
    let expected = [
        ("x-overflow", "reject-publish".into()),
        ("x-dead-letter-exchange", "dlx".into()),
        ("x-dead-letter-strategy", "at-least-once".into()),
        ("x-max-length", 10_i64.into()),
        ("x-delivery-limit", 1_i64.into()),
    ];
    assert_eq!(declare, durable("q", "quorum", &expected));
}

#[test]
fn streams_have_their_settings() {
    let declare = Queue::stream("q")
        .max_length_bytes(5_000_000_000)
        .max_age(Duration::from_millis(3_599_001))
        .max_segment_size_bytes(3_000_000_000)
        .initial_cluster_size(1)
        .leader_locator(LeaderLocator::Balanced)
        .declare()
        .unwrap();
    let expected = [
        ("x-max-length-bytes", 5_000_000_000_i64.into()),
        ("x-max-age", "3600s".into()),
        ("x-stream-max-segment-size-bytes", 3_000_000_000_i64.into()),
        ("x-initial-cluster-size", 1_i64.into()),
        ("x-queue-leader-locator", "balanced".into()),
    ];
    assert_eq!(declare, durable("q", "stream", &expected));
}

#[test]
fn a_later_setting_replaces_an_earlier_one() {
    let with_key = DeadLetter::to("one").routing_key("key");
    let declare = Queue::server_named()
        .max_length(1)
        .dead_letter(with_key)
        .dead_letter(DeadLetter::to("other"))
        .max_length(2)
        .overflow(ClassicOverflow::DropHead)
        .overflow(ClassicOverflow::RejectPublish)
        .declare()
        .unwrap();
    let expected = table(&[
        ("x-queue-type", "classic".into()),
        ("x-max-length", 2_i64.into()),
        ("x-dead-letter-exchange", "other".into()),
        ("x-overflow", "reject-publish".into()),
    ]);
    assert_eq!(declare.arguments, expected);
}

#[test]
fn names_are_short_and_there() {
    let none = |entity| Some(ArgumentError::NameRequired(entity));
    assert_eq!(Queue::classic("").declare().err(), none("a classic queue"));
    assert_eq!(Queue::quorum("").declare().err(), none("a quorum queue"));
    assert_eq!(Queue::stream("").declare().err(), none("a stream"));
    assert_eq!(Exchange::direct("").declare().err(), none("an exchange"));
    let error = StreamConsume::new("", 1).consume().unwrap_err();
    assert_eq!(error.to_string(), "a stream needs a name");
    let nowhere = Queue::classic("q").dead_letter(DeadLetter::to_queue(""));
    let error = nowhere.declare().unwrap_err();
    assert_eq!(error.to_string(), "the queue of dead letters needs a name");

    let long = "x".repeat(256);
    let too_long = |argument| Some(ArgumentError::TooLong { argument, len: 256 });
    let queue = Queue::classic(&long).declare();
    assert_eq!(queue.err(), too_long("a classic queue"));
    let dead_letter = |target| Queue::quorum("q").dead_letter(target).declare().err();
    assert_eq!(
        dead_letter(DeadLetter::to(&long)),
        too_long("x-dead-letter-exchange")
    );
    assert_eq!(
        dead_letter(DeadLetter::to("dlx").routing_key(&long)),
        too_long("x-dead-letter-routing-key")
    );
    let alternate = Exchange::topic("e").alternate_exchange(&long).declare();
    let error = alternate.unwrap_err();
    assert_eq!(
        ApiMisuse::from(error).to_string(),
        "alternate-exchange has 256 bytes, it may have at most 255"
    );
    assert!(Queue::classic("x".repeat(255)).declare().is_ok());
}

#[test]
fn the_first_error_of_a_preset_is_kept() {
    let queue = Queue::quorum("q")
        .expires(Duration::ZERO)
        .initial_group_size(0)
        .delivery_limit(3);
    let Err(ArgumentError::OutOfRange { argument, .. }) = queue.declare() else {
        panic!("no error");
    };
    assert_eq!(argument, "x-expires");
}

#[test]
fn durations_are_rounded_up_and_in_range() {
    let ttl = |ttl| Queue::classic("q").message_ttl(ttl).declare();
    let ten_years = 10 * YEAR;
    let max = u64::try_from(ten_years.as_millis()).unwrap();
    for (time, millis) in [
        (Duration::ZERO, 0),
        (Duration::from_nanos(1), 1),
        (Duration::from_nanos(1_000_000), 1),
        (Duration::from_nanos(1_000_001), 2),
        (ten_years, 315_360_000_000_i64),
    ] {
        let declare = ttl(time).unwrap();
        assert_eq!(declare.arguments.get("x-message-ttl"), Some(&millis.into()));
    }
    let too_long = out_of_range(ttl(ten_years + Duration::from_nanos(1)));
    assert_eq!(too_long, (u128::from(max) + 1, 0, max));
    assert_eq!(
        out_of_range(ttl(Duration::MAX)).0,
        Duration::MAX.as_millis() + 1
    );
    let expires = Queue::quorum("q").expires(Duration::ZERO).declare();
    assert_eq!(out_of_range(expires), (0, 1, max));
    let timeout = Queue::quorum("q").consumer_timeout(Duration::ZERO);
    let timeout = timeout.declare();
    assert_eq!(out_of_range(timeout), (0, 1, max));
    let age = |age| Queue::stream("q").max_age(age).declare();
    assert_eq!(out_of_range(age(Duration::ZERO)), (0, 1, max / 1000));
    assert_eq!(out_of_range(age(Duration::MAX)).1, 1);
    assert_eq!(
        age(Duration::ZERO).unwrap_err().to_string(),
        "x-max-age is 0, it may be 1 to 315360000"
    );
}

#[test]
fn numbers_are_in_range() {
    let priority = Queue::classic("q").max_priority(0).declare();
    assert_eq!(out_of_range(priority), (0, 1, 255));
    let highest = Queue::server_named().max_priority(255).declare().unwrap();
    assert_eq!(
        highest.arguments.get("x-max-priority"),
        Some(&255_i64.into())
    );
    let group = Queue::quorum("q").initial_group_size(0).declare();
    assert_eq!(out_of_range(group), (0, 1, u32::MAX.into()));
    let cluster = Queue::stream("q").initial_cluster_size(0).declare();
    assert_eq!(out_of_range(cluster), (0, 1, u32::MAX.into()));
    for size in [0, 3_000_000_001] {
        let segment = Queue::stream("q").max_segment_size_bytes(size).declare();
        assert_eq!(out_of_range(segment), (size.into(), 1, 3_000_000_000));
    }
    assert_eq!(
        out_of_range(StreamConsume::new("q", 0).consume()),
        (0, 1, 65535)
    );
}

#[test]
fn exchanges_are_durable_with_their_types() {
    let expected = |kind: &str, arguments: &[(&str, FieldValue)]| exchange::Declare {
        exchange: short("e"),
        kind: short(kind),
        durable: true,
        arguments: table(arguments),
        ..exchange::Declare::default()
    };
    let delayed = Exchange::delayed("e", ExchangeType::Topic);
    let hashed = |on| Exchange::consistent_hash("e", on);
    let custom = ExchangeType::Custom(short("x-random"));
    let named = Exchange::new("e", custom).argument("n", 1);
    let hash = "x-consistent-hash";
    for (preset, expected) in [
        (Exchange::direct("e"), expected("direct", &[])),
        (Exchange::fanout("e"), expected("fanout", &[])),
        (Exchange::topic("e"), expected("topic", &[])),
        (Exchange::headers("e"), expected("headers", &[])),
        (
            delayed,
            expected("x-delayed-message", &[("x-delayed-type", "topic".into())]),
        ),
        (hashed(HashOn::RoutingKey), expected(hash, &[])),
        (
            hashed(HashOn::Header(short("user"))),
            expected(hash, &[("hash-header", "user".into())]),
        ),
        (
            hashed(HashOn::MessageId),
            expected(hash, &[("hash-property", "message_id".into())]),
        ),
        (
            hashed(HashOn::CorrelationId),
            expected(hash, &[("hash-property", "correlation_id".into())]),
        ),
        (
            hashed(HashOn::Timestamp),
            expected(hash, &[("hash-property", "timestamp".into())]),
        ),
        (named, expected("x-random", &[("n", 1.into())])),
    ] {
        assert_eq!(exchange::Declare::try_from(preset), Ok(expected));
    }
    let every = Exchange::fanout("e")
        .alternate_exchange("other")
        .internal(true)
        .auto_delete(true)
        .durable(false)
        .declare()
        .unwrap();
    let expected = exchange::Declare {
        internal: true,
        auto_delete: true,
        durable: false,
        ..expected("fanout", &[("alternate-exchange", "other".into())])
    };
    assert_eq!(every, expected);
    assert_eq!(ExchangeType::Headers.name(), "headers");
}

#[test]
fn bindings_match_headers_with_their_types() {
    for (headers, rule) in [
        (HeadersMatch::all(), "all"),
        (HeadersMatch::any(), "any"),
        (HeadersMatch::all_with_x(), "all-with-x"),
        (HeadersMatch::any_with_x(), "any-with-x"),
    ] {
        let headers = headers
            .header("format", "pdf")
            .header("pages", 3)
            .present("author");
        let expected = table(&[
            ("x-match", rule.into()),
            ("format", "pdf".into()),
            ("pages", 3.into()),
            ("author", FieldValue::Void),
        ]);
        let bind = queue::Bind::default().arguments(headers.clone());
        assert_eq!(bind.arguments, expected);
        assert_eq!(
            exchange::Bind::default().arguments(headers).arguments,
            expected
        );
    }
}

#[test]
fn consumers_have_their_settings() {
    let consume = basic::Consume::default()
        .priority(-3)
        .consumer_timeout(Duration::from_secs(60))
        .unwrap();
    let expected = [
        ("x-priority", (-3).into()),
        ("x-consumer-timeout", 60_000_i64.into()),
    ];
    assert_eq!(consume.arguments, table(&expected));
    let none = basic::Consume::default().consumer_timeout(Duration::ZERO);
    assert_eq!(out_of_range(none).0, 0);
}

#[test]
fn consumers_of_streams_have_a_prefetch_and_acknowledge() {
    let log = StreamConsume::new("log", 7);
    assert_eq!(log.qos(), basic::Qos::default().prefetch_count(7));
    let tagged = log.clone().consumer_tag("tag").consume().unwrap();
    assert_eq!(
        (tagged.consumer_tag.as_str(), tagged.no_ack),
        ("tag", false)
    );
    assert!(tagged.arguments.is_empty());
    let offsets: [(StreamOffset, FieldValue); 8] = [
        (StreamOffset::First, "first".into()),
        (StreamOffset::Last, "last".into()),
        (StreamOffset::Next, "next".into()),
        (StreamOffset::default(), "next".into()),
        (StreamOffset::Offset(5), 5_i64.into()),
        (StreamOffset::Offset(u64::MAX), i64::MAX.into()),
        (StreamOffset::Timestamp(Timestamp(9)), Timestamp(9).into()),
        (
            StreamOffset::Interval(Duration::from_millis(3_599_001)),
            "3600s".into(),
        ),
    ];
    for (offset, value) in offsets {
        let consume = log.clone().offset(offset).consume();
        let expected = basic::Consume {
            queue: short("log"),
            arguments: table(&[("x-stream-offset", value)]),
            ..basic::Consume::default()
        };
        assert_eq!(consume, Ok(expected));
    }
    let now = log.offset(StreamOffset::Interval(Duration::ZERO));
    assert_eq!(out_of_range(now.consume()).0, 0);
}

#[test]
fn messages_have_their_settings() {
    let properties = basic::Properties::default()
        .persistent()
        .expire_after(Duration::from_micros(1500))
        .unwrap()
        .header("one", 1)
        .header("text", "two")
        .header("one", 3_u8)
        .delay(Duration::from_secs(2))
        .unwrap()
        .timestamp(Timestamp::since_epoch(Duration::from_millis(1999)));
    let headers = [
        ("one", 3_u8.into()),
        ("text", "two".into()),
        ("x-delay", 2000_i64.into()),
    ];
    let expected = basic::Properties {
        delivery_mode: Some(2),
        expiration: Some(short("2")),
        headers: Some(table(&headers)),
        timestamp: Some(Timestamp(1)),
        ..basic::Properties::default()
    };
    assert_eq!(properties, expected);
    assert!(properties.is_persistent());
    assert!(!properties.transient().is_persistent());
    assert_eq!(
        basic::Properties::default().transient().delivery_mode,
        Some(1)
    );
    let at_once = basic::Properties::default().expire_after(Duration::ZERO);
    assert_eq!(at_once.unwrap().expiration.as_deref(), Some("0"));
    let late = basic::Properties::default().expire_after(11 * YEAR);
    assert_eq!(out_of_range(late).2, 315_360_000_000);
    let late = basic::Properties::default().delay(YEAR);
    assert_eq!(out_of_range(late).2, u32::MAX.into());
    assert_eq!(Timestamp(7).duration_since_epoch(), Duration::from_secs(7));
}
