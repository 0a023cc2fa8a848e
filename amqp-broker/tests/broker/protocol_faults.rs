//! Clients that break the protocol, and clients that end in the middle of a request: the replies
//! are those of RabbitMQ 3.10.8, measured with the same bytes. Each fault by itself is tested with
//! the server role, in `amqp-core`.

use amqp_core::{
    MethodId,
    frame::PROTOCOL_HEADER,
    protocol::{Method, ReplyCode, basic, channel, confirm, connection, tx},
    wire::{FieldTable, Secret},
};

use crate::rig::{Rig, consumer, frame, name, passive, queue, refused};

/// A client with channel 1 open.
fn open() -> (Rig, usize) {
    let (rig, client, channel) = Rig::open();
    assert_eq!(channel.number(), 1);
    (rig, client)
}

fn close(code: ReplyCode, text: &str, class: u16, method: u16) -> String {
    let method = MethodId::new(class, method);
    let method = method.name().unwrap_or("nothing");
    format!("{} after {method}: {text}", code.0)
}

/// Sends bytes, and returns the frames that come back.
fn said(rig: &mut Rig, client: usize, bytes: &[u8]) -> Vec<String> {
    let methods = rig.ask_raw(client, bytes);
    let said = methods.iter().map(|method| match method {
        Method::ConnectionClose(said) => {
            let text = &said.reply_text;
            close(said.reply_code, text, said.class_id, said.method_id)
        }
        Method::ChannelClose(said) => {
            let text = &said.reply_text;
            close(said.reply_code, text, said.class_id, said.method_id) + " (channel)"
        }
        other => other.name().to_owned(),
    });
    said.collect()
}

fn of(method: impl Into<Method>) -> Vec<u8> {
    frame(1, &method.into())
}

fn goodbye() -> Vec<u8> {
    frame(0, &connection::Close::default().into())
}

/// A message without a body, which no queue takes.
fn published(mandatory: bool) -> Vec<u8> {
    let publish = basic::Publish {
        routing_key: name("nowhere"),
        mandatory,
        ..basic::Publish::default()
    };
    let mut bytes = of(publish);
    bytes.extend([2, 0, 1, 0, 0, 0, 14, 0, 60, 0, 0]);
    bytes.extend([0; 10]);
    bytes.push(0xCE);
    bytes
}

/// The reply to a method on a channel that is not open.
fn not_open() -> Vec<u8> {
    frame(7, &queue("").into())
}

const NOT_OPEN: &str = "504 after queue.declare: CHANNEL_ERROR - expected 'channel.open'";

#[test]
fn requests_before_the_end_are_answered_before_it() {
    let declare = || of(queue(""));
    let select = || of(confirm::Select::default());
    let get = || {
        of(basic::Get {
            queue: name("nope"),
            ..basic::Get::default()
        })
    };
    let not_found = "404 after basic.get: NOT_FOUND - no queue 'nope' in vhost '/' (channel)";
    for (asked, answered) in [
        (declare().repeat(3), &["queue.declare-ok"; 3][..]),
        (frame(2, &channel::Open.into()), &["channel.open-ok"]),
        (get(), &[not_found]),
        (
            [select(), published(false), published(false)].concat(),
            &["confirm.select-ok", "basic.ack"],
        ),
        (
            [select(), published(true)].concat(),
            &["confirm.select-ok", "basic.return", "basic.ack"],
        ),
        (
            [of(tx::Select), of(tx::Commit)].concat(),
            &["tx.select-ok", "tx.commit-ok"],
        ),
    ] {
        for (end, last) in [
            (goodbye(), "connection.close-ok"),
            (not_open(), NOT_OPEN),
            // A wrong end of a frame.
            (
                [8, 0, 0, 0, 0, 0, 0, 1].to_vec(),
                "501 after nothing: FRAME_ERROR - type 8, all octets = <<>>: \
                 {invalid_frame_end_marker,1}",
            ),
        ] {
            let (mut rig, client) = open();
            let bytes = [&asked[..], &end].concat();
            let expected = [answered, &[last]].concat();
            assert_eq!(said(&mut rig, client, &bytes), expected);
        }
    }
}

#[test]
fn confirms_come_before_the_answer_to_a_request_behind_the_publishes() {
    let (mut rig, client) = open();
    let end = of(channel::Close::default());
    let asked = [of(confirm::Select::default()), published(false), end];
    let answered = ["confirm.select-ok", "basic.ack", "channel.close-ok"];
    assert_eq!(said(&mut rig, client, &asked.concat()), answered);

    // A request that the broker refuses closes the connection no differently.
    let (mut rig, client) = open();
    let qos = of(basic::Qos {
        prefetch_size: 1,
        ..basic::Qos::default()
    });
    let asked = [of(confirm::Select::default()), published(false), qos];
    let refused = "540 after basic.qos: NOT_IMPLEMENTED - prefetch_size!=0 (1)";
    let answered = ["confirm.select-ok", "basic.ack", refused];
    assert_eq!(said(&mut rig, client, &asked.concat()), answered);
}

#[test]
fn deliveries_and_large_messages_leave_before_the_end() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &queue("q"));
    rig.publish(client, channel, "q", &"x".repeat(200_000));
    rig.publish(client, channel, "q", "2");
    let consume = consumer("q", "c").no_ack(true);
    let mut asked = of(consume);
    asked.extend(goodbye());
    let answered = [
        "basic.consume-ok",
        "basic.deliver",
        "basic.deliver",
        "connection.close-ok",
    ];
    assert_eq!(said(&mut rig, client, &asked), answered);
}

#[test]
fn a_flow_that_is_refused_is_not_answered() {
    let (mut rig, client) = open();
    let asked = [of(queue("")), of(channel::Flow { active: false })].concat();
    let refused = "540 after channel.flow: NOT_IMPLEMENTED - active=false";
    let answered = ["queue.declare-ok", refused];
    assert_eq!(said(&mut rig, client, &asked), answered);
}

#[test]
fn a_channel_that_has_ended_is_as_one_that_was_never_open() {
    let expected = |method| format!("504 after {method}: CHANNEL_ERROR - expected 'channel.open'");
    // Closed by the client, and by the broker.
    for by_client in [true, false] {
        for (bytes, method) in [
            (of(queue("")), "queue.declare"),
            (of(channel::Close::default()), "channel.close"),
            (of(channel::CloseOk), "channel.close-ok"),
        ] {
            let (mut rig, client) = open();
            if by_client {
                let close = of(channel::Close::default());
                assert_eq!(said(&mut rig, client, &close), ["channel.close-ok"]);
            } else {
                let unknown = of(basic::Ack::default().delivery_tag(7));
                assert_eq!(said(&mut rig, client, &unknown).len(), 1);
                assert_eq!(said(&mut rig, client, &of(channel::CloseOk)), [""; 0]);
            }
            assert_eq!(said(&mut rig, client, &bytes), [expected(method)]);
        }
    }
    // While the answer to a close is under way, later methods are no faults yet.
    let (mut rig, client) = open();
    let asked = [of(channel::Close::default()), of(queue(""))].concat();
    assert_eq!(said(&mut rig, client, &asked), ["channel.close-ok"]);
    assert_eq!(
        said(&mut rig, client, &of(channel::Open)),
        ["channel.open-ok"]
    );
}

#[test]
fn a_text_that_is_too_long_ends_with_dots() {
    let (mut rig, client) = open();
    let long = passive(&"q".repeat(250));
    let (code, text) = rig.try_call(client, &long).unwrap_err();
    assert_eq!((code, text.len()), (404, 255));
    assert!(text.starts_with("NOT_FOUND - no queue 'qqq") && text.ends_with("qqq..."));
}

/// The start of a client that answers a refused login's close.
fn start(mechanism: &str, response: &[u8]) -> Vec<u8> {
    let capabilities = FieldTable::new().with("authentication_failure_close", true);
    let properties = FieldTable::new().with("capabilities", capabilities);
    let start_ok = connection::StartOk {
        client_properties: properties,
        mechanism: name(mechanism),
        response: Secret::from(response),
        locale: name("en_US"),
    };
    frame(0, &start_ok.into())
}

#[test]
fn a_login_that_cannot_be_read_is_hung_up_on() {
    for (mechanism, response) in [
        ("NONSENSE", &b"\0guest\0guest"[..]),
        ("EXTERNAL", b""),
        ("plain", b"\0guest\0guest"),
        ("PLAIN", b""),
        ("PLAIN", b"guest"),
        ("PLAIN", b"other\0guest\0guest"),
        ("PLAIN", b"\0guest\0guest\0"),
        ("AMQPLAIN", b"\x05LOGIN"),
        ("AMQPLAIN", b"\x05LOGINS\0\0\0\x05guest"),
    ] {
        let mut rig = Rig::new();
        let client = rig.begin_raw();
        assert_eq!(
            said(&mut rig, client, &PROTOCOL_HEADER),
            ["connection.start"]
        );
        let bytes = start(mechanism, response);
        assert_eq!(said(&mut rig, client, &bytes), [""; 0], "{mechanism}");
        let key = rig.key(client);
        assert!(rig.broker.is_finished(key), "{mechanism} {response:?}");
    }
    // One that can be is answered.
    let mut rig = Rig::new();
    let client = rig.begin_raw();
    said(&mut rig, client, &PROTOCOL_HEADER);
    let text = "403 after nothing: ACCESS_REFUSED - Login was refused using authentication \
                mechanism PLAIN. For details see the broker logfile.";
    assert_eq!(
        said(&mut rig, client, &start("PLAIN", b"\0guest\0no")),
        [text]
    );
}

#[test]
fn a_virtual_host_that_is_missing_is_not_allowed() {
    let mut rig = Rig::new();
    let client = rig.begin_as("guest", "guest", "nope");
    let text = "NOT_ALLOWED - vhost nope not found";
    assert_eq!(rig.closed(client), Some(refused(530, text)));

    let mut rig = Rig::new();
    let client = rig.begin_raw();
    said(&mut rig, client, &PROTOCOL_HEADER);
    said(&mut rig, client, &start("PLAIN", b"\0guest\0guest"));
    let tune_ok = connection::TuneOk {
        channel_max: 2047,
        frame_max: 131_072,
        heartbeat: 0,
    };
    let open = connection::Open {
        virtual_host: name("nope"),
    };
    let bytes = [frame(0, &tune_ok.into()), frame(0, &open.into())].concat();
    let text = "530 after connection.open: NOT_ALLOWED - vhost nope not found";
    assert_eq!(said(&mut rig, client, &bytes), [text]);
}
