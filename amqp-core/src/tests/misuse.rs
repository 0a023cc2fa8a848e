//! Mistakes that are refused here, because RabbitMQ would close the connection or the channel.

use alloc::{format, string::String, vec::Vec};

use super::script::*;
use crate::{
    ApiMisuse, ChannelId, CloseCause, EncodedProperties, MethodDef as _, PublishError, Requeue,
    Tags,
    client::{ChannelMut, Checks, Config, Connection, Event},
    protocol::{ReplyCode, basic, channel, confirm, connection, exchange, queue, tx},
    wire::{FieldTable, ShortStr},
};

type Client = Script<Connection>;

/// Does something on a channel.
type Deed = fn(&mut ChannelMut<'_>) -> Result<(), ApiMisuse>;

fn client(checks: Checks) -> (Client, ChannelId) {
    let config = Config {
        checks,
        ..Config::default()
    };
    let mut client = Client::open_with(config);
    let id = client.channel();
    (client, id)
}

/// The result of a command without its value.
fn just<T>(result: Result<T, ApiMisuse>) -> Result<(), ApiMisuse> {
    result.map(|_| ())
}

fn published<T>(result: Result<T, PublishError>) -> Result<(), ApiMisuse> {
    match result {
        Ok(_) => Ok(()),
        Err(PublishError::Misuse(misuse)) => Err(misuse),
        Err(held) => panic!("{held}"),
    }
}

/// Does it, and checks that nothing has changed and nothing is sent if it is refused.
fn attempt(client: &mut Client, id: ChannelId, deed: Deed) -> Result<(), ApiMisuse> {
    let before = format!("{:?}", client.conn);
    let result = deed(&mut client.on(id));
    if result.is_err() {
        assert_eq!(format!("{:?}", client.conn), before);
        assert_eq!(client.sent(), []);
        assert_eq!(client.events(), []);
    }
    result
}

fn to_ex() -> exchange::Bind {
    exchange::Bind {
        source: name("ex"),
        destination: name("ex"),
        ..exchange::Bind::default()
    }
}

fn from_ex() -> exchange::Unbind {
    exchange::Unbind {
        source: name("ex"),
        destination: name("ex"),
        ..exchange::Unbind::default()
    }
}

fn request(reply_to: &str) -> basic::Properties {
    basic::Properties::default().reply_to(reply_to)
}

const REPLY_TO: &str = "amq.rabbitmq.reply-to";

/// Misuse that only RabbitMQ is known to refuse.
fn refused_by_rabbitmq() -> Vec<(Deed, ApiMisuse)> {
    let not_implemented = |feature| ApiMisuse::NotImplementedByRabbitMq { feature };
    let on_default = |method| ApiMisuse::DefaultExchange { method };
    let mut all: Vec<(Deed, ApiMisuse)> = [
        (
            (|on| {
                let mut publish = publish("q");
                publish.immediate = true;
                published(on.publish(&publish, &basic::Properties::default(), "x"))
            }) as Deed,
            not_implemented("basic.publish immediate"),
        ),
        (
            |on| just(on.call(&basic::Qos::default().prefetch_size(1))),
            not_implemented("basic.qos prefetch-size"),
        ),
        (
            |on| {
                let declare = exchange::Declare::default().exchange("x");
                just(on.call(&declare))
            },
            ApiMisuse::ExchangeTypeRequired,
        ),
        (
            |on| on.send(&exchange::Declare::default().exchange("x")),
            ApiMisuse::ExchangeTypeRequired,
        ),
        (
            |on| just(on.call(&basic::Recover { requeue: false })),
            not_implemented("basic.recover without requeue"),
        ),
        (
            |on| on.recover_async(false),
            not_implemented("basic.recover without requeue"),
        ),
        (
            |on| just(on.call(&channel::Flow { active: false })),
            not_implemented("channel.flow active=false"),
        ),
        (
            |on| just(on.consume(consume(REPLY_TO, "t"))),
            ApiMisuse::ReplyToNeedsNoAck,
        ),
        (
            |on| just(on.consume(consume(REPLY_TO, "t").no_wait(true))),
            ApiMisuse::ReplyToNeedsNoAck,
        ),
        (
            |on| published(on.publish(&publish("q"), &request(REPLY_TO), "x")),
            ApiMisuse::ReplyToWithoutConsumer,
        ),
    ]
    .into();
    for reserved in ["amq.", "amq.mine", "amq.gen-1"] {
        let refused = ApiMisuse::ReservedName(name(reserved));
        let deeds: [Deed; 2] = match reserved {
            "amq." => [
                |on| just(on.call(&queue::Declare::default().queue("amq."))),
                |on| on.send(&queue::Declare::default().queue("amq.")),
            ],
            "amq.mine" => [
                |on| just(on.call(&queue::Declare::default().queue("amq.mine"))),
                |on| on.send(&queue::Declare::default().queue("amq.mine")),
            ],
            _ => [
                |on| just(on.call(&queue::Declare::default().queue("amq.gen-1"))),
                |on| on.send(&queue::Declare::default().queue("amq.gen-1")),
            ],
        };
        all.extend(deeds.map(|deed| (deed, refused.clone())));
    }
    let default_exchange: [(Deed, &str); 14] = [
        (
            |on| just(on.call(&exchange::Declare::default())),
            exchange::Declare::NAME,
        ),
        (
            |on| just(on.call(&exchange::Declare::default().passive(true))),
            exchange::Declare::NAME,
        ),
        (
            |on| on.send(&exchange::Declare::default()),
            exchange::Declare::NAME,
        ),
        (
            |on| just(on.call(&exchange::Delete::default())),
            exchange::Delete::NAME,
        ),
        (
            |on| on.send(&exchange::Delete::default()),
            exchange::Delete::NAME,
        ),
        (
            |on| just(on.call(&to_ex().source(""))),
            exchange::Bind::NAME,
        ),
        (
            |on| just(on.call(&to_ex().destination(""))),
            exchange::Bind::NAME,
        ),
        (|on| on.send(&to_ex().destination("")), exchange::Bind::NAME),
        (
            |on| just(on.call(&from_ex().source(""))),
            exchange::Unbind::NAME,
        ),
        (
            |on| just(on.call(&from_ex().destination(""))),
            exchange::Unbind::NAME,
        ),
        (|on| on.send(&from_ex().source("")), exchange::Unbind::NAME),
        (
            |on| just(on.call(&queue::Bind::default())),
            queue::Bind::NAME,
        ),
        (
            |on| on.send(&queue::Bind::default().queue("q")),
            queue::Bind::NAME,
        ),
        (
            |on| just(on.call(&queue::Unbind::default())),
            queue::Unbind::NAME,
        ),
    ];
    all.extend(default_exchange.map(|(deed, method)| (deed, on_default(method))));
    all
}

#[test]
fn h_rules_are_refused_and_nothing_changes() {
    for (deed, misuse) in refused_by_rabbitmq() {
        let (mut client, id) = client(Checks::RabbitMq);
        for _ in 0..2 {
            assert_eq!(attempt(&mut client, id, deed), Err(misuse.clone()));
        }
        // The channel goes on as if nothing had been.
        client.call(id, &queue::Declare::default(), &queue::DeclareOk::default());
    }
}

#[test]
fn h_rules_of_rabbitmq_are_not_those_of_the_standard() {
    for (deed, misuse) in refused_by_rabbitmq() {
        let (mut client, id) = client(Checks::Standard);
        assert_eq!(attempt(&mut client, id, deed), Ok(()), "{misuse}");
        assert!(!client.sent().is_empty());
    }
}

/// Misuse that every server refuses, or that this client could not follow.
fn refused_always() -> Vec<(Deed, ApiMisuse)> {
    let not_this_way = |method| ApiMisuse::NotSentThisWay { method };
    let no_reply = |method| ApiMisuse::NoWaitHasNoReply { method };
    [
        (
            (|on| just(on.call(&channel::Open))) as Deed,
            not_this_way("channel.open"),
        ),
        (
            |on| just(on.call(&channel::Close::default())),
            not_this_way("channel.close"),
        ),
        (
            |on| just(on.call(&basic::Consume::default())),
            not_this_way("basic.consume"),
        ),
        (
            |on| on.send(&basic::Consume::default()),
            not_this_way("basic.consume"),
        ),
        (
            |on| just(on.call(&basic::Get::default())),
            not_this_way("basic.get"),
        ),
        (
            |on| just(on.call(&connection::Open::default())),
            not_this_way("connection.open"),
        ),
        (
            |on| just(on.call(&connection::Close::default())),
            not_this_way("connection.close"),
        ),
        (
            |on| just(on.call(&connection::UpdateSecret::default())),
            not_this_way("connection.update-secret"),
        ),
        (
            |on| just(on.call(&queue::Declare::default().no_wait(true))),
            no_reply("queue.declare"),
        ),
        (
            |on| just(on.call(&confirm::Select { nowait: true })),
            no_reply("confirm.select"),
        ),
        (
            |on| just(on.call(&basic::Cancel::default().no_wait(true))),
            no_reply("basic.cancel"),
        ),
        (
            |on| on.send(&queue::Declare::default()),
            ApiMisuse::NameRequired {
                method: "queue.declare",
            },
        ),
        (|on| just(on.call(&tx::Commit)), ApiMisuse::NotTransactional),
        (
            |on| just(on.call(&tx::Rollback)),
            ApiMisuse::NotTransactional,
        ),
        (
            |on| on.ack(Tags::One(tag(1))),
            ApiMisuse::UnknownDeliveryTag(1),
        ),
        (
            |on| on.nack(Tags::UpTo(tag(2)), Requeue::Yes),
            ApiMisuse::UnknownDeliveryTag(2),
        ),
        (
            |on| on.reject(tag(3), Requeue::No),
            ApiMisuse::UnknownDeliveryTag(3),
        ),
    ]
    .into()
}

#[test]
fn misuse_that_every_server_refuses_is_always_refused() {
    for checks in [Checks::RabbitMq, Checks::Standard] {
        for (deed, misuse) in refused_always() {
            let (mut client, id) = client(checks);
            assert_eq!(attempt(&mut client, id, deed), Err(misuse));
            client.call(id, &queue::Declare::default(), &queue::DeclareOk::default());
        }
    }
}

#[test]
fn confirms_and_transactions_exclude_each_other_always() {
    for checks in [Checks::RabbitMq, Checks::Standard] {
        let deeds: [(Deed, Deed); 4] = [
            (
                |on| just(on.call(&confirm::Select::default())),
                |on| just(on.call(&tx::Select)),
            ),
            (
                |on| on.send(&confirm::Select::default()),
                |on| just(on.call(&tx::Select)),
            ),
            (
                |on| just(on.call(&tx::Select)),
                |on| just(on.call(&confirm::Select::default())),
            ),
            (
                |on| just(on.call(&tx::Select)),
                |on| on.send(&confirm::Select::default()),
            ),
        ];
        for (first, second) in deeds {
            let (mut client, id) = client(checks);
            attempt(&mut client, id, first).unwrap();
            client.bytes();
            let refused = Err(ApiMisuse::ConfirmAndTransaction);
            assert_eq!(attempt(&mut client, id, second), refused);
        }
    }
}

#[test]
fn a_method_that_does_not_fit_into_a_frame_changes_nothing() {
    let deeds: [Deed; 4] = [
        |on| just(on.call(&queue::Declare::default().arguments(large()))),
        |on| {
            let declare = queue::Declare::default().queue("q");
            on.send(&declare.arguments(large()))
        },
        |on| just(on.consume(consume("q", "t").arguments(large()))),
        |on| {
            let properties = basic::Properties::default().headers(large());
            published(on.publish(&publish("q"), &properties, "x"))
        },
    ];
    for deed in deeds {
        let (mut client, id) = client(Checks::RabbitMq);
        let error = attempt(&mut client, id, deed).unwrap_err();
        let ApiMisuse::FrameTooLarge { len, frame_max, .. } = error else {
            panic!("{error}");
        };
        assert_eq!(frame_max, 131_072);
        assert!(len > 131_072);
    }
    // The tag of a consumer that was refused is not taken.
    let (mut client, id) = client(Checks::RabbitMq);
    attempt(&mut client, id, deeds[2]).unwrap_err();
    client.consumer(id, "t", false);
}

/// More than a frame holds.
fn large() -> FieldTable {
    FieldTable::new().with("x", "x".repeat(131_072))
}

#[test]
fn a_method_that_just_fits_into_a_frame_is_sent() {
    let (mut client, id) = client(Checks::RabbitMq);
    let filler = |len| {
        let arguments = FieldTable::new().with("x", "x".repeat(len));
        queue::Declare::default().arguments(arguments)
    };
    client.on(id).call(&filler(0)).unwrap();
    let room = 131_072 - client.bytes().len();
    client.on(id).call(&filler(room)).unwrap();
    assert_eq!(client.bytes().len(), 131_072);
    let (len, frame_max) = (131_073, 131_072);
    assert_eq!(
        client.on(id).call(&filler(room + 1)),
        Err(ApiMisuse::FrameTooLarge {
            method: "queue.declare",
            len,
            frame_max
        })
    );
}

#[test]
fn requests_that_rabbitmq_takes_are_let_through() {
    let deeds: [Deed; 14] = [
        |on| {
            let look = exchange::Declare::default().exchange("x");
            just(on.call(&look.passive(true)))
        },
        |on| just(on.call(&basic::Qos::default().prefetch_count(10).global(true))),
        |on| just(on.call(&basic::Recover { requeue: true })),
        |on| on.recover_async(true),
        |on| just(on.call(&channel::Flow { active: true })),
        |on| {
            let declare = queue::Declare::default().queue("amq.gen-1");
            just(on.call(&declare.passive(true)))
        },
        // How an RPC server asks whether its client is still there; no queue is declared by it.
        |on| {
            let declare = queue::Declare::default().queue("amq.rabbitmq.reply-to.g2dkABByYWJiaXQ");
            just(on.call(&declare))
        },
        |on| just(on.call(&queue::Declare::default())),
        // A declaration of an exchange that is there.
        |on| {
            let declare = exchange::Declare::default().exchange("amq.direct");
            just(on.call(&declare.kind("direct").durable(true)))
        },
        |on| just(on.call(&queue::Bind::default().exchange("amq.fanout"))),
        |on| just(on.call(&queue::Delete::default().queue("amq.gen-1"))),
        |on| just(on.consume(consume(REPLY_TO, "t").no_ack(true))),
        |on| published(on.publish(&publish("q"), &request("my.queue"), "x")),
        |on| on.ack(Tags::All),
    ];
    for (number, deed) in deeds.into_iter().enumerate() {
        let (mut client, id) = client(Checks::RabbitMq);
        assert_eq!(attempt(&mut client, id, deed), Ok(()), "{number}");
    }
}

#[test]
fn direct_replies_need_a_consumer_on_the_same_channel() {
    let (mut client, id) = client(Checks::RabbitMq);
    let other = client.channel();
    let ask: Deed = |on| published(on.publish(&publish("q"), &request(REPLY_TO), "x"));
    let refused = Err(ApiMisuse::ReplyToWithoutConsumer);
    assert_eq!(attempt(&mut client, id, ask), refused);
    client.consumer(id, "of a common queue", true);
    assert_eq!(attempt(&mut client, id, ask), refused);
    // It need not be confirmed yet: the order on the channel counts.
    let (_, waiting) = client.consume(id, consume(REPLY_TO, "t").no_ack(true));
    assert_eq!(attempt(&mut client, id, ask), Ok(()));
    client.bytes();
    assert_eq!(attempt(&mut client, other, ask), refused);
    let ok = basic::ConsumeOk::default().consumer_tag("t");
    client.send(1, &ok);
    assert_eq!(client.events(), [replied(id, waiting, ok)]);
    assert_eq!(attempt(&mut client, id, ask), Ok(()));
    let cancel = basic::Cancel::default().consumer_tag("t");
    let cancel_ok = basic::CancelOk::default().consumer_tag("t");
    client.bytes();
    client.call(id, &cancel, &cancel_ok);
    assert_eq!(attempt(&mut client, id, ask), refused);
}

/// A text that is one byte too long for a short string, though not in characters.
fn long() -> String {
    "x".repeat(254) + "ü"
}

/// A table with such a name in a table.
fn nested() -> FieldTable {
    FieldTable::new().with("outer", FieldTable::new().with(long(), 1))
}

#[test]
fn a_name_that_is_too_long_is_refused_before_anything_is_sent() {
    let cases: [(&str, &str, Deed); 10] = [
        ("queue.declare", "queue", |on| {
            just(on.call(&queue::Declare::default().queue(long())))
        }),
        ("queue.declare", "queue", |on| {
            on.send(&queue::Declare::default().queue(long()))
        }),
        ("queue.bind", "arguments", |on| {
            let bind = queue::Bind::default().queue("q").exchange("e");
            just(on.call(&bind.arguments(nested())))
        }),
        ("exchange.declare", "type", |on| {
            let declare = exchange::Declare::default().exchange("e");
            just(on.call(&declare.kind(long())))
        }),
        ("basic.consume", "consumer-tag", |on| {
            just(on.consume(consume("q", "").consumer_tag(long())))
        }),
        ("basic.get", "queue", |on| {
            just(on.get(&basic::Get::default().queue(long())))
        }),
        ("basic.publish", "exchange", |on| {
            let publish = publish("q").exchange(long());
            published(on.publish(&publish, &basic::Properties::default(), "x"))
        }),
        ("basic.publish", "routing-key", |on| {
            published(on.publish(&publish(&long()), &basic::Properties::default(), "x"))
        }),
        ("basic.publish", "message-id", |on| {
            let properties = basic::Properties::default().message_id(long());
            published(on.publish(&publish("q"), &properties, "x"))
        }),
        ("basic.publish", "headers", |on| {
            let properties = basic::Properties::default().headers(nested());
            published(on.publish(&publish("q"), &properties, "x"))
        }),
    ];
    for (method, field, deed) in cases {
        let (mut client, id) = client(Checks::RabbitMq);
        let len = 256;
        let expected = ApiMisuse::TextTooLong { method, field, len };
        assert_eq!(attempt(&mut client, id, deed), Err(expected));
        // The tag of a consumer that was refused is not taken.
        client.consumer(id, "t", false);
    }
}

#[test]
fn the_longest_name_that_fits_is_sent() {
    let (mut client, id) = client(Checks::RabbitMq);
    let longest = queue::Declare::default().queue("x".repeat(255));
    client.on(id).call(&longest).unwrap();
    assert_eq!(client.only_method(), longest.into());
}

#[test]
fn properties_with_a_text_that_is_too_long_are_not_published_encoded() {
    let (mut client, id) = client(Checks::RabbitMq);
    let properties = basic::Properties::default().app_id(long());
    let encoded = EncodedProperties::from(&properties);
    assert!(encoded.decode().is_err());
    let refused = published(client.on(id).publish(&publish("q"), &encoded, "x"));
    assert!(matches!(refused, Err(ApiMisuse::MalformedProperties(_))));
}

#[test]
fn a_closed_connection_refuses_every_command() {
    let ends: [fn(&mut Client); 4] = [
        |client| client.conn.close(ReplyCode::SUCCESS, ""),
        |client| client.conn.handle_eof(client.now),
        |client| client.send(0, &connection::Close::default()),
        |client| client.feed(b"\xff"),
    ];
    for (number, end) in ends.into_iter().enumerate() {
        let (mut client, id) = client(Checks::RabbitMq);
        client.consumer(id, "t", false);
        client.deliver(id, "t", 1);
        client.events();
        end(&mut client);
        let events = client.events();
        assert_eq!(events.len(), usize::from(number > 0), "{events:?}");
        client.bytes();
        let refused = ApiMisuse::ConnectionNotOpen;
        let conn = &mut client.conn;
        assert_eq!(conn.open_channel(), Err(refused.clone()));
        assert_eq!(conn.open_channel_at(7), Err(refused.clone()));
        let secret = conn.update_secret("x".into(), name(""));
        assert_eq!(secret, Err(refused.clone()));
        conn.close(ReplyCode::SUCCESS, "");
        conn.abandon(id, crate::RequestId(1));
        assert!(!conn.is_open());
        // The channels are gone with it, or take no commands while it is closing.
        assert_eq!(conn.channel(id).is_some(), number == 0);
        if let Some(mut on) = conn.channel(id) {
            assert!(!on.is_open());
            let properties = basic::Properties::default();
            let declare = queue::Declare::default().queue("q");
            for result in [
                just(on.call(&declare)),
                on.send(&declare),
                just(on.consume(consume("q", "u"))),
                just(on.get(&basic::Get::default())),
                published(on.publish(&publish("q"), &properties, "x")),
                on.ack(Tags::One(tag(1))),
                on.ack(Tags::All),
                on.nack(Tags::One(tag(1)), Requeue::Yes),
                on.reject(tag(1), Requeue::Yes),
                on.recover_async(true),
                just(on.close(ReplyCode::SUCCESS, "")),
            ] {
                assert_eq!(result, Err(refused.clone()));
            }
        }
        assert_eq!(client.sent(), []);
        assert_eq!(client.events(), []);
    }
}

#[test]
fn a_command_before_the_connection_is_open_is_refused() {
    let mut client = Client::new(Config::default());
    let refused = ApiMisuse::ConnectionNotOpen;
    assert_eq!(client.conn.open_channel(), Err(refused.clone()));
    let secret = client.conn.update_secret("x".into(), name(""));
    assert_eq!(secret, Err(refused));
    assert_eq!(client.sent(), []);
    client.send(0, &start());
    assert_eq!(client.sent().len(), 1);
    client.conn.handle_eof(client.now);
    assert!(matches!(
        client.only_event(),
        Event::Closed(reason) if matches!(reason.cause(), CloseCause::AuthenticationFailed { .. })
    ));
}
